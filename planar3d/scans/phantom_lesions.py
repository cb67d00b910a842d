"""The phantom's lesions, with the locations, shapes and sizes of multiple sclerosis."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from planar3d.scans.head import largest_part
from planar3d.scans.phantom_fields import smooth_noise, spread
from planar3d.scans.phantom_head import BRAIN_ORIGIN, brain_maps, lateral_ventricles

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
    ragged = spread(smooth_noise(rng, [n // 2 for n in room.shape], 1.1), room.shape)
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
        outline = 1 - _ellipsoidal_radius(box, room.shape, center, _frame(axes[index], rng), radii)
        shape = _largest_piece(np.minimum((outline + kind.roughness * ragged[box]) * min(radii), room[box]))
        if np.count_nonzero(shape > 0) < _SMALLEST:
            continue
        contrast = np.clip(rng.normal(1, _CONTRAST_SPREAD), *_CONTRAST_RANGE) * (1 + 0.1 * ragged[box])
        grown += _add(lesions, box, shape, contrast)
    return lesions


def _add(lesions: Lesions, box: tuple[slice, ...], shape: np.ndarray, contrast: np.ndarray) -> int:
    """Merge a lesion into the others by the larger depth, and count the voxels it adds."""
    depth = lesions.depth[box]
    added = int(np.count_nonzero((shape > 0) & (depth <= 0)))
    wins = shape > depth
    depth[wins] = shape[wins]
    lesions.contrast[box][wins] = contrast[wins]
    return added


def _ellipsoidal_radius(
    box: tuple[slice, ...], shape: tuple[int, ...], center: np.ndarray, frame: np.ndarray, radii: np.ndarray
) -> np.ndarray:
    """Distance of the voxels of `box` from the center, as a multiple of an ellipsoid with these axes."""
    axes = (np.arange(*part.indices(n)) - c for part, n, c in zip(box, shape, center, strict=True))
    along = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1) @ (frame / radii)
    return np.linalg.norm(along, axis=-1)


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
    """Positions where each kind of lesion may be, with the direction away from the ventricles.

    Returns:
        By kind: positions (place, 3) in voxels of 1 mm, directions (place, 3) of length 1.
    """
    maps = {name: volume[::2, ::2, ::2] for name, volume in brain_maps().items()}
    white = maps["white"]
    from_ventricles = 2 * ndimage.distance_transform_edt(~lateral_ventricles())
    from_surface = 2 * ndimage.distance_transform_edt(ndimage.binary_fill_holes(maps["brain"] > 0))
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
