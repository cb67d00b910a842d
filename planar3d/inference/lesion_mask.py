"""Probabilities made a mask by a recipe's threshold and smallest lesion."""

import numpy as np

from planar3d.recipes import Recipe
from planar3d.scans.labels import Grid


def lesion_mask(probabilities: np.ndarray, recipe: Recipe, spacing: Grid) -> np.ndarray:
    """The labels uint8 (i, j, k) of probabilities (i, j, k) or (i, j, k, outputs), as the targets decode them."""
    return recipe.targets.decode(probabilities.reshape(*probabilities.shape[:3], -1), spacing)
