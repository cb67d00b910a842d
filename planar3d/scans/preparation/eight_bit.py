"""Preparations to 8 bit: the conversions to grey levels, the base, and the paper's sagittal cube."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Annotated, ClassVar, Literal, NamedTuple

import nibabel as nib
import numpy as np

from planar3d.scans import intensities
from planar3d.scans.geometry import Geometry
from planar3d.scans.preparation.prepared import Preparation, Prepared, in_words
from planar3d.scans.resample import RESAMPLINGS
from planar3d.scans.volume import Scan
from planar3d.scans.windows import INPUT_SCALE, network_input
from planar3d.sections import MULTIPLE_OF_16, POSITIVE, Limit, plausible

_ORDER = Limit(lambda v: 0 <= v <= 5, "splines have an order from 0 to 5")


class Turned:
    """Raw values (slices, rows, cols) of a view, with the lowest and highest value of the scan."""

    def __init__(self, voxels: np.ndarray, limits: tuple[float, float]) -> None:
        self.voxels, self.limits = voxels, limits

    @cached_property
    def shown(self) -> np.ndarray:
        """The values before any standardization."""
        return intensities.unstandardized(self.voxels)

    @cached_property
    def air(self) -> float:
        """The value that separates the head from air."""
        return intensities.head_threshold(self.shown)


class GreyLevels(NamedTuple):
    """A conversion to grey levels: description, resampled values, mapping to 8 bit, and whether air is identified."""

    words: str
    made: Callable[[Turned], tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]]
    tell_air: bool


def _by_median(turned: Turned) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    median = intensities.head_median(turned.shown, turned.air)
    return np.ascontiguousarray(turned.shown, dtype=np.float32), partial(intensities.to_8_bit_by_median, median=median)


GREY_LEVELS = {
    "min-max": GreyLevels(
        "the lowest and highest values of the scan become 0 and 255",
        lambda turned: (intensities.to_16_bit_range(turned.voxels, *turned.limits), intensities.to_8_bit),
        tell_air=False,
    ),
    "median": GreyLevels(
        f"the median of the head becomes {intensities.MEDIAN_LEVEL:g} of 255", _by_median, tell_air=True
    ),
}


@dataclass(frozen=True)
class EightBit(Preparation):
    """8-bit grey levels of one image, repeated for the channels."""

    view: ClassVar[str]  # directions of slices, rows and columns
    brightest = 255.0

    size: Annotated[int, MULTIPLE_OF_16, plausible(16, 1024)] = 256  # rows and columns; for cubes also slices
    spline_order: Annotated[int, _ORDER] = 2  # for resampling
    grey_levels: Literal["min-max", "median"] = "min-max"  # "median": the head's median becomes a fixed grey level
    raw_values: Literal["float32", "float16"] = "float32"  # the release stores raw values as float16
    resampling: Literal["matrix", "scipy"] = "matrix"  # "matrix": fast, differs from scipy by at most one grey level
    image: str = "flair"  # name of the image in a case
    channels: Annotated[int, POSITIVE] = 3  # copies of the grey levels

    @property
    def images(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.image,)

    def as_input(self, voxels: np.ndarray) -> np.ndarray:
        """Grey levels from -1 to 1, the same in every channel."""
        return network_input(voxels, self.channels)

    @property
    def plane(self) -> tuple[int, int]:  # type: ignore[override]
        return self.size, self.size

    @property
    def levels(self) -> GreyLevels:
        """The conversion to grey levels."""
        return GREY_LEVELS[self.grey_levels]

    @property
    def tells_air(self) -> bool:  # type: ignore[override]
        return self.levels.tell_air

    def turned(self, scan: Scan, geometry: Geometry) -> Turned:
        """Raw values in the view, through float16 if the recipe requires it."""
        if self.raw_values == "float32":
            return Turned(geometry.turned(scan.voxels), scan.limits)
        raw = intensities.through_float16(scan.voxels, scan.path)
        return Turned(geometry.turned(raw), (raw.min(), raw.max()))

    def describe(self) -> dict[str, str]:
        return {
            "slices": in_words(self.view),
            "grid": self.grid(),
            "grey_levels": self.levels.words,
            "values": f"8 bit / {INPUT_SCALE} - 1, float32, the one modality in every channel",
        }

    @abstractmethod
    def grid(self) -> str:
        """The grid in words."""


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
        scan = scans[self.image]
        geometry = self.geometry(scan.header.copy())
        values, to_levels = self.levels.made(self.turned(scan, geometry))
        laid = geometry.laid(values, self.spline_order, RESAMPLINGS[self.resampling])
        return Prepared(to_levels(laid)[..., None], geometry)

    def geometry(self, header: nib.Nifti1Header) -> Geometry:
        """The geometry of the cube over the whole volume."""
        cube = (self.size,) * 3
        return Geometry(header, self.view, cube, cube)

    def slices(self, depth: int) -> int:
        return self.size

    def grid(self) -> str:
        return f"resampled to a sagittal cube of {self.size} voxels along each axis"

    def label(self) -> str:
        return f"{self.size}³ grid"
