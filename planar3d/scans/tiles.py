"""Tiles: the part of a volume that a network sees at once, in training and in prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from planar3d.errors import RecipeError
from planar3d.scans.composition import WEIGHTS
from planar3d.scans.windows import window_starts

Lengths = tuple[int, int, int]  # along slices, rows and columns


class Tiles(Protocol):
    """Tiles of one shape over volumes of any."""

    @property
    def shape(self) -> Lengths:
        """Entries of a tile; 0 is the whole axis."""

    @property
    def step(self) -> Lengths:
        """Entries from one tile to the next; 0 along a whole axis."""

    @property
    def overlap(self) -> str:
        """How tiles are composed, one of `WEIGHTS`.

        `"crop"`: each voxel is of one tile, and neighbours meet in the middle of what they share, which is eq. 1 of
        Kolarik 2020 along every axis. `"average"`: the mean of all tiles there. `"gaussian"`: their mean, weighted
        towards the middle of each.
        """

    @property
    def beyond(self) -> str:
        """What a tile reads outside of the volume: `"edge"`, its outermost entry again, or `"air"`."""

    def starts(self, volume: Sequence[int]) -> tuple[Sequence[int], ...]:
        """First entries of the tiles along each axis of a volume of this shape.

        A volume shorter than a tile lies in its middle, and the start is negative.
        """


@dataclass(frozen=True)
class DepthWindows:
    """Windows of slices over whole planes, composed by eq. 1: slices 5-12 of 16, and the outer ends of the outermost.

    Where the last window would not end with the volume, one more begins within it and reads the last slice again.

    Raises:
        RecipeError: windows that leave gaps or have no whole middle.

    Source: Kolarik 2020, section 3.2.
    """

    depth: int = 16
    stride: int = 8

    overlap = "crop"
    beyond = "edge"

    def __post_init__(self) -> None:
        if self.depth == 0:
            raise RecipeError("depth-windows: depth is 0; a window has at least one slice.")
        _check("depth-windows", [self.depth], [self.stride], self.overlap)

    @property
    def shape(self) -> Lengths:
        """A window's slices, and the whole plane."""
        return self.depth, 0, 0

    @property
    def step(self) -> Lengths:
        """The stride."""
        return self.stride, 0, 0

    def starts(self, volume: Sequence[int]) -> tuple[Sequence[int], ...]:
        """First slices of the windows; 31 of them for 256."""
        if volume[0] < self.depth:
            return _centred(volume[0], self.depth), (0,), (0,)
        return window_starts(volume[0], self.depth, self.stride), (0,), (0,)


@dataclass(frozen=True)
class Patches:
    """Boxes at regular steps, the last along each axis ending with the volume, so that no border is left out.

    Raises:
        RecipeError: patches that leave gaps, or that cannot be composed.

    Source: Wacker 2019 averages overlapping predictions of 24 × 128 × 128; the Gaussian is nnU-Net's (Isensee 2021).
    """

    shape: Lengths = (24, 128, 128)
    step: Lengths = (12, 64, 64)
    overlap: Literal["crop", "average", "gaussian"] = "average"

    beyond = "air"

    def __post_init__(self) -> None:
        for name in ("shape", "step"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON has lists
        if self.overlap not in WEIGHTS:
            raise RecipeError(f"patches: overlap is {self.overlap!r}; choose one of: {', '.join(map(repr, WEIGHTS))}.")
        if not len(self.shape) == len(self.step) == 3:
            raise RecipeError(
                f"patches: shape {self.shape} and step {self.step} need three numbers each, along slices, rows and "
                "columns."
            )
        _check("patches", self.shape, self.step, self.overlap)

    def starts(self, volume: Sequence[int]) -> tuple[Sequence[int], ...]:
        """First entries of the patches along each axis: multiples of the step, and the volume's end less a patch."""
        return tuple(
            (*range(0, entries - length, step), entries - length)
            if 0 < length < entries
            else _centred(entries, length or entries)
            for entries, length, step in zip(volume, self.shape, self.step, strict=False)
        )


TILES: dict[str, type] = {"depth-windows": DepthWindows, "patches": Patches}


def tile_shape(tiles: Tiles, volume: Sequence[int]) -> Lengths:
    """The shape of the tiles of a volume, whole axes in numbers."""
    slices, rows, cols = (length or entries for length, entries in zip(tiles.shape, volume, strict=False))
    return slices, rows, cols


def _centred(entries: int, length: int) -> tuple[int]:
    return (-((length - entries) // 2),)


def _check(name: str, shape: Sequence[int], step: Sequence[int], overlap: str) -> None:
    for length, advance in zip(shape, step, strict=True):
        if not all(isinstance(number, int) and number >= 0 for number in (length, advance)):
            raise RecipeError(f"{name}: a tile of {length!r} at steps of {advance!r}; both must be whole numbers.")
        if advance > length or (length and not advance):
            raise RecipeError(
                f"{name}: a tile of {length} at steps of {advance} leaves gaps; a step is from 1 to the tile's length, "
                "and 0 where that is 0, the whole axis."
            )
        if overlap == "crop" and (length - advance) % 2:
            raise RecipeError(
                f"{name}: a tile of {length} at steps of {advance} has no whole middle; for overlap 'crop' their "
                "difference must be even."
            )
