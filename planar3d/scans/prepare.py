"""Preparation: a raw scan to the sagittal 8-bit cube the network sees, and the way back to the native grid."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel import orientations

from planar3d.errors import RunError
from planar3d.files import read_json, write_json, written_beside
from planar3d.recipes import PAPER, Recipe
from planar3d.scans.intensities import through_float16, to_8_bit, to_16_bit_range
from planar3d.scans.resample import RESAMPLINGS, resample_by_matrices
from planar3d.scans.volume import Scan, check_same_grid

# Slices run from left to right, rows from superior to inferior, columns from anterior to posterior. On LPS storage,
# which is the challenge's, this is the released `flip(rot90(v, 3, (2, 1)), 0)`.
SAGITTAL_VIEW = ("R", "I", "P")


@dataclass(frozen=True)
class Geometry:
    """Where a native grid lies, and how to come back to it from the prepared cube."""

    header: nib.Nifti1Header

    @property
    def shape(self) -> tuple[int, ...]:
        """Native (i, j, k)."""
        return tuple(int(n) for n in self.header.get_data_shape()[:3])

    @property
    def to_sagittal(self) -> np.ndarray:
        """nibabel orientation from native storage to the sagittal view."""
        native = orientations.io_orientation(self.header.get_best_affine())
        return orientations.ornt_transform(native, orientations.axcodes2ornt(SAGITTAL_VIEW))

    @property
    def sagittal_shape(self) -> tuple[int, ...]:
        """Native shape as (slices, rows, cols) of the sagittal view."""
        order = np.argsort(self.to_sagittal[:, 0])
        return tuple(self.shape[axis] for axis in order)

    def spacing(self, size: int) -> tuple[float, float, float]:
        """Distance in mm of neighbouring voxels of the prepared cube of `size`, along (slices, rows, cols)."""
        order = np.argsort(self.to_sagittal[:, 0])
        native = np.linalg.norm(self.header.get_best_affine()[:3, :3], axis=0)[order]
        # The first and last voxels of both grids coincide, as scipy's zoom has it.
        return tuple(float(mm * (n - 1) / (size - 1)) for mm, n in zip(native, self.sagittal_shape, strict=True))  # type: ignore[return-value]

    def to_json(self) -> dict[str, Any]:
        """The native header, readable, and byte for byte in base64."""
        return {
            "shape": list(self.shape),
            "axes": "".join(nib.aff2axcodes(self.header.get_best_affine())),
            "affine": self.header.get_best_affine().tolist(),
            "zooms_mm": [float(z) for z in self.header.get_zooms()[:3]],
            "header": base64.b64encode(self.header.binaryblock).decode("ascii"),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Geometry":
        """Read what `to_json` gave."""
        block = base64.b64decode(content["header"])
        kind = nib.Nifti2Header if len(block) == nib.Nifti2Header.sizeof_hdr else nib.Nifti1Header
        return cls(kind(block))


@dataclass(frozen=True)
class Prepared:
    """What the network sees of a scan.

    Attributes:
        voxels: uint8 (slices, rows, cols), sagittal view, `size` voxels along each.
        geometry: the native grid.
    """

    voxels: np.ndarray
    geometry: Geometry

    def align(self, mask: Scan) -> np.ndarray:
        """Bring a mask on the scan's native grid to the prepared cube: uint8 {0, 1} (slices, rows, cols).

        Raises:
            ScanError: the mask is on another grid than the scan.
        """
        check_same_grid(mask, Scan(np.broadcast_to(np.uint8(0), self.geometry.shape), self.geometry.header))
        sagittal = orientations.apply_orientation(mask.voxels, self.geometry.to_sagittal)
        # uint8 straight from the nearest neighbour: the release scales masks to 255 and back, to the same effect.
        return resample_by_matrices(sagittal.astype(np.uint8, copy=False), self.voxels.shape, order=0)

    def restore(self, volume: np.ndarray) -> Scan:
        """Bring probabilities or a mask from the prepared cube back to the native grid.

        Args:
            volume: (slices, rows, cols) of the prepared cube; float is interpolated linearly, uint8 and bool by the
                nearest voxel.

        Returns:
            A scan of the input's shape, affine, codes and zooms; float32, or uint8 for masks.
        """
        volume = np.asarray(volume)
        if volume.shape != self.voxels.shape:
            raise ValueError(f"The volume has shape {volume.shape}, the prepared scan {self.voxels.shape}.")
        if volume.dtype.kind == "f":
            volume, order = volume.astype(np.float32, copy=False), 1
        else:
            volume, order = volume.astype(np.uint8, copy=False), 0
        sagittal = resample_by_matrices(volume, self.geometry.sagittal_shape, order)
        back = orientations.ornt_transform(
            orientations.axcodes2ornt(SAGITTAL_VIEW),
            orientations.io_orientation(self.geometry.header.get_best_affine()),
        )
        return Scan(np.ascontiguousarray(orientations.apply_orientation(sagittal, back)), self.geometry.header)


def prepare(scan: Scan, recipe: Recipe = PAPER, size: int | None = None) -> Prepared:
    """Turn a raw scan into the sagittal 8-bit cube.

    The sagittal view; intensities of the whole volume to [0, 65535] by minimum and maximum; spline interpolation to
    size³; minimum and maximum again; 8 bit as floor(value / 256).

    Args:
        scan: a raw FLAIR scan in any orientation.
        recipe: gives the spline order, whether scipy or its matrices resample, and whether raw values pass through
            float16 as in the release.
        size: voxels along each axis; the recipe's if None.

    Raises:
        ScanError: raw values that the recipe's float16 cannot hold.

    Source: Kolarik 2020, section 3.2; the 8-bit arithmetic is the released code's, in float32.
    """
    size = size or recipe.size
    geometry = Geometry(scan.header.copy())
    raw, limits = orientations.apply_orientation(scan.voxels, geometry.to_sagittal), scan.limits
    if recipe.raw_values == "float16":
        raw = through_float16(raw, scan.path)
        limits = raw.min(), raw.max()
    resample = RESAMPLINGS[recipe.resampling]
    resampled = resample(to_16_bit_range(raw, *limits), (size, size, size), recipe.spline_order)
    return Prepared(to_8_bit(resampled), geometry)


def save_prepared(folder: Path, prepared: Prepared, mask: np.ndarray | None) -> None:
    """Write voxels.npy, mask.npy (if given) and, last, geometry.json, whose presence says that all is there."""
    for name, array in (("voxels.npy", prepared.voxels), ("mask.npy", mask)):
        if array is not None:
            with written_beside(folder / name) as temporary:
                np.save(temporary, array)
    write_json(folder / "geometry.json", prepared.geometry.to_json())


def load_prepared(folder: Path) -> tuple[Prepared, np.ndarray | None]:
    """Open what `save_prepared` wrote, memory-mapped: nothing is read before it is used."""
    if not (folder / "geometry.json").is_file():
        raise RunError(f"{folder} holds no prepared scan. Prepare it first, with planar3d prepare.")
    mask = folder / "mask.npy"
    voxels = np.load(folder / "voxels.npy", mmap_mode="r", allow_pickle=False)
    geometry = Geometry.from_json(read_json(folder / "geometry.json"))
    return Prepared(voxels, geometry), np.load(mask, mmap_mode="r", allow_pickle=False) if mask.is_file() else None
