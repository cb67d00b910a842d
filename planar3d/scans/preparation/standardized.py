"""Standardized images: cropped to the brain or around the center (for BraTS), or slices of one size."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np

from planar3d.errors import ScanError
from planar3d.scans.geometry import Geometry, in_view
from planar3d.scans.head import box_of
from planar3d.scans.preparation.prepared import HEAD_MM, Preparation, Prepared, in_words
from planar3d.scans.volume import Scan
from planar3d.sections import Limit, plausible

_LEAST_DEVIATION = 1e-8  # added to the standard deviation, as in Wacker 2019's release
# Voxels for mean and standard deviation: description, and mask from an image and the brain.
_WITHIN: dict[str, tuple[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]] = {
    "brain": ("the brain", lambda volume, brain: brain),
    "image": ("its own non-zero voxels", lambda volume, brain: volume != 0),
    "everything": ("all of its voxels", lambda volume, brain: np.ones_like(brain)),
}
_LENGTHS = Limit(lambda v: len(v) == 3, "three numbers are needed: slices, rows, cols")


@dataclass(frozen=True)
class Standardized(Preparation):
    """Images as channels, each standardized by its mean and standard deviation."""

    view = "SPL"
    flat = suits_brains = True
    order: ClassVar[int] = 0  # of the splines that resample an image
    grid: ClassVar[str]  # cropping or resampling, in words

    images: tuple[str, ...] = ("flair", "t1ce", "t2")  # images of a case, one per channel, in this order
    within: Literal["brain", "image", "everything"] = "brain"  # mean over voxels non-zero in any or this image, or all
    stored: Literal["float32", "float16"] = "float32"  # type of prepared values on disk and in memory

    @property
    def channels(self) -> int:  # type: ignore[override]
        return len(self.images)

    @abstractmethod
    def geometry(self, whole: Geometry, brain: np.ndarray) -> Geometry:
        """The geometry of the prepared grid, `whole` for the complete scan; and the brain mask on it."""

    def prepare(self, scans: Mapping[str, Scan]) -> Prepared:
        first = scans[self.images[0]]
        header = first.header.copy()
        native, _ = in_view(header, self.view)
        whole = Geometry(header, self.view, native, native)
        turned = [whole.turned(scans[name].voxels) for name in self.images]
        brain = np.logical_or.reduce([volume != 0 for volume in turned])
        if not brain.any():
            raise ScanError(f"{first.path or 'The scan'} is zero everywhere, and so is every other image of the case.")
        geometry = self.geometry(whole, brain)
        voxels = np.zeros((*geometry.prepared, len(turned)), self.stored)
        for channel, (name, volume) in enumerate(zip(self.images, turned, strict=True)):
            inside = _WITHIN[self.within][1](volume, brain)
            values = volume[inside].astype(np.float64)
            deviation = values.std() if values.size else 0.0
            if not deviation:
                raise ScanError(
                    f"{scans[name].path or name} has the same value everywhere in the brain. Export it again."
                )
            standardized = np.zeros(native, self.stored)
            standardized[inside] = (values - values.mean()) / (deviation + _LEAST_DEVIATION)
            voxels[..., channel] = geometry.laid(standardized, order=self.order)
        return Prepared(voxels, geometry)

    def as_input(self, voxels: np.ndarray) -> np.ndarray:
        return np.asarray(voxels, np.float32)

    def describe(self) -> dict[str, str]:
        return {
            "slices": in_words(self.view),
            "grid": self.grid,
            "grey_levels": f"mean 0 and standard deviation 1 of each image within {_WITHIN[self.within][0]}, 0 outside",
            "values": f"float32, one channel an image: {', '.join(self.images)}",
        }


@dataclass(frozen=True)
class NonZeroBox(Standardized):
    """The box around all voxels that are non-zero in any image.

    Source: Wacker 2019, section III.D; the brain is the union of all images', as batchgenerators prepares BraTS.
    """

    name = "non-zero-box"
    plane = (0, 0)
    grid = "cropped to the voxels that are non-zero in any image, not resampled"

    def geometry(self, whole: Geometry, brain: np.ndarray) -> Geometry:
        box = box_of(brain)
        return replace(whole, prepared=tuple(n.stop - n.start for n in box), offset=tuple(n.start for n in box))

    def slices(self, depth: int) -> int:
        """The slices of a head of 150 mm, 1 mm apart."""
        return max(depth, HEAD_MM)

    def label(self) -> str:
        return "box of the brain"


@dataclass(frozen=True)
class CenterCrop(Standardized):
    """A box of fixed shape around the center of every scan; smaller scans are padded with zeros.

    Source: Messaoudi 2020, section 2.1, with 192×160×108 of 240×240×155 voxels.
    """

    name = "center-crop"
    same_slices = True

    crop: Annotated[tuple[Annotated[int, plausible(1, 1024)], ...], _LENGTHS] = (108, 192, 160)  # slices, rows and cols

    @property
    def plane(self) -> tuple[int, int]:  # type: ignore[override]
        return self.crop[1], self.crop[2]

    @property
    def grid(self) -> str:  # type: ignore[override]
        return f"cropped to {self.label()} around the center, not resampled"

    def geometry(self, whole: Geometry, brain: np.ndarray) -> Geometry:
        first = tuple((have - wanted) // 2 for have, wanted in zip(brain.shape, self.crop, strict=True))
        return replace(whole, prepared=self.crop, offset=first)

    def slices(self, depth: int) -> int:
        return self.crop[0]

    def label(self) -> str:
        return f"{'×'.join(map(str, self.crop))} voxels"


@dataclass(frozen=True)
class ResizedSlices(Standardized):
    """Every slice resized to a fixed number of rows and columns, whatever its pixel size.

    Source: Messaoudi 2023, section 3, for CHAOS, whose slices are resized to 512×512.
    """

    name = "resized-slices"
    smooth = True
    order = 1

    images: tuple[str, ...] = ("image",)
    within: Literal["brain", "image", "everything"] = "everything"
    size: Annotated[int, plausible(16, 1024)] = 256  # rows and columns

    @property
    def plane(self) -> tuple[int, int]:  # type: ignore[override]
        return self.size, self.size

    @property
    def grid(self) -> str:  # type: ignore[override]
        return f"slices resized to {self.size} × {self.size} pixels"

    def geometry(self, whole: Geometry, brain: np.ndarray) -> Geometry:
        shape = (whole.resampled[0], self.size, self.size)
        return replace(whole, resampled=shape, prepared=shape)

    def slices(self, depth: int) -> int:
        """The slices of a window; images may have any number."""
        return depth

    def label(self) -> str:
        return f"slices of {self.size}²"
