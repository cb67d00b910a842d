"""Training samples: windows gathered from memory-mapped scans, batch by batch."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from planar3d.pipeline import one_ahead
from planar3d.recipes import Recipe
from planar3d.scans.windows import network_input, window_starts

VALIDATION_EVERY = 12  # of "every 12th window"


class Windows:
    """Windows over a sequence of equally sized volumes, numbered through.

    With `borders="none"` the volumes count as one long one, and windows cross from a volume into the next, as in the
    released code. Nothing is read before `gather`.

    Args:
        slices: slices of each volume.
        volumes: how many there are.
        depth, stride: of the windows.
        borders: `"scan"` or `"none"`.
    """

    def __init__(self, slices: int, volumes: int, depth: int, stride: int, borders: str = "scan") -> None:
        self.slices, self.depth = slices, depth
        if borders == "none":
            self.starts = np.array(window_starts(slices * volumes, depth, stride))
            self.ends = np.full(len(self.starts), slices * volumes)
        else:
            within = np.array(window_starts(slices, depth, stride))
            first = np.arange(volumes)[:, None] * slices
            self.starts = (first + within).ravel()
            self.ends = np.broadcast_to(first + slices, (volumes, len(within))).ravel()

    def __len__(self) -> int:
        return len(self.starts)

    def gather(
        self, volumes: Sequence[np.ndarray], windows: Sequence[int] | np.ndarray, per_slice: int = 1
    ) -> np.ndarray:
        """Read some windows from volumes (slices / per_slice, …), memory-mapped or not.

        Args:
            volumes: one array a scan.
            windows: numbers of the windows wanted.
            per_slice: how many slices one entry of the volumes stands for (2 behind one pooling of depth, …).

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


class Samples(Protocol):
    """Gives batches by the numbers of their samples."""

    def batch(self, numbers: Sequence[int] | np.ndarray) -> tuple[Any, np.ndarray]:
        """What a network takes of these samples, and the masks it should give."""
        ...


class ScanSamples:
    """Batches of (network input, mask) from prepared scans.

    Args:
        voxels: uint8 (slices, rows, cols), one a scan.
        masks: uint8 {0, 1} of the same shapes; none for prediction.
        recipe: gives windows and channels.
        borders: as `Windows`.
    """

    def __init__(
        self, voxels: Sequence[np.ndarray], masks: Sequence[np.ndarray], recipe: Recipe, borders: str = "scan"
    ) -> None:
        self.voxels, self.masks, self.channels = voxels, masks, recipe.channels
        self.windows = Windows(len(voxels[0]), len(voxels), recipe.depth, recipe.stride, borders)

    def __len__(self) -> int:
        return len(self.windows)

    def batch(self, numbers: Sequence[int] | np.ndarray) -> tuple[Any, np.ndarray]:
        """Inputs and targets."""
        return self.inputs(numbers), self.targets(numbers)

    def inputs(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        """float32 (windows, depth, rows, cols, channels)."""
        return network_input(self.windows.gather(self.voxels, numbers), self.channels)

    def targets(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        """uint8 {0, 1} (windows, depth, rows, cols, 1)."""
        return self.windows.gather(self.masks, numbers)[..., None]


def read_ahead(samples: Samples, order: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, Any, np.ndarray]]:
    """Read batch by batch, each while the one before is in use.

    Args:
        samples: where inputs and targets are read from.
        order: numbers of samples, in the order wanted.
        batch_size: samples at once.

    Yields:
        The numbers of the samples, their inputs, their targets.
    """

    def read(numbers: np.ndarray) -> tuple[np.ndarray, Any, np.ndarray]:
        return numbers, *samples.batch(numbers)

    batches = (order[start : start + batch_size] for start in range(0, len(order), batch_size))
    with one_ahead(read, batches) as coming:
        for _, batch in coming:
            yield batch.result()


def training_and_validation(train: int, validation: int, slices: int, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Split the windows of the training and validation scans, in this order, as the recipe says.

    Args:
        train, validation: numbers of scans.
        slices: of each scan.

    Returns:
        Numbers of the training and of the validation windows, into the windows of all these scans; crops are numbered
        through, and those of an epoch follow those of the one before.

    Source: Kolarik 2020, section 3.2 (`"last scan"`); the released `create_train_data` (`"every 12th window"`).
    """
    if recipe.sampling == "crops":
        return np.arange(recipe.crops_per_epoch), np.arange(0)
    windows = Windows(slices, train + validation, recipe.depth, recipe.stride, recipe.window_borders)
    everything = np.arange(len(windows))
    if recipe.validation == "none":
        return everything, everything[:0]
    if recipe.validation == "every 12th window":
        validates = everything % VALIDATION_EVERY == 0
    else:
        # A window that crosses into the validation scan shows some of it, so it does not train.
        validates = windows.starts + recipe.depth > train * slices
    return everything[~validates], everything[validates]


def epoch_order(training: np.ndarray, epoch: int, recipe: Recipe) -> np.ndarray:
    """The order of the training samples in an epoch, from the seed alone, so that a resumed run has the same."""
    if recipe.sampling == "crops":
        return training + epoch * len(training)
    key = 0 if recipe.shuffle == "once" else epoch
    return np.random.default_rng([recipe.seed, key]).permutation(training)
