"""A description as JSON, which a weights file carries; its arrays are the file's, and its shapes follow from an input.

The JSON may come from elsewhere: what it says is checked, and none of it is run.
"""

import json
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from planar3d.errors import Planar3DError, WeightsError
from planar3d.graph.description import Description, Layer, Shape
from planar3d.graph.layers import KINDS, shape_of

VERSION = 1
_MOST_LAYERS, _LARGEST_NUMBER, _LARGEST_TENSOR = 10_000, 2**20, 2**36  # of any honest network, generously


def can_be_stored(network: Description) -> bool:
    """Whether all that the network has can be computed by the description alone."""
    return len(network.inputs) == 1 and all(
        layer.kind in KINDS and KINDS[layer.kind].write is not None for layer in network.layers
    )


def to_json(network: Description, named: Callable[[Any], str]) -> dict[str, Any]:
    """A description as JSON values.

    Args:
        network: of one input, and kinds of layers that can be written in operators.
        named: the name in the weights file of an array of the description's.
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
        content: as `to_json` gives it.
        arrays: of the weights file, by `layer/weight`.
        window: (depth, rows, cols, channels) that the network is to take; depth and channels are the description's.

    Raises:
        WeightsError: it is of another version, is damaged, or has other arrays or takes other windows.
    """
    try:
        if content["version"] != VERSION:
            raise ValueError(f"it is of version {content['version']}, and {VERSION} is known")
        depth, *_, channels = content["input"]
        if (depth, channels) != (window[0], window[-1]):
            raise ValueError(f"it takes windows of {content['input']}, and {list(window)} is asked for")
        if len(content["layers"]) > _MOST_LAYERS:
            raise ValueError(f"it has {len(content['layers'])} layers")
        shapes: list[Shape] = [(None, *window)]
        layers = []
        for said in content["layers"]:
            layers.append(_layer(said, arrays, shapes))
            shapes.append(layers[-1].shape)
        outputs = tuple(content["outputs"])
        if not all(0 <= number < len(shapes) for number in outputs):
            raise ValueError("its outputs are not there")
        return Description(str(content["name"]), (shapes[0],), tuple(layers), outputs)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, Planar3DError) as error:
        raise WeightsError(f"The description of the network cannot be used: {error}.") from error


def _layer(said: Mapping[str, Any], arrays: Mapping[str, np.ndarray], shapes: list[Shape]) -> Layer:
    known = KINDS[said["kind"]]
    inputs = tuple(said["inputs"])
    if known.write is None or not inputs or not all(0 <= number < len(shapes) for number in inputs):
        raise ValueError(f"{said['name']} cannot be computed of what is before it")
    settings = {name: _plain(said["settings"][name]) for name in known.settings}
    held = {part: arrays[name] for part, name in said.get("arrays", {}).items()}
    layer = Layer(said["kind"], str(said["name"]), inputs, (), settings, held)
    shape = shape_of(layer, *(shapes[number] for number in inputs))
    if not all(length is None or length > 0 for length in shape) or prod(n or 1 for n in shape) > _LARGEST_TENSOR:
        raise ValueError(f"{layer.name} would give {shape}")
    return Layer(layer.kind, layer.name, inputs, shape, settings, held)


def _plain(value: Any) -> Any:
    """A setting as it was, with tuples in place of lists."""
    if isinstance(value, list):
        return tuple(map(_plain, value))
    if not isinstance(value, (bool, int, float, str, type(None))) or (
        isinstance(value, int) and abs(value) > _LARGEST_NUMBER
    ):
        raise ValueError(f"{value!r} is no setting of a layer")
    return value
