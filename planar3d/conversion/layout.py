"""Where depth stands: axes and shapes of a 2D tensor in its 3D counterpart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Layout:
    """A 3D tensor is its 2D tensor with depth put in: among rows and columns of a map, first in a vector."""

    axis: int = 0  # 0 puts depth before the rows, 1 between rows and columns, 2 behind the columns

    def position(self, rank: int) -> int:
        """The axis of depth in the counterpart of a 2D tensor of so many axes, the batch included."""
        return 1 + self.axis if rank >= 4 else 1

    def axis_in_3d(self, axis: int, rank: int) -> int:
        """Where an axis of a 2D tensor of so many axes, the batch included, lies in 3D."""
        axis %= rank
        return axis + (axis >= self.position(rank))

    def with_depth(self, shape: Sequence[Any], depth: Any) -> tuple[Any, ...]:
        """A 2D shape, the batch included, with depth put in."""
        position = self.position(len(shape))
        return (*shape[:position], depth, *shape[position:])

    def depth_first(self, rank: int) -> list[int]:
        """The order of axes, without the batch, that brings depth before all others, for `Permute`."""
        position = self.position(rank)
        return [position, *(axis for axis in range(1, rank + 1) if axis != position)]

    def in_volume(self, rows_cols: Sequence[Any], depth: Any) -> tuple[Any, Any, Any]:
        """What a layer has for rows and columns (sizes, strides, paddings), and what it has for depth."""
        rows, cols = rows_cols
        return ((depth, rows, cols), (rows, depth, cols), (rows, cols, depth))[self.axis]


def plane(shape: Sequence[Any]) -> tuple[Any, ...]:
    """The rows and columns of a 2D shape without batch; a vector has one of each."""
    return tuple(shape[:2]) if len(shape) >= 3 else (1, 1)
