"""Probabilities made a mask by a recipe's threshold and smallest lesion."""

import numpy as np

from planar3d.recipes import Recipe
from planar3d.scans.labels import Grid
from planar3d.scans.targets import Binary


def lesion_mask(probabilities: np.ndarray, recipe: Recipe, spacing: Grid) -> np.ndarray:
    """The mask uint8 {0, 1} of lesion probabilities (i, j, k), as `Binary.decode` makes it."""
    targets = Binary(recipe.threshold, recipe.threshold_rule, recipe.smallest_lesion_mm3)
    return targets.decode(probabilities[..., None], spacing)
