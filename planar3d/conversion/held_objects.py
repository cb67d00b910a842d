"""Functions and objects of 2D layers: reused, if they do the same in 3D as in 2D."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from planar3d.conversion.depthwise import computed_on_images
from planar3d.graph.keras_graph import applied, lambda_again, layers_within, without_random_weights

PARTS = ("initializer", "regularizer", "constraint")
_HELD = ("activation", *(f"_{part}" for part in PARTS))
# They sum over all weights, whatever their shape.
_SUMS = (keras.regularizers.L1, keras.regularizers.L1L2, keras.regularizers.L2)
# Rows and columns on which a function is tested; other sizes give the same answer.
_TRIED = (5, 6)


def held_and_plain(operation: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The functions and objects of a layer, by name, and the rest of its configuration.

    A configuration has only a function's name, which may be Keras' name for another function.
    """
    held = {name: value for name, value in vars(operation).items() if name.endswith(_HELD)}
    # get_config fails on objects that cannot be serialized, so it is called without them.
    bare = object.__new__(type(operation))
    without = {name: keras.activations.linear if name.endswith("activation") else None for name in held}
    bare.__dict__.update({**vars(operation), **without})
    config = bare.get_config()
    # A configuration has an activity_regularizer only if the layer has one that was given.
    given = not isinstance(operation, keras.layers.ActivityRegularization)
    named = {name: value for name, value in held.items() if name in config or (given and value is not None)}
    return named, {name: value for name, value in config.items() if name not in held}


def rebuilt(operation: Any, kind: Any = None, **changes: Any) -> Any:
    """A new layer or operation of the same or another `kind`, with the same functions and objects, without weights."""
    if isinstance(operation, keras.layers.Lambda):  # Keras does not read the code in its configuration
        return lambda_again(operation, **changes)
    held, plain = held_and_plain(operation)
    made = (kind or type(operation)).from_config({**plain, **held, **changes})
    return computed_on_images(made) if type(made) is keras.layers.Conv3D else made


def cloned(network: keras.Model, change: Callable[[Any], Any]) -> keras.Model:
    """A copy of a functional network of changed layers, with its weights, which is not compiled.

    Keras would also copy what the network was compiled with, and fails on a user's own loss that is not registered.
    """
    compiled = [model for model in layers_within(network, keras.Model) if model.compiled]
    with without_random_weights():
        try:
            for model in compiled:
                model.compiled = False
            call = None if isinstance(network, keras.Sequential) else applied  # Keras takes none for these
            made = keras.models.clone_model(network, clone_function=change, call_function=call, recursive=True)
        finally:
            for model in compiled:
                model.compiled = True
    made.set_weights(network.get_weights())
    return made


def has_weights(activation: Any) -> bool:
    """Whether an activation is a layer with weights, or one that creates them on its first call."""
    return isinstance(activation, keras.Layer) and (bool(activation.weights) or not activation.built)


def is_kerass_own(function: Any) -> bool:
    """Whether a function is in keras.activations, which all act on each value or on the last axis."""
    return getattr(keras.activations, getattr(function, "__name__", ""), None) is function


def check_activation(layer: Any, shape: Sequence[Any], position: int) -> None:
    """Refuse an activation whose result on a volume, with depth at `position`, differs from its result on each slice.

    A `ValueError` if it mixes rows, columns, slices or samples, is random, or fails on a volume.
    """
    function = layer.activation
    if is_kerass_own(function) or _acts_in_slices(function, shape, position):
        return
    raise ValueError(
        f"it applies {_named(function)}, which does not do the same on a volume as on each slice. Use an elementwise "
        "function (or one over channels, axis=-1), or a Keras layer"
    )


