"""Training and validation samples, their order, and how they are read; windows of memory-mapped scans."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from planar3d.errors import RecipeError
from planar3d.pipeline import one_ahead
from planar3d.scans.labels import Targets
from planar3d.scans.preparation.prepared import Preparation, Prepared
from planar3d.scans.tiles import Lengths, Tiles
from planar3d.scans.windows import window_starts
from planar3d.sections import Section
from planar3d.wording import counted

if TYPE_CHECKING:
    from planar3d.recipes import Recipe

VALIDATION_EVERY = 12  # of "every 12th window"
# A crop or patch around a voxel has it in its central two thirds.
NEAR = 1 / 3


class Samples(Protocol):
    """Batches by the numbers of their samples."""

    def batch(self, numbers: Sequence[int] | np.ndarray) -> tuple[Any, np.ndarray]:
        """The network's inputs and target outputs for these samples."""


def shape_seen(tiles: Tiles, preparation: Preparation) -> Lengths:
    """The network's input (depth, rows, cols) from prepared scans; 0 where they differ."""
    depth, rows, cols = tiles.shape
    return depth, rows or preparation.plane[0], cols or preparation.plane[1]


class Sampling(Section):
    """The training and validation samples, and their order."""

    validates: bool  # whether there are validation samples
    holds_out: bool  # whether these are whole scans, which do not train
    cached_features: str  # stored number type of a frozen encoder's features; `"none"` computes them in each step
    shows_brains: bool  # whether some samples show extracted brains

    @abstractmethod
    def check_with(self, preparation: Preparation, targets: Targets) -> None:
        """Raise a `RecipeError` if the preparation or the targets do not allow these samples."""

    def shape(self, tiles: Tiles, preparation: Preparation) -> Lengths:
        """The (depth, rows, cols) of a sample, by default a tile's; 0 where they differ."""
        return shape_seen(tiles, preparation)

    @abstractmethod
    def split(self, train: int, validation: int, slices: int, tiles: Tiles) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the training and the validation samples among those of all scans.

        Args:
            train, validation: numbers of scans, in this order.
            slices: of each scan.
            tiles: depth and stride of the windows.
        """

    @abstractmethod
    def order(self, training: np.ndarray, epoch: int, seed: int) -> np.ndarray:
        """The training samples in the order of an epoch, determined by the seed, so that a resumed run is the same."""

    @abstractmethod
    def samples(self, scans: Sequence[tuple[Prepared, np.ndarray]], recipe: "Recipe") -> Samples:
        """The samples of prepared scans and their labels, uint8 (slices, rows, cols)."""


class DrawnSampling(Sampling):
    """Numbered samples at random positions; numbers continue from epoch to epoch. All scans are for training."""

    validates = holds_out = False
    cached_features = "none"

    def order(self, training: np.ndarray, epoch: int, seed: int) -> np.ndarray:
        return training + epoch * len(training)


class Windows:
    """Windows over a sequence of equally sized volumes, numbered through.

    With `borders="none"`, the volumes count as one long volume, and windows cross from one into the next, as in the
    released code. Volumes are read only in `gather`.
    """

    def __init__(self, slices: int, volumes: int, depth: int, stride: int, borders: str = "scan") -> None:
        self.slices, self.depth = slices, depth
        length = slices * volumes if borders == "none" else slices
        first = np.arange(0, slices * volumes, length)[:, None]
        within = np.array(window_starts(length, depth, stride))
        self.starts = (first + within).ravel()
        self.ends = np.broadcast_to(first + length, (len(first), len(within))).ravel()

    def __len__(self) -> int:
        return len(self.starts)

    def gather(
        self, volumes: Sequence[np.ndarray], windows: Sequence[int] | np.ndarray, per_slice: int = 1
    ) -> np.ndarray:
        """Read some windows from volumes (slices / per_slice, …), memory-mapped or not.

        Args:
            per_slice: slices per entry of the volumes (2 after one pooling along depth, …).

        Returns:
            (windows, depth / per_slice, …) in the volumes' type; beyond the end of a volume its last slice repeats.
        """
        length = self.slices // per_slice
        out = np.empty((len(windows), self.depth // per_slice, *volumes[0].shape[1:]), volumes[0].dtype)
        for target, window in zip(out, windows, strict=True):
            start = self.starts[window] // per_slice
            wanted = np.minimum(np.arange(start, start + len(target)), self.ends[window] // per_slice - 1)
            for volume in np.unique(wanted // length):
                here = wanted // length == volume
                target[here] = volumes[volume][wanted[here] - volume * length]
        return out


class ScanSamples:
    """Batches of (network input, targets) from prepared scans.

    Args:
        voxels: (slices, rows, cols, images), one per scan.
        labels: uint8 (slices, rows, cols) of the same grids.
    """

    def __init__(self, voxels: Sequence[np.ndarray], labels: Sequence[np.ndarray], recipe: "Recipe") -> None:
        self.voxels, self.labels, self.recipe, tiles = voxels, labels, recipe, recipe.tiles
        self.windows = Windows(len(voxels[0]), len(voxels), tiles.depth, tiles.stride, recipe.window_borders)

    def batch(self, numbers: Sequence[int] | np.ndarray) -> tuple[Any, np.ndarray]:
        return self.inputs(numbers), self.targets(numbers)

    def inputs(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        """float32 (windows, depth, rows, cols, channels)."""
        return self.recipe.preparation.as_input(self.windows.gather(self.voxels, numbers))

    def targets(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        """uint8 {0, 1} (windows, depth, rows, cols, outputs)."""
        return self.recipe.targets.encode(self.windows.gather(self.labels, numbers))


def read_ahead(samples: Samples, order: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, Any, np.ndarray]]:
    """Read batch by batch, each while the previous one is in use: the samples' numbers, their inputs, their targets."""
    batches = (order[start : start + batch_size] for start in range(0, len(order), batch_size))
    with one_ahead(samples.batch, batches) as coming:
        for numbers, batch in coming:
            yield numbers, *batch.result()


