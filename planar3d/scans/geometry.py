"""Grids in space: the edges and the volume of a voxel, the distance between two grids, and the way to the network's."""

import base64
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from reprlib import repr as repr_of
from typing import Any

import nibabel as nib
import numpy as np
from nibabel import orientations

from planar3d.errors import ScanError
from planar3d.scans.resample import resample_by_matrices
from planar3d.scans.windows import cut_tile

Grid = Sequence[float] | np.ndarray  # a voxel's edges in mm, or an affine, as in `voxel_axes`
Resample = Callable[[np.ndarray, tuple[int, ...], int], np.ndarray]

FLAT = 0.01  # of a box with the same edges; a voxel has less volume only if axes nearly coincide
_RIGHT_ANGLE = 1e-5  # cosine; headers store float32, and DICOM six digits
_LONGEST = 2**16  # voxels along an axis of a resampled scan, whose file has at most 1024
_FIRST_VIEW = "RIP"  # of older files, which do not record it


def voxel_axes(grid: Grid) -> np.ndarray:
    """The axes of a voxel in mm as the columns of a triangular 3×3, up to a rotation of all of them.

    Voxel indices (i, j, k) times this matrix are positions with correct distances, on sheared grids as well. A grid is
    given by the voxel's edges in mm if its axes are orthogonal; else by its affine, 4×4 or its 3×3.

    Raises:
        ScanError: lengths that are not positive and finite, or axes that do not span space.
    """
    try:
        given = np.asarray(grid, dtype=float)
    except (TypeError, ValueError):
        given = np.asarray(repr_of(grid))
    lengths_alone = given.shape == (3,)
    axes = np.diag(given) if lengths_alone else given[:3, :3] if given.shape in ((3, 3), (4, 4)) else np.zeros((3, 3))
    if not np.isfinite(axes).all() or _is_flat(axes) or (lengths_alone and given.min() <= 0):
        raise ScanError(
            f"The voxel spacing is {given.tolist()}; three positive lengths in mm are needed, or an affine."
        )
    lengths = np.linalg.norm(axes, axis=0)
    cosines = (axes / lengths).T @ (axes / lengths)
    if np.abs(cosines - np.eye(3)).max() < _RIGHT_ANGLE:
        return np.diag(lengths)
    _, triangle = np.linalg.qr(axes)
    return triangle


def voxel_mm3(grid: Grid) -> float:
    """The volume of a voxel in mm³, from its edges or an affine as in `voxel_axes`."""
    return abs(float(np.prod(np.diagonal(voxel_axes(grid)))))


def is_usable(affine: np.ndarray) -> bool:
    """Whether an affine locates voxels: finite, with axes that span space."""
    return bool(np.isfinite(affine).all()) and not _is_flat(affine[:3, :3])


