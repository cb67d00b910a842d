"""Augmentation: random crops, rotated, scaled and mirrored, with the grey levels of other scanners, or only the brain.

Within these ranges a head still looks like that of another patient or scanner; they are not tuned. Brains are found
only by grey levels and distances within slices: good enough for training, not for measuring a brain.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from planar3d.scans.head import largest_part
from planar3d.scans.intensities import MEDIAN_LEVEL

Transform = Literal["flip", "rotation", "zoom", "brightness", "contrast", "blur", "noise", "extraction"]

_ROTATION = np.deg2rad(15)  # within the plane, in either direction
_ZOOM = 0.25  # natural logarithm, like the next two
_BRIGHTNESS = 0.2
_CONTRAST = 0.4  # exponent of grey levels relative to the median: 1.5 to 0.67
_BLUR = (0.3, 1.2)  # standard deviation in pixels, within the plane
_NOISE = (1.0, 8.0)  # standard deviation in grey levels
_TISSUE = (0.65, 2.2)  # of the head's median: above skull and cerebrospinal fluid, below fat
_SPECK, _GAP, _NECK, _FOLD = 1.0, 1.5, 6.0, 10.0  # mm


@dataclass(frozen=True)
class Placement:
    """A crop's center in its plane in pixels, its angle, its scale, and whether it is mirrored."""

    row: float
    col: float
    angle: float = 0.0  # radians
    zoom: float = 1.0  # pixels of the plane per pixel of the crop
    mirrored: bool = False  # whether columns are reversed

    @classmethod
    def drawn(cls, row: float, col: float, names: Collection[str], rng: np.random.Generator) -> "Placement":
        """A placement with a center, and with the values drawn by the named transforms.

        Unless a crop is rotated or scaled, its pixels are those of the plane: its center is moved to a corner of four.
        """
        if not {"rotation", "zoom"} & set(names):
            row, col = np.floor((row, col)) + 0.5
        return cls(
            row,
            col,
            angle=rng.uniform(-_ROTATION, _ROTATION) if "rotation" in names else 0.0,
            zoom=float(np.exp(rng.uniform(-_ZOOM, _ZOOM))) if "zoom" in names else 1.0,
            mirrored=bool(rng.random() < 0.5) if "flip" in names else False,
        )

    def cut(self, volume: np.ndarray, crop: int) -> np.ndarray:
        """Cut crops (slices, crop, crop), float32, from (slices, rows, cols), linearly; zero outside the plane."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turn = self.zoom * np.array([[cos, -sin], [sin, cos]])
        if self.mirrored:
            turn[:, 1] *= -1
        matrix = np.eye(3)
        matrix[1:, 1:] = turn
        offset = np.array([0, self.row, self.col]) - matrix @ [0, (crop - 1) / 2, (crop - 1) / 2]
        shape = (len(volume), crop, crop)
        # Also linear between slices, but every slice coincides with one.
        return ndimage.affine_transform(volume.astype(np.float32), matrix, offset, shape, order=1)


def _contrast(voxels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    exponent = np.float32(np.exp(rng.uniform(-_CONTRAST, _CONTRAST)))
    return MEDIAN_LEVEL * (np.maximum(voxels, 0) / MEDIAN_LEVEL) ** exponent


# Share of the crops changed by each, in this order.
_GREY_LEVELS: dict[str, tuple[float, Callable[[np.ndarray, np.random.Generator], np.ndarray]]] = {
    "blur": (0.3, lambda voxels, rng: ndimage.gaussian_filter(voxels, (0, *(rng.uniform(*_BLUR),) * 2))),
    "brightness": (1.0, lambda voxels, rng: voxels * np.float32(np.exp(rng.uniform(-_BRIGHTNESS, _BRIGHTNESS)))),
    "contrast": (0.5, _contrast),
    "noise": (0.3, lambda voxels, rng: voxels + rng.normal(0, rng.uniform(*_NOISE), voxels.shape).astype(np.float32)),
}


def change_grey_levels(voxels: np.ndarray, names: Collection[str], rng: np.random.Generator) -> np.ndarray:
    """Apply what the transforms of these names draw to float32 grey levels, any shape; they stay within [0, 255]."""
    for name, (share, change) in _GREY_LEVELS.items():
        if name in names and rng.random() < share:
            voxels = change(voxels, rng)
    return np.clip(voxels, 0, 255)


def extracted_brain(voxels: np.ndarray, lesions: np.ndarray, pixel_mm: float) -> np.ndarray:
    """Set everything except the brain to zero, and scale the brain's median to the head's median grey level.

    Args:
        voxels: uint8 (slices, rows, cols), prepared with grey levels by the median.
        lesions: uint8 {0, 1} of the same shape; they are kept.
        pixel_mm: of rows and columns.

    Returns:
        uint8 (slices, rows, cols); all zero if no brain was found.
    """
    brain = brain_mask(voxels, pixel_mm) | (lesions > 0)
    if not brain.any():
        return np.zeros_like(voxels)
    scaled = np.where(brain, voxels, 0) * np.float32(MEDIAN_LEVEL / max(1.0, float(np.median(voxels[brain]))))
    return np.clip(scaled, 0, 255).astype(np.uint8)


def brain_mask(voxels: np.ndarray, pixel_mm: float) -> np.ndarray:
    """The largest tissue component after removing parts thinner than 12 mm, reconstructed; bool of the same shape."""
    low, high = (share * MEDIAN_LEVEL for share in _TISSUE)
    wide = round(2 * _FOLD / pixel_mm)  # to avoid cutting at the border of the plane
    grey = np.pad(voxels, ((0, 0), (wide, wide), (wide, wide)))
    tissue = (grey > low) & (grey < high)
    tissue = grown(shrunk(tissue, _SPECK, pixel_mm), _SPECK, pixel_mm)
    tissue = shrunk(grown(tissue, _GAP, pixel_mm), _GAP, pixel_mm)
    core = largest_part(shrunk(tissue, _NECK, pixel_mm))
    whole = shrunk(grown(core, _NECK + _SPECK + _FOLD, pixel_mm), _FOLD, pixel_mm)
    filled = np.stack([ndimage.binary_fill_holes(each) for each in whole])
    return filled[:, wide:-wide, wide:-wide]


def grown(mask: np.ndarray, mm: float, pixel_mm: float) -> np.ndarray:
    """A mask, (slices, rows, cols), dilated by `mm` within each slice."""
    return ~shrunk(~mask, mm, pixel_mm)


def shrunk(mask: np.ndarray, mm: float, pixel_mm: float) -> np.ndarray:
    """A mask, (slices, rows, cols), eroded by `mm` within each slice."""
    return np.stack(
        [each if each.all() else ndimage.distance_transform_edt(each, sampling=pixel_mm) > mm for each in mask]
    )
