"""Quality checks of a scan: whether its content is what the model was made for, and complete."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from nibabel.spatialimages import HeaderDataError

from planar3d.scans.geometry import corner_shift, is_usable
from planar3d.scans.head import Head, find_head
from planar3d.scans.labels import Targets
from planar3d.scans.volume import CORNER_TOLERANCE, Scan
from planar3d.wording import is_or_are

# Sizes of heads and extracted brains in mm: least and greatest, including children and long necks.
_WIDTHS, _LENGTHS = (100, 250), (120, 280)
_VOLUMES = (600, 9000)  # ml
_BRAIN_HEIGHT = 100  # mm below the vertex that must be covered; whole adult brains need about 130
_CUT = 20  # mm of a head that may be missing on a side
_SPACING = 5  # mm
_SHEAR = 1.0  # degrees of a voxel's edges from perpendicular; rounding in headers is far less

# Contrast, as grey levels in the middle of the brain. `docs/results.md` (Scans that are not FLAIR) has those of all
# scans at hand. Fluid has 0.00 to 0.33 of the median in FLAIR, and 0.53 or more in T2, PD and some T1. Tissue near
# fluid has 0.92 to 1.05 of the level of tissue far from it in FLAIR, and 0.74 to 0.80 in T1, with contrast agent or
# without, as grey matter is dark.
_FLUID = 0.45
_NEAR, _FAR = 4, (7, 15)  # mm from fluid
_NEAR_TO_FAR = 0.86
_COARSE = 2.6  # mm between pixels of axial slices; larger ones mix tissue near fluid with fluid
_TISSUE = (0.6, 1.3)  # of the median; fluid is below; lesions, edema, fat and vessels are above
_ENOUGH = 200  # least voxels of the coarse grid to determine a contrast
_NOT_FLAIR = (
    "The scan does not look like FLAIR: {} If it is not, discard the mask and segment the patient's FLAIR scan."
)


@dataclass(frozen=True)
class CheckedScan:
    """A scan, its mask, and the model's domain; attributes are the arguments of `check_quality`."""

    scan: Scan
    mask: Scan
    whole_head: bool | None
    targets: Targets
    image: str
    measured: Mapping[str, Any]

    @cached_property
    def head(self) -> Head:
        """The head in the scan."""
        return find_head(self.scan)

    @cached_property
    def lesion(self) -> np.ndarray:
        """Whether a voxel (i, j, k) is marked."""
        return self.mask.voxels > 0.5

    @cached_property
    def lesion_voxels(self) -> int:
        """Number of marked voxels."""
        return int(np.count_nonzero(self.lesion))

    @cached_property
    def lesion_ml(self) -> float:
        """The marked volume."""
        return self.lesion_voxels * self.mask.voxel_mm3 / 1000


Check = Callable[[CheckedScan], Iterator[str]]  # yields a sentence if it fires


def contrast_of(head: Head) -> tuple[float, float]:
    """The grey levels of fluid, and of tissue near fluid, in the middle of the brain above the base of the skull.

    Returns:
        The first percentile relative to the median; and the median of tissue within 4 mm of fluid, relative to that of
        tissue 7 to 15 mm away, mostly white matter. nan if there is too little to measure, and the second one also if
        pixels of axial slices are larger than 2.6 mm.
    """
    middle = head.centre & head.vault
    inside = head.grey[middle]
    if inside.size < _ENOUGH or not (median := np.median(inside)):
        return float("nan"), float("nan")
    levels = head.grey / median
    distance = head.distance_to(middle & (levels < _TISSUE[0]))
    tissue = middle & (levels > _TISSUE[0]) & (levels < _TISSUE[1])
    near, far = (levels[tissue & (distance > low) & (distance <= high)] for low, high in ((0, _NEAR), _FAR))
    enough = min(near.size, far.size) >= _ENOUGH and max(head.acquired[:2]) < _COARSE
    near_to_far = float(np.median(near) / np.median(far)) if enough else float("nan")
    return float(np.percentile(inside, 1) / median), near_to_far


def _field_of_view(checked: CheckedScan) -> Iterator[str]:
    width, length, height = checked.head.extent
    limits = ((width, _WIDTHS), (length, _LENGTHS), (checked.head.volume_ml, _VOLUMES))
    if not all(least <= size <= most for size, (least, most) in limits):
        yield (
            f"The foreground measures {width:.0f} mm from right to left, {length:.0f} mm from front to back and "
            f"{height:.0f} mm in height, unlike a whole head. Check for another part of the body or a wrong voxel size."
        )


