"""Checks of a DICOM series, with their error messages."""

import math
import re
import shlex
from collections.abc import Iterator, Sequence

import numpy as np

from planar3d.errors import ScanError
from planar3d.scans.dicom import DicomSeries
from planar3d.scans.dicom_geometry import SAME_DIRECTION, TOLERANCE_MM, departures, evenly_spaced, heights, planes
from planar3d.scans.dicom_headers import SHARED
from planar3d.scans.nifti_header import MAXIMUM_VOXELS

UNCOMPRESSED = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}  # implicit, explicit, big-endian
_JPEG = "1.2.840.10008.1.2.4.57"
_LOSSLESS = {
    "1.2.840.10008.1.2.5": "RLE",
    _JPEG: "JPEG lossless",
    "1.2.840.10008.1.2.4.70": "JPEG lossless, first order",
    "1.2.840.10008.1.2.4.80": "JPEG-LS lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 lossless",
}
# A JPEG frame of 16 bits with predictors 5 to 7: dcm2niix adds in 16 bits, too few if the values need all of them.
_SHORT_SUMS = re.compile(rb"\xff\xc3\x00\x0b\x10.{0,500}?\xff\xda\x00\x08\x01..[\x05-\x07]", re.DOTALL)
_ONE_VOLUME = "a single volume is needed. Name only its files."
_SAME_PLACE = 0.1  # of the usual distance of slices; closer slices are copies
_OVERLAPPING = 1.5  # thickness of slices by their distance; above it, two acquisitions lie within each other
_OTHER_TIME = 1.05  # ratio of inversion times; below it they are rounded
_MISSING = 1.5  # of the usual distance; above it a slice is missing


def check_series(series: DicomSeries, modalities: Sequence[str], needed: str, by_name: bool = False) -> None:
    """Raise a `ScanError` unless a series is a single grey volume of evenly spaced slices.

    `needed` is for the message about another modality; `by_name` demands files in the order of the slices.
    """
    source = f"{series.images[0].path}: series {series}"
    if series.modality not in modalities:
        raise ScanError(f"{source} is not a series of {' or '.join(modalities)} images; {needed}.")
    if fault := next(_faults(series, by_name), ""):
        raise ScanError(f"{source} {fault}")


