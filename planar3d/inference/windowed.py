"""Reference inference: every window through the network by itself, then composed."""

from collections.abc import Callable

import keras
import numpy as np

from planar3d.recipes import Recipe
from planar3d.scans.windows import compose
from planar3d.training.samples import ScanSamples

Progress = Callable[[int, int], None]


class WindowedInference:
    """Predicts scans window by window, as the paper does.

    Args:
        network: takes (batch, depth, rows, cols, channels) and gives (batch, depth, rows, cols, 1).
        recipe: depth and stride of the windows, and the channels.
        batch_size: windows at once.
    """

    def __init__(self, network: keras.Model, recipe: Recipe, batch_size: int = 1) -> None:
        self.network, self.recipe, self.batch_size = network, recipe, batch_size
        self.description = "windowed on Keras"

    def __call__(self, voxels: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """Predict lesion probabilities float32 (slices, rows, cols) of a prepared scan, uint8 of the same shape.

        Source: Kolarik 2020, section 3.2 and eq. 1.
        """
        samples = ScanSamples([voxels], [], self.recipe)
        return predict_samples(self.network, samples, self.recipe, self.batch_size, progress)


def predict_samples(
    network: keras.Model,
    samples: ScanSamples,
    recipe: Recipe,
    batch_size: int = 1,
    progress: Progress | None = None,
) -> np.ndarray:
    """Predict the samples of one scan, whatever the network takes of it: float32 (slices, rows, cols)."""
    windows: list[np.ndarray] = []
    while len(windows) < len(samples):
        numbers = range(len(windows), min(len(windows) + batch_size, len(samples)))
        windows.extend(np.asarray(network.predict_on_batch(samples.inputs(numbers)))[..., 0].astype(np.float32))
        if progress:
            progress(len(windows), len(samples))
    return compose(np.stack(windows), recipe.stride, samples.windows.slices)
