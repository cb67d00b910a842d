"""Volumes as folders of slices in the order of file names: DICOM images with PNG masks (CHAOS)."""

import os
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from planar3d.errors import ScanError, untrusted
from planar3d.extras import extra
from planar3d.scans.dicom import DicomSeries, series_of
from planar3d.scans.dicom_checks import check_series
from planar3d.scans.dicom_geometry import grid_of
from planar3d.scans.dicom_headers import DicomImage, is_dicom, number_of, reading_dicom, text_of
from planar3d.scans.nifti_header import header_with
from planar3d.wording import counted

IMAGES, MASKS = "DICOM_anon", "Ground"  # the folders of a series of CHAOS
ORGANS = {"liver": 63, "right kidney": 126, "left kidney": 189, "spleen": 252}
_HIGHEST = 2**16 - 1  # of a PNG file
_LIVER = {"liver": (1, _HIGHEST)}  # in CT scans, whose masks have no other organ
_RANGES = {"liver": (56, 70), "right kidney": (111, 135), "left kidney": (176, 200), "spleen": (241, 255)}


def slices(folder: Path) -> list[Path]:
    """The DICOM or PNG files of a folder by name, 2 before 10; none if it is not a folder or cannot be opened."""
    try:
        names = sorted((name for name in os.listdir(folder) if not name.startswith(".")), key=_by_numbers)
    except (OSError, ValueError):  # as of a file, or of a name that none can have
        return []
    return [folder / name for name in names if name.lower().endswith((".dcm", ".png"))]


def _by_numbers(name: str) -> tuple[list[str | int], str]:
    """What sorts names by the numbers in them; equal numbers by the name itself, as 1 and 01."""
    parts = enumerate(re.split("([0-9]+)", name))
    return [int(part) if place % 2 else part for place, part in parts], name


def holds(folder: Path, ending: str) -> bool:
    """Whether a folder has slices with this ending: .dcm for images, .png for masks."""
    return any(path.name.lower().endswith(ending) for path in slices(folder))


def read_series(folder: Path, needed: str) -> tuple[nib.Nifti1Header, np.ndarray]:
    """Read the DICOM images of a folder, a series of CT or MR, ignoring their UIDs, which anonymization makes differ.

    Voxels are float32 (columns, rows, slices), rescaled as in the files: in CT to Hounsfield units. Padding of MR
    images becomes 0 before it is rescaled.

    Raises:
        ScanError: as `check_series`; the order of names is not that of positions; pixels that cannot be read.
    """
    series = _series(folder)
    voxels = np.stack([_pixels(image, series.modality == "MR").T for image in series.images], axis=-1)
    return header_with(grid_of(series), voxels.shape), voxels


def visit_of(path: Path) -> tuple[str, str]:
    """PatientID and StudyDate (YYYYMMDD) of a DICOM image, or a folder's first; empty if not given or not DICOM."""
    first = path if path.is_file() else next((one for one in slices(path) if one.name.lower().endswith(".dcm")), None)
    if first is None or not is_dicom(first):
        return "", ""
    with extra("dicom"):
        from pydicom import dcmread
    header = dcmread(first, force=True, specific_tags=["PatientID", "StudyDate"], stop_before_pixels=True)
    return text_of(header, "PatientID").strip(), text_of(header, "StudyDate").strip()


def read_masks(folder: Path, needed: str) -> tuple[nib.Nifti1Header, np.ndarray]:
    """Read the PNG masks of a folder `Ground`, one for each image of the DICOM series in `DICOM_anon` beside it.

    Labels are float32 (columns, rows, slices) as in submissions to CHAOS: liver 63, right kidney 126, left kidney 189,
    spleen 252. In CT masks, every non-zero value is liver; in MR masks, each organ has a range.

    Raises:
        ScanError: the series is missing, its images and masks differ in number, or a value belongs to no organ.
    """
    place = folder.with_name(IMAGES)
    series = _series(next((inner for inner in (place, place / "InPhase") if holds(inner, ".dcm")), place))
    files, images = slices(folder), series.images
    if len(files) != len(images):
        raise ScanError(
            f"{folder} has {counted(files, 'mask')}, but {place} has {counted(images, 'image')}. Export both."
        )
    ranges = _LIVER if series.modality == "CT" else _RANGES
    labels_of = np.full(_HIGHEST + 1, -1, np.float32)
    labels_of[0] = 0
    for organ, (first, last) in ranges.items():
        labels_of[first : last + 1] = ORGANS[organ]
    labels = []
    for path, image in zip(files, images, strict=True):
        values = _picture(path)
        if values.shape != image.shape:
            raise ScanError(
                f"{path} has {values.shape} rows and columns, but its image has {image.shape}. Export it again."
            )
        labels.append(labels_of[values].T)
        if labels[-1].min() < 0:
            unknown = int(values[labels_of[values] < 0][0])
            known = ", ".join(f"{organ} {first}–{last}" for organ, (first, last) in ranges.items())
            raise ScanError(f"{path} has the value {unknown}; expected: 0 and {known}. Export it again.")
    voxels = np.stack(labels, axis=-1)
    return header_with(grid_of(series), voxels.shape), voxels


def _series(folder: Path) -> DicomSeries:
    if not (files := slices(folder)):
        raise ScanError(f"{folder} has no DICOM files; the images of the series are needed there.")
    series = series_of(files)
    check_series(series, ("CT", "MR"), "images of CHAOS are needed", by_name=True)
    return series


def _pixels(image: DicomImage, is_mr: bool) -> np.ndarray:
    """float32 (rows, columns) of one file, rescaled."""
    with extra("dicom"):
        from pydicom import dcmread
    with reading_dicom(image.path, "Copy it again, or decompress it, e.g. with gdcmconv --raw."):
        file = dcmread(image.path, force=True)
        pixels = file.pixel_array.reshape(image.shape)  # one frame alone
        if is_mr and image.padding:
            pixels = np.where((pixels >= image.padding[0]) & (pixels <= image.padding[-1]), 0, pixels)
        rescaling = _rescaling(file)
        slope = number_of(rescaling, "RescaleSlope") or 1  # as dcm2niix reads an empty one, and 0
        return (pixels * slope + number_of(rescaling, "RescaleIntercept")).astype(np.float32)


def _rescaling(file: Any) -> Any:
    """What has the rescaling of a file's only frame: a functional group of an enhanced file, else the file itself."""
    frames, shared = (file.get(f"{which}FunctionalGroupsSequence") or [{}] for which in ("PerFrame", "Shared"))
    group = "PixelValueTransformationSequence"
    return (frames[0].get(group) or shared[0].get(group) or [file])[0]


def _picture(path: Path) -> np.ndarray:
    """Grey levels (rows, columns) of a PNG file, of 8 or 16 bits."""
    with extra("challenges"):
        from PIL import Image
    with untrusted(path, "Copy it again."), Image.open(path) as picture:
        return np.asarray(picture if picture.mode.startswith("I") else picture.convert("L"))
