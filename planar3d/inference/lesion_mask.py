"""Probabilities made a mask: the recipe's threshold, without what is smaller than a lesion."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from planar3d.recipes import Recipe
from planar3d.scans.grid import voxel_mm3
from planar3d.scans.windows import threshold


def lesion_mask(probabilities: np.ndarray, recipe: Recipe, spacing: Sequence[float] | np.ndarray) -> np.ndarray:
    """Binarize lesion probabilities, and drop lesions smaller than the recipe's smallest.

    A lesion is a connected component over faces, as in `lesion_table` and `lesion_scores`.

    Args:
        probabilities: floats (i, j, k) in [0, 1].
        recipe: gives threshold and smallest lesion.
        spacing: the voxel's edges in mm, one per axis, or the grid's affine (4×4 or its 3×3), as a sheared grid needs.

    Returns:
        uint8 {0, 1} of the same shape.
    """
    mask = threshold(probabilities, recipe.threshold, recipe.threshold_rule)
    # Headers hold float32 edges: a lesion of exactly the smallest volume must not be dropped by their rounding.
    smallest_voxels = recipe.smallest_lesion_mm3 / voxel_mm3(spacing) * (1 - 1e-6)
    found = ndimage.find_objects(mask)
    if found and smallest_voxels > 1:
        inside = mask[found[0]]
        labels, _ = ndimage.label(inside)
        inside[(np.bincount(labels.ravel()) < smallest_voxels)[labels]] = 0
    return mask
