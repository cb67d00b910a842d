"""Input and output of conversion rules: a 2D layer at its place, depth in 3D, and the 3D steps with their weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from planar3d.conversion.choices import KernelMapping
from planar3d.conversion.held_objects import has_weights, held_and_plain, rebuilt
from planar3d.transfer.weight_places import Origin, path_within


@dataclass(frozen=True)
class DepthAxis:
    """A 3D tensor is its 2D tensor with depth inserted: beside or between a map's rows and cols, first in a vector."""

    axis: int = 0  # 0 puts depth before the rows, 1 between rows and columns, 2 after the columns

    def position(self, rank: int) -> int:
        """The axis of depth in the counterpart of a 2D tensor with this number of axes, including the batch."""
        return 1 + self.axis if rank >= 4 else 1

    def axis_in_3d(self, axis: int, rank: int) -> int:
        """The 3D position of an axis of a 2D tensor with this number of axes, including the batch."""
        axis %= rank
        return axis + (axis >= self.position(rank))

    def with_depth(self, shape: Sequence[Any], depth: Any) -> tuple[Any, ...]:
        """A 2D shape, including the batch, with depth inserted."""
        position = self.position(len(shape))
        return (*shape[:position], depth, *shape[position:])

    def depth_first(self, rank: int) -> list[int]:
        """The order of axes, without the batch, with depth first, for `Permute`."""
        position = self.position(rank)
        return [position, *(axis for axis in range(1, rank + 1) if axis != position)]

    def in_volume(self, rows_cols: Sequence[Any], depth: Any) -> tuple[Any, Any, Any]:
        """A layer's values for rows and columns (sizes, strides, padding) combined with the value for depth."""
        rows, cols = rows_cols
        return ((depth, rows, cols), (rows, depth, cols), (rows, cols, depth))[self.axis]


@dataclass(frozen=True)
class Place:
    """A layer or operation of the 2D network at the place of its conversion."""

    inputs: Sequence[Any]  # its 2D tensors
    outputs: Sequence[Any]
    arguments: Sequence[Any]  # its call arguments, including 2D tensors
    named: Mapping[str, Any]  # those given by name
    depth: int | None  # of its first input in 3D; None if unknown
    has_depth: bool  # whether its input has values per slice, not for the whole volume
    depth_axis: DepthAxis  # the position of depth
    whole_volume: bool  # whether global pooling includes depth
    kernel: KernelMapping  # the mapping of its kernel
    factor: int  # the factor by which it divides or multiplies depth
    is_reduced: bool  # whether its rows are reduced, and depth may be too
    channels: int | None  # of its first input in 3D
    precision: Any  # its dtype policy; for an operation of keras.ops, the type of its first input

    @property
    def rank(self) -> int:
        """Number of axes of its first 2D input, including the batch."""
        return len(self.inputs[0].shape)

    @property
    def rank_behind(self) -> int:
        """Number of axes of its first 2D output, including the batch."""
        return len(self.outputs[0].shape)

    def constant(self, value: Any) -> Any:
        """An array that broadcasts to each slice of its output; a `ValueError` if it differs from sample to sample.

        Tensors of the network are unchanged.
        """
        shape, rank = np.shape(value), self.rank_behind
        if isinstance(value, keras.KerasTensor) or len(shape) < 2 or not self.has_depth:
            return value
        if len(shape) > rank or (len(shape) == rank and shape[0] != 1):
            raise ValueError(f"it takes an array of the shape {tuple(shape)}, which differs from sample to sample")
        before = len(shape) - (rank - self.depth_axis.position(rank))
        array = keras.ops.convert_to_numpy(value)
        return np.expand_dims(array, before) if before >= 0 else array


def unchanged(array: np.ndarray) -> np.ndarray:
    """The array itself."""
    return array


@dataclass(frozen=True)
class Taken:
    """A weight of the 2D network, and the function from its values to a weight of the 3D network."""

    variable: Any
    change: Callable[[np.ndarray], np.ndarray] = unchanged

    @property
    def array(self) -> np.ndarray:
        """The values of the 3D network's weight, in a native NumPy type."""
        values = keras.ops.convert_to_numpy(self.variable)
        return self.change(values if values.dtype.kind in "fiub" else values.astype(np.float32))


@dataclass(frozen=True)
class Step:
    """One operation of a 3D network, applied to the output of the previous step."""

    operation: Any  # a layer or operation of Keras
    arrays: Sequence[np.ndarray | Taken] | None = None  # its weights in its own order; None keeps its weights
    mapping: str = ""  # short description of their origin
    # Attributes of the 2D layer that are set after the weights: initializers, which may support only 2D shapes.
    kept: Mapping[str, Any] = field(default_factory=dict)


def tell_apart(taken: set[str], made: Any, source: Any = None, again: bool = False) -> None:
    """Give a new layer a name that is not taken yet; the name of its 2D layer on the first use."""
    name, number = made.name, 1
    while made.name in taken and (again or source is None or made.name != source.name):
        made.name = f"{name}_{number}"
        number += 1
    taken.add(made.name)


Rule = Callable[[Any, Place], list[Step]]


def fill(step: Step, source: Any, prefix: str) -> None:
    """Set the weights of a step, already applied, and note their origins; `source` is the 2D layer, if any."""
    if step.arrays is None:
        return
    weights = getattr(step.operation, "weights", [])
    arrays = [taken.array if isinstance(taken, Taken) else taken for taken in step.arrays]
    shapes, needed = [array.shape for array in arrays], [tuple(weight.shape) for weight in weights]
    if shapes != needed:
        mode = getattr(source, "quantization_mode", None)
        advice = f"; convert the network first, and then call its quantize({mode!r})" if mode else ""
        raise ValueError(f"weights {shapes} do not fit the weights of {step.operation.name}, {tuple(needed)}{advice}")
    for weight, taken, array in zip(weights, step.arrays, arrays, strict=True):
        weight.assign(array)
        weight.weight_of_2d = _origin(source, taken, prefix, step.mapping)
    for name, held in step.kept.items():
        setattr(step.operation, name, held)
    if hasattr(step.operation, "finalize_state"):
        step.operation.finalize_state()  # only here Normalization reads its weights


def _origin(source: Any, taken: Any, prefix: str, mapping: str) -> Origin:
    """The origin of a weight; empty for weights created by the conversion."""
    if source is None or not hasattr(getattr(taken, "variable", None), "path"):
        return Origin()
    path = prefix + path_within(source, taken.variable)
    return Origin(path, taken.variable.shape, taken.change, mapping)


def is_same(one: Sequence[Step], other: Sequence[Step]) -> bool:
    """Whether two conversions of one 2D layer are equivalent."""
    return [_told(step) for step in one] == [_told(step) for step in other]


def _told(step: Step) -> tuple[Any, ...]:
    kind = type(step.operation)
    _, plain = held_and_plain(step.operation)
    plain.pop("name", None)
    plain.get("layer", {}).pop("build_config", None)  # a layer applied to each slice is built at its first place
    return kind, plain, step.mapping


def copied(layer: Any, **changes: Any) -> Step:
    """A copy of a layer with changes of its configuration, and the same functions and weights."""
    weights = layer.weights
    activation: Any = getattr(layer, "activation", None)
    if has_weights(activation):
        changes["activation"] = None
        weights = weights[: len(weights) - len(activation.weights)]
    made = rebuilt(layer, **changes)
    return Step(made, [Taken(weight) for weight in weights], "copied" if weights else "")
