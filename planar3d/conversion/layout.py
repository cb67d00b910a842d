"""The position of depth: axes and shapes of a 2D tensor in its 3D counterpart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Layout:
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
