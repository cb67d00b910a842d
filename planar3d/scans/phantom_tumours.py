"""The phantom's brain tumours: four contrasts of a skull-stripped brain, and a glioma of three nested parts.

Labels are those of BraTS until 2022: 1 necrosis, 2 edema, 4 enhancing tumour.
"""

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from planar3d.scans.nifti_header import header_with
from planar3d.scans.phantom_fields import smooth_noise
from planar3d.scans.phantom_head import BRAIN_ORIGIN, brain_maps, sharpened
from planar3d.scans.phantom_lesions import places
from planar3d.scans.phantom_scanner import PhantomCenter, Subject, draw_subject, scanned
from planar3d.scans.volume import Scan

_GRID = (240, 240, 155)  # of BraTS: left, posterior, superior, 1 mm
_MIDDLE = (-119.5, 119.5, 77.0)  # mm right, anterior, superior, of that grid
# Signals relative to white matter: of tissues, and of the tumour's parts as in a case of BraTS 2021.
_SIGNALS: dict[str, dict[str | int, float]] = {
    "flair": {"white": 1, "grey": 1.2, "fluid": 0.25, 1: 2.3, 2: 2.0, 4: 2.1},
    "t1": {"white": 1, "grey": 0.78, "fluid": 0.35, 1: 0.75, 2: 0.8, 4: 0.85},
    "t1ce": {"white": 1, "grey": 0.8, "fluid": 0.35, 1: 0.65, 2: 0.8, 4: 2.2},
    "t2": {"white": 1, "grey": 1.4, "fluid": 2.8, 1: 2.5, 2: 1.9, 4: 2.0},
}
_VOLUME = 60_000.0  # mm³ of a tumour including edema, at a load of 1
_CORE, _NECROSIS = (0.55, 0.75), (0.5, 0.75)  # radius of the core in the tumour, and of the necrosis in the core
_ROUGHNESS, _NODE = 0.15, 6  # of outlines relative to their radius; mm between the nodes of the field that deforms them
_SPREAD = 0.04  # of signals between scans, relative
_SOFT_EDGE = 0.6  # voxels


def make_tumour_case(center: PhantomCenter, load: float, reduction: float, rng: np.random.Generator) -> dict[str, Scan]:
    """Scan one person's brain in four contrasts at one center.

    Returns:
        The images by name, int16 and zero outside the brain, and their label map, `seg`.
    """
    of_person, of_tumour, of_scanner = rng.spawn(3)
    grid, view = tuple(round(n / reduction) for n in _GRID), np.array(_GRID, float)
    tissues, labels = _observe(draw_subject(view, of_person), grid, _VOLUME * load, of_tumour)
    affine = np.diag([*np.multiply([-1, -1, 1], view) / grid, 1.0])
    affine[:3, 3] = _MIDDLE - affine[:3, :3] @ (np.array(grid) - 1) / 2
    header = header_with(affine, grid)
    parts = {n: ndimage.gaussian_filter((labels == n).astype(np.float32), _SOFT_EDGE) for n in (2, 4, 1)}
    brain = sum(tissues.values()) > 0
    scans = {}
    for name, signals in _SIGNALS.items():
        drawn = {
            of: np.float32(level * np.exp(_SPREAD * of_scanner.standard_normal())) for of, level in signals.items()
        }
        signal = np.zeros(grid, np.float32)
        for tissue, share in tissues.items():
            signal += share * drawn[tissue]
        for part, share in parts.items():
            signal += share * (drawn[part] - signal)
        raw = scanned(center, signal, view, of_scanner)
        scans[name] = Scan(np.where(brain, np.maximum(raw, 1), np.int16(0)), header)
    return scans | {"seg": Scan(labels, header)}


def _observe(
    person: Subject, grid: tuple[int, ...], volume: float, rng: np.random.Generator
) -> tuple[Mapping[str, np.ndarray], np.ndarray]:
    """Map a brain and its tumour to the scan's grid.

    Returns:
        fractions of white matter, grey matter and fluid, float32 (i, j, k), zero outside the brain; labels, uint8.
    """
    coarseness = max(1, round(person.view[0] / grid[0]))
    maps = {name: ndimage.uniform_filter(volume, coarseness) for name, volume in sharpened(brain_maps()).items()}
    shares = {name: np.empty(grid, np.float32) for name in maps}
    shape = maps["white"].shape
    rough = [smooth_noise(rng, [n // _NODE + 2 for n in shape], 1.2) for _ in range(2)]
    where, _ = places()["deep"]
    middle, radius = where[rng.integers(len(where))], np.cbrt(volume * 0.75 / np.pi)
    outer, inner = (np.empty(grid, np.float32) for _ in range(2))  # distance from the center, relative to the radius
    for i, positions in enumerate(person.positions(grid)):
        in_brain = positions - np.reshape(BRAIN_ORIGIN, (3, 1, 1))
        for name, share in shares.items():
            ndimage.map_coordinates(maps[name], in_brain, output=share[i], order=1)
        distance = np.linalg.norm(in_brain - middle[:, None, None], axis=0) / radius
        for field, ruffle in zip((outer, inner), rough, strict=True):
            field[i] = distance * (1 + _ROUGHNESS * ndimage.map_coordinates(ruffle, in_brain / _NODE, order=1))
    inside = sum(shares.values()) > 0.5
    for share in shares.values():
        share *= inside
    core = inside & (inner < (size := rng.uniform(*_CORE)))
    labels = np.where((outer < 1) & inside & (shares["fluid"] < 0.5), np.uint8(2), np.uint8(0))
    labels[core] = 4
    labels[core & (inner < size * rng.uniform(*_NECROSIS))] = 1
    return shares, labels
