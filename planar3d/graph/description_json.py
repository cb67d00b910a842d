"""A description as JSON in a weights file; its arrays are the file's, and its shapes follow from the input's.

The JSON is untrusted: its values are checked, and none of it is executed.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from planar3d.errors import Planar3DError, WeightsError
from planar3d.graph.description import Description, Layer, Shape
from planar3d.graph.layers import KINDS, kind_of, shape_of

VERSION = 1
# Generous limits for real networks; the last are values in a layer's output, and in all outputs together.
_MOST_LAYERS, _LARGEST_NUMBER, _LARGEST_TENSOR, _LARGEST_SUM = 10_000, 2**20, 2**31, 2**34
_THREE = ("strides", "kernel_size", "pool_size", "size", "dilation_rate")  # numbers from 1 on, one per axis
_ONE = ("filters", "groups")
_UNUSABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, Planar3DError)


def can_be_stored(network: Description) -> bool:
    """Whether the description suffices to compute the network."""
    return len(network.inputs) == 1 and all(kind_of(layer).write is not None for layer in network.layers)


def to_json(network: Description, named: Callable[[Any], str]) -> dict[str, Any]:
    """A description as JSON values.

    Args:
        network: with one input, and only kinds of layers that can be written as operators.
        named: the name of a description's array in the weights file.
    """
    layers = [
        {
            "kind": layer.kind,
            "name": layer.name,
            "inputs": layer.inputs,
            **({"settings": dict(layer.settings)} if layer.settings else {}),
            **({"arrays": {part: named(array) for part, array in layer.arrays.items()}} if layer.arrays else {}),
        }
        for layer in network.layers
    ]
    values = {"version": VERSION, "name": network.name, "input": network.inputs[0][1:], "layers": layers}
    return json.loads(json.dumps(values | {"outputs": network.outputs}))


def from_json(content: Any, arrays: Mapping[str, np.ndarray], window: Shape) -> Description:
    """Read a description.

    Args:
        content: as from `to_json`.
        arrays: of the weights file, by `layer/weight`.
        window: (depth, rows, cols, channels) of the network's input; depth and channels are the description's.

    Raises:
        WeightsError: it has another version, is damaged, has arrays that differ from the file or in shape from its
            layers, or takes other windows.
    """
    try:
        if content["version"] != VERSION:
            raise ValueError(f"it is of version {content['version']}, but this version of planar3d reads {VERSION}")
        depth, *_, channels = content["input"]
        if (depth, channels) != (window[0], window[-1]):
            raise ValueError(f"it takes windows of {content['input']}, but {list(window)} was requested")
        if len(content["layers"]) > _MOST_LAYERS:
            raise ValueError(f"it has {len(content['layers'])} layers")
        shapes: list[Shape] = [(None, *window)]
        layers = []
        for said in content["layers"]:
            layers.append(_layer(said, arrays, shapes))
            shapes.append(layers[-1].shape)
        if sum(map(_values, shapes)) > _LARGEST_SUM:
            raise ValueError(f"its layers would give {sum(map(_values, shapes)):,} values")
        used = {name for said in content["layers"] for name in said.get("arrays", {}).values()}
        if used != set(arrays):
            raise ValueError(f"the description and the file differ in the arrays {sorted(used ^ set(arrays))[:3]}")
        outputs = _numbers(content["outputs"], shapes)
        return Description(str(content["name"]), (shapes[0],), tuple(layers), outputs)
    except _UNUSABLE as error:
        raise WeightsError(f"The description of the network cannot be used: {error}.") from error


def _layer(said: Mapping[str, Any], arrays: Mapping[str, np.ndarray], shapes: list[Shape]) -> Layer:
    known = KINDS[said["kind"]]
    inputs = _numbers(said["inputs"], shapes)
    if known.write is None:
        raise ValueError(f"{said['name']} is of a kind that only Keras supports")
    settings = {name: _setting(name, said["settings"][name]) for name in known.settings}
    held = {part: arrays[name] for part, name in said.get("arrays", {}).items()}
    layer, taken = Layer(said["kind"], str(said["name"]), inputs, (), settings, held), [shapes[n] for n in inputs]
    shape, needed = shape_of(layer, *taken), known.arrays(layer, *taken)
    if not all(length is None or length > 0 for length in shape) or _values(shape) > _LARGEST_TENSOR:
        raise ValueError(f"{layer.name} would give {shape}")
    if (found := {part: array.shape for part, array in held.items()}) != needed:
        raise ValueError(f"{layer.name} has arrays of the shapes {found}, but needs {needed}")
    return Layer(layer.kind, layer.name, inputs, shape, settings, held)


def _numbers(said: Sequence[Any], shapes: Sequence[Shape]) -> tuple[int, ...]:
    """The inputs of a layer or the outputs of the network, checked for existence."""
    if not said or not all(type(number) is int and 0 <= number < len(shapes) for number in said):
        raise ValueError(f"{said!r} does not exist")
    return tuple(said)


def _values(shape: Shape) -> int:
    return prod(length or 1 for length in shape)


def _setting(name: str, value: Any) -> Any:
    found = _plain(value)
    sizes = found if name in _THREE else (found,) if name in _ONE else ()
    if (name in _THREE and len(found) != 3) or not all(type(size) is int and size >= 1 for size in sizes):
        raise ValueError(f"{name}={value!r} is not a valid size of a layer")
    if name == "data_format" and found != "channels_last":
        raise ValueError(f"{name}={value!r} is not supported")
    return found


def _plain(value: Any) -> Any:
    """A setting, with tuples instead of lists."""
    if isinstance(value, list):
        return tuple(map(_plain, value))
    if not isinstance(value, (bool, int, float, str, type(None))) or (
        isinstance(value, int) and abs(value) > _LARGEST_NUMBER
    ):
        raise ValueError(f"{value!r} is not a valid setting of a layer")
    return value
