"""A prepared scan predicted, stack by stack where its slices are interleaved, and its mask on the native grid."""

from collections.abc import Callable

import numpy as np

from planar3d.inference.lesion_mask import lesion_mask
from planar3d.inference.predictor import Predictor
from planar3d.recipes import Recipe
from planar3d.scans.prepare import Prepared
from planar3d.scans.volume import Scan
from planar3d.scans.windows import at_least


def predict_prepared(
    predict: Predictor, prepared: Prepared, recipe: Recipe, progress: Callable[[int, int], None] | None = None
) -> np.ndarray:
    """Predict lesion probabilities of a prepared scan.

    Args:
        predict: as `predictor` gives it.
        prepared: voxels uint8 (slices, rows, cols).
        recipe: says which slices go together, and how many the network takes.
        progress: called with the windows done and all of them.

    Returns:
        float32 (slices, rows, cols) in [0, 1]; 0 in slices that are in no stack, beyond the head.
    """
    stacks = prepared.stacks(recipe)
    probabilities = np.zeros(prepared.voxels.shape, np.float32)
    for number, stack in enumerate(stacks):

        def report(done: int, of: int, before: int = number) -> None:
            if progress:
                progress(before * of + done, len(stacks) * of)

        voxels, own = at_least(prepared.voxels[stack], recipe.depth)
        probabilities[stack] = predict(voxels, report)[own]
    return probabilities


def native_mask(probabilities: np.ndarray, prepared: Prepared, recipe: Recipe) -> Scan:
    """The lesion mask uint8 {0, 1} on the native grid.

    A cube is binarized and then restored, as its published scores are those of the cube. From slices the probabilities
    are restored and then binarized, which keeps outlines smooth.

    Args:
        probabilities: float32 (slices, rows, cols) of the prepared grid.
        prepared: the scan they are of.
        recipe: gives grid, threshold and smallest lesion.
    """
    if recipe.grid == "cube":
        return prepared.restore(lesion_mask(probabilities, recipe, prepared.geometry.axes))
    restored = prepared.restore(probabilities)
    return Scan(lesion_mask(restored.voxels, recipe, restored.affine), restored.header)
