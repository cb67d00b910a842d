"""A DICOM series made a scan, by dcm2niix, after every check of what that would guess about."""

import dataclasses
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from planar3d.errors import ScanError
from planar3d.extras import dicom_extra
from planar3d.scans import dicom_geometry as geometry
from planar3d.scans.dicom import DicomSeries
from planar3d.scans.nifti_header import MAXIMUM_VOXELS
from planar3d.scans.volume import Scan, read_scan

_TIME_LIMIT = 300  # seconds; a series takes a few
_UNCOMPRESSED = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}  # implicit, explicit, big-endian
_LOSSLESS = {
    "1.2.840.10008.1.2.5": "RLE",
    "1.2.840.10008.1.2.4.57": "JPEG lossless",
    "1.2.840.10008.1.2.4.70": "JPEG lossless, first order",
    "1.2.840.10008.1.2.4.80": "JPEG-LS lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 lossless",
}
_SAME_PLACE = 0.1  # of the usual step from slice to slice: nearer slices are copies
# Endings of what dcm2niix writes beside a volume: drawn regions, phases, and volumes it resampled itself.
_BESIDE = re.compile(r"_(ROI|ph|real|imaginary|Eq|Tilt)[_\d]*$")


def read_dicom_series(series: DicomSeries) -> Scan:
    """Convert a series with dcm2niix and read the result.

    Only the files of the series reach dcm2niix, as copies with names of their own in a temporary folder.

    Returns:
        A scan as `read_scan` gives, in the axes of the images, unrotated; its path is the first file of the series.

    Raises:
        ScanError: the series is no single grey MR volume of evenly spaced slices, or cannot be converted.
        Planar3DError: dcm2niix is not installed.
    """
    source = series.images[0].path
    for is_wrong, sentence in _CHECKS:
        if is_wrong(series):
            raise ScanError(f"{source}: series {series} {sentence(series)}")
    with tempfile.TemporaryDirectory(prefix="planar3d-") as place:
        converted = _convert(series, Path(place))
        try:
            scan = read_scan(converted)
        except ScanError as error:
            raise ScanError(str(error).replace(str(converted), f"{source}: series {series}")) from None
    if scan.voxels.size != _count(series):
        raise ScanError(
            f"{source}: dcm2niix made a volume {scan.voxels.shape} of series {series}; {_count(series):,} voxels were "
            "expected. Convert it yourself, look at it, and name the NIfTI file."
        )
    return dataclasses.replace(geometry.on_its_grid(scan, series), path=source)