def _cut_off(checked: CheckedScan) -> Iterator[str]:
    missing = checked.head.missing()
    if not checked.head.is_extracted:
        missing.pop("inferior")  # a whole head ends at the neck, wherever the field of view ends
    cut = [f"about {mm:.0f} mm on the {side} side" for side, mm in missing.items() if mm > _CUT]
    height = checked.head.extent[2]
    if height < _BRAIN_HEIGHT:
        cut.append(f"everything more than {height:.0f} mm below the top")
    if cut:
        yield (
            f"The head seems to be cut off: {' and '.join(cut)} {is_or_are(cut)} missing. "
            f"{checked.targets.noun.capitalize()}s there are not in the mask."
        )


def _contrast(checked: CheckedScan) -> Iterator[str]:
    if checked.image != "flair" or any(_field_of_view(checked)):  # in part of a head, the brain's center is elsewhere
        return
    if checked.head.tissue <= checked.head.air:
        yield _NOT_FLAIR.format("the middle of the head is as dark as air, as in CT or angiography.")
        return
    fluid, near_to_far = np.round(contrast_of(checked.head), 3)  # as told
    if fluid > _FLUID:
        yield _NOT_FLAIR.format(
            f"the darkest fluid in the middle of the brain has {fluid:.1%} of the median grey level there, but at most "
            f"{_FLUID:.0%} is expected, as fluid is brighter in T2-weighted and PD-weighted scans."
        )
    elif near_to_far < _NEAR_TO_FAR:
        yield _NOT_FLAIR.format(
            f"tissue next to fluid has {near_to_far:.1%} of the grey level of white matter, but at least "
            f"{_NEAR_TO_FAR:.0%} is expected, as grey matter is darker in T1-weighted scans."
        )


def _values(checked: CheckedScan) -> Iterator[str]:
    if checked.head.standardized:
        yield (
            "Many of the scan's values are negative, as after standardization (z-scores), but models expect values as "
            "acquired, from 0 upwards. Use the scan as acquired, if you have it."
        )


def _spacing(checked: CheckedScan) -> Iterator[str]:
    widest = round(max(checked.scan.spacing), 1)  # as told; headers have float32, where 8.1 mm is a little more
    if widest > max([_SPACING, *checked.measured.get("spacing_mm", ())]):
        yield (
            f"The slices are {widest:.1f} mm apart: lesions smaller than that may be missed, and volumes are "
            "approximate."
        )


def _extraction(checked: CheckedScan) -> Iterator[str]:
    extracted = checked.head.is_extracted
    if extracted and checked.whole_head:
        yield "The scan is brain-extracted, but the model was made for whole heads; use the scan as acquired."
    if extracted is False and checked.whole_head is False:
        yield "The scan shows a whole head, but the model was made for brain-extracted scans; extract the brain first."


def _orientation(checked: CheckedScan) -> Iterator[str]:
    header = checked.scan.header
    if not (header["sform_code"] > 0 and header["qform_code"] > 0):
        return
    try:
        qform = header.get_qform()
    except (HeaderDataError, ValueError):
        qform = np.zeros((4, 4))
    if not is_usable(qform):
        yield "The scan's header has an invalid qform; the mask follows the sform. Check left and right."
    elif (shift := corner_shift(checked.scan.affine, qform, checked.scan.voxels.shape)) > CORNER_TOLERANCE:
        yield (
            f"The scan's header contradicts itself: its sform and qform differ by {shift:.1f} voxels at a corner. The "
            "mask follows the sform; other programs may not. Check left and right."
        )


def _shear(checked: CheckedScan) -> Iterator[str]:
    edges = checked.scan.affine[:3, :3] / checked.scan.spacing
    cosine = np.abs(edges.T @ edges - np.eye(3)).max()
    if (shear := float(np.degrees(np.arcsin(min(cosine, 1.0))))) > _SHEAR:
        yield (
            f"The edges of the scan's voxels are {shear:.1f} degrees from perpendicular, as after an affine "
            "registration or with a tilted gantry, so the model sees a distorted head. Use the scan as acquired, or "
            "resample it to perpendicular axes."
        )


OF_SCANS: dict[str, Check] = {
    "field of view": _field_of_view,
    "cut off": _cut_off,
    "contrast": _contrast,
    "values": _values,
    "spacing": _spacing,
    "skull-stripped": _extraction,
    "sform and qform": _orientation,
    "sheared voxels": _shear,
}
