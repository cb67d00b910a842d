"""A Keras network's graph as a description, for plans and other runtimes, and its operations counted by layer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import activations, tree

from planar3d.graph.description import Description, Layer, Shape
from planar3d.graph.keras_graph import arguments_with, as_graph, kind_in_keras, pass_through
from planar3d.graph.layers import KINDS, kind_of


def described(network: keras.Model, shapes: Sequence[Shape] | None = None) -> Description:
    """Describe a functional or sequential network, for inputs of its own shapes or others, batch first.

    Models nested in it become their layers; its variables are the description's arrays, so later changes apply.
    """
    network = as_graph(network)
    taken = shapes or [tuple(tensor.shape) for tensor in network.inputs]
    specs = [keras.KerasTensor(shape, tensor.dtype) for shape, tensor in zip(taken, network.inputs, strict=True)]
    found: list[Layer] = []

    def visit(name: str, node: Any, given: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
        outputs = node.outputs
        if shapes:
            args, kwargs = arguments_with(node, [spec for _, spec in given])
            outputs = tree.flatten(node.operation.compute_output_spec(*args, **kwargs))
        first = len(specs) + len(found)
        numbers = tuple(number for number, _ in given)
        layers = [layer_of(node.operation, name, numbers, tuple(output.shape)) for output in outputs]
        found.extend(_as_used(node, layer) for layer in layers)
        return list(enumerate(outputs, start=first))

    results = pass_through(network, list(enumerate(specs)), visit)
    return Description(network.name, tuple(map(tuple, taken)), tuple(found), tuple(number for number, _ in results))


def _as_used(node: Any, layer: Layer) -> Layer:
    """A layer in one use: a sum or product with a number is a rescaling, and other arguments make it another kind."""
    args, kwargs = arguments_with(node, [None] * len(node.input_tensors))
    kwargs.pop("training", None)
    given = [args, kwargs, getattr(node.operation, "initial", None)]  # the last of a maximum
    others = [value for value in tree.flatten(given) if value is not None]
    if not others:
        return layer
    if len(args) == 2 and not kwargs and len(others) == 1 and isinstance(others[0], int | float):
        c = float(others[0])
        difference = (1.0, -c) if args[0] is None else (-1.0, c)
        rescalings = {"ops.Add": (1.0, c), "ops.Multiply": (c, 0.0), "ops.Subtract": difference}
        if layer.kind in rescalings:
            scale, offset = rescalings[layer.kind]
            return replace(layer, kind="Rescaling", settings={"scale": scale, "offset": offset})
    return replace(layer, kind=f"{layer.kind} with arguments")


def layer_of(operation: Any, name: str = "", inputs: tuple[int, ...] = (), shape: Shape = ()) -> Layer:
    """Describe a layer or a Keras operation at one place of a network."""
    kind = kind_in_keras(operation, KINDS)
    settings = {setting: _plain(getattr(operation, setting)) for setting in KINDS[kind].settings} if kind else {}
    own = type(operation).__name__
    arrays: dict[str, Any] = {}
    for variable in getattr(operation, "weights", ()):
        # Layers that contain others have several arrays of one name.
        arrays[variable.path if variable.name in arrays else variable.name] = variable
    if getattr(operation, "lora_enabled", False):
        arrays["kernel"] = operation.kernel  # including LoRA
    kind = kind or (f"own {own}" if own in KINDS else own)
    return Layer(kind, name or operation.name, inputs, shape, settings, arrays)


def _plain(value: Any) -> Any:
    """A setting as a number, a text or a tuple of these."""
    if callable(value):
        name = getattr(value, "__name__", type(value).__name__)
        return name if getattr(activations, name, None) is value else f"own {name}"
    if hasattr(value, "__array__"):
        value = keras.ops.convert_to_numpy(value).tolist()
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value


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
        count = kind_of(layer).macs
        if layer.kind not in KINDS and any(len(array.shape) > 1 for array in layer.arrays.values()):
            raise ValueError(f"{layer.name} is a {layer.kind}, and its operations cannot be counted.")
        macs = count(layer, taken[layer.inputs[0]], layer.shape) if count else 0
        costs.append(LayerCost(layer.name, layer.shape, parameters, macs))
    return costs
