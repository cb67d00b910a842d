"""A Keras network's graph as a description, for plans, operation counts and other runtimes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
from keras import activations, tree

from planar3d.graph.description import Description, Layer, Shape
from planar3d.graph.keras_graph import arguments_with, as_graph, kind_in_keras, pass_through
from planar3d.graph.layers import KINDS


def described(network: keras.Model, shapes: Sequence[Shape] | None = None) -> Description:
    """Describe a functional or sequential network; models nested in it become their layers.

    Args:
        network: its variables are the description's arrays, so later changes apply.
        shapes: of its inputs, batch first; default: its own.
    """
    network = as_graph(network)
    taken = shapes or [tuple(tensor.shape) for tensor in network.inputs]
    specs = [
        keras.KerasTensor(shape, tensor.dtype) if shapes else tensor
        for shape, tensor in zip(taken, network.inputs, strict=True)
    ]
    found: list[Layer] = []

    def visit(name: str, node: Any, given: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
        outputs = node.outputs
        if shapes:
            args, kwargs = arguments_with(node, [spec for _, spec in given])
            outputs = tree.flatten(node.operation.compute_output_spec(*args, **kwargs))
        first = len(specs) + len(found)
        numbers = tuple(number for number, _ in given)
        layers = [layer_of(node.operation, name, numbers, tuple(output.shape)) for output in outputs]
        found.extend(layers if _is_plain(node) else [replace(one, kind=f"{one.kind} with arguments") for one in layers])
        return list(enumerate(outputs, start=first))

    results = pass_through(network, list(enumerate(specs)), visit)
    return Description(network.name, tuple(map(tuple, taken)), tuple(found), tuple(number for number, _ in results))


def _is_plain(node: Any) -> bool:
    """Whether a use has only tensors as arguments, besides those of training: a description has no others."""
    args, kwargs = arguments_with(node, [None] * len(node.input_tensors))
    kwargs.pop("training", None)
    others = tree.flatten([args, kwargs, getattr(node.operation, "initial", None)])  # the last of a maximum
    return all(value is None for value in others)


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
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if callable(value):
        name = getattr(value, "__name__", type(value).__name__)
        return name if getattr(activations, name, None) is value else f"own {name}"
    if hasattr(value, "tolist"):
        value = value.tolist()
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value
