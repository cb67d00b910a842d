"""Multiply-accumulate operations of a network, counted layer by layer from its graph."""

import math
from dataclasses import dataclass

import keras

from planar3d.graph.described import described
from planar3d.graph.description import Layer, Shape
from planar3d.graph.layers import kind_of


@dataclass(frozen=True)
class LayerCost:
    """The cost of one layer for one window: its output shape, parameters and multiply-accumulates."""

    name: str
    output_shape: Shape
    parameters: int
    macs: int


def layer_costs(network: keras.Model, input_shape: tuple[int, ...] | None = None) -> list[LayerCost]:
    """Count each layer's multiply-accumulates for a batch of one.

    Convolutions count kernel elements times positions: output positions, or input positions for transposed ones; a
    grouped or depthwise kernel has only the channels that it combines. Layers without a kernel count as 0; they are
    negligible compared with convolutions. One multiply-accumulate is two floating-point operations.

    Args:
        network: a functional or sequential model, which may contain others.
        input_shape: (depth, rows, cols, channels); default: the network's own.

    Returns:
        One `LayerCost` each time a layer is applied, in the order of the network; layers of a nested model are named
        `model/layer`. The parameters of a layer are counted at its first application.

    Raises:
        ValueError: an unknown size, or a layer with kernels of an unknown kind.
    """
    shapes = [tensor.shape[1:] for tensor in network.inputs] if input_shape is None else [tuple(input_shape)]
    if any(n is None for shape in shapes for n in shape):
        raise ValueError(f"{network.name} takes {shapes}; counting operations needs all sizes except the batch.")
    description = described(network, [(1, *shape) for shape in shapes])
    taken = [*description.inputs, *(layer.shape for layer in description.layers)]
    costs: list[LayerCost] = []
    seen: set[int] = set()
    for layer in description.layers:
        arrays = {id(array): math.prod(array.shape) for array in layer.arrays.values()}
        parameters = sum(size for key, size in arrays.items() if key not in seen)
        seen |= arrays.keys()
        costs.append(LayerCost(layer.name, layer.shape, parameters, _macs(layer, taken[layer.inputs[0]])))
    return costs


def _macs(layer: Layer, source: Shape) -> int:
    count = kind_of(layer).macs
    if count is not None:
        return count(layer, source, layer.shape)
    if any(len(array.shape) > 1 for array in layer.arrays.values()):
        raise ValueError(f"{layer.name} is a {layer.kind}, and its operations cannot be counted.")
    return 0
