"""Tiles: the parts of a volume that a network processes at once, in training and prediction."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from scipy import ndimage

from planar3d.errors import RecipeError
from planar3d.progress import Progress, part_of
from planar3d.scans.head import box_of, largest_part
from planar3d.scans.intensities import HEAD_LEVEL
from planar3d.scans.windows import window_starts
from planar3d.sections import POSITIVE, Section, plausible

Lengths = tuple[int, int, int]  # along slices, rows and columns
Part = tuple[slice, slice]  # rows and columns
_Length = Annotated[int, plausible(0, 1024)]

# Boxes of heads start and end at multiples: four poolings are equivariant only to such shifts.
HEAD_STEP = 16
_MARGIN = 4  # pixels of air around the head


class Tiles(Section):
    """Tiles of one shape over volumes of any shape."""

    shape: Lengths  # lengths of a tile; 0 is the whole axis
    step: Lengths  # distance from one tile to the next; 0 along a whole axis
    depth: int  # shape along slices
    stride: int  # step along slices
    # How tiles are composed, one of `WEIGHTS`. "crop": each voxel is from one tile, with borders in the middle of
    # overlaps, which is eq. 1 of Kolarik 2020 along every axis. "average": the mean of all tiles. "gaussian": the mean
    # weighted towards the center of each tile.
    overlap: str
    averaged: str  # the averaged quantity, "probabilities" or "logits", as in `scans/labels.py`
    beyond: str  # values outside the volume: "edge", the nearest voxel, or "air"
    planes: str = "whole"  # the predicted part of planes, "whole" or "head", the box around it
    mirrored: bool  # whether to average with the prediction of the mirror image (left and right exchanged)

    def part(self, volume: np.ndarray) -> Part:
        """The predicted rows and columns of a prepared scan; the rest is background."""
        return head_box(volume) if self.of_head else (slice(None), slice(None))

    def predicted(
        self, predict: Callable[..., np.ndarray], voxels: np.ndarray, across: int, progress: Progress | None = None
    ) -> np.ndarray:
        """What a predictor finds in slices; with `mirrored`, the mean with the mirror image along the axis `across`."""
        if not self.mirrored:
            return predict(voxels, progress)
        found = predict(voxels, part_of(progress, 0, 2))
        mirror = predict(np.ascontiguousarray(np.flip(voxels, across)), part_of(progress, 1, 2))
        return (found + np.flip(mirror, across)) / 2

    @property
    def of_head(self) -> bool:
        """Whether that part is the head's box, whose size differs between scans."""
        return self.planes == "head"

    @abstractmethod
    def starts(self, volume: Sequence[int]) -> tuple[Sequence[int], ...]:
        """First entries of the tiles along each axis of a volume of this shape.

        A volume shorter than a tile is centered in it, with a negative start.
        """


@dataclass(frozen=True)
class DepthWindows(Tiles):
    """Windows of slices over whole planes, composed by eq. 1: slices 5-12 of 16, and the outer ends of the volume.

    If the last window would not end with the volume, one more window extends beyond it and repeats the last slice.

    Source: Kolarik 2020, section 3.2.
    """

    name = "depth-windows"
    overlap = "crop"
    averaged = "probabilities"
    beyond = "edge"

    depth: Annotated[int, plausible(1, 512)] = 16  # slices of a window
    stride: Annotated[int, POSITIVE] = 8  # slices from one window to the next
    planes: Literal["whole", "head"] = "whole"  # predicted part of planes; "head": the box around it
    mirrored: bool = False  # average with the mirror image's prediction (left and right exchanged), in twice the time

    def check(self) -> None:
        if self.stride > self.depth or (self.depth - self.stride) % 2:
            raise RecipeError(
                f"windows of depth {self.depth} at stride {self.stride} cannot be composed; the stride must be at most "
                "the depth, and depth minus stride must be even."
            )

    @property
    def shape(self) -> Lengths:  # type: ignore[override]
        return self.depth, 0, 0

    @property
    def step(self) -> Lengths:  # type: ignore[override]
        return self.stride, 0, 0

    def starts(self, volume: Sequence[int]) -> tuple[Sequence[int], ...]:
        if volume[0] < self.depth:
            return _centred(volume[0], self.depth), (0,), (0,)
        return window_starts(volume[0], self.depth, self.stride), (0,), (0,)


