"""Multiply-accumulate operations of a network, counted layer by layer from its own graph."""

from dataclasses import dataclass
from typing import Any

import keras
from keras import tree

from planar3d.graph.keras_graph import arguments_with, pass_through
from planar3d.graph.layers import Shape, kind_of


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


def _macs(operation: Any, source: Shape, output: Shape) -> int:
    count = kind_of(operation).macs
    if count is not None:
        return count(operation, source, output)
    if any(len(weight.shape) > 1 for weight in getattr(operation, "weights", ())):
        raise ValueError(f"{operation.name} is a {type(operation).__name__}, and how to count its work is unknown.")
    return 0
