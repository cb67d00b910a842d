"""From a DICOM series to a scan, by dcm2niix after checks of everything it would guess; and back."""

import dataclasses
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from planar3d.disk import temporary_place
from planar3d.errors import ScanError
from planar3d.extras import extra
from planar3d.scans import dicom_geometry as geometry
from planar3d.scans.dicom import DicomSeries
from planar3d.scans.dicom_checks import UNCOMPRESSED, check_series
from planar3d.scans.dicom_headers import PIXELS, DicomImage, reading_dicom
from planar3d.scans.nifti_header import header_with
from planar3d.scans.volume import Scan, on_grid_of, read_scan

_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_TIME_LIMIT = 300  # seconds; a series takes a few
# Endings of other files that dcm2niix writes: drawn regions, phases, and volumes resampled by dcm2niix.
_BESIDE = re.compile(r"_(ROI|ph|real|imaginary|Eq|Tilt)[_\d]*$")


def read_dicom_series(series: DicomSeries) -> Scan:
    """Convert a series with dcm2niix, which sees only renamed copies of its files, and read the result.

    The scan is as from `read_scan`, in the axes of the images, not rotated; its path is the first file of the series.

    Raises:
        ScanError: the series is not a single grey MR volume of evenly spaced slices, or cannot be converted.
    """
    source = series.images[0].path
    check_series(series, ("MR",), "a FLAIR scan is needed")
    with temporary_place() as place:
        converted = _convert(series, place)
        try:
            scan = read_scan(converted)
        except ScanError as error:
            raise ScanError(str(error).replace(str(converted), f"{source}: series {series}")) from None
    return dataclasses.replace(geometry.on_its_grid(scan, series), path=source)


def as_frames(volume: Scan, series: DicomSeries) -> np.ndarray:
    """A volume's voxels in the order of a series' files and frames, (frames, rows, cols); errors as in `on_grid_of`."""
    shape = geometry.shape_of(series)
    header = header_with(geometry.grid_of(series), shape)
    grid = Scan(np.broadcast_to(np.uint8(0), shape), header, series.images[0].path)
    return on_grid_of(grid, volume).voxels.T[np.argsort(np.argsort(geometry.heights(series)))]


def _convert(series: DicomSeries, place: Path) -> Path:
    with extra("dicom"):
        import dcm2niix
    source = series.images[0].path
    files, made = place / "dicom", place / "nifti"
    # The user's settings are ignored; volumes are neither cropped nor rotated.
    options = ["-g", "i", "-b", "n", "-z", "n", "-x", "i", "-d", "0", "-f", "scan", "-o", str(made), str(files)]
    try:
        files.mkdir()
        made.mkdir()
        for number, image in enumerate(series.images):
            if len(image.planes) == 1:
                _copy(image, files / f"{number:06d}.dcm")
            else:
                _copy_frames(image, files / f"{number:06d}")
        command = [dcm2niix.bin, *options]
        run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIME_LIMIT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ScanError(f"{source}: series {series} could not be converted ({error}).") from None
    volumes = sorted(made.glob("*.nii"))
    chosen = [path for path in volumes if not _BESIDE.search(path.stem)]
    if run.returncode == 0 and len(chosen) == 1:
        return chosen[0]
    if not volumes or run.returncode:
        said = "".join(run.stdout.decode(errors="replace").strip().splitlines()[-1:])
        said = re.sub(r"\S*[/\\](\d{6})(?:_\d+)?\.dcm", lambda copy: str(series.images[int(copy[1])].path), said)
        raise ScanError(
            f"{source}: dcm2niix could not convert series {series} (code {run.returncode}; {said}). A file may be cut "
            "off or damaged; export the series again."
        )
    written = ", ".join(path.name for path in volumes)
    raise ScanError(
        f"{source}: dcm2niix made several volumes from series {series}: {written}. Convert it yourself and name one."
    )


def _copy(image: DicomImage, target: Path) -> None:
    """Copy a DICOM file without padding, adding the preamble that dcm2niix needs if it is missing."""
    from pydicom import dcmread

    content, added = image.path.read_bytes(), 0
    if content[128:132] != b"DICM":
        content, added = bytes(128) + b"DICM" + content, 132
    if any(image.padding) and image.syntax in UNCOMPRESSED:
        with reading_dicom(image.path):
            stored: Any = dcmread(image.path, force=True, specific_tags=["PixelData"]).get_item("PixelData")
        if stored is not None:
            start = stored.value_tell + added
            end = start + len(stored.value)
            content = content[:start] + _without_padding(content[start:end], image) + content[end:]
    target.write_bytes(content)


def _without_padding(pixels: bytes, image: DicomImage) -> bytes:
    """Uncompressed pixels with the header's padding set to 0; dcm2niix takes padding for tissue or air."""
    if not any(image.padding) or image.bits not in (8, 16, 32):
        return pixels
    lowest, highest = image.padding[0], image.padding[-1]
    order, kind = ">" if image.syntax == _BIG_ENDIAN else "<", "i" if lowest < 0 else "u"
    size = image.bits // 8
    values = np.frombuffer(pixels[: len(pixels) // size * size], f"{order}{kind}{size}").copy()
    values[(values >= lowest) & (values <= highest)] = 0
    return values.tobytes() + pixels[values.nbytes :]


def _copy_frames(image: DicomImage, target: Path) -> None:
    """Copy each frame to a separate file, whose name begins like the target's.

    dcm2niix sorts the frames of one file by number, whatever their positions, and reads compressed frames in no order,
    or wrongly if their rescaling differs.
    """
    from pydicom import Dataset, dcmread
    from pydicom.encaps import encapsulate, generate_frames
    from pydicom.uid import UID

    count = len(image.planes)
    with reading_dicom(image.path):
        dataset = dcmread(image.path, force=True)
        stored = next(dataset[tag] for tag in PIXELS if tag in dataset)
        if image.syntax in UNCOMPRESSED:
            length = image.shape[0] * image.shape[1] * image.bits // 8
            whole = _without_padding(stored.value, image)
            pixels = [whole[k * length : (k + 1) * length] for k in range(count)]
        else:
            pixels = [encapsulate([one]) for one in generate_frames(stored.value, number_of_frames=count)]
        for keyword in ("DimensionIndexSequence", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
            dataset.pop(keyword, None)
        dataset.preamble = bytes(128)
        dataset.file_meta.TransferSyntaxUID = UID(image.syntax)
        dataset.NumberOfFrames, content = 1, Dataset()
        content.StackID, content.InStackPositionNumber, content.DimensionIndexValues = "1", 1, [1, 1]
        frames = list(dataset.PerFrameFunctionalGroupsSequence)
        for number, (frame, stored.value) in enumerate(zip(frames, pixels, strict=True), 1):
            frame.FrameContentSequence = [content]
            for keyword in ("MREchoSequence", "MRTimingAndRelatedParametersSequence"):  # may differ by rounding
                frame.pop(keyword, None)
            dataset.PerFrameFunctionalGroupsSequence, dataset.InstanceNumber = [frame], number
            dataset.save_as(f"{target}_{number}.dcm")
