"""The phantom's hearts: a half-ellipsoid left ventricle in ultrasound of two views at two instants."""

import numpy as np

from planar3d.scans.nifti_header import header_with
from planar3d.scans.phantom_scanner import PhantomCenter
from planar3d.scans.volume import Scan

CAVITY, MYOCARDIUM, ATRIUM = 1, 2, 3
_GRID, _SPACING = (600, 1100), (0.308, 0.154)  # columns and rows, mm
_DEPTH, _APEX_DEPTH, _HALF_ANGLE = 165.0, 22.0, 40.0  # mm from the probe to the end and to the apex; degrees
_LENGTH, _WALL = 82.0, 9.0  # mm, at end diastole
_HALF_WIDTHS = {"2CH": 23.0, "4CH": 25.0}  # mm at the valve
_SHORTER, _NARROWER, _THICKER = 0.88, (0.68, 0.88), 1.35  # at end systole, relative
_ATRIUM = (20.0, 22.0)  # mm: half width, half length
_SPREAD, _TILT = 0.07, 8.0  # of sizes between people, relative; degrees
_LEVELS = {0: 30.0, CAVITY: 14.0, MYOCARDIUM: 85.0, ATRIUM: 16.0}  # of 255, the mean of the speckle


def make_heart_case(center: PhantomCenter, load: float, reduction: float, rng: np.random.Generator) -> dict[str, Scan]:
    """Scan one person's heart.

    Returns:
        By view and instant, as `2CH_ED`, images uint8 of one slice and, with `_gt`, their labels, whose header has the
        volume of the left ventricle in ml in `descrip`.
    """
    size = np.exp(_SPREAD * rng.standard_normal())
    narrower = rng.uniform(*_NARROWER)
    length = {"ED": _LENGTH * size, "ES": _LENGTH * size * _SHORTER}
    widths = {
        (view, instant): width * size * (narrower if instant == "ES" else 1.0)
        for view, width in _HALF_WIDTHS.items()
        for instant in length
    }
    grid = tuple(max(2, round(n / reduction)) for n in _GRID)
    spacing = np.multiply(_GRID, _SPACING) / grid
    header = header_with(np.diag([-spacing[0], -spacing[1], 1.54, 1.0]), (*grid, 1))
    scans = {}
    for view in _HALF_WIDTHS:
        tilt = np.deg2rad(_TILT * rng.uniform(-1, 1))
        for instant, long in length.items():
            wall = _WALL * (_THICKER if instant == "ES" else 1.0)
            labels, sector = _draw(grid, spacing, long, widths[view, instant], wall, tilt)
            level = np.select([labels == label for label in _LEVELS], list(_LEVELS.values()))
            speckle = rng.rayleigh(np.sqrt(2 / np.pi), grid)
            image = np.where(sector, np.clip(np.rint(level * speckle), 1, 255), 0).astype(np.uint8)
            of_labels = header.copy()
            ml = 2 / 3 * np.pi * widths["2CH", instant] * widths["4CH", instant] * long / 1000
            of_labels["descrip"] = f"{ml:.1f}"
            scans[f"{view}_{instant}"] = Scan(image[..., None], header)
            scans[f"{view}_{instant}_gt"] = Scan(labels[..., None], of_labels)
    return scans


def _draw(
    grid: tuple[int, ...], spacing: np.ndarray, length: float, width: float, wall: float, tilt: float
) -> tuple[np.ndarray, np.ndarray]:
    """Labels uint8 (columns, rows), and the pixels that the probe sees.

    The center of the valve is below the probe; the tilted axis leads up from there to the apex.
    """
    x = ((np.arange(grid[0]) - (grid[0] - 1) / 2) * spacing[0])[:, None]
    y = (np.arange(grid[1]) * spacing[1])[None]
    up = _APEX_DEPTH + wall + _LENGTH - y
    across, along = x * np.cos(tilt) - up * np.sin(tilt), x * np.sin(tilt) + up * np.cos(tilt)
    labels = np.zeros(grid, np.uint8)
    above = along >= 0
    labels[above & ((across / (width + wall)) ** 2 + (along / (length + wall)) ** 2 < 1)] = MYOCARDIUM
    labels[above & ((across / width) ** 2 + (along / length) ** 2 < 1)] = CAVITY
    half_width, half_length = _ATRIUM
    labels[~above & ((across / half_width) ** 2 + ((along + half_length) / half_length) ** 2 < 1)] = ATRIUM
    sector = (np.hypot(x, y) < _DEPTH) & (np.abs(np.rad2deg(np.arctan2(x, y))) < _HALF_ANGLE)
    return labels * sector, sector
