"""Conversion rules of operations in a graph (`x + y`, `keras.ops.mean(x, …)`), by type name."""

from collections.abc import Sequence
from functools import partial
from inspect import signature
from typing import Any

import keras
import numpy as np
from keras import tree

from planar3d.conversion.layer_rules import RULES, everywhere
from planar3d.conversion.place import DepthAxis, Place, Rule, Step
from planar3d.conversion.slices import OF_BATCH, reshape
from planar3d.graph.keras_graph import ExpandDims, Moveaxis, operation_kind

_EACH_VALUE = (
    "Absolute Add Arctan Cast Ceil Celu Clip Cos Divide DivideNoNan Elu Equal Erf Exp Expm1 Floor Gelu Greater "
    "GreaterEqual HardShrink HardSigmoid HardSilu HardTanh Isfinite Isnan LeakyRelu Less LessEqual Log Log10 Log1p "
    "Log2 LogSigmoid Logaddexp LogicalAnd LogicalNot LogicalOr Maximum Minimum Mod Multiply NanToNum Negative "
    "NotEqual OnesLike Power Reciprocal Relu Relu6 Round Rsqrt Selu Sigmoid Sign Silu Sin SoftShrink Softplus "
    "Softsign SparsePlus SparseSigmoid Sqrt Square Squareplus Subtract Tan Tanh TanhShrink Threshold TrueDivide Where "
    "ZerosLike"
)
_ALONG_AXIS = "Concatenate Cumprod Cumsum Flip Glu LogSoftmax Normalize Roll Softmax Sparsemax Split"
_REDUCING = "All Amax Amin Any Logsumexp Max Mean Min Prod Std Sum Var"


def each_value(operation: Any, place: Place) -> list[Step]:
    """Elementwise operations are the same in 3D; their constant arrays are laid out like their arguments."""
    if place.has_depth and len({len(flat.shape) for flat in place.inputs}) > 1:  # lined up from their last axes
        raise ValueError(OF_BATCH)
    arrays = {name: place.constant(value) for name, value in vars(operation).items() if hasattr(value, "__array__")}
    return [_again(operation, **arrays)]


def along_axis(operation: Any, place: Place, removing: bool = False) -> list[Step]:
    """Operations along axes, which they may remove: the corresponding axes in 3D."""
    axes = _axes(operation, place)
    moved = tuple(_moved(axis, place) for axis in axes)
    step = _again(operation, axis=moved[0] if isinstance(operation.axis, int) else moved)
    return _without(axes if removing else (), step, place)


def reduce(operation: Any, place: Place) -> list[Step]:
    """Reductions over the same axes; also over depth for the whole plane with global pooling over the volume."""
    axes = _axes(operation, place)
    if place.whole_volume and place.has_depth and place.rank >= 4 and {1, 2} <= set(axes):
        moved = [_moved(axis, place) for axis in axes]
        return [_again(operation, axis=sorted([*moved, place.depth_axis.position(place.rank)]))]
    return along_axis(operation, place, removing=not operation.keepdims)


def take(operation: Any, place: Place) -> list[Step]:
    """The same entries along an axis; a single entry removes the axis."""
    if len(place.inputs) > 1 or np.ndim(place.arguments[1]) > 1:
        raise ValueError("its indices are computed by the network, or are an array of several axes")
    return along_axis(operation, place, removing=np.ndim(place.arguments[1]) == 0)


def squeeze(operation: Any, place: Place) -> list[Step]:
    """Without axes of size one, except depth."""
    sizes = place.inputs[0].shape
    ones = [axis for axis in range(1, place.rank) if sizes[axis] == 1]
    axes = ones if operation.axis is None else _axes(operation, place)
    if not place.has_depth or (place.whole_volume and {1, 2} & set(axes)):
        return reshape(operation, place)
    if not axes:  # for which TensorFlow takes all of size one, the batch and depth too
        return [Step(keras.layers.Identity(name=operation.name, dtype=place.precision))]
    return _without(axes, _again(operation, axis=tuple(_moved(axis, place) for axis in axes)), place)


def expand(operation: Any, place: Place) -> list[Step]:
    """With new axes at the same positions of each slice: `stack`, `expand_dims`."""
    if not place.has_depth:
        return reshape(operation, place) if type(operation) is ExpandDims else [_again(operation)]
    rank = len(place.outputs[0].shape)
    new = {axis % rank for axis in _listed(operation.axis)}
    if 0 in new:
        raise ValueError(OF_BATCH)
    old = [axis for axis in range(rank) if axis not in new]
    natural = old[place.depth_axis.position(place.rank)]  # depth stays before the same axis
    moved = sorted(axis + (axis >= natural) for axis in new)
    return _relaid(
        _again(operation, axis=moved[0] if isinstance(operation.axis, int) else tuple(moved)), natural, place
    )


def get_item(operation: Any, place: Place) -> list[Step]:
    """The same rows, columns and channels of each slice; single indices remove their axis, as in 2D."""
    return _relaid(_again(operation), _key_in_3d(place)[1], place) if place.has_depth else [_again(operation)]


