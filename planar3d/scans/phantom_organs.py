"""The phantom's abdomens and hearts.

An abdomen is a body of ellipsoids with liver, kidneys and spleen, in CT or three MR sequences; a heart a half-ellipsoid
left ventricle in ultrasound of two views at two instants.
"""

from collections.abc import Iterable

import numpy as np
from scipy import ndimage

from planar3d.scans.nifti_header import header_around, header_with
from planar3d.scans.phantom_scanner import PhantomCenter
from planar3d.scans.slice_folders import ORGANS
from planar3d.scans.volume import Scan

_CT = "01"  # the center with CT; the others have MR
_GRIDS = {"CT": ((512, 512, 80), (0.75, 0.75, 3.0)), "MR": ((320, 320, 36), (1.25, 1.25, 6.5))}  # voxels, mm
# Ellipsoids in mm left, posterior and superior of the body's center: centers and radii; later ones overwrite others.
_BODY = ((0, 0, 0), (170, 115, 400))
_PLACES = {
    "spleen": ((100, 35, 40), (28, 38, 50)),
    "liver": ((-65, -10, 25), (80, 70, 65)),
    "right kidney": ((-65, 60, -45), (26, 24, 48)),
    "left kidney": ((62, 58, -35), (26, 24, 48)),
}
_FAT = 0.9  # of the body's radius; beyond is fat
# Signals of muscle, fat, liver, kidneys and spleen: Hounsfield units, or typical MR values.
_SIGNALS = {
    "CT": (45, -100, 110, 190, 125),
    "InPhase": (260, 700, 330, 300, 270),
    "OutPhase": (240, 560, 300, 290, 260),
    "T2SPIR": (120, 60, 220, 520, 430),
}
_NOISE = {"CT": 12.0, "InPhase": 18.0, "OutPhase": 18.0, "T2SPIR": 22.0}
_SPREAD, _SHIFT = 0.05, 5.0  # of sizes between people, relative; of positions, mm


def make_abdomen_case(
    center: PhantomCenter, load: float, reduction: float, rng: np.random.Generator
) -> dict[str, Scan]:
    """Scan one person's abdomen: CT at the first center, MR at others, by folder, each with its organs, `Ground`."""
    modality = "CT" if center.name == _CT else "MR"
    voxels, mm = _GRIDS[modality]
    divided_by = (reduction, reduction, reduction**0.5)  # slices are already thick
    grid = tuple(max(2, round(n / by)) for n, by in zip(voxels, divided_by, strict=True))
    spacing = np.multiply(voxels, mm) / grid
    header = header_around(np.zeros(3), np.diag(np.multiply([-1, -1, 1], spacing)), grid)
    places = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) * d for n, d in zip(grid, spacing, strict=True)]
    body = _reach(places, *_BODY)
    labels = np.zeros(grid, np.uint8)
    for organ, (middle, radii) in _PLACES.items():
        size = np.exp(_SPREAD * rng.standard_normal())
        moved = np.add(middle, _SHIFT * rng.standard_normal(3))
        labels[_reach(places, moved, np.multiply(radii, size)) < 1] = ORGANS[organ]
    labels[body > _FAT] = 0

    def image(kind: str) -> Scan:
        muscle, fat, liver, kidney, spleen = _SIGNALS[kind]
        signal = np.where(body < _FAT, float(muscle), float(fat))
        for organ, level in zip(ORGANS, (liver, kidney, kidney, spleen), strict=True):
            signal[labels == ORGANS[organ]] = level
        signal[body > 1] = -1000.0 if kind == "CT" else 0.0
        noisy = ndimage.gaussian_filter(signal, 0.5) + _NOISE[kind] * rng.standard_normal(grid)
        return Scan(np.rint(noisy if kind == "CT" else np.abs(noisy)).astype(np.int16), header)

    if modality == "CT":
        return {
            "DICOM_anon": image("CT"),
            "Ground": Scan(np.where(labels == ORGANS["liver"], np.uint8(255), np.uint8(0)), header),
        }
    organs = Scan(labels, header)
    return {
        "T1DUAL/DICOM_anon/InPhase": image("InPhase"),
        "T1DUAL/DICOM_anon/OutPhase": image("OutPhase"),
        "T1DUAL/Ground": organs,
        "T2SPIR/DICOM_anon": image("T2SPIR"),
        "T2SPIR/Ground": organs,
    }


def _reach(places: list[np.ndarray], middle: Iterable[float], radii: Iterable[float]) -> np.ndarray:
    """Distance from a center, (i, j, k), relative to the radii; positions in mm along each axis."""
    parts = [((place - m) / r) ** 2 for place, m, r in zip(places, middle, radii, strict=True)]
    return np.sqrt(parts[0][:, None, None] + parts[1][:, None] + parts[2])


CAVITY, MYOCARDIUM, ATRIUM = 1, 2, 3
_GRID, _SPACING = (600, 1100), (0.308, 0.154)  # columns and rows, mm
_DEPTH, _APEX_DEPTH, _HALF_ANGLE = 165.0, 22.0, 40.0  # mm from the probe to the end and to the apex; degrees
_LENGTH, _WALL = 82.0, 9.0  # mm, at end diastole
_HALF_WIDTHS = {"2CH": 23.0, "4CH": 25.0}  # mm at the valve
_SHORTER, _NARROWER, _THICKER = 0.88, (0.68, 0.88), 1.35  # at end systole, relative
_ATRIUM = (20.0, 22.0)  # mm: half width, half length
_SPREAD_OF_HEARTS, _TILT = 0.07, 8.0  # of sizes between people, relative; degrees
_LEVELS = {0: 30.0, CAVITY: 14.0, MYOCARDIUM: 85.0, ATRIUM: 16.0}  # of 255, the mean of the speckle


def make_heart_case(center: PhantomCenter, load: float, reduction: float, rng: np.random.Generator) -> dict[str, Scan]:
    """Scan one person's heart: by view and instant, as `2CH_ED`, images of one slice and, with `_gt`, their labels.

    The header of labels has the volume of the left ventricle in ml in `descrip`.
    """
    size = np.exp(_SPREAD_OF_HEARTS * rng.standard_normal())
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
