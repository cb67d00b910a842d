"""A prepared scan, the network's input with the mapping back to the native grid; and the interface of preparations."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from planar3d.errors import RunError
from planar3d.files import read_json, write_json, written_beside
from planar3d.mapped_arrays import map_array
from planar3d.scans.checks import are_labels, labels_of
from planar3d.scans.geometry import Geometry
from planar3d.scans.volume import Scan, on_grid_of
from planar3d.sections import Section

HEAD_MM = 150
# By nibabel's codes, directions and the planes of slices that follow each other in them.
_DIRECTIONS = {
    "L": ("from right to left", "sagittal"),
    "R": ("from left to right", "sagittal"),
    "P": ("from anterior to posterior", "coronal"),
    "A": ("from posterior to anterior", "coronal"),
    "S": ("from inferior to superior", "axial"),
    "I": ("from superior to inferior", "axial"),
}
Decode = Callable[[np.ndarray, np.ndarray], np.ndarray]  # probabilities and the grid's axes in mm to labels


@dataclass(frozen=True)
class Prepared:
    """The network's input for a scan."""

    # (slices, rows, cols, images) of the prepared grid; uint8 or float, by the preparation
    voxels: np.ndarray = field(repr=False)
    geometry: Geometry  # the native grid and its mapping to the prepared grid

    def align(self, mask: Scan) -> np.ndarray:
        """Map labels on the scan's grid to the prepared grid: uint8 (slices, rows, cols).

        Raises:
            ScanError: they are on another grid, see `on_grid_of`, or not whole numbers from 0 to 255.
        """
        mask = on_grid_of(Scan(np.broadcast_to(np.uint8(0), self.geometry.shape), self.geometry.header), mask)
        # uint8 directly by nearest neighbour: the release scales masks to 255 and back, with the same result.
        return self.geometry.laid(self.geometry.turned(labels_of(mask)), order=0)

    def restore(self, volume: np.ndarray) -> Scan:
        """Map probabilities or a mask from the prepared grid back to the native grid, as a scan with its header.

        Floats (slices, rows, cols[, channels]) are interpolated linearly, as float32; labels (integers and bool) take
        the nearest voxel, as uint8. Voxels outside the prepared grid are zero.
        """
        volume = np.asarray(volume)
        if volume.ndim == 4:
            restored = [self.restore(volume[..., channel]).voxels for channel in range(volume.shape[-1])]
            return Scan(np.stack(restored, axis=-1), self.geometry.header)
        if volume.shape != self.voxels.shape[:3]:
            raise ValueError(f"The volume has shape {volume.shape}, the prepared scan {self.voxels.shape[:3]}.")
        if volume.dtype.kind != "f" and not are_labels(volume, volume, 255):
            raise ValueError(
                f"The labels are from {volume.min()} to {volume.max()}; whole numbers from 0 to 255 are needed."
            )
        kind, order = (np.float32, 1) if volume.dtype.kind == "f" else (np.uint8, 0)
        return Scan(self.geometry.back(volume.astype(kind, copy=False), order), self.geometry.header)


def save_prepared(
    folder: Path, prepared: Prepared, mask: np.ndarray | None, sources: Mapping[str, Any] | None = None
) -> None:
    """Write voxels.npy, mask.npy (if given) and finally geometry.json, whose presence marks completeness.

    `sources` are the origin of the prepared scan as JSON values.
    """
    for name, array in (("voxels.npy", prepared.voxels), ("mask.npy", mask)):
        if array is not None:
            with written_beside(folder / name) as temporary:
                np.save(temporary, array)
    write_json(folder / "geometry.json", prepared.geometry.to_json() | ({"sources": sources} if sources else {}))


def load_prepared(folder: Path) -> tuple[Prepared, np.ndarray | None]:
    """Open the output of `save_prepared`, memory-mapped: voxels are read when used.

    Older folders hold 8-bit voxels without the axis of the images; it is added.
    """
    if not (folder / "geometry.json").is_file():
        raise RunError(f"{folder} has no prepared scan. Run planar3d prepare first.")
    mask = folder / "mask.npy"
    voxels = map_array(folder / "voxels.npy")
    voxels = voxels.reshape(*voxels.shape[:3], -1)
    geometry = read_json(folder / "geometry.json", lambda content: Geometry.from_json(content, voxels.shape[:3]))
    return Prepared(voxels, geometry), map_array(mask) if mask.is_file() else None


def in_words(view: str) -> str:
    """The directions of slices, rows and columns of a view."""
    (slices, plane), (rows, _), (cols, _) = (_DIRECTIONS[code] for code in view)
    return f"{plane}, {slices}; rows {rows}; cols {cols}"


class Preparation(Section):
    """From a raw scan to the network's input, and from probabilities back to the native grid."""

    images: tuple[str, ...]  # names of the images it needs
    plane: tuple[int, int]  # rows and cols of every prepared scan; 0 where they differ
    channels: int  # of the network's input
    same_slices: ClassVar[bool] = False  # whether all scans have the same number of slices
    air: ClassVar[float] = 0.0  # value of an empty voxel of a prepared scan
    brightest: ClassVar[float] = 0.0  # the largest value that voxels can have; 0 if there is none
    flat: ClassVar[bool] = False  # whether images of a single slice are accepted
    smooth: ClassVar[bool] = False  # whether probabilities are resampled before decoding, which keeps outlines smooth
    tells_air: bool = False  # whether grey levels separate the head from air
    suits_brains: ClassVar[bool] = False  # whether it is made for extracted brains, with zeros around them

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
