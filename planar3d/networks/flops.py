"""Multiply-accumulate operations of a network, counted layer by layer from its own graph."""

import math
from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class LayerCost:
    """The work of one layer for one window: its output shape, parameters and multiply-accumulates."""

    name: str
    output_shape: tuple[int | None, ...]
    parameters: int
    macs: int


def layer_costs(network: keras.Model) -> list[LayerCost]:
    """Count each layer's multiply-accumulates for a batch of one.

    Convolutions count kernel elements times positions: output positions, or input positions for transposed ones.
    Other layers count as 0; beside the convolutions they are negligible.

    Args:
        network: a built functional model whose input sizes are all known.

    Returns:
        One `LayerCost` a layer, in the order of the network.

    Raises:
        ValueError: an input size that is None.
    """
    if any(n is None for n in network.input_shape[1:]):
        raise ValueError(f"{network.name} takes {network.input_shape}: all sizes but the batch must be known to count.")
    return [
        LayerCost(layer.name, tuple(layer.output.shape), layer.count_params(), _macs(layer)) for layer in network.layers
    ]


def _macs(layer: keras.Layer) -> int:
    kernel = getattr(layer, "kernel", None)
    if kernel is None:
        return 0
    transposed = "Transpose" in type(layer).__name__
    positions = (layer.input if transposed else layer.output).shape[1:-1]
    return math.prod(kernel.shape) * math.prod(positions)
