"""What a preparation is: which grid and values the network sees of a scan, and the way back."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np

from planar3d.scans.preparation.prepared import Prepared
from planar3d.scans.volume import Scan
from planar3d.sections import Section

Decode = Callable[[np.ndarray, np.ndarray], np.ndarray]  # probabilities and the grid's axes in mm to labels


# Directions by nibabel's codes, and the planes of slices that follow each other in them.
_DIRECTIONS = {
    **{"L": "from right to left", "R": "from left to right", "P": "from anterior to posterior"},
    **{"A": "from posterior to anterior", "S": "from inferior to superior", "I": "from superior to inferior"},
}
PLANES = {"L": "sagittal", "R": "sagittal", "A": "coronal", "P": "coronal", "S": "axial", "I": "axial"}


def in_words(view: str) -> str:
    """The directions in which slices, rows and columns of a view run."""
    slices, rows, cols = (_DIRECTIONS[code] for code in view)
    return f"{PLANES[view[0]]}, {slices}; rows {rows}; cols {cols}"


class Preparation(Section):
    """From a raw scan to what the network sees of it, and from probabilities back to the native grid."""

    images: tuple[str, ...]  # names of the images of a case that it takes
    plane: tuple[int, int]  # rows and cols of every prepared scan; 0 where they differ
    channels: int  # of the network's input
    same_slices: bool  # whether every scan has as many slices
    air: float  # what an empty voxel of a prepared scan holds
    flat: ClassVar[bool] = False  # whether images of a single slice will do
    tells_air: bool = False  # whether grey levels tell the head from air

    @abstractmethod
    def prepare(self, scans: Mapping[str, Scan]) -> Prepared:
        """Prepare the raw images of a case, by name, on one grid of any orientation.

        Raises:
            ScanError: values or a grid that cannot be prepared.
        """

    @abstractmethod
    def as_input(self, voxels: np.ndarray) -> np.ndarray:
        """What the network takes, float32 (…, channels), of voxels of a prepared scan."""

    @abstractmethod
    def slices(self, depth: int) -> int:
        """Slices that the network sees of a scan in windows of `depth`; where scans differ, of a head of 150 mm."""

    def stacks(self, prepared: Prepared, depth: int) -> list[slice]:
        """The slices that the network sees together, in windows of `depth`: all of them."""
        return [slice(0, len(prepared.voxels), 1)]

    def native(self, probabilities: np.ndarray, prepared: Prepared, decode: Decode) -> Scan:
        """Labels on the native grid from probabilities, float32 (slices, rows, cols, outputs) of the prepared one.

        They are decoded and then restored, as the published scores are those of the cube.
        """
        return prepared.restore(decode(probabilities, prepared.geometry.axes))

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """What a network sees of a scan, in words: `slices` (their directions), `grid`, `grey_levels`, `values`."""

    @abstractmethod
    def label(self) -> str:
        """The grid in a table's heading."""
