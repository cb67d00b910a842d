"""The paper's preparation: a sagittal cube."""

from collections.abc import Mapping
from dataclasses import dataclass

import nibabel as nib

from planar3d.scans.geometry import Geometry
from planar3d.scans.preparation.grey_levels import EightBit, Turned
from planar3d.scans.preparation.prepared import Prepared
from planar3d.scans.resample import RESAMPLINGS
from planar3d.scans.volume import Scan


@dataclass(frozen=True)
class SagittalCube(EightBit):
    """The sagittal view resampled to size³, as in the paper.

    Intensities are scaled by minimum and maximum to [0, 65535], interpolated by splines, scaled again, and converted to
    8 bit as floor(value / 256).

    Source: Kolarik 2020, section 3.2; the 8-bit arithmetic is the released code's, in float32.
    """

    name = "sagittal-cube"
    # On LPS storage, which is the challenge's, it is the released `flip(rot90(v, 3, (2, 1)), 0)`: left to right,
    # superior to inferior, anterior to posterior.
    view = "RIP"
    same_slices = True

    def prepare(self, scans: Mapping[str, Scan]) -> Prepared:
        """Reorient, resample, and convert to grey levels."""
        scan = scans[self.image]
        geometry = self.geometry(scan.header.copy())
        raw, limits = self.raw(scan)
        values, to_levels = self.levels.made(Turned(geometry.turned(raw), limits))
        laid = geometry.laid(values, self.spline_order, RESAMPLINGS[self.resampling])
        return Prepared(to_levels(laid)[..., None], geometry)

    def geometry(self, header: nib.Nifti1Header) -> Geometry:
        """The geometry of the cube over the whole volume."""
        cube = (self.size,) * 3
        return Geometry(header, self.view, cube, cube)

    def slices(self, depth: int) -> int:
        """The slices of the cube."""
        return self.size

    def grid(self, plane: str) -> str:
        """The cube."""
        return f"resampled to a {plane} cube of {self.size} voxels along each axis"

    def label(self) -> str:
        """256³."""
        return f"{self.size}³ grid"