@dataclass(frozen=True)
class Patches(Tiles):
    """Boxes at regular steps; the last along each axis ends with the volume, so every voxel is covered.

    Source: Wacker 2019 averages overlapping predictions of 24 × 128 × 128; the Gaussian is nnU-Net's (Isensee 2021).
    """

    name = "patches"
    beyond = "air"

    shape: tuple[_Length, _Length, _Length] = (24, 128, 128)  # slices, rows and cols of a patch; 0: the whole axis
    step: Lengths = (12, 64, 64)  # distance between patches; 0 along a whole axis
    overlap: Literal["crop", "average", "gaussian"] = "average"  # how patches are composed
    averaged: Literal["probabilities", "logits"] = "probabilities"  # what is averaged in overlaps
    mirrored: bool = False  # average with the mirror image's prediction (left and right exchanged), in twice the time

    def check(self) -> None:
        if not len(self.shape) == len(self.step) == 3:
            raise RecipeError(
                f"patches: shape {self.shape} and step {self.step} need three numbers each: slices, rows, columns."
            )
        for length, advance in zip(self.shape, self.step, strict=True):
            if min(length, advance) < 0 or advance > length or (length and not advance):
                raise RecipeError(
                    f"patches: a tile of {length} at steps of {advance} leaves gaps; a step must be from 1 to the "
                    "tile's length, or 0 where the length is 0 (the whole axis)."
                )
            if self.overlap == "crop" and (length - advance) % 2:
                raise RecipeError(
                    f"patches: a tile of {length} at steps of {advance}: overlap 'crop' needs an even difference."
                )

    @property
    def depth(self) -> int:  # type: ignore[override]
        return self.shape[0]

    @property
    def stride(self) -> int:  # type: ignore[override]
        return self.step[0]

    def starts(self, volume: Sequence[int]) -> tuple[Sequence[int], ...]:
        return tuple(
            (*range(0, entries - length, step), entries - length)
            if 0 < length < entries
            else _centred(entries, length or entries)
            for entries, length, step in zip(volume, self.shape, self.step, strict=False)
        )


@dataclass(frozen=True)
class SteppedPatches(Patches):
    """Boxes only at multiples of the step: voxels after the last whole box are background.

    A volume is first padded with air on both sides to the smallest size; the first patch starts there.

    Source: Wacker 2019, the released prediction: the last 11 of 155 slices are never predicted.
    """

    name = "stepped-patches"

    smallest: tuple[_Length, _Length, _Length] = (0, 0, 0)  # slices, rows and cols that volumes are padded to

    def starts(self, volume: Sequence[int]) -> tuple[Sequence[int], ...]:
        """First entries of the patches along each axis, without patches of only air."""
        return tuple(
            _stepped(entries, length or entries, step or entries, least)
            for entries, length, step, least in zip(volume, self.shape, self.step, self.smallest, strict=False)
        )


TILES: dict[str, type[Tiles]] = {made.name: made for made in (DepthWindows, Patches, SteppedPatches)}


def head_box(voxels: np.ndarray) -> Part:
    """Rows and columns of the box around the head in all slices; whole planes if there is no head.

    The head is the largest component that is not air in at least two slices, after opening with a disc of five pixels,
    which removes wrapped noise and the head holder. Voxels are uint8 (slices, rows, cols, 1).
    """
    shown = ndimage.binary_opening(np.count_nonzero(voxels > HEAD_LEVEL, axis=(0, 3)) > 1, iterations=2)
    if not shown.any():
        return slice(None), slice(None)
    rows, cols = (
        slice(
            max((box.start - _MARGIN) // HEAD_STEP * HEAD_STEP, 0),
            min(-(-(box.stop + _MARGIN) // HEAD_STEP) * HEAD_STEP, length),
        )
        for box, length in zip(box_of(largest_part(shown)), shown.shape, strict=True)
    )
    return rows, cols


def tile_shape(tiles: Tiles, volume: Sequence[int]) -> Lengths:
    """The shape of the tiles of a volume, with lengths for whole axes."""
    slices, rows, cols = (length or entries for length, entries in zip(tiles.shape, volume, strict=False))
    return slices, rows, cols


def _stepped(entries: int, length: int, step: int, least: int) -> tuple[int, ...]:
    filled = max(entries, length, least)
    first = -((filled - entries) // 2)
    starts = range(first, first + filled - length + 1, step)
    return tuple(start for start in starts if -length < start < entries)


def _centred(entries: int, length: int) -> tuple[int]:
    return (-((length - entries) // 2),)
