"""Features of a frozen planar encoder, computed once a scan instead of once a window, epoch and fold.

Planar convolutions act within a slice, and poolings of depth join slices that no window start separates which is a
multiple of what they divide depth by; so the features of a whole scan hold those of every window of it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from ml_dtypes import bfloat16

from planar3d.errors import RecipeError
from planar3d.files import map_array, written_beside
from planar3d.locks import locked
from planar3d.networks.registry import feature_levels
from planar3d.recipes import Recipe
from planar3d.training.samples import ScanSamples

# Number types by the recipe's word for them.
_KEPT_IN = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "bf16": np.dtype(bfloat16)}


def check_cacheable(recipe: Recipe) -> None:
    """Raise a `RecipeError` if a scan's features are not those of its windows, or would change in training."""
    levels = feature_levels(recipe)
    if "encoder" not in recipe.training.frozen:
        raise RecipeError("cached_features needs a frozen encoder; add 'encoder' to frozen, or set it to 'none'.")
    if recipe.tiles.stride % max(levels.values()):
        raise RecipeError(
            f"cached_features needs windows that start at multiples of {max(levels.values())}, but the stride is "
            f"{recipe.tiles.stride}; set cached_features=none."
        )


def encoder_of(network: keras.Model, recipe: Recipe) -> keras.Model:
    """From (batch, depth, rows, cols, channels) to the features of the recipe's network that may be cached."""
    return keras.Model(network.input, _features(network, recipe), name="encoder")


def decoder_of(network: keras.Model, recipe: Recipe) -> keras.Model:
    """From these features to the network's output; it shares the network's layers."""
    return keras.Model(_features(network, recipe), network.output, name="decoder")


def _features(network: keras.Model, recipe: Recipe) -> list[Any]:
    return [network.get_layer(name).output for name in feature_levels(recipe)]


def compute_features(
    encoder: keras.Model,
    voxels: np.ndarray,
    folder: Path,
    recipe: Recipe,
    notify: Callable[[str], None] = lambda text: None,
) -> list[np.ndarray]:
    """Compute, or open if they are there, the features of a scan.

    Args:
        encoder: as `encoder_of` gives it.
        voxels: uint8 (slices, rows, cols), slices a multiple of the recipe's depth.
        folder: where `<level>.npy` are kept.
        recipe: gives depth and the stored type.
        notify: told where another process is at these features, which are waited for.

    Returns:
        Memory-mapped arrays (slices / factor, rows', cols', channels), one a level.
    """
    paths = [folder / f"{name}.npy" for name in feature_levels(recipe)]
    if not all(path.is_file() for path in paths):
        with locked(folder, "computing features", wait=notify):
            if not all(path.is_file() for path in paths):
                _write_features(encoder, voxels, paths, recipe)
    stored = [map_array(path) for path in paths]
    return [features.view(bfloat16) if features.dtype == np.uint16 else features for features in stored]


def _write_features(encoder: keras.Model, voxels: np.ndarray, paths: Sequence[Path], recipe: Recipe) -> None:
    blocks = [
        encoder.predict_on_batch(recipe.preparation.as_input(voxels[start : start + recipe.tiles.depth])[None])
        for start in range(0, len(voxels), recipe.tiles.depth)
    ]
    for level, path in enumerate(paths):
        features = np.concatenate([block[level][0] for block in blocks])
        features = features.astype(_KEPT_IN[recipe.training.samples.cached_features])
        # NumPy's files have no name for bfloat16, so its bits are kept.
        features = features.view(np.uint16) if features.dtype == bfloat16 else features
        with written_beside(path) as temporary:
            np.save(temporary, features)


class FeatureSamples(ScanSamples):
    """Batches of (skip levels, mask) from cached features, of the samples that would give them otherwise."""

    def __init__(self, features: Sequence[Sequence[np.ndarray]], samples: ScanSamples, recipe: Recipe) -> None:
        self.labels, self.recipe, self.windows = samples.labels, recipe, samples.windows
        self.levels = list(zip(*features, strict=True))  # by level, then by scan
        self.factors = feature_levels(recipe).values()
        # Nothing is converted where the network computes in what is kept; NumPy widens float16 three times as fast as
        # TensorFlow does on a CPU.
        kept = recipe.training.samples.cached_features
        self.dtype = bfloat16 if kept == recipe.training.precision == "bf16" else np.float32

    def inputs(self, numbers: Sequence[int] | np.ndarray) -> list[np.ndarray]:  # type: ignore[override]
        """(windows, depth / factor, rows', cols', channels), one a level; float32, or bfloat16 where it is both kept
        and computed in."""
        return [
            self.windows.gather(scans, numbers, factor).astype(self.dtype, copy=False)
            for scans, factor in zip(self.levels, self.factors, strict=True)
        ]
