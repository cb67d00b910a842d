"""Reference inference: every window through the network by itself, then composed."""

from collections.abc import Callable

import keras
import numpy as np

from planar3d.recipes import PAPER, Recipe
from planar3d.scans.windows import compose
from planar3d.training.samples import ScanSamples


def predict_volume(
    network: keras.Model,
    voxels: np.ndarray,
    recipe: Recipe = PAPER,
    batch_size: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Predict lesion probabilities of a prepared scan, window by window.

    Args:
        network: takes (batch, depth, rows, cols, channels) and gives (batch, depth, rows, cols, 1).
        voxels: uint8 (slices, rows, cols), as `prepare` gives them.
        recipe: depth and stride of the windows, and the channels.
        batch_size: windows at once.
        progress: called with the windows done and all of them.

    Returns:
        float32 (slices, rows, cols) in [0, 1].

    Source: Kolarik 2020, section 3.2 and eq. 1.
    """
    return predict_samples(network, ScanSamples([voxels], [], recipe), recipe, batch_size, progress)


def predict_samples(
    network: keras.Model,
    samples: ScanSamples,
    recipe: Recipe,
    batch_size: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """`predict_volume` over the samples of one scan, whatever the network takes of it."""
    windows: list[np.ndarray] = []
    while len(windows) < len(samples):
        numbers = range(len(windows), min(len(windows) + batch_size, len(samples)))
        windows.extend(np.asarray(network.predict_on_batch(samples.inputs(numbers)))[..., 0].astype(np.float32))
        if progress:
            progress(len(windows), len(samples))
    return compose(np.stack(windows), recipe.stride, samples.windows.slices)
