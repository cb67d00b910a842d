"""Descriptions of networks for weights files: in the file itself, or in the user's cache.

With a description, prediction works without Keras, whose import takes as long as a scan. Files of this package contain
their descriptions, with digests in their cards; descriptions of other files are stored in the user's cache by the
files' digests, once Keras has built their networks.

A description is JSON; its arrays are the file's, and its shapes follow from the input's. It is untrusted: values are
checked, and none of it is executed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from planar3d import __version__
from planar3d.errors import ConversionError, Planar3DError, WeightsError
from planar3d.graph.description import Description, Layer, Shape
from planar3d.graph.layers import KINDS, check_written, kind_of, shape_of
from planar3d.recipes import Recipe
from planar3d.transfer.download import cached_result, keep_result
from planar3d.transfer.metadata import DESCRIBED, read_description
from planar3d.transfer.published_models import published_models
from planar3d.transfer.weight_places import places_of

if TYPE_CHECKING:
    import keras

_KEPT = "descriptions"  # kind of results in the user's cache
_VERSION = 1
# Generous limits for real networks; the last are values in a layer's output, and in all outputs together.
_MOST_LAYERS, _LARGEST_NUMBER, _LARGEST_TENSOR, _LARGEST_SUM = 10_000, 2**20, 2**31, 2**34
_THREE = ("strides", "kernel_size", "pool_size", "size", "dilation_rate")  # numbers from 1 on, one per axis
_ONE = ("filters", "groups", "units")
_UNUSABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, Planar3DError)


def describe_for(arrays: Mapping[str, np.ndarray], network: "keras.Model") -> dict[str, Any] | None:
    """Describe a network for a file with these arrays, as JSON values; None if it needs Keras in any case."""
    from planar3d.graph.described import described

    names = {id(place.variable): place.found_in(arrays) for place in places_of(network)}
    try:
        description = described(network)
    except ConversionError:
        return None
    held = [names.get(id(array)) for layer in description.layers for array in layer.arrays.values()]
    can_be_written = all(kind_of(layer).write for layer in description.layers)
    if len(description.inputs) != 1 or not can_be_written or None in held:
        return None
    layers = [
        {
            "kind": layer.kind,
            "name": layer.name,
            "inputs": layer.inputs,
            **({"settings": dict(layer.settings)} if layer.settings else {}),
            **({"arrays": {part: names[id(array)] for part, array in layer.arrays.items()}} if layer.arrays else {}),
        }
        for layer in description.layers
    ]
    content = {"version": _VERSION, "name": description.name, "input": description.inputs[0][1:], "layers": layers}
    return json.loads(json.dumps(content | {"outputs": description.outputs}))


def known_description(
    path: Path, sha256: str, card: Mapping[str, Any], arrays: Mapping[str, np.ndarray], recipe: Recipe
) -> Description | None:
    """The own network of a weights file, in the sizes of a recipe for it; None without a usable description."""
    for content in _said(path, sha256, card):
        with suppress(WeightsError):  # building with Keras reports the error
            return from_json(content, arrays, recipe.window)
    return None


def asks_for_one_network(one: Recipe, other: Recipe) -> bool:
    """Whether two recipes have the same layers, which do not depend on rows and columns."""

    def requested(recipe: Recipe) -> tuple[Any, ...]:
        depth, *_, channels = recipe.window
        return recipe.network, recipe.targets.outputs, recipe.targets.activation, depth, channels

    return requested(one) == requested(other)


def keep_description(sha256: str, arrays: Mapping[str, np.ndarray], network: "keras.Model") -> None:
    """Store the description of a file's network in the user's cache, if that is writable."""
    content = describe_for(arrays, network)
    if content is not None:
        keep_result(_KEPT, _conditions(sha256), content)


def _said(path: Path, sha256: str, card: Mapping[str, Any]) -> Iterator[Any]:
    stated, is_published = card.get(DESCRIBED), sha256 in {model.sha256 for model in published_models().values()}
    if is_published or isinstance(stated, str):
        yield read_description(path, None if is_published else stated)
    yield cached_result(_KEPT, _conditions(sha256))


def _conditions(sha256: str) -> dict[str, str]:
    return {"weights": sha256, "planar3d": __version__}


def from_json(content: Any, arrays: Mapping[str, np.ndarray], window: Shape) -> Description:
    """Read a description for the arrays of a weights file, and a window (depth, rows, cols, channels).

    Raises:
        WeightsError: it has another version, is damaged, has arrays that differ from the file or in shape from its
            layers, or takes other windows.
    """
    try:
        if content["version"] != _VERSION:
            raise ValueError(f"it is of version {content['version']}, but this version of planar3d reads {_VERSION}")
        depth, *_, channels = content["input"]
        if (depth, channels) != (window[0], window[-1]):
            raise ValueError(f"it takes windows of {content['input']}, but {list(window)} was requested")
        if len(content["layers"]) > _MOST_LAYERS:
            raise ValueError(f"the number of its layers is {len(content['layers'])}")
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
    settings = {name: _setting(name, said["settings"][name]) for name in known.settings}
    held = {part: arrays[name] for part, name in said.get("arrays", {}).items()}
    layer, taken = Layer(said["kind"], str(said["name"]), inputs, (), settings, held), [shapes[n] for n in inputs]
    shape, needed = shape_of(layer, *taken), known.arrays(layer, *taken)
    if not all(length is None or length > 0 for length in shape) or _values(shape) > _LARGEST_TENSOR:
        raise ValueError(f"{layer.name} would give {shape}")
    if (found := {part: array.shape for part, array in held.items()}) != needed:
        raise ValueError(f"{layer.name} has arrays of the shapes {found}, but needs {needed}")
    check_written(layer, taken)
    return replace(layer, shape=shape)


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
    is_plain = isinstance(value, bool | int | float | str | None)
    if not is_plain or (isinstance(value, int) and abs(value) > _LARGEST_NUMBER):
        raise ValueError(f"{value!r} is not a valid setting of a layer")
    return value