def _convert(series: DicomSeries, place: Path) -> Path:
    with dicom_extra():
        import dcm2niix
    source = series.images[0].path
    files, made = place / "dicom", place / "nifti"
    # Settings of the user's are ignored; volumes are neither cropped nor rotated.
    options = ["-g", "i", "-b", "n", "-z", "n", "-x", "i", "-d", "0", "-f", "scan", "-o", str(made)]
    try:
        files.mkdir()
        made.mkdir()
        for number, image in enumerate(series.images):
            _copy(image.path, files / f"{number:06d}.dcm")
        run = subprocess.run(
            [dcm2niix.bin, *options, str(files)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIME_LIMIT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ScanError(f"{source}: series {series} could not be converted ({error}).") from None
    volumes = sorted(made.glob("*.nii"))
    chosen = [path for path in volumes if not _BESIDE.search(path.stem)]
    if run.returncode == 0 and len(chosen) == 1:
        return chosen[0]
    if not volumes or run.returncode:
        said = run.stdout.decode(errors="replace").strip().splitlines()[-1:]
        raise ScanError(f"{source}: dcm2niix could not convert series {series} (code {run.returncode}, {said}).")
    written = ", ".join(path.name for path in volumes)
    raise ScanError(
        f"{source}: dcm2niix made several volumes of series {series}: {written}. Convert it yourself and name the one "
        "that is meant."
    )


def _copy(source: Path, target: Path) -> None:
    """Copy a DICOM file, with the preamble that dcm2niix needs also where there is none."""
    with source.open("rb") as content, target.open("wb") as copy:
        if content.read(132)[128:] != b"DICM":
            copy.write(bytes(128) + b"DICM")
        content.seek(0)
        shutil.copyfileobj(content, copy)


def _count(series: DicomSeries) -> int:
    return sum(image.shape[0] * image.shape[1] * len(image.position) for image in series.images)


def _syntaxes(series: DicomSeries) -> set[str]:
    return {image.syntax for image in series.images}


def _is_truncated(series: DicomSeries) -> bool:
    return any(
        image.path.stat().st_size < image.shape[0] * image.shape[1] * len(image.position) * image.bits // 8
        for image in series.images
        if image.syntax in _UNCOMPRESSED
    )


# Each check: is it wrong, and the sentence behind the series' name. Later ones rely on the earlier.
_CHECKS: tuple[tuple[Callable[[DicomSeries], bool], Callable[[DicomSeries], str]], ...] = (
    (
        lambda s: s.modality != "MR",
        lambda s: "is no MR series; a FLAIR scan is needed." + ("" if s.modality else " (Its headers lack Modality.)"),
    ),
    (
        lambda s: any(0 in (*image.shape, image.bits) for image in s.images),
        lambda s: "has files without pixels; it holds no images.",
    ),
    (lambda s: any(image.samples != 1 for image in s.images), lambda s: "is in colour; grey images are needed."),
    (
        lambda s: not _syntaxes(s) <= _UNCOMPRESSED | _LOSSLESS.keys(),
        lambda s: (
            f"is compressed in a way that is not read (transfer syntax {', '.join(sorted(_syntaxes(s)))}); read are "
            f"uncompressed files and {', '.join(_LOSSLESS.values())}. Decompress it first, e.g. with gdcmconv --raw."
        ),
    ),
    (lambda s: _count(s) > MAXIMUM_VOXELS, lambda s: f"declares {_count(s):,} voxels; no head scan has as many."),
    (_is_truncated, lambda s: "has truncated files. Export it again."),
    (
        lambda s: any(
            {2} != set(map(len, i.spacing)) or {6} != set(map(len, i.orientation)) or {3} != set(map(len, i.position))
            for i in s.images
        ),
        lambda s: "does not say where its slices lie (pixel spacing, orientation or position). Export it again.",
    ),
    (
        lambda s: (
            not all(np.isfinite(geometry.planes(s, what)).all() for what in ("spacing", "orientation", "position"))
        ),
        lambda s: "gives places of its slices that are no numbers. Export it again.",
    ),
    (
        lambda s: bool(geometry.planes(s, "spacing").min() <= 0),
        lambda s: "gives distances between its pixels (PixelSpacing) that are not above 0. Export it again.",
    ),
    (
        lambda s: (
            len({image.shape for image in s.images}) > 1
            or bool(np.ptp(geometry.planes(s, "spacing"), axis=0).max() > 0.01)
        ),
        lambda s: "mixes images of several sizes; a single volume is needed. Give the files of that alone.",
    ),
    (
        geometry.is_askew,
        lambda s: "gives directions of its rows and columns that are not at right angles. Export it again.",
    ),
    (
        geometry.is_mixed,
        lambda s: "mixes orientations, as localizers do; a single volume is needed. Give the files of that alone.",
    ),
    (lambda s: len(geometry.planes(s, "position")) < 2, lambda s: "has a single slice; a volume is needed."),
    (
        lambda s: bool(geometry.steps(s).min() <= _SAME_PLACE * np.median(geometry.steps(s))),
        lambda s: (
            "has several images at one place, as copies or several echoes have; a single volume is needed. Give the "
            "files of that alone."
        ),
    ),
    (geometry.is_uneven, geometry.uneven_sentence),
    (geometry.is_sheared, lambda s: "has slices that do not lie straight above each other; such a volume is not read."),
    (geometry.is_off_grid, geometry.off_grid_sentence),
)
