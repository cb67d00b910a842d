"""What all ways of sampling share: which samples train and validate, in which order, and how they are read."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from planar3d.scans.labels import Targets
from planar3d.scans.preparation.interface import Preparation
from planar3d.scans.preparation.prepared import Prepared
from planar3d.scans.tiles import Lengths, Tiles
from planar3d.sections import Section

if TYPE_CHECKING:
    from planar3d.recipes import Recipe

# A crop or patch that is placed around a voxel has it in its middle two thirds.
NEAR = 1 / 3


class Samples(Protocol):
    """Gives batches by the numbers of their samples."""

    def batch(self, numbers: Sequence[int] | np.ndarray) -> tuple[Any, np.ndarray]:
        """What a network takes of these samples, and the masks it should give."""
        ...


def shape_seen(tiles: Tiles, preparation: Preparation) -> Lengths:
    """The (depth, rows, cols) that a network sees at once of prepared scans; 0 where they differ."""
    depth, rows, cols = tiles.shape
    return depth, rows or preparation.plane[0], cols or preparation.plane[1]


class Sampling(Section):
    """Which samples train and validate, and in which order."""

    validates: bool  # whether some samples validate
    cached_features: str  # number type in which a frozen encoder's features are kept; `"none"` computes them in a step
    shows_brains: bool  # whether some of the samples are extracted brains

    @abstractmethod
    def check_with(self, preparation: Preparation, targets: Targets) -> None:
        """Raise a `RecipeError` where scans prepared so, or labels of these targets, do not give these samples."""

    @abstractmethod
    def shape(self, tiles: Tiles, preparation: Preparation) -> Lengths:
        """The (depth, rows, cols) of a sample; 0 where they differ."""

    @abstractmethod
    def split(self, train: int, validation: int, slices: int, tiles: Tiles) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the training and of the validation samples, into those of all scans.

        Args:
            train, validation: numbers of scans, which come in this order.
            slices: of each scan.
            tiles: depth and stride of the windows.
        """

    @abstractmethod
    def order(self, training: np.ndarray, epoch: int, seed: int) -> np.ndarray:
        """The training samples in the order of an epoch, from the seed alone, so that a resumed run has the same."""

    @abstractmethod
    def samples(self, scans: Sequence[tuple[Prepared, np.ndarray]], recipe: "Recipe") -> Samples:
        """The samples of prepared scans and their labels, uint8 (slices, rows, cols)."""


class DrawnSampling(Sampling):
    """Samples of random places, numbered through: those of an epoch follow those of the one before. All scans train."""

    validates = False
    cached_features = "none"

    per_epoch: int  # how many, however many scans there are

    def split(self, train: int, validation: int, slices: int, tiles: Tiles) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of the first epoch; none validates."""
        return np.arange(self.per_epoch), np.arange(0)

    def order(self, training: np.ndarray, epoch: int, seed: int) -> np.ndarray:
        """New samples in every epoch."""
        return training + epoch * len(training)
