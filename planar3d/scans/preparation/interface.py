"""Interface of preparations: the grid and values of the network's input, and the mapping back to the scan."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np

from planar3d.scans.preparation.prepared import Prepared
from planar3d.scans.volume import Scan
from planar3d.sections import Section

# Directions by nibabel's codes, and the planes of slices that follow each other in them.
_DIRECTIONS = {
    **{"L": "from right to left", "R": "from left to right", "P": "from anterior to posterior"},
    **{"A": "from posterior to anterior", "S": "from inferior to superior", "I": "from superior to inferior"},
}
PLANES = {"L": "sagittal", "R": "sagittal", "A": "coronal", "P": "coronal", "S": "axial", "I": "axial"}
Decode = Callable[[np.ndarray, np.ndarray], np.ndarray]  # probabilities and the grid's axes in mm to labels


def in_words(view: str) -> str:
    """The directions of slices, rows and columns of a view."""
    slices, rows, cols = (_DIRECTIONS[code] for code in view)
    return f"{PLANES[view[0]]}, {slices}; rows {rows}; cols {cols}"


class Preparation(Section):
    """From a raw scan to the network's input, and from probabilities back to the native grid."""

    images: tuple[str, ...]  # names of the images it needs
    plane: tuple[int, int]  # rows and cols of every prepared scan; 0 where they differ
    channels: int  # of the network's input
    same_slices: bool  # whether all scans have the same number of slices
    air: float  # value of an empty voxel of a prepared scan
    flat: ClassVar[bool] = False  # whether images of a single slice are accepted
    smooth: ClassVar[bool] = False  # whether probabilities are resampled before decoding, which keeps outlines smooth
    tells_air: bool = False  # whether grey levels separate the head from air

    @abstractmethod
    def prepare(self, scans: Mapping[str, Scan]) -> Prepared:
        """Prepare the raw images of a case, by name, on one grid in any orientation.

        Raises:
            ScanError: values or a grid that cannot be prepared.
        """

    @abstractmethod
    def as_input(self, voxels: np.ndarray) -> np.ndarray:
        """The network's input, float32 (…, channels), from voxels of a prepared scan, (…, images)."""

    @abstractmethod
    def slices(self, depth: int) -> int:
        """Slices of a prepared scan in windows of `depth`; if scans differ, of a head of 150 mm."""

    def stacks(self, prepared: Prepared, depth: int) -> list[slice]:
        """The stacks of slices that windows of `depth` are cut from: one with all slices."""
        return [slice(0, len(prepared.voxels), 1)]

    def native(self, probabilities: np.ndarray, prepared: Prepared, decode: Decode) -> Scan:
        """Labels on the native grid from probabilities, float32 (slices, rows, cols, outputs), on the prepared grid.

        Unless `smooth`, decoded before resampling to the native grid, as the published scores are on the cube.
        """
        if self.smooth:
            restored = prepared.restore(probabilities)
            return Scan(decode(restored.voxels, restored.affine), restored.header)
        return prepared.restore(decode(probabilities, prepared.geometry.axes))

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """The network's input in words: `slices` (their directions), `grid`, `grey_levels`, `values`."""

    @abstractmethod
    def label(self) -> str:
        """The grid for headings of tables."""