def corner_shift(affine: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """How far, in voxels of `affine`, the farthest corner of a (i, j, k) grid moves under the `other` affine."""
    corners = np.array([(i, j, k, 1) for i in (0, shape[0] - 1) for j in (0, shape[1] - 1) for k in (0, shape[2] - 1)])
    moved = corners @ (np.linalg.inv(affine) @ other).T
    return float(np.abs(moved - corners)[:, :3].max())


def _is_flat(axes: np.ndarray) -> bool:
    longest = np.abs(axes).max()
    if not longest > 0:
        return True
    axes = axes / longest  # squares of lengths in a damaged header may overflow
    lengths = np.linalg.norm(axes, axis=0)
    return not lengths.min() > 0 or abs(float(np.linalg.det(axes / lengths))) < FLAT


@dataclass(frozen=True)
class Geometry:
    """A native grid, and the mapping to the prepared grid and back.

    A volume is reoriented to the view, resampled, and placed in the prepared grid, where it is cropped or padded with
    zeros.
    """

    header: nib.Nifti1Header  # of the native grid
    view: str  # nibabel codes of the directions in which slices, rows and columns of the prepared grid run
    resampled: tuple[int, ...]  # the volume's (slices, rows, cols) in the view after resampling
    prepared: tuple[int, ...]  # (slices, rows, cols) of the prepared grid
    # Place of the prepared grid's first voxel in the resampled volume; negative where zeros come first.
    offset: tuple[int, ...] = (0, 0, 0)

    @property
    def shape(self) -> tuple[int, ...]:
        """Native (i, j, k)."""
        return tuple(int(n) for n in self.header.get_data_shape()[:3])

    @property
    def across(self) -> int:
        """The axis of the view from left to right, or from right to left."""
        return next(axis for axis, end in enumerate(self.view) if end in "LR")

    @property
    def native(self) -> tuple[int, ...]:
        """Native shape as (slices, rows, cols) of the view."""
        return in_view(self.header, self.view)[0]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm between neighbouring voxels of the prepared grid, along (slices, rows, cols)."""
        native, mm = in_view(self.header, self.view)
        # The first and last voxels of both grids coincide, as in scipy's zoom.
        return tuple(  # type: ignore[return-value]
            float(d * (n - 1) / (m - 1)) if m > 1 else float(d)
            for d, n, m in zip(mm, native, self.resampled, strict=True)
        )

    @property
    def axes(self) -> np.ndarray:
        """3×3, in mm: the steps between voxels of the prepared grid along (slices, rows, cols), as columns."""
        turn = _turn(self.header, self.view)
        axes = (self.header.get_best_affine()[:3, :3] * turn[:, 1])[:, np.argsort(turn[:, 0])]
        return axes / np.linalg.norm(axes, axis=0) * self.spacing

    def turned(self, volume: np.ndarray) -> np.ndarray:
        """A native volume (i, j, k) as (slices, rows, cols) of the view."""
        return orientations.apply_orientation(volume, _turn(self.header, self.view))

    def laid(self, volume: np.ndarray, order: int, resample: Resample = resample_by_matrices) -> np.ndarray:
        """Resample a volume of the view, (slices, rows, cols), and place it in the prepared grid."""
        return cut_tile(resample(volume, self.resampled, order), self.offset, self.prepared)

    def back(self, volume: np.ndarray, order: int) -> np.ndarray:
        """Map a volume from the prepared grid to the native one, (i, j, k); zero beyond the prepared grid."""
        whole = cut_tile(volume, [-start for start in self.offset], self.resampled)
        turned = resample_by_matrices(whole, self.native, order)
        back = orientations.ornt_transform(
            orientations.axcodes2ornt(tuple(self.view)), orientations.io_orientation(self.header.get_best_affine())
        )
        return np.ascontiguousarray(orientations.apply_orientation(turned, back))

    def to_json(self) -> dict[str, Any]:
        """Both grids, readable, and the native header byte for byte in base64."""
        return {
            "shape": list(self.shape),
            "axes": "".join(nib.aff2axcodes(self.header.get_best_affine())),
            "affine": self.header.get_best_affine().tolist(),
            "zooms_mm": [float(z) for z in self.header.get_zooms()[:3]],
            "view": self.view,
            "resampled": list(self.resampled),
            "prepared": list(self.prepared),
            "offset": list(self.offset),
            "header": base64.b64encode(self.header.binaryblock).decode("ascii"),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any], prepared: tuple[int, ...]) -> "Geometry":
        """Read the output of `to_json`; `prepared` is the shape of the voxels, which older files, of cubes, lack."""
        block, view = base64.b64decode(content["header"]), content.get("view", _FIRST_VIEW)
        header = {kind.sizeof_hdr: kind for kind in (nib.Nifti1Header, nib.Nifti2Header)}[len(block)](block)
        _turn(header, view)  # whose error names the file
        offset = _three(content.get("offset", (0, 0, 0)), -_LONGEST)
        resampled, found = (_three(content.get(name, prepared), 1) for name in ("resampled", "prepared"))
        if found != tuple(prepared):
            raise ValueError(f"the prepared grid is {found}, but the voxels have {tuple(prepared)}")
        return cls(header, view, resampled, found, offset)


def _three(values: Iterable[int], least: int) -> tuple[int, ...]:
    slices, rows, cols = map(operator.index, values)
    if not all(least <= number <= _LONGEST for number in (slices, rows, cols)):
        raise ValueError(f"{(slices, rows, cols)} are not the voxels of a scan")
    return slices, rows, cols


def _turn(header: nib.Nifti1Header, view: str) -> np.ndarray:
    native = orientations.io_orientation(header.get_best_affine())
    return orientations.ornt_transform(native, orientations.axcodes2ornt(tuple(view)))


def in_view(header: nib.Nifti1Header, view: str) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Native shape and distances in mm as (slices, rows, cols) of a view."""
    order = np.argsort(_turn(header, view)[:, 0])
    shape = header.get_data_shape()
    mm = np.linalg.norm(header.get_best_affine()[:3, :3], axis=0)
    return tuple(int(shape[axis]) for axis in order), tuple(float(mm[axis]) for axis in order)
