"""Axial slices as acquired: the preparation for thick-slice scans."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import nibabel as nib
import numpy as np
from scipy import ndimage

from planar3d.errors import ScanError
from planar3d.scans.geometry import Geometry, in_view
from planar3d.scans.head import counts_along
from planar3d.scans.intensities import HEAD_LEVEL
from planar3d.scans.nifti_header import MAXIMUM_VOXELS
from planar3d.scans.preparation.eight_bit import EightBit
from planar3d.scans.preparation.prepared import HEAD_MM, Prepared
from planar3d.scans.resample import RESAMPLINGS
from planar3d.scans.volume import Scan
from planar3d.sections import plausible

_HEAD_SHARE = 0.002  # of a slice; about a square centimetre, too small for a lesion


@dataclass(frozen=True)
class AxialSlices(EightBit):
    """Axial slices as acquired, resampled in-plane to `pixel_mm` and cropped or padded to size².

    Slices much closer than `slice_mm` are averaged with their neighbours to about that thickness, if grey levels
    distinguish the head from air.
    """

    name = "axial-slices"
    view = "SPL"
    smooth = True

    pixel_mm: Annotated[float, plausible(0.05, 20)] = 0.9  # pixel size of rows and columns
    slice_mm: Annotated[float, plausible(0.2, 50)] = 6.5  # closer slices are interleaved into stacks of this spacing

    def prepare(self, scans: Mapping[str, Scan]) -> Prepared:
        """Reorient, center on the head, average, resample, and convert to grey levels."""
        scan = scans[self.image]
        geometry = self.geometry(scan.header.copy())
        turned = self.turned(scan, geometry)
        if math.prod(geometry.resampled) > MAXIMUM_VOXELS:
            raise ScanError(
                f"{scan.path or 'The scan'} would have {geometry.resampled} slices, rows and columns at "
                f"{self.pixel_mm:g} mm; no head is that wide. Fix its header or convert it again."
            )
        geometry = self.geometry(geometry.header, _center(turned.shown > turned.air))
        values, to_levels = self.levels.made(turned)
        slab = (self._number(geometry) - 1) // 2 * 2 + 1
        if self.tells_air and slab > 1:
            values = ndimage.uniform_filter1d(values, slab, axis=0, mode="nearest")
        laid = geometry.laid(values, self.spline_order, RESAMPLINGS[self.resampling])
        return Prepared(to_levels(laid)[..., None], geometry)

    def slices(self, depth: int) -> int:
        return max(depth, round(HEAD_MM / self.slice_mm))

    def stacks(self, prepared: Prepared, depth: int) -> list[slice]:
        """Interleaved stacks of about `slice_mm`.

        If grey levels separate the head from air, slices beyond it are in no stack, unless that would make a stack
        shorter than a window.
        """
        count, first, end = self._number(prepared.geometry), 0, len(prepared.voxels)
        if self.tells_air:
            first, end = _head_slices(prepared.voxels, at_least=count * depth)
        return [slice(first + number, end, count) for number in range(count)]

    def grid(self) -> str:
        return (
            f"axial slices resampled to {self.size} × {self.size} pixels of {self.pixel_mm:g} mm; slices closer than "
            f"{self.slice_mm:g} mm are interleaved into stacks of about that distance"
        )

    def label(self) -> str:
        return f"slices of {self.size}²"

    def geometry(self, header: nib.Nifti1Header, center: list[float] | None = None) -> Geometry:
        """The geometry with planes centered on the head's center, (slices, rows, cols) in native voxels."""
        native, mm = in_view(header, self.view)
        rows, cols = (max(1, round(n * d / self.pixel_mm)) for n, d in zip(native[1:], mm[1:], strict=True))
        resampled = (native[0], rows, cols)
        # A plane larger than the grid is cropped, preferably far from the head.
        middle = [(n - 1) / 2 for n in native] if center is None else center
        offset = [0]
        for length, before, at in zip(resampled[1:], native[1:], middle[1:], strict=True):
            surplus = length - self.size
            around = round(at * length / before - self.size / 2)
            offset.append(min(max(around, 0), surplus) if surplus > 0 else surplus // 2)
        return Geometry(header, self.view, resampled, (native[0], self.size, self.size), tuple(offset))

    def _number(self, geometry: Geometry) -> int:
        """Number of stacks, fewer for a thin slab with few slices."""
        return min(max(1, round(self.slice_mm / geometry.spacing[0])), geometry.prepared[0])


def _center(head: np.ndarray) -> list[float] | None:
    """The center of mass of a mask, (slices, rows, cols) in voxels; None if it is empty."""
    if not head.any():
        return None
    # `ndimage.center_of_mass` allocates eight bytes per voxel several times.
    return [float(np.average(range(n), weights=counts_along(head, axis))) for axis, n in enumerate(head.shape)]


def _head_slices(voxels: np.ndarray, at_least: int) -> tuple[int, int]:
    """The first slice of the head and the one after the last; extended on both sides if they are too few."""
    shares = np.count_nonzero(voxels > HEAD_LEVEL, axis=(1, 2, 3)) / voxels[0].size
    found = np.flatnonzero(shares > _HEAD_SHARE)
    if not len(found):
        return 0, len(voxels)
    first, end = int(found[0]), int(found[-1]) + 1
    missing = max(0, at_least - (end - first))
    first = max(0, min(first - missing // 2, len(voxels) - at_least))
    return first, min(len(voxels), max(end, first + at_least))
