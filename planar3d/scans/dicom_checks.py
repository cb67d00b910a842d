"""Checks of a DICOM series, with their error messages."""

from collections.abc import Callable, Sequence

import numpy as np

from planar3d.errors import ScanError
from planar3d.scans import dicom_geometry as geometry
from planar3d.scans.dicom import DicomSeries
from planar3d.scans.nifti_header import MAXIMUM_VOXELS

_UNCOMPRESSED = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}  # implicit, explicit, big-endian
_LOSSLESS = {
    "1.2.840.10008.1.2.5": "RLE",
    "1.2.840.10008.1.2.4.57": "JPEG lossless",
    "1.2.840.10008.1.2.4.70": "JPEG lossless, first order",
    "1.2.840.10008.1.2.4.80": "JPEG-LS lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 lossless",
}
_SAME_PLACE = 0.1  # of the usual distance of slices; closer slices are copies


def check_series(series: DicomSeries, modalities: Sequence[str], needed: str, by_name: bool = False) -> None:
    """Raise a `ScanError` unless a series is a single grey volume of evenly spaced slices.

    Args:
        needed: for the error message about another modality.
        by_name: whether files must be in the order of the slices.
    """
    source = f"{series.images[0].path}: series {series}"
    if series.modality not in modalities:
        unsaid = "" if series.modality else " (Its headers have no Modality.)"
        raise ScanError(f"{source} is not a series of {' or '.join(modalities)} images; {needed}.{unsaid}")
    for is_wrong, sentence in (*_CHECKS, *(_OF_NAMES if by_name else ())):
        if is_wrong(series):
            raise ScanError(f"{source} {sentence(series)}")


def count(series: DicomSeries) -> int:
    """Number of voxels in all images."""
    return sum(image.shape[0] * image.shape[1] * len(image.position) for image in series.images)


def _syntaxes(series: DicomSeries) -> set[str]:
    return {image.syntax for image in series.images}


def _is_truncated(series: DicomSeries) -> bool:
    return any(
        image.path.stat().st_size < image.shape[0] * image.shape[1] * len(image.position) * image.bits // 8
        for image in series.images
        if image.syntax in _UNCOMPRESSED
    )


# Each check: a predicate for faulty series, and the message after the series' name. Later checks rely on earlier ones.
_CHECKS: tuple[tuple[Callable[[DicomSeries], bool], Callable[[DicomSeries], str]], ...] = (
    (
        lambda s: any(0 in (*image.shape, image.bits) for image in s.images),
        lambda s: "has files without pixels; images are needed.",
    ),
    (lambda s: any(image.samples != 1 for image in s.images), lambda s: "is in colour; grey images are needed."),
    (
        lambda s: not _syntaxes(s) <= _UNCOMPRESSED | _LOSSLESS.keys(),
        lambda s: (
            f"has an unsupported compression (transfer syntax {', '.join(sorted(_syntaxes(s)))}); supported are "
            f"uncompressed files and {', '.join(_LOSSLESS.values())}. Decompress it first, e.g. with gdcmconv --raw."
        ),
    ),
    (lambda s: count(s) > MAXIMUM_VOXELS, lambda s: f"declares {count(s):,} voxels; no head scan has that many."),
    (_is_truncated, lambda s: "has truncated files. Export it again."),
    (
        lambda s: any(
            {2} != set(map(len, i.spacing)) or {6} != set(map(len, i.orientation)) or {3} != set(map(len, i.position))
            for i in s.images
        ),
        lambda s: "does not give the position of its slices (pixel spacing, orientation or position). Export it again.",
    ),
    (
        lambda s: (
            not all(np.isfinite(geometry.planes(s, what)).all() for what in ("spacing", "orientation", "position"))
        ),
        lambda s: "has slice positions that are not numbers. Export it again.",
    ),
    (
        lambda s: bool(geometry.planes(s, "spacing").min() <= 0),
        lambda s: "has a PixelSpacing that is not above 0. Export it again.",
    ),
    (
        lambda s: (
            len({image.shape for image in s.images}) > 1
            or bool(np.ptp(geometry.planes(s, "spacing"), axis=0).max() > 0.01)
        ),
        lambda s: "mixes images of several sizes; a single volume is needed. Name only its files.",
    ),
    (
        geometry.is_askew,
        lambda s: "has rows and columns that are not at right angles. Export it again.",
    ),
    (
        geometry.is_mixed,
        lambda s: "mixes orientations, as localizers do; a single volume is needed. Name only its files.",
    ),
    (lambda s: len(geometry.planes(s, "position")) < 2, lambda s: "has a single slice; a volume is needed."),
    (
        lambda s: bool(geometry.steps(s).min() <= _SAME_PLACE * np.median(geometry.steps(s))),
        lambda s: (
            "has several images at one position, as copies or several echoes do; a single volume is needed. Name only "
            "its files."
        ),
    ),
    (geometry.is_uneven, geometry.uneven_sentence),
    (geometry.is_sheared, lambda s: "has slices that do not lie straight above each other, which is not supported."),
    (geometry.is_off_grid, geometry.off_grid_sentence),
)
_OF_NAMES = (
    (
        geometry.is_disordered,
        lambda s: (
            "has file names in another order than its slices. Look at it, and rename the files in the order of the "
            "slices."
        ),
    ),
)