def transpose(operation: Any, place: Place) -> list[Step]:
    """The same order of axes, with depth in place."""
    order = [axis % place.rank for axis in operation.axes or range(place.rank)[::-1]]
    if order[0] != 0:
        raise ValueError(OF_BATCH)
    if not place.has_depth:
        return [_again(operation)]
    moved = [place.depth_axis.axis_in_3d(axis, place.rank) for axis in order]
    position = place.depth_axis.position(place.rank)
    return [_again(operation, axes=place.depth_axis.with_depth(moved, position))]


def of_rank(rank: int, flat: Any, volume: Any, depth_axis: DepthAxis, name: str) -> list[Step]:
    """Steps from a volume to that of its 2D tensor with so many axes, the new ones behind the batch."""
    position, new = depth_axis.position(len(flat.shape)), rank - len(flat.shape)
    steps = [] if len(volume.shape) > len(flat.shape) else [Step(ExpandDims(position, name=name))]
    steps.append(Step(ExpandDims(tuple(range(1, 1 + new)), name=name)))
    return [*steps, Step(Moveaxis(position + new, depth_axis.position(rank), name=f"{name}_depth"))]


def arguments_in_3d(operation: Any, args: Any, kwargs: Any, place: Place) -> tuple[Any, Any]:
    """The arguments of an operation, depth inserted into positions and maps; a `ValueError` if that means nothing."""
    rule = rule_of(operation) or RULES.get(type(operation))
    if rule is get_item and place.has_depth:
        return (args[0], _key_in_3d(place)[0]), kwargs
    if rule is each_value:
        args = [np.asarray(value) if isinstance(value, (list, tuple)) else value for value in args]
    if rule in (each_value, everywhere) or isinstance(operation, keras.layers.Softmax):  # which takes a mask
        return tree.map_structure(lambda value: place.constant(value), (args, kwargs))
    return args, kwargs


def rule_of(operation: Any) -> Rule | None:
    """The rule of an operation of keras.ops, or None."""
    return _RULES.get(operation_kind(operation))


def _again(operation: Any, **changes: Any) -> Step:
    """The same operation, with changes. Keras gives no configuration of operations with arrays."""
    names = signature(type(operation).__init__).parameters.keys() & vars(operation).keys()
    return Step(type(operation)(**{**{name: getattr(operation, name) for name in names}, **changes}))


def _listed(axis: Any) -> list[int]:
    return [axis] if isinstance(axis, int) else list(axis)


def _axes(operation: Any, place: Place) -> list[int]:
    """The axes of an operation, counted from the batch."""
    axes = [] if operation.axis is None else [axis % place.rank for axis in _listed(operation.axis)]
    if 0 in axes or not axes:
        raise ValueError(OF_BATCH)
    return axes


def _moved(axis: int, place: Place) -> int:
    return place.depth_axis.axis_in_3d(axis, place.rank) if place.has_depth else axis


def _without(axes: Sequence[int], step: Step, place: Place) -> list[Step]:
    """A step that removes axes of its 2D input."""
    position = place.depth_axis.position(place.rank)
    return _relaid(step, position - sum(axis < position for axis in axes), place)


def _relaid(step: Step, natural: int, place: Place) -> list[Step]:
    """A step, followed by a step that moves depth to its position."""
    wanted = place.depth_axis.position(place.rank_behind)
    if not place.has_depth or natural == wanted:
        return [step]
    return [step, Step(Moveaxis(natural, wanted, name=f"{step.operation.name}_depth"))]


def _key_in_3d(place: Place) -> tuple[tuple[Any, ...], int]:
    """The key of `x[key]` with all of depth, and the axis of depth in the result."""
    key = place.arguments[1]
    entries = list(key) if isinstance(key, (list, tuple)) else [key]
    whole = [slice(None)] * (place.rank - sum(entry is not None and entry is not Ellipsis for entry in entries))
    if Ellipsis in entries:
        where = entries.index(Ellipsis)
        entries[where : where + 1] = whole
    else:
        entries += whole
    if not isinstance(entries[0], slice):
        raise ValueError(OF_BATCH)
    taken = [number for number, entry in enumerate(entries) if entry is not None]
    before = taken[place.depth_axis.position(place.rank)]
    natural = sum(entry is None or isinstance(entry, slice) for entry in entries[:before])
    return (*entries[:before], slice(None), *entries[before:]), natural


_RULES: dict[str, Rule] = {
    **dict.fromkeys(_EACH_VALUE.split(), each_value),
    **dict.fromkeys(_ALONG_AXIS.split(), along_axis),
    **dict.fromkeys(_REDUCING.split(), reduce),
    "ExpandDims": expand,
    "GetItem": get_item,
    "Reshape": reshape,
    "Squeeze": squeeze,
    "Stack": expand,
    "Take": take,
    "Transpose": transpose,
    "Unstack": partial(along_axis, removing=True),
}
