"""Where about the brain lies in a prepared scan, for crops that look as if it had been extracted.

By grey levels and distances within the slices alone: good enough to train on, not to measure a brain with.
"""

import numpy as np
from scipy import ndimage

from planar3d.scans.head import largest_part
from planar3d.scans.intensities import MEDIAN_LEVEL

_TISSUE = (0.65, 2.2)  # of the head's median: above skull and cerebrospinal fluid, below fat
_SPECK, _GAP, _NECK, _FOLD = 1.0, 1.5, 6.0, 10.0  # mm


def extracted_brain(voxels: np.ndarray, lesions: np.ndarray, pixel_mm: float) -> np.ndarray:
    """Blank all but the brain of a scan, and bring the brain's median to the grey level that the head's had.

    Args:
        voxels: uint8 (slices, rows, cols), prepared with grey levels by the median.
        lesions: uint8 {0, 1} of the same shape; they stay.
        pixel_mm: of rows and columns.

    Returns:
        uint8 (slices, rows, cols); all zero where no brain was found.
    """
    brain = brain_mask(voxels, pixel_mm) | (lesions > 0)
    if not brain.any():
        return np.zeros_like(voxels)
    scaled = np.where(brain, voxels, 0) * np.float32(MEDIAN_LEVEL / max(1.0, float(np.median(voxels[brain]))))
    return np.clip(scaled, 0, 255).astype(np.uint8)


def brain_mask(voxels: np.ndarray, pixel_mm: float) -> np.ndarray:
    """The largest connected tissue after what is thinner than 12 mm was taken away, made whole again.

    Args:
        voxels: uint8 (slices, rows, cols), prepared with grey levels by the median.
        pixel_mm: of rows and columns.

    Returns:
        bool (slices, rows, cols).
    """
    low, high = (share * MEDIAN_LEVEL for share in _TISSUE)
    wide = round(2 * _FOLD / pixel_mm)  # so that nothing is cut off at the border of the plane
    grey = np.pad(voxels, ((0, 0), (wide, wide), (wide, wide)))
    tissue = (grey > low) & (grey < high)
    tissue = grown(shrunk(tissue, _SPECK, pixel_mm), _SPECK, pixel_mm)
    tissue = shrunk(grown(tissue, _GAP, pixel_mm), _GAP, pixel_mm)
    core = largest_part(shrunk(tissue, _NECK, pixel_mm))
    whole = shrunk(grown(core, _NECK + _SPECK + _FOLD, pixel_mm), _FOLD, pixel_mm)
    filled = np.stack([ndimage.binary_fill_holes(each) for each in whole])
    return filled[:, wide:-wide, wide:-wide]


def grown(mask: np.ndarray, mm: float, pixel_mm: float) -> np.ndarray:
    """A mask, (slices, rows, cols), and what lies within `mm` of it in its slice."""
    return ~shrunk(~mask, mm, pixel_mm)


def shrunk(mask: np.ndarray, mm: float, pixel_mm: float) -> np.ndarray:
    """What of a mask, (slices, rows, cols), lies farther than `mm` from its outside in its slice."""
    return np.stack([_distance(each, pixel_mm) > mm for each in mask])


def _distance(mask: np.ndarray, pixel_mm: float) -> np.ndarray:
    if mask.all():
        return np.full(mask.shape, np.inf)
    return ndimage.distance_transform_edt(mask, sampling=pixel_mm)
