"""What a rule is given, and what it gives: a 2D layer in its place, and the steps that do the same in 3D."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from planar3d.conversion.choices import KernelMapping
from planar3d.conversion.layout import Layout


@dataclass(frozen=True)
class Place:
    """A layer or operation of the 2D network where it is converted.

    Attributes:
        inputs, outputs: its 2D tensors.
        depth: of its first input in 3D; None if it is not known.
        has_depth: whether it takes values of each slice, rather than of the whole volume.
        layout: where depth stands.
        whole_volume: whether global pooling goes over depth as well.
        kernel: how its kernel is mapped.
        factor: by how much it divides or multiplies depth.
        channels: of its first input in 3D.
    """

    inputs: Sequence[Any]
    outputs: Sequence[Any]
    depth: int | None
    has_depth: bool
    layout: Layout
    whole_volume: bool
    kernel: KernelMapping
    factor: int
    channels: int | None

    @property
    def rank(self) -> int:
        """Axes of its first 2D input, the batch included."""
        return len(self.inputs[0].shape)


@dataclass(frozen=True)
class Step:
    """One operation of a 3D network, applied to what the step before gives.

    Attributes:
        operation: a layer or operation of Keras.
        arrays: its weights in its own order; None leaves those it has.
        mapping: how they were made, in a word or two.
    """

    operation: Any
    arrays: Sequence[np.ndarray] | None = None
    mapping: str = ""


Rule = Callable[[Any, Place], list[Step]]


def values(variable: Any) -> np.ndarray:
    """A variable's values in a type of NumPy's own."""
    array = keras.ops.convert_to_numpy(variable)
    return array if array.dtype.kind in "fiub" else array.astype(np.float32)


def copied(layer: Any, **changes: Any) -> Step:
    """The same layer again, with changes of its configuration, and its weights as they are."""
    made = type(layer).from_config({**layer.get_config(), **changes})
    return Step(made, [values(weight) for weight in layer.weights], "copied" if layer.weights else "")
