"""Features of a frozen planar encoder, computed once per scan instead of once per window, epoch and fold.

Planar convolutions act within a slice, and poolings along depth combine only slices between multiples of their factor;
if windows start at such multiples, the features of the whole scan contain those of every window.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from ml_dtypes import bfloat16

from planar3d.errors import RecipeError
from planar3d.files import read_json, write_json, written_beside
from planar3d.locks import locked
from planar3d.mapped_arrays import map_array
from planar3d.networks.registry import feature_levels
from planar3d.progress import Notify
from planar3d.recipes import Recipe
from planar3d.training.precision import computed_precision
from planar3d.training.samples import ScanSamples
from planar3d.transfer.digests import digest, digest_of_all
from planar3d.wording import counted

# Number types by the recipe's names.
_KEPT_IN: dict[str, Any] = {"float32": np.float32, "float16": np.float16, "bf16": bfloat16}


def check_cacheable(recipe: Recipe) -> None:
    """Raise a `RecipeError` if features are cached that differ from the windows' or would change in training."""
    if recipe.training.samples.cached_features == "none":
        return
    levels = feature_levels(recipe)
    if "encoder" not in recipe.training.frozen:
        raise RecipeError("cached_features needs a frozen encoder; add 'encoder' to frozen, or set it to 'none'.")
    if recipe.tiles.stride % max(levels.values()):
        raise RecipeError(
            f"cached_features needs windows that start at multiples of {max(levels.values())}, but the stride is "
            f"{recipe.tiles.stride}; set cached_features=none."
        )
    # Beyond the end, a window repeats the last slice, but its features would repeat those of the last slices together.
    depth, stride, slices = recipe.tiles.depth, recipe.tiles.stride, recipe.slices
    joined = recipe.window_borders == "none"  # any number of scans
    if (slices - depth) % stride or (joined and slices % stride):
        raise RecipeError(
            f"cached_features needs windows that end with the scan, but windows of {counted(depth, 'slice')} at "
            f"stride {stride} extend beyond its {counted(slices, 'slice')}; set cached_features=none."
        )


def encoder_of(network: keras.Model, recipe: Recipe) -> keras.Model:
    """From (batch, depth, rows, cols, channels) to the cacheable features of the recipe's network."""
    return keras.Model(network.input, _features(network, recipe), name="encoder")


def decoder_of(network: keras.Model, recipe: Recipe) -> keras.Model:
    """From these features to the network's output; it shares the network's layers."""
    return keras.Model(_features(network, recipe), network.output, name="decoder")


def _features(network: keras.Model, recipe: Recipe) -> list[Any]:
    return [network.get_layer(name).output for name in feature_levels(recipe)]


def compute_features(
    encoder: keras.Model, voxels: np.ndarray, folder: Path, recipe: Recipe, notify: Notify = lambda text: None
) -> list[np.ndarray]:
    """Open the features of a scan, or compute them if they do not exist or are of another encoder or other voxels.

    Args:
        voxels: uint8 (slices, rows, cols, 1), at least the recipe's depth; a window ends with the last slice.
        folder: of the files `<level>.npy`, and of `made_from.json` with the digests of encoder and voxels.

    Returns:
        Memory-mapped arrays (slices / factor, rows', cols', channels), one per level.
    """
    paths, note = [folder / f"{name}.npy" for name in feature_levels(recipe)], folder / "made_from.json"
    weights = {str(number): array for number, array in enumerate(encoder.get_weights())}
    made_from = {"encoder": digest_of_all(weights), "voxels": digest(voxels)}
    made_from["stored"] = recipe.training.samples.cached_features

    def exist() -> bool:
        return note.is_file() and read_json(note) == made_from and all(path.is_file() for path in paths)

    if not exist():
        with locked(folder, "computing features", wait=notify):
            if not exist():
                note.unlink(missing_ok=True)
                _write_features(encoder, voxels, paths, recipe)
                write_json(note, made_from)
    stored = [map_array(path) for path in paths]
    return [features.view(bfloat16) if features.dtype == np.uint16 else features for features in stored]


def _write_features(encoder: keras.Model, voxels: np.ndarray, paths: Sequence[Path], recipe: Recipe) -> None:
    depth, factors = recipe.tiles.depth, feature_levels(recipe).values()
    blocks = []
    for start in range(0, len(voxels), depth):
        # The last block has the encoder's depth too; the slices that the block before has are dropped.
        first = min(start, len(voxels) - depth)
        levels = encoder.predict_on_batch(recipe.preparation.as_input(voxels[first : first + depth])[None])
        blocks.append([level[0][(start - first) // factor :] for level, factor in zip(levels, factors, strict=True)])
    for path, parts in zip(paths, zip(*blocks, strict=True), strict=True):
        features = np.concatenate(parts).astype(_KEPT_IN[recipe.training.samples.cached_features])
        with written_beside(path) as temporary:
            # NumPy files do not support bfloat16, so its bits are stored.
            np.save(temporary, features.view(np.uint16) if features.dtype == bfloat16 else features)


class FeatureSamples(ScanSamples):
    """Batches of (skip levels, mask) from cached features instead of the samples' images."""

    def __init__(self, features: Sequence[Sequence[np.ndarray]], samples: ScanSamples) -> None:
        self.labels, self.recipe, self.windows = samples.labels, samples.recipe, samples.windows
        self.levels = list(zip(*features, strict=True))  # by level, then by scan
        self.factors = feature_levels(self.recipe).values()
        # No conversion if the network computes in the stored type; NumPy widens float16 three times as fast as
        # TensorFlow on a CPU.
        kept = self.recipe.training.samples.cached_features
        self.dtype = bfloat16 if kept == computed_precision(self.recipe.training.precision) == "bf16" else np.float32

    def inputs(self, numbers: Sequence[int] | np.ndarray) -> list[np.ndarray]:  # type: ignore[override]
        """(windows, depth / factor, rows', cols', channels), one per level; float32, or bfloat16 if it is both stored
        and computed in."""
        return [
            self.windows.gather(scans, numbers, factor).astype(self.dtype, copy=False)
            for scans, factor in zip(self.levels, self.factors, strict=True)
        ]
