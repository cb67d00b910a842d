"""Reshapes that keep rows and columns separate and so apply to each slice of a volume."""

from collections.abc import Sequence
from typing import Any

from keras import layers

from planar3d.conversion.place import Place, Rule, Step
from planar3d.errors import ConversionError


def reshape(operation: Any, place: Place) -> list[Step]:
    """Reshape, Flatten and similar layers that keep rows and columns, with one of each, or give a vector per slice."""
    before, after = place.inputs[0].shape[1:], place.outputs[0].shape[1:]
    if None not in (*before, *after) and len(after) == 1 and place.has_depth and not place.whole_volume:
        return _vector_of_each_slice(operation, after[0], place)
    if None in (*_plane(before), *after) or _plane(before) != _plane(after):
        raise ConversionError(
            f"{operation.name} ({type(operation).__name__}) turns {_sizes(before)} of a slice into {_sizes(after)}, "
            "which depends on the number of rows and columns and has no meaning in a volume. Pool first, e.g. with "
            "GlobalAveragePooling2D, or convert the network without its top (include_top=False)."
        )
    return [Step(layers.Reshape(_target(after, place), name=operation.name))]


def _vector_of_each_slice(operation: Any, length: int, place: Place) -> list[Step]:
    # A slice must be contiguous, so depth is first.
    step = Step(layers.Reshape((-1, length), name=operation.name))
    if place.layout.position(place.rank) == 1:
        return [step]
    return [Step(layers.Permute(place.layout.depth_first(place.rank), name=f"{operation.name}_to")), step]


def permute(layer: layers.Permute, place: Place) -> list[Step]:
    """The same order of axes, with depth in place."""
    moved = layer.dims
    if place.has_depth:
        axes = [place.layout.axis_in_3d(axis, place.rank) for axis in moved]
        moved = place.layout.with_depth((None, *axes), place.layout.position(place.rank))[1:]
    return [Step(layers.Permute(moved, name=layer.name, dtype=layer.dtype_policy))]


def _target(after: Sequence[int], place: Place) -> tuple[int, ...]:
    vector = len(after) < 3
    # After pooling over the volume one slice is left; its vector has no depth.
    of_volume = not place.has_depth or (place.whole_volume and place.depth == 1)
    if of_volume and vector:
        return tuple(after)
    return place.layout.with_depth((None, *after), 1 if of_volume else -1)[1:]


def _plane(shape: Sequence[Any]) -> tuple[Any, ...]:
    """The rows and columns of a 2D shape without batch; 1 and 1 for a vector."""
    return tuple(shape[:2]) if len(shape) >= 3 else (1, 1)


def _sizes(shape: Sequence[Any]) -> str:
    return "×".join("?" if size is None else str(size) for size in shape)


RULES: dict[type, Rule] = {layers.Flatten: reshape, layers.Permute: permute, layers.Reshape: reshape}
