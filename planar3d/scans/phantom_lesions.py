"""The phantom's lesions, with the locations, shapes and sizes of multiple sclerosis; and its brain tumours.

A tumour is a glioma of three nested parts in four contrasts of a skull-stripped brain. Labels are those of BraTS until
2022: 1 necrosis, 2 edema, 4 enhancing tumour.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from planar3d.scans.head import largest_part
from planar3d.scans.nifti_header import header_around
from planar3d.scans.phantom_fields import smooth_noise, spread
from planar3d.scans.phantom_head import BRAIN_ORIGIN, brain_maps, depth_in_brain, lateral_ventricles, sharpened
from planar3d.scans.phantom_scanner import PhantomCenter, Subject, draw_subject, scanned
from planar3d.scans.volume import Scan

FAR = -4.0  # mm: lowest depth, for voxels farther than that from every lesion


@dataclass(frozen=True)
class LesionKind:
    """Frequency and shape of one kind of lesion."""

    share: float  # of all lesions
    # Range of the axis that points away from the ventricles, relative to the other two.
    lengthening: tuple[float, float]
    size: float  # volume relative to the other kinds
    roughness: float  # of the outline, relative to the radius


KINDS = {
    "periventricular": LesionKind(0.45, (1.3, 2.4), 1.6, 0.22),  # Dawson's fingers, upright on the ventricle's wall
    "deep": LesionKind(0.32, (0.9, 1.4), 0.8, 0.26),
    "juxtacortical": LesionKind(0.18, (0.6, 1.0), 0.6, 0.26),
    "infratentorial": LesionKind(0.05, (0.8, 1.3), 0.5, 0.2),
}

# Volumes are log-normal: most lesions are small, and a few make up most of the load.
_MEDIAN_VOLUME = 60.0  # mm³ at a load of 15 ml; a larger load has larger and more lesions
_LOG_SPREAD = 1.4
_VOLUME_RANGE = (20.0, 6000.0)  # mm³
_SMALLEST = 18  # mm³ that must remain of a lesion if the tissue cannot contain all of it
_LARGEST_SHARE = 0.2  # of the load, in one lesion
_CONTRAST_SPREAD, _CONTRAST_RANGE = 0.22, (0.6, 1.4)  # of single lesions, relative to the center's


@dataclass(frozen=True)
class Lesions:
    """The lesions of one brain on the 1 mm grid of the ICBM152 maps."""

    depth: np.ndarray  # float32 (x, y, z), mm inside the outline of the nearest lesion, at least `FAR`
    contrast: np.ndarray  # float32 (x, y, z), contrast of that lesion relative to others of the same center


def grow_lesions(volume: float, rng: np.random.Generator) -> Lesions:
    """Place lesions until their total is about `volume` mm³."""
    room = _room_for_lesions()
    lesions = Lesions(np.full(room.shape, FAR, np.float32), np.ones(room.shape, np.float32))
    noise = smooth_noise(rng, [n // 2 for n in room.shape], 1.1)
    where, names, shares = places(), list(KINDS), [kind.share for kind in KINDS.values()]
    median = _MEDIAN_VOLUME * np.sqrt(volume / 15000)
    grown = 0
    while grown < volume:
        name = rng.choice(names, p=shares)
        kind, (centers, axes) = KINDS[name], where[name]
        wanted = np.clip(median * kind.size * rng.lognormal(sigma=_LOG_SPREAD), *_VOLUME_RANGE)
        length = rng.uniform(*kind.lengthening)
        radii = np.cbrt(min(wanted, _LARGEST_SHARE * volume) * 0.75 / np.pi / length) * np.array([length, 1, 1])
        index = rng.integers(len(centers))
        center = centers[index] + rng.uniform(-1, 1, 3)
        box = tuple(slice(max(0, int(c - 1.5 * max(radii)) - 4), int(c + 1.5 * max(radii)) + 5) for c in center)
        ragged = spread(noise, room.shape, box)
        offsets = (np.arange(*part.indices(n)) - c for part, n, c in zip(box, room.shape, center, strict=True))
        along = np.stack(np.meshgrid(*offsets, indexing="ij"), axis=-1) @ (_frame(axes[index], rng) / radii)
        outline = 1 - np.linalg.norm(along, axis=-1)  # of an ellipsoid: 1 at its center, 0 on its surface
        shape = _largest_piece(np.minimum((outline + kind.roughness * ragged) * min(radii), room[box]))
        if np.count_nonzero(shape > 0) < _SMALLEST:
            continue
        contrast = np.clip(rng.normal(1, _CONTRAST_SPREAD), *_CONTRAST_RANGE) * (1 + 0.1 * ragged)
        depth = lesions.depth[box]
        grown += int(np.count_nonzero((shape > 0) & (depth <= 0)))
        wins = shape > depth  # where it meets others
        depth[wins] = shape[wins]
        lesions.contrast[box][wins] = contrast[wins]
    return lesions


def _frame(axis: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An orthonormal frame whose first column is a direction, slightly tilted."""
    tilted = axis + 0.25 * rng.standard_normal(3)
    frame, _ = np.linalg.qr(np.column_stack([tilted, rng.standard_normal((3, 2))]))
    return frame


