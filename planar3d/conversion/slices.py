"""Conversion rules of layers that treat each slice alone: as an image, as tokens, or as a vector."""

from collections.abc import Sequence
from math import prod
from typing import Any

from keras import layers

from planar3d.conversion.place import Place, Step, Taken, copied
from planar3d.graph.keras_graph import mask_of

OF_BATCH = (
    "it joins the samples of a batch. Put it, and what follows until they are apart again, into a layer of your own, "
    "which counterparts can apply to each slice"
)
_ATTENDED = ("query", "value", "key", "training")


def by_slice(layer: Any, place: Place, **changes: Any) -> list[Step]:
    """A 2D layer applied to each slice."""
    step = copied(layer, **changes)
    if not place.has_depth:
        return [step]
    wrapped = layers.TimeDistributed(step.operation, name=layer.name, dtype=layer.dtype_policy)
    return _depth_first(layer, Step(wrapped, step.arrays, step.mapping), place)


def attention(layer: layers.MultiHeadAttention, place: Place) -> list[Step]:
    """Attention within each slice, over the corresponding axes."""
    # After query, value and key come masks, which Keras lays out for the axes of 2D, and more outputs.
    others = [*place.arguments[3:], *(held for name, held in place.named.items() if name not in _ATTENDED)]
    if place.has_depth:  # Keras does not record the masks of tensors
        others += map(mask_of, place.inputs)
    if any(held is not None and held is not False for held in others):
        raise ValueError(
            "it has a mask (perhaps from Masking or Embedding(mask_zero=True) before it) or returns its scores; both "
            "are for the axes of a slice. Build the network without them"
        )
    if place.rank > 3 and len(layer.attention_axes) == 1:
        raise ValueError(
            "its scores would have more axes than TensorFlow's softmax takes. Reshape maps to tokens first"
        )
    axes = [place.depth_axis.axis_in_3d(axis, place.rank) if place.has_depth else axis for axis in layer.attention_axes]
    made = layers.MultiHeadAttention.from_config(layer.get_config() | {"attention_axes": tuple(axes)})
    return [Step(made, [Taken(weight) for weight in layer.weights], "copied")]


def reshape(operation: Any, place: Place) -> list[Step]:
    """Reshape, Flatten and similar layers: of each slice, or of channels where rows and columns stay, of any number."""
    before, after = place.inputs[0].shape[1:], place.outputs[0].shape[1:]
    is_known, keeps_plane = None not in (*before, *after), _plane(before) == _plane(after)
    if is_known and prod(before) != prod(after):
        raise ValueError(OF_BATCH)
    if is_known and place.has_depth and not place.whole_volume and (len(after) == 1 or not keeps_plane):
        return _depth_first(operation, Step(_reshape((-1, *after), operation, place)), place)
    if None in (*_plane(before), *after) or not keeps_plane:
        raise ValueError(
            f"it turns {_sizes(before)} of a slice into {_sizes(after)}, which depends on the number of rows and "
            "columns and has no meaning in a volume. Build the network for images of a known size and convert it with "
            "global_pooling='slice', pool first, e.g. with GlobalAveragePooling2D, or convert it without its top "
            "(include_top=False)"
        )
    return [Step(_reshape(_target(after, place), operation, place))]


def _reshape(target: Sequence[int], operation: Any, place: Place) -> layers.Reshape:
    return layers.Reshape(target, name=operation.name, dtype=place.precision)


def permute(layer: layers.Permute, place: Place) -> list[Step]:
    """The same order of axes, with depth in place."""
    moved = layer.dims
    if place.has_depth:
        axes = [place.depth_axis.axis_in_3d(axis, place.rank) for axis in moved]
        moved = place.depth_axis.with_depth((None, *axes), place.depth_axis.position(place.rank))[1:]
    return [Step(layers.Permute(moved, name=layer.name, dtype=layer.dtype_policy))]


def _depth_first(operation: Any, step: Step, place: Place) -> list[Step]:
    """A step on volumes whose depth comes first; it is moved there and back if it lies elsewhere."""
    there, behind = (place.depth_axis.depth_first(rank) for rank in (place.rank, place.rank_behind))
    back = [1 + behind.index(axis) for axis in range(1, place.rank_behind + 1)]
    return [*_permuted(operation, there, place, "_to"), step, *_permuted(operation, back, place, "_fro")]


def _permuted(operation: Any, order: list[int], place: Place, suffix: str) -> list[Step]:
    """A step to another order of axes; none for the same order."""
    made = layers.Permute(order, name=f"{operation.name}{suffix}", dtype=place.precision)
    return [] if order == sorted(order) else [Step(made)]


def _target(after: Sequence[int], place: Place) -> tuple[int, ...]:
    vector = len(after) < 3
    # After pooling over the volume one slice is left; its vector has no depth.
    of_volume = not place.has_depth or (place.whole_volume and place.depth == 1)
    if of_volume and vector:
        return tuple(after)
    return place.depth_axis.with_depth((None, *after), 1 if of_volume else -1)[1:]


def _plane(shape: Sequence[Any]) -> tuple[Any, ...]:
    """The rows and columns of a 2D shape without batch; 1 and 1 for a vector."""
    return tuple(shape[:2]) if len(shape) >= 3 else (1, 1)


def _sizes(shape: Sequence[Any]) -> str:
    return "×".join("?" if size is None else str(size) for size in shape)
