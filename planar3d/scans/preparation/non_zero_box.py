"""Brain-extracted images cropped to the brain and standardized within it: the preparation of BraTS."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from planar3d.errors import ScanError
from planar3d.scans.composition import as_float32
from planar3d.scans.geometry import Geometry, in_view
from planar3d.scans.preparation.interface import Decode, Preparation, in_words
from planar3d.scans.preparation.prepared import Prepared
from planar3d.scans.volume import Scan

_HEAD_MM = 150.0
_LEAST_DEVIATION = 1e-8  # is added to a deviation, as in the release


@dataclass(frozen=True)
class NonZeroBox(Preparation):
    """The box around all voxels that are not zero in some image; each image by its mean and deviation there.

    Voxels that are zero in every image stay zero. Nothing is resampled.

    Source: Wacker 2019, section II.B; the brain is the union of all images' in batchgenerators' preprocessing of BraTS.
    """

    name = "non-zero-box"
    view = "SPL"
    same_slices = False
    air = 0.0

    images: tuple[str, ...] = ("flair", "t1ce", "t2")  # of a case, one a channel, in this order
    stored: Literal["float32", "float16"] = "float32"  # prepared values on disk and in memory

    @property
    def plane(self) -> tuple[int, int]:  # type: ignore[override]
        """Rows and columns differ from scan to scan."""
        return 0, 0

    @property
    def channels(self) -> int:  # type: ignore[override]
        """One an image."""
        return len(self.images)

    def prepare(self, scans: Mapping[str, Scan]) -> Prepared:
        """Turn, crop and standardize."""
        first = scans[self.images[0]]
        header = first.header.copy()
        native, _ = in_view(header, self.view)
        whole = Geometry(header, self.view, native, native)
        turned = [whole.turned(scans[name].voxels) for name in self.images]
        brain = np.zeros(native, bool)
        for volume in turned:
            brain |= volume != 0
        if not brain.any():
            raise ScanError(f"{first.path or 'The scan'} is zero everywhere, and so are its other images.")
        box = _box(brain)
        inside = brain[box]
        shape = inside.shape
        voxels = np.zeros((*shape, len(turned)), self.stored)
        for channel, (name, volume) in enumerate(zip(self.images, turned, strict=True)):
            values = volume[box][inside].astype(np.float64)
            deviation = values.std()
            if not deviation:
                raise ScanError(
                    f"{scans[name].path or name} has the same value everywhere in the brain; it is no image. Export it "
                    "again."
                )
            voxels[inside, channel] = (values - values.mean()) / (deviation + _LEAST_DEVIATION)
        offset = tuple(part.start for part in box)
        return Prepared(voxels, Geometry(header, self.view, native, shape, offset))

    def as_input(self, voxels: np.ndarray) -> np.ndarray:
        """The standardized values."""
        return as_float32(voxels)

    def slices(self, depth: int) -> int:
        """Those of a head of 150 mm, 1 mm apart."""
        return max(depth, round(_HEAD_MM))

    def stacks(self, prepared: Prepared, depth: int) -> list[slice]:
        """All slices together."""
        return [slice(0, len(prepared.voxels), 1)]

    def native(self, probabilities: np.ndarray, prepared: Prepared, decode: Decode) -> Scan:
        """Decoded, and put back where the box was."""
        return prepared.restore(decode(probabilities, prepared.geometry.axes))

    def describe(self) -> dict[str, str]:
        """The view, the box, and how values are standardized."""
        return {
            "slices": in_words(self.view),
            "grid": "cropped to the voxels that are not zero in some image, nothing resampled",
            "grey_levels": "mean 0 and deviation 1 of each image within the brain, 0 outside",
            "values": f"float32, one channel an image: {', '.join(self.images)}",
        }

    def label(self) -> str:
        """The box."""
        return "box of the brain"


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box that holds all of a mask."""
    places = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return tuple(slice(int(found[0]), int(found[-1]) + 1) for found in places)
