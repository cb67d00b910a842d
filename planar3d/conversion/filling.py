"""Filling a 3D network: weights from the 2D network, their origins, and the rows of the report."""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

from planar3d.conversion.place import Step, Taken
from planar3d.conversion.transfer_report import Shapes, TransferredLayer
from planar3d.transfer.naming import path_within
from planar3d.transfer.weight_places import Origin


def filled(source: Any, steps: Sequence[Step], prefix: str) -> Iterator[TransferredLayer]:
    """Set the weights of a 2D layer's counterparts, already applied, or of new layers, and yield the report's rows."""
    for step in steps:
        weights = getattr(step.operation, "weights", [])
        if step.arrays is not None:
            arrays = [taken.array if isinstance(taken, Taken) else taken for taken in step.arrays]
            shapes = [tuple(array.shape) for array in arrays]
            if shapes != [tuple(weight.shape) for weight in weights]:
                raise ValueError(f"weights of {shapes} do not fit those of {step.operation.name}, {_shapes(weights)}")
            for weight, taken, array in zip(weights, step.arrays, arrays, strict=True):
                weight.assign(array)
                weight.weight_of_2d = _origin(source, taken, prefix, step.mapping)
            for name, held in step.kept.items():
                setattr(step.operation, name, held)
            if hasattr(step.operation, "finalize_state"):
                step.operation.finalize_state()  # only here Normalization reads its weights
        count = sum(prod(weight.shape) for weight in weights)
        yield TransferredLayer(
            f"{prefix}{source.name}" if source is not None else "",
            type(source).__name__ if source is not None else "",
            f"{prefix}{step.operation.name}",
            type(step.operation).__name__,
            _shapes(getattr(source, "weights", [])),
            _shapes(weights),
            step.mapping,
            count,
            count if source is not None and step.arrays is not None else 0,
        )


def _origin(source: Any, taken: Any, prefix: str, mapping: str) -> Origin:
    """The origin of a weight; empty for weights created by the conversion."""
    if source is None or not hasattr(getattr(taken, "variable", None), "path"):
        return Origin()
    path = prefix + path_within(source, taken.variable)
    return Origin(path, tuple(taken.variable.shape), taken.change, mapping)


def _shapes(weights: Sequence[Any]) -> Shapes:
    return tuple(tuple(weight.shape) for weight in weights)
