"""Quality checks of a scan: whether its content is what the model was made for, and complete."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from nibabel.spatialimages import HeaderDataError

from planar3d.scans.grid import corner_shift, is_usable
from planar3d.scans.head import Head, find_head
from planar3d.scans.labels import Targets
from planar3d.scans.volume import CORNER_TOLERANCE, Scan

# Sizes of heads and extracted brains in mm: least and greatest, including children and long necks.
_SIZES = {"width": (100, 250), "length": (120, 280)}
_VOLUMES = (600, 9000)  # ml
_BRAIN_HEIGHT = 100  # mm below the vertex that must be covered; whole adult brains need about 130
_CUT = 20  # mm of a head that may be missing on a side
_SPACING = 5  # mm

# Contrast, as grey levels relative to the center of the brain. FLAIR scans of eleven patients and of the phantom have
# fluid (1st percentile) of 0.04 to 0.22, and 0.90 to 1.03 as the ratio of tissue near fluid to tissue far from it. T2
# and PD have fluid of 0.40 and more; T1 has ratios of 0.71 to 0.81, as its cortex is dark, and 0.89 where a tumour
# takes up contrast agent, which this ratio cannot separate from FLAIR.
_FLUID = 0.38
_NEAR, _FAR = 5, (10, 25)  # mm from fluid
_NEAR_TO_FAR = 0.88
_TISSUE = (0.6, 1.6)  # fluid is below; lesions, fat and vessels are above
_MUCH_BRIGHT = 0.05  # of the center: a tumour or its edema, which hides the contrast of cortex and white matter
_ENOUGH = 500  # least voxels of the coarse grid to determine a contrast


@dataclass(frozen=True)
class Case:
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


def _field_of_view(case: Case) -> str | None:
    width, length, height = case.head.extent
    sizes = {"width": width, "length": length}
    fits = all(least <= sizes[name] <= most for name, (least, most) in _SIZES.items())
    if fits and _VOLUMES[0] <= case.head.volume_ml <= _VOLUMES[1]:
        return None
    return (
        f"The foreground measures {width:.0f} mm from right to left, {length:.0f} mm from front to back and "
        f"{height:.0f} mm in height, unlike a whole head. Check for another part of the body or a wrong voxel size."
    )


def _cut_off(case: Case) -> str | None:
    missing = case.head.missing()
    if not case.head.is_extracted():
        missing.pop("inferior", None)  # a whole head ends at the neck, wherever the field of view ends
    cut = [f"about {mm:.0f} mm at the {side} side" for side, mm in missing.items() if mm > _CUT]
    height = case.head.extent[2]
    if height < _BRAIN_HEIGHT:
        cut.append(f"everything more than {height:.0f} mm below the top")
    if not cut:
        return None
    return (
        f"The head seems to be cut off: {', '.join(cut)} is missing. {case.targets.noun.capitalize()}s there are not "
        "in the mask."
    )


def _contrast(case: Case) -> str | None:
    head = case.head
    if case.image != "flair":
        return None
    if np.count_nonzero(head.centre) < _ENOUGH or _field_of_view(case):
        return None  # in part of a head, the brain's center is elsewhere
    if head.tissue <= head.air:
        return (
            "The scan does not look like FLAIR: the middle of the head is as dark as air, as in a CT or an angiogram."
        )
    levels = head.grey / head.tissue
    inside = levels[head.centre]
    if np.percentile(inside, 1) > _FLUID:
        return (
            "The scan does not look like FLAIR: there is no dark fluid in the middle of the head, as in a T2-weighted "
            "or PD-weighted scan."
        )
    if np.mean(inside > _TISSUE[1]) > _MUCH_BRIGHT:
        return None
    distance = head.distance_to(head.centre & (levels < _TISSUE[0]))
    tissue = head.centre & (levels > _TISSUE[0]) & (levels < _TISSUE[1])
    near, far = (levels[tissue & (distance > low) & (distance <= high)] for low, high in ((0, _NEAR), _FAR))
    if min(near.size, far.size) < _ENOUGH or np.median(near) >= _NEAR_TO_FAR * np.median(far):
        return None
    return (
        "The scan does not look like FLAIR: tissue next to fluid is darker than white matter, as the cortex is in a "
        "T1-weighted scan."
    )


def _values(case: Case) -> str | None:
    if not case.head.standardized:
        return None
    return (
        "Many of the scan's values are negative, as after standardization (z-scores), but models expect values as "
        "acquired, from 0 upwards. Use the scan as acquired, if you have it."
    )


def _spacing(case: Case) -> str | None:
    widest = max(case.scan.spacing)
    if widest <= _SPACING:
        return None
    return (
        f"The slices are {widest:.1f} mm apart, more than {_SPACING} mm: lesions smaller than that may be missed, and "
        "volumes are approximate."
    )


def _extraction(case: Case) -> str | None:
    extracted = case.head.is_extracted()
    if case.whole_head is None or extracted is None or extracted != case.whole_head:
        return None
    if extracted:
        return "The scan is skull-stripped, but the model was made for whole heads; use the scan as acquired."
    return "The scan shows a whole head, but the model was made for skull-stripped scans; extract the brain first."


def _orientation(case: Case) -> str | None:
    header = case.scan.header
    if not (header["sform_code"] > 0 and header["qform_code"] > 0):
        return None
    try:
        qform = header.get_qform()
    except (HeaderDataError, ValueError):
        qform = np.zeros((4, 4))
    if not is_usable(qform):
        return "The scan's header has an invalid qform; the mask follows the sform. Check left and right."
    shift = corner_shift(case.scan.affine, qform, case.scan.voxels.shape)
    if shift <= CORNER_TOLERANCE:
        return None
    return (
        f"The scan's header contradicts itself: its sform and qform differ by {shift:.1f} voxels at a corner. The mask "
        "follows the sform, other programs may not; check left and right."
    )


OF_SCANS: dict[str, Callable[[Case], str | None]] = {
    "field of view": _field_of_view,
    "cut off": _cut_off,
    "contrast": _contrast,
    "values": _values,
    "spacing": _spacing,
    "skull-stripped": _extraction,
    "sform and qform": _orientation,
}