# By name, whether each window is for validation: from all windows, training scans, and slices of a scan.
_VALIDATIONS: dict[str, Callable[[Windows, int, int], np.ndarray]] = {
    # A window that crosses into the validation scan contains some of it, so it is not used for training.
    "last scan": lambda windows, train, slices: (
        np.minimum(windows.starts + windows.depth, windows.ends) > train * slices
    ),
    "every 12th window": lambda windows, train, slices: np.arange(len(windows)) % VALIDATION_EVERY == 0,
    "none": lambda windows, train, slices: np.zeros(len(windows), bool),
}


@dataclass(frozen=True)
class WindowSampling(Sampling):
    """Every window of every scan.

    Source: Kolarik 2020, section 3.2 (`"last scan"`); the released `create_train_data` (`"every 12th window"`).
    """

    name = "windows"
    shows_brains = False

    validation: Literal["last scan", "every 12th window", "none"] = "last scan"  # "none": train on all scans
    window_borders: Literal["scan", "none"] = "scan"  # "none": windows cross from one scan into the next
    shuffle: Literal["once", "every epoch"] = "once"  # when windows are shuffled
    cached_features: Literal["none", "float32", "float16", "bf16"] = "none"  # compute a frozen encoder once per scan

    @property
    def validates(self) -> bool:  # type: ignore[override]
        return self.validation != "none"

    @property
    def holds_out(self) -> bool:  # type: ignore[override]
        return self.validation == "last scan"

    def check_with(self, preparation: Preparation, targets: Targets) -> None:
        """Refuse scans with different numbers of slices."""
        if not preparation.same_slices:
            raise RecipeError(
                f"with preparation={preparation.name!r}, scans differ in their number of slices; set "
                "training.samples='crops', or 'patches' for several images."
            )

    def split(self, train: int, validation: int, slices: int, tiles: Tiles) -> tuple[np.ndarray, np.ndarray]:
        """All windows, split by their scans or by their numbers."""
        if self.validation == "last scan" and not validation:
            raise RecipeError(
                f"validation='last scan' needs a scan for validation, but a fold has only {counted(train, 'scan')} for "
                "training. Add a patient for validation, or do not validate: --set validation=none --set monitor=last."
            )
        if tiles.depth > slices:
            raise RecipeError(
                f"depth={tiles.depth}, but prepared scans have {counted(slices, 'slice')}; set a depth of at most "
                "that, or a greater size."
            )
        windows = Windows(slices, train + validation, tiles.depth, tiles.stride, self.window_borders)
        validates = _VALIDATIONS[self.validation](windows, train, slices)
        if validates.all():
            raise RecipeError(
                f"validation={self.validation!r} leaves none of {counted(windows, 'window')} of a fold for training. "
                "Add a patient, set a smaller depth, or do not validate: --set validation=none --set monitor=last."
            )
        return np.flatnonzero(~validates), np.flatnonzero(validates)

    def order(self, training: np.ndarray, epoch: int, seed: int) -> np.ndarray:
        key = 0 if self.shuffle == "once" else epoch
        return np.random.default_rng([seed, key]).permutation(training)

    def samples(self, scans: Sequence[tuple[Prepared, np.ndarray]], recipe: "Recipe") -> ScanSamples:
        return ScanSamples([prepared.voxels for prepared, _ in scans], [labels for _, labels in scans], recipe)
