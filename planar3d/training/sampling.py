"""Interface of sampling: training and validation samples, their order, and how they are read."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from planar3d.scans.labels import Targets
from planar3d.scans.preparation.prepared import Preparation, Prepared
from planar3d.scans.tiles import Lengths, Tiles
from planar3d.sections import Section

if TYPE_CHECKING:
    from planar3d.recipes import Recipe

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

    validates = False
    cached_features = "none"

    def order(self, training: np.ndarray, epoch: int, seed: int) -> np.ndarray:
        return training + epoch * len(training)
