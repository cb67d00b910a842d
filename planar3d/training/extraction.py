"""The approximate brain in a prepared scan, for crops that look like extracted brains.

Based only on grey levels and distances within slices: good enough for training, not for measuring a brain.
"""

import numpy as np
from scipy import ndimage

from planar3d.scans.head import largest_part
from planar3d.scans.intensities import MEDIAN_LEVEL

_TISSUE = (0.65, 2.2)  # of the head's median: above skull and cerebrospinal fluid, below fat
_SPECK, _GAP, _NECK, _FOLD = 1.0, 1.5, 6.0, 10.0  # mm


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