def _faults(series: DicomSeries, by_name: bool) -> Iterator[str]:
    """The messages after the series' name, one by one: later checks rely on earlier ones."""
    images = series.images
    if any(0 in (*image.shape, image.bits, image.stored) for image in images):
        yield "has files without pixels; images are needed."
    if any(image.samples != 1 for image in images):
        yield "is in colour; grey images are needed."
    if any(image.inverted for image in images):
        yield "has inverted grey levels (MONOCHROME1); bright tissue must have high values. Export it as MONOCHROME2."
    syntaxes = {image.syntax for image in images}
    if not syntaxes <= UNCOMPRESSED | _LOSSLESS.keys():
        yield (
            f"has an unsupported compression (transfer syntax {', '.join(sorted(syntaxes))}); supported are "
            f"uncompressed files and {', '.join(_LOSSLESS.values())}. Decompress it first, e.g. with gdcmconv --raw."
        )
    if (voxels := sum(math.prod(image.shape) * len(image.planes) for image in images)) > MAXIMUM_VOXELS:
        yield f"declares {voxels:,} voxels; at most {MAXIMUM_VOXELS:,} are accepted."
    for image in images:
        if image.syntax == _JPEG and image.all_bits and _SHORT_SUMS.search(image.path.read_bytes()):
            yield (
                f"has a lossless JPEG compression that dcm2niix decodes wrongly (16 bits, predictor 5, 6 or 7): "
                f"{image.path}. Decompress it first, e.g. with gdcmconv --raw."
            )
        if image.stored < 0:
            yield f"has a truncated file, {image.path}. Export it again."
        rows, columns = image.shape
        declared = rows * columns * len(image.planes) * image.bits // 8
        if image.syntax in UNCOMPRESSED and not 0 <= image.stored - declared < min(rows, columns):  # padding
            yield (
                f"has a file whose {rows} × {columns} pixels have {declared:,} bytes, but "
                f"{image.stored:,} are stored: {image.path}. Export it again."
            )
    if any(tuple(map(len, plane)) != (2, 6, 3) for image in images for plane in image.planes):
        yield "does not give the position of its slices (pixel spacing, orientation or position). Export it again."
    spacing, orientation, position = (planes(series, what) for what in ("spacing", "orientation", "position"))
    if spacing.min() <= 0 or not all(np.isfinite(values).all() for values in (spacing, orientation, position)):
        yield "has slice positions that are not numbers, or a PixelSpacing that is not greater than 0. Export it again."
    if len({image.shape for image in images}) > 1 or np.ptp(spacing, axis=0).max() > 0.01:
        yield f"mixes images of several sizes; {_ONE_VOLUME}"
    axes = orientation.reshape(-1, 2, 3)
    if np.abs(axes @ axes.transpose(0, 2, 1) - np.eye(2)).max() > 2 * SAME_DIRECTION:
        yield "has rows and columns that are not at right angles. Export it again."
    if np.ptp(orientation, axis=0).max() > SAME_DIRECTION:
        yield f"mixes orientations, as localizers do; {_ONE_VOLUME}"
    if len(position) < 2:
        yield "has a single slice; a volume is needed."
    along = heights(series)
    steps = np.diff(np.sort(along))
    if steps.min() <= _SAME_PLACE * np.median(steps):
        yield f"has several images at one position, as copies or several echoes do; {_ONE_VOLUME}"
    if np.abs(np.sort(along) - evenly_spaced(np.sort(along))).max() > TOLERANCE_MM:
        yield _uneven_sentence(series, steps)
    aside = (position - position[0]) @ axes[0].T
    if np.abs(aside).max() > max(SAME_DIRECTION * steps.sum(), TOLERANCE_MM):
        yield "has slices that are shifted within their plane, as with a tilted gantry; such a volume is not supported."
    off = departures(series)
    if off.max() > TOLERANCE_MM:
        worst = int(off.argmax())
        yield (
            f"has slices that do not form a single grid: a corner of slice {worst + 1} of {len(off)} "
            f"({_name(series, worst)}) lies {off[worst]:.2f} mm off the grid of the others; it is not supported."
        )
    if not by_name and (mixed := _mixed(series, float(np.median(steps)))):
        yield f"mixes {mixed}; {_ONE_VOLUME}"
    if by_name and len(images) < len(along):
        several = next(image.path for image in images if len(image.planes) > 1)
        yield (
            f"has a file with several slices, {several}; here one file per slice is needed. Convert the series with "
            f"dcm2niix -z y {shlex.quote(str(several.parent))}, look at the volume, and name the NIfTI file."
        )
    if by_name and (np.diff(along) <= 0).any():
        yield (
            "has file names whose order is not the order of its slices. View the series, and rename the files in the "
            "order of the slices."
        )


def _mixed(series: DicomSeries, step: float) -> str:
    """What only images of several volumes have, if anything; slices of the second lie between those of the first.

    Interleaved slices of one volume may be of several acquisitions, but do not overlap by half.
    """
    for keyword, values in zip(SHARED, zip(*(image.shared for image in series.images), strict=True), strict=True):
        if len(set(filter(None, values))) > 1:
            return f"images that differ in {keyword}"
    times = sorted({image.inversion_ms for image in series.images if image.inversion_ms})
    if times and times[-1] > _OTHER_TIME * times[0]:
        return f"inversion times of {times[0]:g} to {times[-1]:g} ms"
    numbers = dict.fromkeys(image.acquisition for image in series.images if image.acquisition)
    if len(numbers) > 1 and min(image.thickness for image in series.images) > _OVERLAPPING * step:
        return f"several acquisitions ({', '.join(numbers)}) whose slices overlap"
    return ""


def _uneven_sentence(series: DicomSeries, steps: np.ndarray) -> str:
    """The step that differs most from the usual one, and what to do."""
    usual = float(np.median(steps))
    at = int(np.abs(steps - usual).argmax())
    where = (
        f"from slice {at + 1} to {at + 2} of {len(steps) + 1} the distance is {steps[at]:.2f} mm, usually "
        f"{usual:.2f} mm (between {_name(series, at)} and {_name(series, at + 1)})"
    )
    if steps[at] > _MISSING * usual:
        return f"has slices missing: {where}. Export the whole series again."
    return (
        f"has unevenly spaced slices: {where}. dcm2niix also writes such a series resampled to even slices, in a file "
        "whose name ends in _Eq_1; look at that file, and name it."
    )


def _name(series: DicomSeries, place: int) -> str:
    """The file of a slice, counted in space, and its frame there if there are several."""
    frames = [(image, k) for image in series.images for k in range(len(image.planes))]
    image, k = frames[np.argsort(heights(series))[place]]
    return image.path.name if len(image.planes) == 1 else f"frame {k + 1} of {image.path.name}"
