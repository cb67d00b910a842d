"""What a rule is given, and what it gives: a 2D layer in its place, and the steps that do the same in 3D."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from planar3d.conversion.choices import KernelMapping
from planar3d.conversion.held_objects import has_weights, held_and_plain, rebuilt
from planar3d.conversion.layout import Layout


@dataclass(frozen=True)
class Place:
    """A layer or operation of the 2D network where it is converted."""

    inputs: Sequence[Any]  # its 2D tensors
    outputs: Sequence[Any]
    arguments: Sequence[Any]  # what it is called with, 2D tensors included
    depth: int | None  # of its first input in 3D; None if it is not known
    has_depth: bool  # whether it takes values of each slice, rather than of the whole volume
    layout: Layout  # where depth stands
    whole_volume: bool  # whether global pooling goes over depth as well
    kernel: KernelMapping  # how its kernel is mapped
    factor: int  # by how much it divides or multiplies depth
    channels: int | None  # of its first input in 3D

    @property
    def rank(self) -> int:
        """Axes of its first 2D input, the batch included."""
        return len(self.inputs[0].shape)

    @property
    def rank_behind(self) -> int:
        """Axes of its first 2D output, the batch included."""
        return len(self.outputs[0].shape)


def unchanged(array: np.ndarray) -> np.ndarray:
    """The array itself."""
    return array


@dataclass(frozen=True)
class Taken:
    """A weight of the 2D network, and how its values become those of a weight of the 3D network."""

    variable: Any
    change: Callable[[np.ndarray], np.ndarray] = unchanged

    @property
    def array(self) -> np.ndarray:
        """The values of the 3D network's weight."""
        return self.change(values(self.variable))


@dataclass(frozen=True)
class Step:
    """One operation of a 3D network, applied to what the step before gives."""

    operation: Any  # a layer or operation of Keras
    arrays: Sequence[np.ndarray | Taken] | None = None  # its weights in its own order; None leaves those it has
    mapping: str = ""  # how they were made, in a word or two
    # Attributes of the 2D layer that are set once the weights are made: initializers, which may know the 2D shapes
    # only.
    kept: Mapping[str, Any] = field(default_factory=dict)


class Names:
    """The names of a network's operations, all of them different."""

    def __init__(self, taken: Iterable[str]) -> None:
        """Those of the 2D network are taken."""
        self.taken = set(taken)

    def tell_apart(self, made: Any, source: Any = None, again: bool = False) -> None:
        """Give what was made a name of its own; that of its 2D layer is its own the first time."""
        name, number = made.name, 1
        while made.name in self.taken and (again or source is None or made.name != source.name):
            made.name = f"{name}_{number}"
            number += 1
        self.taken.add(made.name)


Rule = Callable[[Any, Place], list[Step]]


def values(variable: Any) -> np.ndarray:
    """A variable's values in a type of NumPy's own."""
    array = keras.ops.convert_to_numpy(variable)
    return array if array.dtype.kind in "fiub" else array.astype(np.float32)


def is_same(one: Sequence[Step], other: Sequence[Step]) -> bool:
    """Whether steps that were made of one 2D layer do the same."""
    return [_told(step) for step in one] == [_told(step) for step in other]


def _told(step: Step) -> tuple[Any, ...]:
    kind = type(step.operation)
    _, plain = held_and_plain(step.operation)
    plain.pop("name", None)
    return kind, plain, step.mapping


def copied(layer: Any, **changes: Any) -> Step:
    """The same layer again, with changes of its configuration, and its functions and weights as they are."""
    weights = layer.weights
    activation = getattr(layer, "activation", None)
    if activation is not None and has_weights(activation):
        changes["activation"] = None
        weights = weights[: len(weights) - len(activation.weights)]
    made = rebuilt(layer, **changes)
    return Step(made, [Taken(weight) for weight in weights], "copied" if weights else "")
