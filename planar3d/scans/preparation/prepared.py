"""A prepared scan: the network's input, and the mapping back to the native grid; stored in a folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from planar3d.errors import RunError
from planar3d.files import map_array, read_json, write_json, written_beside
from planar3d.scans.geometry import Geometry
from planar3d.scans.volume import Scan, on_grid_of


@dataclass(frozen=True)
class Prepared:
    """The network's input for a scan.

    Attributes:
        voxels: (slices, rows, cols, images) of the prepared grid, in the type of the preparation: uint8 or float.
        geometry: the native grid and its mapping to the prepared grid.
    """

    voxels: np.ndarray
    geometry: Geometry

    def align(self, mask: Scan) -> np.ndarray:
        """Map labels of the scan, in any orientation, to the prepared grid: uint8 (slices, rows, cols).

        Raises:
            ScanError: the mask is on another grid than the scan.
        """
        mask = on_grid_of(Scan(np.broadcast_to(np.uint8(0), self.geometry.shape), self.geometry.header), mask)
        turned = self.geometry.turned(mask.voxels)
        # uint8 directly by nearest neighbour: the release scales masks to 255 and back, with the same result.
        return self.geometry.laid(turned.astype(np.uint8, copy=False), order=0)

    def restore(self, volume: np.ndarray) -> Scan:
        """Map probabilities or a mask from the prepared grid back to the native grid.

        Args:
            volume: (slices, rows, cols) of the prepared grid, or (slices, rows, cols, channels); float is interpolated
                linearly, uint8 and bool by the nearest voxel.

        Returns:
            A scan of the input's shape, affine, codes and zooms; float32, or uint8 for masks. Voxels outside the
            prepared grid are zero.
        """
        volume = np.asarray(volume)
        if volume.ndim == 4:
            restored = [self.restore(volume[..., channel]).voxels for channel in range(volume.shape[-1])]
            return Scan(np.stack(restored, axis=-1), self.geometry.header)
        if volume.shape != self.voxels.shape[:3]:
            raise ValueError(f"The volume has shape {volume.shape}, the prepared scan {self.voxels.shape[:3]}.")
        if volume.dtype.kind == "f":
            volume, order = volume.astype(np.float32, copy=False), 1
        else:
            volume, order = volume.astype(np.uint8, copy=False), 0
        return Scan(self.geometry.back(volume, order), self.geometry.header)


def save_prepared(
    folder: Path, prepared: Prepared, mask: np.ndarray | None, sources: Mapping[str, Any] | None = None
) -> None:
    """Write voxels.npy, mask.npy (if given) and finally geometry.json, whose presence marks completeness.

    Args:
        sources: the origin of the prepared scan as JSON values, for geometry.json; default: none.
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
