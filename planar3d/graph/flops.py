"""Multiply-accumulate operations of a network, counted layer by layer from its own graph."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers, tree

from planar3d.graph.keras_graph import arguments_with, pass_through

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class LayerCost:
    """The work of one layer for one window: its output shape, parameters and multiply-accumulates."""

    name: str
    output_shape: Shape
    parameters: int
    macs: int


def layer_costs(network: keras.Model, input_shape: tuple[int, ...] | None = None) -> list[LayerCost]:
    """Count each layer's multiply-accumulates for a batch of one.

    Convolutions count kernel elements times positions: output positions, or input positions for transposed ones; a
    grouped or depthwise kernel holds only the channels that it joins. Layers without a kernel count as 0; beside the
    convolutions they are negligible. Two floating-point operations are one multiply-accumulate.

    Args:
        network: a functional or sequential model, which may hold others.
        input_shape: (depth, rows, cols, channels) to count for; the network's own if None.

    Returns:
        One `LayerCost` each time a layer is applied, in the order of the network; the layers of a model within it are
        named `model/layer`. The parameters of a layer stand where it is applied first.

    Raises:
        ValueError: a size that is None, or a layer with kernels of an unknown kind.
    """
    shapes = [tensor.shape[1:] for tensor in network.inputs] if input_shape is None else [tuple(input_shape)]
    if any(n is None for shape in shapes for n in shape):
        raise ValueError(f"{network.name} takes {shapes}: all sizes but the batch must be known to count.")
    inputs = [
        keras.KerasTensor((1, *shape), tensor.dtype) for shape, tensor in zip(shapes, network.inputs, strict=True)
    ]
    costs: list[LayerCost] = []
    seen = set()

    def visit(name: str, node: Any, taken: list[Any]) -> list[Any]:
        operation = node.operation
        args, kwargs = arguments_with(node, taken)
        outputs = tree.flatten(operation.compute_output_spec(*args, **kwargs))
        parameters = operation.count_params() if hasattr(operation, "count_params") and operation not in seen else 0
        seen.add(operation)
        macs = _macs(operation, taken[0].shape, outputs[-1].shape)
        costs.append(LayerCost(name, outputs[-1].shape, parameters, macs))
        return outputs

    pass_through(network, inputs, visit)
    return costs


def _positions(layer: Any, shape: Shape) -> int:
    """Places of a feature map, all axes but batch and channels."""
    first = 1 if layer.data_format == "channels_last" else 2
    return math.prod(shape[first : first + layer.rank])  # type: ignore[arg-type]


def _macs_convolution(layer: Any, _: Shape, output: Shape) -> int:
    return math.prod(layer.kernel.shape) * _positions(layer, output)


def _macs_transposed(layer: Any, source: Shape, _: Shape) -> int:
    return math.prod(layer.kernel.shape) * _positions(layer, source)


def _macs_separable(layer: Any, _: Shape, output: Shape) -> int:
    kernels = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
    return kernels * _positions(layer, output)


def _macs_dense(layer: Any, source: Shape, _: Shape) -> int:
    return layer.units * math.prod(source[1:])  # type: ignore[arg-type]


_KINDS: dict[tuple[type, ...], Callable[[Any, Shape, Shape], int]] = {
    (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose): _macs_transposed,
    (layers.SeparableConv1D, layers.SeparableConv2D): _macs_separable,
    (layers.Conv1D, layers.Conv2D, layers.Conv3D): _macs_convolution,
    (layers.DepthwiseConv1D, layers.DepthwiseConv2D): _macs_convolution,
    (layers.Dense,): _macs_dense,
}


def _macs(operation: Any, source: Shape, output: Shape) -> int:
    for kinds, count in _KINDS.items():
        if isinstance(operation, kinds):
            return count(operation, source, output)
    if any(len(weight.shape) > 1 for weight in getattr(operation, "weights", ())):
        raise ValueError(f"{operation.name} is a {type(operation).__name__}, and how to count its work is unknown.")
    return 0
