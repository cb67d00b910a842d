"""Preparations by name. A new one is a file with its class, and one line here."""

from planar3d.scans.preparation.axial_slices import AxialSlices
from planar3d.scans.preparation.eight_bit import SagittalCube
from planar3d.scans.preparation.prepared import Preparation
from planar3d.scans.preparation.standardized import CenterCrop, NonZeroBox, ResizedSlices

PREPARATIONS: dict[str, type[Preparation]] = {
    made.name: made for made in (SagittalCube, AxialSlices, NonZeroBox, CenterCrop, ResizedSlices)
}
