"""Tiled inference: each tile separately through the whole network, then composed."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import lru_cache
from itertools import product
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from planar3d.errors import Planar3DError, RecipeError
from planar3d.extras import check_extra
from planar3d.graph.description import Description
from planar3d.graph.layers import resized
from planar3d.inference.onnx_graph import network_graph
from planar3d.pipeline import one_ahead
from planar3d.progress import Progress
from planar3d.recipes import Recipe
from planar3d.scans.labels import SCALES
from planar3d.scans.tiles import Lengths, tile_shape
from planar3d.scans.windows import checked_prepared, compose_tiles, cut_tile

if TYPE_CHECKING:
    import keras

Compute = Callable[[np.ndarray], np.ndarray]  # both (tiles, slices, rows, cols, channels)


def _on_keras(network: "keras.Model", precision: str | None) -> tuple[Compute, str]:
    from keras import tree

    from planar3d.training.backends import as_written
    from planar3d.training.precision import for_prediction

    network, computed = for_prediction(network, precision)
    return as_written(lambda batch: tree.flatten(network.predict_on_batch(batch))[0]), computed


def on_openvino(network: "keras.Model | Description", precision: str | None) -> tuple[Compute, str]:
    """A network's computation on OpenVINO, and the precision that it has."""
    check_extra("openvino", "onnx", "openvino")  # onnx writes the graph
    import openvino

    from planar3d.inference.openvino_engine import UNSUPPORTED, compile_on_cpu, multiplies_bf16, openvino_model

    # Processors without bf16 multiplication compute in float32.
    narrow = precision == "bf16" and multiplies_bf16()
    core = openvino.Core()
    try:
        graph = network_graph(description_of(network))
    except Planar3DError as error:
        raise Planar3DError(f"{error} {UNSUPPORTED}") from error
    model = openvino_model(core, *graph)
    alone = Lock()  # a compiled network has one place for its results

    @lru_cache(maxsize=1)
    def compiled(shape: tuple[int, ...]) -> Any:
        # Compiled for the one shape of all batches, which is faster than for any shape.
        model.reshape(list(shape))
        return compile_on_cpu(core, model, narrow)

    def compute(batch: np.ndarray) -> np.ndarray:
        with alone:
            return compiled(batch.shape)({"input": np.ascontiguousarray(batch)})[0]

    return compute, "bf16" if narrow else "float32"


def description_of(network: "keras.Model | Description") -> Description:
    """A network's description, of a Keras model or as given."""
    if isinstance(network, Description):
        return network
    from planar3d.graph.described import described

    return described(network)


class TiledInference:
    """Predicts prepared scans tile by tile, as a recipe defines: in patches, or in windows along depth as in the paper.

    Args:
        network: from (batch, slices, rows, cols, channels) to the same voxels with its own channels; for OpenVINO, its
            description suffices.
        recipe: defines the tiles, the network's input, what is averaged, and the output outside all tiles.
        engine: `"keras"`; or `"openvino"`, faster on CPUs, for networks that can be written as ONNX.
        precision: `"float32"`; or `"bf16"`, with OpenVINO if the processor supports it; default: the network's own.

    Raises:
        Planar3DError: the engine is not installed, or does not support a layer.
    """

    def __init__(
        self,
        network: "keras.Model | Description",
        recipe: Recipe,
        batch_size: int = 1,
        engine: str = "keras",
        precision: str | None = None,
    ) -> None:
        if recipe.tiles.of_head:
            network = _with_open_planes(network)
        self.tiles, self.preparation, self.targets = recipe.tiles, recipe.preparation, recipe.targets
        self.scale, self.batch_size = SCALES[self.tiles.averaged][self.targets.activation], batch_size
        self.takes = (network.inputs[0] if isinstance(network, Description) else network.input_shape)[1:-1]
        name, build = ("OpenVINO", on_openvino) if engine == "openvino" else ("Keras", _on_keras)
        self.compute, computed = build(network, precision)
        how = "windowed" if self.tiles.shape[1:] == (0, 0) else "tiled"
        self.description = f"{how} on {name}, {computed}"

    def __call__(self, voxels: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """Predict a prepared scan, in memory or memory-mapped, see `Predictor`.

        Raises:
            RecipeError: the network takes tiles of another shape.

        Source: Kolarik 2020, section 3.2 and eq. 1, for windows along depth.
        """
        voxels = checked_prepared(voxels, self.preparation.brightest)
        shape, starts = tile_shape(self.tiles, voxels.shape), self.tiles.starts(voxels.shape)
        if any(taken not in (None, length) for taken, length in zip(self.takes, shape, strict=True)):
            raise RecipeError(
                f"The network takes {tuple(self.takes)} voxels, but tiles of the volume {voxels.shape[:3]} have "
                f"{shape}; build the network for this size, or change the tiles."
            )
        with closing(self._predicted(voxels, shape, list(product(*starts)), progress)) as tiles:
            composed = self.scale.back(compose_tiles(tiles, starts, voxels.shape[:3], self.tiles.overlap))
        for axis, (at, length) in enumerate(zip(starts, shape, strict=True)):
            composed[(slice(None),) * axis + (slice(at[-1] + length, None),)] = self.targets.background
        return composed[..., 0] if self.targets.outputs == 1 else composed

    def _predicted(
        self, volume: np.ndarray, shape: Lengths, places: Sequence[tuple[int, ...]], progress: Progress | None
    ) -> Generator[np.ndarray, None, None]:
        size = min(self.batch_size, len(places))

        def read(batch: Sequence[tuple[int, ...]]) -> np.ndarray:
            # The last batch is padded, so that the network is compiled for one shape.
            filled = [*batch, *[batch[-1]] * (size - len(batch))]
            cut = [cut_tile(volume, place, shape, self.tiles.beyond, self.preparation.air) for place in filled]
            return self.preparation.as_input(np.stack(cut))

        done = 0
        with one_ahead(read, (places[first : first + size] for first in range(0, len(places), size))) as coming:
            for batch, made in coming:
                predicted = self.compute(made.result())
                done += len(batch)
                if progress:
                    progress(done, len(places))
                yield from self.scale.given(predicted[: len(batch)].astype(np.float32, copy=False))


def _with_open_planes(network: "keras.Model | Description") -> "keras.Model | Description":
    """The layers of a network for (batch, depth, rows, cols, channels) with any rows and cols."""
    if isinstance(network, Description):
        return resized(network, (network.inputs[0][1], None, None, network.inputs[0][-1]))
    import keras

    from planar3d.graph.keras_graph import layers_applied_again, unnested

    shape = network.input_shape
    given = keras.Input((shape[1], None, None, shape[-1]))
    return unnested(given, layers_applied_again(network, [given]), network.name)
