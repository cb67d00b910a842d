"""The phantom's anatomy: the ICBM152 brain in a skull, scalp, face and neck of simple shapes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from planar3d.extras import extra
from planar3d.scans.head import largest_part
from planar3d.scans.phantom_fields import smooth_noise, spread

TISSUES = ("white", "grey", "fluid", "marrow", "fat", "muscle")  # the rest of a voxel is bone or air, without signal

BRAIN_ORIGIN = (-98, -134, -72)  # mm right, anterior, superior: first voxel of the 1 mm ICBM152 maps in nilearn
_CUT = 3  # mm of air left and right of the maps that are not needed
_ROOM = ((0, 0), (0, 26), (112, 2))  # mm added to both ends of each axis of the maps, for face and neck

# Distances from the smoothed brain surface, in mm.
_INNER_TABLE, _OUTER_TABLE, _SCALP = 2.5, 8.0, 13.5
# Depths below the skin, in mm.
_SKIN, _FAT = 1.5, 6.0

# All positions are ICBM152 world coordinates (right, anterior, superior), all lengths mm.
_FACE = (  # ellipsoids (center, radii) that join the scalp to the surface of the head
    ((0, 28, -58), (65, 60, 60)),  # cheeks
    ((0, 44, -94), (40, 42, 32)),  # jaw
    ((0, 88, -56), (9, 18, 18)),  # nose
)
_NECK = (0, -38), (54, 60), 0.12  # axis (x, y) at the base of the brain, radii, and backward tilt per mm down
_INSIDE = (  # (tissue or None, center, radii), painted in this order; a center right of the midline is mirrored
    ("fat", (31, 45, -40), (17, 27, 15)),  # orbit
    ("muscle", (32, 60, -41), (13, 13, 13)),  # wall of the eye
    ("fluid", (32, 60, -41), (11.5, 11.5, 11.5)),  # vitreous
    ("muscle", (29, 35, -40), (2.5, 16, 2.5)),  # optic nerve
    (None, (26, 54, -68), (11, 15, 13)),  # maxillary sinus
    (None, (7, 58, -61), (4, 27, 15)),  # nasal cavity
    (None, (0, 20, -45), (12, 13, 8)),  # sphenoid sinus
    (None, (0, 52, -81), (22, 24, 2.5)),  # hard palate
    (None, (43, -24, -58), (9, 12, 10)),  # mastoid
    (None, (35, 32, -99), (5, 26, 9)),  # mandible
    (None, (0, 0, -92), (8, 6, 36)),  # pharynx
)
_CORD = (0, -49), 0.12  # axis (x, y) at the base of the brain, and backward tilt per mm down
_CORD_RADIUS, _CANAL_RADIUS = 5.0, 8.0
_VERTEBRA = (20, (13, 9), 17, 4)  # mm in front of the cord, radii, period, thickness of a disc


@dataclass(frozen=True)
class PhantomHead:
    """Tissue fractions of a head."""

    # uint8 (tissue, x, y, z), 255 for a voxel of one tissue; tissues as in `TISSUES`, axes right, anterior, superior.
    fractions: np.ndarray
    origin: np.ndarray  # world coordinates of the first voxel, in mm
    step: int  # voxel size in mm

    def flair(self, contrast: dict[str, float]) -> np.ndarray:
        """Signal without noise, float32 (x, y, z), from the signal of each tissue."""
        signal = np.zeros(self.fractions.shape[1:], np.float32)
        for tissue, fraction in zip(TISSUES, self.fractions, strict=True):
            signal += np.float32(contrast[tissue] / 255) * fraction
        return signal


@lru_cache(maxsize=1)
def brain_maps() -> dict[str, np.ndarray]:
    """The ICBM152 2009 maps in the nilearn package: `white`, `grey`, `brain`, float32 (197, 233, 189), 1 mm."""
    with extra("study"):
        from nilearn import datasets
    white, grey, brain = (
        load(resolution=1).get_fdata(dtype=np.float32)
        for load in (datasets.load_mni152_wm_template, datasets.load_mni152_gm_template, datasets.load_mni152_template)
    )
    return {"white": white, "grey": grey, "brain": (brain > 0).astype(np.float32)}


@lru_cache(maxsize=1)
def lateral_ventricles() -> np.ndarray:
    """Find the lateral ventricles, bool (99, 117, 95), on every second voxel of the ICBM152 maps (2 mm)."""
    maps = {name: volume[::2, ::2, ::2] for name, volume in brain_maps().items()}
    fluid = (maps["brain"] - maps["white"] - maps["grey"]) > 0.5
    return largest_part(fluid & (depth_in_brain() > 22))  # past the sulci


@lru_cache(maxsize=1)
def depth_in_brain() -> np.ndarray:
    """Distance in mm to the surface of the brain, zero outside, on the voxels of `lateral_ventricles`."""
    return 2 * ndimage.distance_transform_edt(ndimage.binary_fill_holes(brain_maps()["brain"][::2, ::2, ::2] > 0))


@lru_cache(maxsize=3)  # a reduced grid of each center has its own step
def build_head(step: int = 1) -> PhantomHead:
    """Build the average head in voxels of `step` mm."""
    maps = {name: _coarsen(np.pad(volume[_CUT:-_CUT], _ROOM), step) for name, volume in brain_maps().items()}
    origin = np.add(BRAIN_ORIGIN, (_CUT, 0, 0)) - np.array(_ROOM)[:, 0] + (step - 1) / 2
    x, y, z = np.ix_(*(np.float32(origin[i] + step * np.arange(n)) for i, n in enumerate(maps["brain"].shape)))
    depth = _distance_to_hull(maps["brain"], step)
    skin = _skin_distance(depth, x, y, z)

    fractions = np.zeros((len(TISSUES), *depth.shape), np.float32)
    _paint(fractions, "muscle", skin, step)
    _paint(fractions, "fat", skin + _SKIN, step)
    _paint(fractions, "muscle", skin + _FAT, step)
    _streak_with_fat(fractions, step)
    for tissue, center, radii in _INSIDE:
        for side in (1, -1) if center[0] else (1,):
            _paint_ellipsoid(fractions, tissue, (side * center[0], *center[1:]), radii, origin, step)
    _paint(fractions, None, depth - _OUTER_TABLE, step)
    diploe, half = (_INNER_TABLE + _OUTER_TABLE) / 2, (_OUTER_TABLE - _INNER_TABLE) / 5
    _paint(fractions, "marrow", np.abs(depth - diploe) - half, step)
    _paint(fractions, "fluid", depth - _INNER_TABLE, step)
    _paint_spine(fractions, x, y, z, step)
    fractions *= 1 - maps["brain"]
    for name, share in sharpened(maps).items():
        fractions[TISSUES.index(name)] += share
    return PhantomHead((fractions * 255 + 0.5).astype(np.uint8), origin, step)


def _coarsen(volume: np.ndarray, step: int) -> np.ndarray:
    """Average blocks of step³ voxels; incomplete blocks are dropped."""
    x, y, z = (n // step for n in volume.shape)
    return volume[: x * step, : y * step, : z * step].reshape(x, step, y, step, z, step).mean(axis=(1, 3, 5))


def _distance_to_hull(brain: np.ndarray, step: int) -> np.ndarray:
    """Signed distance in mm to the brain's surface with closed sulci and fissures, negative inside."""
    stride = max(1, round(3 / step))  # the hull is smooth: 3 mm are fine enough
    solid = brain[::stride, ::stride, ::stride] > 0.5
    unit = stride * step
    closing = 12  # mm, wider than half of any fissure
    grown = unit * ndimage.distance_transform_edt(~solid) <= closing
    hull = unit * ndimage.distance_transform_edt(grown) > closing
    signed = unit * (ndimage.distance_transform_edt(~hull) - ndimage.distance_transform_edt(hull))
    signed = ndimage.gaussian_filter(signed.astype(np.float32), 1)
    covered = [stride * (n - 1) + 1 for n in signed.shape]
    rest = [(0, n - m) for n, m in zip(brain.shape, covered, strict=True)]
    return np.pad(spread(signed, covered), rest, mode="edge")