def _largest_piece(shape: np.ndarray) -> np.ndarray:
    """Keep the largest connected component of a lesion; fragments would count as implausibly small lesions."""
    kept = largest_part(shape > 0)
    if np.count_nonzero(kept) == np.count_nonzero(shape > 0):
        return shape
    return np.where(ndimage.binary_dilation(kept) | (shape < -1), shape, np.float32(-1))


@lru_cache(maxsize=1)
def _room_for_lesions() -> np.ndarray:
    """Depth in mm that a lesion may reach: up to 4.5 in white matter, less at its border with grey, none elsewhere."""
    maps = brain_maps()
    likely = ndimage.gaussian_filter(maps["white"] + np.float32(0.4) * maps["grey"], 0.7)
    return 10 * (likely - np.float32(0.55))


@lru_cache(maxsize=1)
def places() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By kind of lesion, positions (place, 3) in voxels of 1 mm, and directions (place, 3) away from the ventricles."""
    maps = {name: volume[::2, ::2, ::2] for name, volume in brain_maps().items()}
    white = maps["white"]
    from_ventricles = 2 * ndimage.distance_transform_edt(~lateral_ventricles())
    from_surface = depth_in_brain()
    from_cortex = 2 * ndimage.distance_transform_edt(~((maps["grey"] > 0.5) & (from_surface < 22)))
    height = BRAIN_ORIGIN[2] + 2 * np.arange(white.shape[2])
    cerebrum = height > -18
    regions = {
        "periventricular": cerebrum & (white > 0.6) & (from_ventricles < 8),
        "deep": cerebrum & (white > 0.9) & (from_ventricles > 9) & (from_cortex > 4),
        "juxtacortical": cerebrum & (white > 0.5) & (from_ventricles > 14) & (from_cortex < 4),
        "infratentorial": (height < -24) & (white > 0.45) & (from_surface > 10),
    }
    away = np.stack(np.gradient(ndimage.gaussian_filter(from_ventricles.astype(np.float32), 1)), axis=-1)
    away /= np.linalg.norm(away, axis=-1, keepdims=True) + np.float32(1e-6)
    return {name: (2.0 * np.argwhere(region), away[region]) for name, region in regions.items()}


# Of tumours.
_GRID = (240, 240, 155)  # of BraTS: left, posterior, superior, 1 mm
_MIDDLE = np.array([-119.5, 119.5, 77.0])  # mm right, anterior, superior, of that grid
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
    """Scan one person's brain in four contrasts, int16 and zero outside it, and its label map, `seg`, at one center."""
    of_person, of_tumour, of_scanner = rng.spawn(3)
    grid, view = tuple(round(n / reduction) for n in _GRID), np.array(_GRID, float)
    tissues, labels = _observe(draw_subject(view, of_person), grid, _VOLUME * load, of_tumour)
    header = header_around(_MIDDLE, np.diag(np.multiply([-1, -1, 1], view) / grid), grid)
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


@lru_cache(maxsize=1)
def _averaged_tissues(width: int) -> dict[str, np.ndarray]:
    """Fractions of white matter, grey matter and fluid, averaged over cubes of some mm, as in a voxel that wide."""
    return {name: ndimage.uniform_filter(volume, width) for name, volume in sharpened(brain_maps()).items()}


def _observe(
    person: Subject, grid: tuple[int, ...], volume: float, rng: np.random.Generator
) -> tuple[Mapping[str, np.ndarray], np.ndarray]:
    """Fractions of white matter, grey matter and fluid, zero outside the brain, and labels uint8, (i, j, k)."""
    maps = _averaged_tissues(max(1, round(person.view[0] / grid[0])))
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
