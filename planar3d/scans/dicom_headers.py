"""Which files are DICOM, and the header of each: whether it has an image, of which kind, and where it is."""

import os
import re
import struct
from collections import defaultdict
from collections.abc import MutableSequence, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from planar3d.errors import ScanError
from planar3d.extras import extra
from planar3d.wording import counted

DICOM_SUFFIXES = (".dcm", ".ima")
_NUMBER = re.compile(r"\d+")
_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "AcquisitionNumber",
    "PatientID",
    "TemporalPositionIdentifier",
    "SliceThickness",
    "SeriesDescription",
    "Modality",
    "Manufacturer",
    "ProtocolName",
    "AcquisitionContrast",
    "ImageType",
    "InversionTime",
    "EchoTime",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]
PIXELS = {0x7FE00008, 0x7FE00009, 0x7FE00010}  # as float, as double, as integers or compressed
_UNDEFINED = 0xFFFFFFFF
_ITEM, _LAST_ITEM = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_DEFLATED = "1.2.840.10008.1.2.1.99"
# Values of ImageType for other images that scanners store in the series of a magnitude image.
_NOT_MAGNITUDE = {"P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY"}


def is_dicom(path: Path) -> bool:
    """Whether a file begins like DICOM: with its preamble, or directly with group 2 or 8."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError as error:
        raise ScanError(f"{path} cannot be read ({error.strerror}).") from None
    bare = start[:6] == b"\x02\x00\x00\x00UL" or (start[:2] == b"\x08\x00" and start[3:4] == b"\x00")
    return start[128:] == b"DICM" or bare


def dicom_files(files: Sequence[Path]) -> tuple[list[Path], dict[Path, str]]:
    """The DICOM files among some files, and, by path, why others that may be DICOM cannot be used.

    These are the files that cannot be read, and each folder's first file that is named like a DICOM file, by suffix or
    but for numbers, and is not one.
    """
    found, problems, wrong = list[Path](), dict[Path, str](), defaultdict[Path, list[Path]](list)
    for path in files:
        try:
            found += [path] if is_dicom(path) else []
        except ScanError as error:
            problems[path] = str(error)
    known, names = {*found, *problems}, {_without_numbers(path) for path in found}
    for path in files if found else ():
        if path not in known and (path.name.lower().endswith(DICOM_SUFFIXES) or _without_numbers(path) in names):
            wrong[path.parent].append(path)
    for first, *others in wrong.values():
        more = f", nor {counted(others, 'other')}" if others else ""
        problems[first] = (
            f"{first} is named like the DICOM files beside it, but is not a DICOM file "
            f"({counted(first.stat().st_size, 'byte')}){more}. Copy it again, or remove it."
        )
    return found, problems


def _without_numbers(path: Path) -> Path:
    return path.with_name(_NUMBER.sub("0", path.name))


def read_header(path: Path) -> tuple[Any, int] | None:
    """The pydicom data set of a file without its pixels, and their bytes; None if it is not a magnitude image.

    Presentation states, raw data, reports and other objects of scanners and archives are not.

    Raises:
        ScanError: the file is deflated.
        Exception: any that pydicom raises for untrusted bytes.
    """
    with extra("dicom"):
        from pydicom import filereader
        from pydicom.tag import Tag
    stored = 0

    def at_pixels(tag: int, kind: str | None, length: int) -> bool:
        nonlocal stored
        stored = _stored(file, length) if tag in PIXELS else 0
        return tag in PIXELS

    with path.open("rb") as file:
        if filereader.read_preamble(file, force=True) is not None:
            meta = filereader.read_file_meta_info(path)
            if meta.get("TransferSyntaxUID") == _DEFLATED:  # pydicom would unzip it whole, however large that is
                name = _name_of_class(text_of(meta, "MediaStorageSOPClassUID"))
                if name and "Image" not in name.split():
                    return None
                raise ScanError(f"{path} is a deflated DICOM file; inflate it first, e.g. with gdcmconv --raw.")
        file.seek(0)
        header = filereader.read_partial(file, at_pixels, force=True, specific_tags=list(map(Tag, _TAGS)))
    is_image = _holds_image(header) and not _NOT_MAGNITUDE.intersection(values_of(header, "ImageType"))
    return (header, stored) if is_image else None


def _stored(file: BinaryIO, length: int) -> int:
    """The bytes of the pixels that begin at the position of a file, -1 if they break off; see `DicomImage.stored`.

    Pixels of undefined length are compressed, in items of which an empty one of another kind is the last.
    """
    end = os.fstat(file.fileno()).st_size
    if length != _UNDEFINED:
        return length if file.tell() + length <= end else -1
    total = 0
    while head := file.read(8):
        tag, size = struct.unpack("<4sL", head.ljust(8, b"\0"))
        if tag == _LAST_ITEM:
            break
        if tag != _ITEM or file.seek(size, os.SEEK_CUR) > end:
            return -1
        total += size
    return total


def modality_of(header: Any) -> str:
    """MR, CT, …; where it is not said, MR if that is what the file's class stores."""
    return text_of(header, "Modality") or ("MR" if "MR" in class_name(header).split() else "")


def text_of(header: Any, keyword: str) -> str:
    """A value as text, empty if it is missing."""
    value = header.get(keyword)
    return "" if value is None else str(value)


def number_of(header: Any, keyword: str) -> float:
    """The first value as a number, 0 if it is missing."""
    return float((values_of(header, keyword) or ["0"])[0])


def values_of(header: Any, keyword: str) -> list[str]:
    """The values of an element that may have several, as texts."""
    value = header.get(keyword)
    if value is None or value == "":
        return []
    return [str(one) for one in value] if isinstance(value, MutableSequence) else [str(value)]


def _holds_image(header: Any) -> bool:
    """By its class or, where that is private or not said, by its size; an image that lost its size is still one."""
    name = class_name(header)
    return "Image" in name.split() if name else bool(header.get("Rows") or header.get("Columns"))


def class_name(header: Any) -> str:
    """What the standard calls the class of a file, as MR Image Storage; empty if it knows none."""
    return _name_of_class(text_of(header, "SOPClassUID") or text_of(header.file_meta, "MediaStorageSOPClassUID"))


def _name_of_class(uid: str) -> str:
    from pydicom.uid import UID

    return UID(uid).name if UID(uid).name != uid else ""