def _skin_distance(depth: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Signed distance in mm to the surface of the whole head, negative inside."""
    skin = depth - np.float32(_SCALP)
    for center, radii in _FACE:
        skin = _blend(skin, _ellipsoid(x, y, z, center, radii), 12)
    (x0, y0), (rx, ry), lean = _NECK
    below = BRAIN_ORIGIN[2] - z
    neck = (np.hypot((x - x0) / rx, (y - y0 + lean * below) / ry) - 1) * rx
    return _blend(skin, np.maximum(neck, z + 50), 20)


def _ellipsoid(x: np.ndarray, y: np.ndarray, z: np.ndarray, center: Sequence, radii: Sequence) -> np.ndarray:
    """Signed distance in mm to an ellipsoid, negative inside, exact near its surface."""
    offsets = [(axis - c) / r for axis, c, r in zip((x, y, z), center, radii, strict=True)]
    scaled = np.sqrt(sum(o * o for o in offsets))
    slope = np.sqrt(sum((o / r) ** 2 for o, r in zip(offsets, radii, strict=True)))
    return scaled * (scaled - 1) / np.maximum(slope, 1e-6)


def _blend(a: np.ndarray, b: np.ndarray, radius: float) -> np.ndarray:
    """Join two distance fields with a fillet of `radius` mm where they meet."""
    nearness = np.maximum(0, 1 - np.abs(a - b) / radius)
    return np.minimum(a, b) - nearness * nearness * np.float32(radius / 4)


def _paint(fractions: np.ndarray, tissue: str | None, distance: np.ndarray, step: float) -> None:
    """Fill the inside of a surface with one tissue, or none, with partial volumes at its boundary."""
    inside = np.clip(0.5 - distance / step, 0, 1)
    rest = 1 - inside
    for fraction in fractions:
        if fraction.any():  # only writing zeros allocates their memory
            fraction *= rest
    if tissue:
        fractions[TISSUES.index(tissue)] += inside


def _paint_ellipsoid(
    fractions: np.ndarray, tissue: str | None, center: Sequence, radii: Sequence, origin: np.ndarray, step: int
) -> None:
    first = [max(0, int((c - r - o) / step) - 1) for c, r, o in zip(center, radii, origin, strict=True)]
    last = [int((c + r - o) / step) + 2 for c, r, o in zip(center, radii, origin, strict=True)]
    box = fractions[:, first[0] : last[0], first[1] : last[1], first[2] : last[2]]
    x, y, z = np.ix_(*(origin[i] + step * (first[i] + np.arange(n)) for i, n in enumerate(box.shape[1:])))
    _paint(box, tissue, _ellipsoid(x, y, z, center, radii), step)


def _paint_spine(fractions: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray, step: int) -> None:
    (x0, y0), lean = _CORD
    below = BRAIN_ORIGIN[2] - z
    y = y - y0 + lean * below
    ahead, (rx, ry), period, disc = _VERTEBRA
    bodies = np.maximum((np.hypot(x / rx, (y - ahead) / ry) - 1) * ry, 10 - below)
    _paint(fractions, None, bodies, step)
    _paint(fractions, "marrow", np.maximum(bodies + 1.5, disc / 2 - np.abs(below % period - period / 2)), step)
    from_cord = np.hypot(x - x0, y)
    _paint(fractions, "fluid", np.maximum(from_cord - _CANAL_RADIUS, -below), step)
    _paint(fractions, "white", np.maximum(from_cord - _CORD_RADIUS, -below), step)


def sharpened(maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Fractions of white matter, grey matter and fluid: average maps sharpened towards those of one person."""
    fluid = np.clip(maps["brain"] - maps["white"] - maps["grey"], 0, 1)
    sharp = {"white": np.square(maps["white"]), "grey": np.square(maps["grey"]), "fluid": np.square(fluid)}
    total = sum(sharp.values()) + np.float32(1e-6)
    return {name: maps["brain"] * share / total for name, share in sharp.items()}


def _streak_with_fat(fractions: np.ndarray, step: int) -> None:
    """Mix fat into the muscles, as between those of the face and the neck."""
    shape = fractions.shape[1:]
    coarse = smooth_noise(np.random.default_rng(0), [round(n * step / 3) for n in shape], (0.8, 1.2, 3.0))
    share = np.clip(0.1 + 0.2 * spread(coarse, shape), 0, 0.9) * fractions[TISSUES.index("muscle")]
    fractions[TISSUES.index("muscle")] -= share
    fractions[TISSUES.index("fat")] += share