def _acts_in_slices(function: Callable[[Any], Any], shape: Sequence[Any], position: int) -> bool:
    sizes = [_TRIED[0] if size is None else size for size in shape[1:]]
    if len(sizes) >= 3:
        sizes[:2] = _TRIED
    slices = 4 * np.random.default_rng(0).normal(size=(2, 3, *sizes)).astype(np.float32)
    # Slice by slice, since a function of the whole batch would combine slices in 2D as well.
    flat = [_result(function, each[np.newaxis]) for each in slices.reshape(-1, *sizes)]
    known = [each for each in flat if each is not None]
    if len(known) < len(flat):
        return False
    expected = np.stack(known).reshape(2, 3, *known[0].shape[1:])
    return _is_near(_result(function, np.moveaxis(slices, 1, position)), np.moveaxis(expected, 1, position))


def grouped(kernel: np.ndarray) -> np.ndarray:
    """A depthwise kernel (kh, kw, cin, multiplier) as a grouped one (kh, kw, 1, cin·multiplier)."""
    return kernel.reshape(*kernel.shape[:2], 1, -1)


def weight_objects(layer: Any, kind: str, shape: tuple[int, ...], axis: int | None) -> dict[str, Any]:
    """The regularizer and the constraint of a weight, for the weight in 3D, by `regularizer` and `constraint`.

    Args:
        kind: what the weight is called there: `kernel`, `depthwise` (which is grouped in 3D), `pointwise`, `alpha`.
        shape: of the 2D weight.
        axis: where depth lies among the weight's axes; None if it stays 2D.
    """

    def to_3d(weight: np.ndarray) -> np.ndarray:
        weight = grouped(weight) if kind == "depthwise" else weight
        return weight if axis is None else np.expand_dims(weight, axis)

    regularizer, constraint = (getattr(layer, f"{kind}_{part}") for part in ("regularizer", "constraint"))
    is_sum = regularizer is None or type(regularizer) in _SUMS
    if is_sum and constraint is None:
        return {"regularizer": regularizer, "constraint": None}
    tried = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    if not is_sum:
        expected = _result(regularizer, tried)
        if expected is not None and not _is_near(_result(regularizer, to_3d(tried)), expected):
            raise _refusal(f"{kind}_regularizer", regularizer)
    if constraint is not None:
        expected = _result(constraint, tried)
        moved = _with_axes_moved(constraint, shape, kind == "depthwise", axis)
        if expected is None or not _is_near(_result(moved, to_3d(tried)), to_3d(expected)):
            raise _refusal(f"{kind}_constraint", constraint)
        constraint = moved
    return {"regularizer": regularizer, "constraint": constraint}


def _with_axes_moved(constraint: Any, shape: tuple[int, ...], is_grouped: bool, depth: int | None) -> Any:
    """The constraint with its axes in 3D, as far as they exist there, if it names axes; else itself."""
    given = getattr(constraint, "axis", None)
    if given is None or (depth is None and not is_grouped):
        return constraint
    axes = {axis % len(shape) for axis in np.atleast_1d(given).tolist()}
    if is_grouped:  # (kh, kw, channels, multiplier) became (kh, kw, 1, channels · multiplier)
        axes = {axis if axis < 2 else 3 for axis in axes if axis < 2 or shape[axis] > 1}
    if depth is not None:
        # A norm over the plane of the kernel must also include its depth.
        whole = {depth} if {0, 1} <= axes else set()
        axes = {axis + (axis >= depth) for axis in axes} | whole
    moved = copy.copy(constraint)
    moved.axis = sorted(axes) if len(axes) != 1 else axes.pop()
    return moved


def _refusal(part: str, held: Any) -> ValueError:
    return ValueError(
        f"its {part} {_named(held)} does not do the same to a 3D weight as to a 2D weight. Set layer.{part} = None "
        "before the conversion, and a 3D one afterwards"
    )


def _result(function: Callable[[Any], Any], array: np.ndarray) -> np.ndarray | None:
    """What a function gives, or None if it fails."""
    try:
        return np.asarray(keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(array))))
    except Exception:  # a user's function may raise anything on unexpected shapes
        return None


def _is_near(found: np.ndarray | None, expected: np.ndarray) -> bool:
    return (
        found is not None
        and found.shape == expected.shape
        and np.allclose(found, expected, rtol=1e-4, atol=1e-5, equal_nan=True)
    )


def _named(function: Any) -> str:
    return repr(getattr(function, "__name__", type(function).__name__))
