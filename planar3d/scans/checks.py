"""Checks of a scan: the faults of each, as messages that follow the file's name."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from planar3d.errors import ScanError
from planar3d.scans.geometry import is_usable
from planar3d.wording import counted, listed, rounded

if TYPE_CHECKING:
    from planar3d.scans.volume import Scan

SPACINGS = (0.05, 50.0)  # mm between voxels of a head scan; thousandths and thousands indicate other units
LENGTH = 2000.0  # mm along an axis, the length of a whole-body scan
MAGNITUDES = (1e-30, 1e30)  # of the greatest value; beyond, float32 overflows in its scaling
MASK_TOLERANCE = 1e-3  # distributed masks have 1.00000006 for 1
_LABELS, _MOST_LABELS = range(10), 5  # values of a label map given as a scan, as in BraTS
_SPLIT = "Extract one volume first, e.g. with fslroi."


def refuse(scan: "Scan", faults: Iterator[str]) -> None:
    """Raise a `ScanError` with the first of a scan's faults, if any; later checks rely on earlier ones."""
    if fault := next(faults, ""):
        raise ScanError(f"{scan.path or 'The scan'} {fault}")


def faults_of_shape(scan: "Scan", needed: str) -> Iterator[str]:
    """Whether it is a volume on the grid of its header; `needed` is the expected kind of file."""
    shape = scan.voxels.shape
    if len(shape) != 3 or not scan.voxels.size:
        advice = _SPLIT if len(shape) > 3 else "Name a single volume with several slices."
        yield f"is {len(shape)}-D {shape}; {needed} is needed. {advice}"
    if shape != scan.header.get_data_shape():
        yield (
            f"has voxels of shape {shape}, but a header for {scan.header.get_data_shape()}. Make a header for "
            "them: nibabel.Nifti1Image(voxels, affine).header."
        )


def faults_of_values(scan: "Scan") -> Iterator[str]:
    """Whether all voxels are finite."""
    if not np.isfinite(scan.limits).all():
        voxels = counted(int(np.count_nonzero(~np.isfinite(scan.voxels))), "voxel")
        yield f"has NaN or infinity in {voxels}; replace them first, e.g. with fslmaths -nan."


def faults_of_file(scan: "Scan", needed: str, advice: str, flat: bool) -> Iterator[str]:
    """Everything but contrast; `advice` is for a file without geometry, and `flat` allows a single slice."""
    yield from faults_of_shape(scan, needed)
    shape = scan.voxels.shape
    if min(shape[: 2 if flat else 3]) < 2:
        yield f"has the shape {shape}, a single slice or line of voxels; {needed} is needed."
    if scan.header["sform_code"] == 0 and scan.header["qform_code"] == 0:
        yield f"does not define its orientation (neither sform nor qform is set). {advice}"
    is_plausible = SPACINGS[0] <= min(scan.spacing) <= max(scan.spacing) <= SPACINGS[1]
    if not is_plausible or max(np.multiply(shape, scan.spacing)) > LENGTH:
        yield (
            f"has {' × '.join(map(str, shape))} voxels of {' × '.join(rounded(mm, 3) for mm in scan.spacing)} mm; "
            f"{SPACINGS[0]:g} to {SPACINGS[1]:g} mm are expected for a head, and at most {LENGTH:,.0f} mm in total. "
            "Fix its header, which should be in mm, or convert it again."
        )
    if not is_usable(scan.affine):
        yield "has a singular affine, or one with NaN or infinite values. Fix its header or convert it again."
    yield from faults_of_values(scan)


def faults_of_contrast(scan: "Scan") -> Iterator[str]:
    """Whether it shows anything, with values that a scanner produces."""
    low, high = scan.limits
    if low == high:
        yield f"has the value {low:g} everywhere; a scan with contrast is needed."
    if not MAGNITUDES[0] <= max(abs(low), abs(high)) <= MAGNITUDES[1]:
        yield f"has values from {low:g} to {high:g}, which no scanner produces. Convert the original data again."


def faults_of_image(scan: "Scan") -> Iterator[str]:
    """Whether it is a mask or label map in place of the scan."""
    values: set[float] = set()
    for part in scan.voxels.T:  # a scan has others within its first slices
        values |= set(np.unique(part).tolist())
        if len(values) > (_MOST_LABELS if values.issubset(_LABELS) else 2):
            return
    shown = listed(f"{value:g}" for value in sorted(values))
    yield f"has only the values {shown}, so it is a mask or label map; name the scan itself."


def are_labels(values: np.ndarray, rounded: np.ndarray, highest: int) -> bool:
    """Whether all values are whole numbers from 0 to the highest, within 0.001."""
    # Slice by slice: the differences of a large volume would take its memory twice more.
    slices = zip(*(v.T if values.flags.f_contiguous else v for v in (values, rounded)), strict=True)
    is_whole = values is rounded or all(np.abs(one - near).max() <= MASK_TOLERANCE for one, near in slices)
    return bool(is_whole and rounded.min() >= 0 and rounded.max() <= highest)


def labels_of(scan: "Scan") -> np.ndarray:
    """The labels of a map, uint8; a `ScanError` unless they are whole numbers from 0 to 255, within 0.001."""
    voxels = scan.voxels
    labels = np.rint(voxels) if voxels.dtype.kind == "f" else voxels
    if not are_labels(voxels, labels, 255):
        low, high = scan.limits
        raise ScanError(
            f"{scan.path or 'The label map'} has values from {low:g} to {high:g}; a label map of whole numbers from 0 "
            "to 255 is needed. Name another file."
        )
    return labels.astype(np.uint8, copy=False)
