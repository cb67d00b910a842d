"""Operations that Keras records in a graph (`x + y`, `keras.ops.mean(x, …)`), by the name of their type."""

from typing import Any

from keras import tree

from planar3d.conversion.place import Place, Rule, Step
from planar3d.conversion.reshapes import reshape

_EACH_VALUE = (
    "Absolute Add Cast Clip Cos Divide DivideNoNan Elu Erf Exp Expm1 Gelu HardSigmoid HardSilu HardTanh "
    "LeakyRelu Log Log1p LogSigmoid Maximum Minimum Mod Multiply Negative Power Reciprocal Relu Relu6 Rsqrt Selu "
    "Sigmoid Sign Silu Sin Softplus Softsign Sqrt Square Subtract Tanh TrueDivide Where"
)
_ALONG_AXIS = "Concatenate LogSoftmax Softmax"
_REDUCING = "Amax Amin Max Mean Min Std Sum Var"
_RESHAPING = "ExpandDims Reshape Squeeze"


def each_value(operation: Any, place: Place) -> list[Step]:
    """What is done to each value is the same in 3D."""
    return [_again(operation)]


def along_axis(operation: Any, place: Place) -> list[Step]:
    """Along the same axis, found again in 3D."""
    return [_again(operation, axis=_moved(operation.axis, place))]


def reduce(operation: Any, place: Place) -> list[Step]:
    """Over the same axes; over depth too where these are all of the plane and the volume is asked for."""
    axes = operation.axis if isinstance(operation.axis, (list, tuple)) else [operation.axis]
    if any(axis is None or axis % place.rank == 0 for axis in axes):
        raise ValueError("it joins the samples of a batch")
    moved = [_moved(axis, place) for axis in axes]
    if place.whole_volume and place.has_depth and place.rank >= 4 and {1, 2} <= {axis % place.rank for axis in axes}:
        moved.append(place.layout.position(place.rank))
    return [_again(operation, axis=sorted(moved))]


def arguments_in_3d(operation: Any, args: Any, kwargs: Any, place: Place) -> tuple[Any, Any]:
    """The arguments of an operation, with depth put into those that name places.

    Raises:
        ValueError: they have no meaning in 3D.
    """
    if type(operation).__name__ == "GetItem" and place.has_depth:
        return (args[0], _key_in_3d(args[1], place)), kwargs
    for value in tree.flatten((args, kwargs)):
        if not hasattr(value, "_keras_history") and len(getattr(value, "shape", ())) > 1:
            raise ValueError(f"it takes an array of the shape {tuple(value.shape)}; only numbers and vectors are known")
    return args, kwargs


def rule_of(operation: Any) -> Rule | None:
    """The rule of an operation of keras.ops, or None."""
    return _RULES.get(type(operation).__name__) if type(operation).__module__.startswith("keras.src.ops.") else None


def _again(operation: Any, **changes: Any) -> Step:
    return Step(type(operation).from_config({**operation.get_config(), **changes}))


def _moved(axis: int, place: Place) -> int:
    return place.layout.axis_in_3d(axis, place.rank) if place.has_depth else axis


def _key_in_3d(key: Any, place: Place) -> tuple[Any, ...]:
    """Slices of rows, columns and channels; depth is taken whole."""
    entries = list(key) if isinstance(key, (list, tuple)) else [key]
    if Ellipsis in entries:
        where = entries.index(Ellipsis)
        entries[where : where + 1] = [slice(None)] * (place.rank - len(entries) + 1)
    if not all(isinstance(entry, slice) for entry in entries):
        raise ValueError("it takes single rows, columns or channels; only slices such as x[:, 1:, :-1] are known")
    entries += [slice(None)] * (place.rank - len(entries))
    return place.layout.with_depth(entries, slice(None))


_RULES: dict[str, Rule] = {
    **dict.fromkeys(_EACH_VALUE.split(), each_value),
    **dict.fromkeys(_ALONG_AXIS.split(), along_axis),
    **dict.fromkeys(_REDUCING.split(), reduce),
    **dict.fromkeys(_RESHAPING.split(), reshape),
    "GetItem": each_value,
}
