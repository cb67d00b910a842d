"""Which files are DICOM, and the image of each by its header: its kind, its pixels, and where it is."""

import os
import re
import struct
import warnings
from collections import defaultdict
from collections.abc import Iterator, MutableSequence, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from planar3d.errors import ScanError, reading, untrusted
from planar3d.extras import extra
from planar3d.scans.nifti import why_no_file
from planar3d.wording import counted

DICOM_SUFFIXES = (".dcm", ".ima", ".dcm.gz", ".ima.gz")
_NUMBER = re.compile(r"\d+")
_TAGS = (
    "SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID SeriesNumber AcquisitionNumber PatientID "
    "TemporalPositionIdentifier SliceThickness SeriesDescription Modality Manufacturer ProtocolName "
    "AcquisitionContrast ImageType InversionTime EchoTime Rows Columns SamplesPerPixel PhotometricInterpretation "
    "BitsAllocated BitsStored PixelRepresentation PixelPaddingValue PixelPaddingRangeLimit PixelSpacing "
    "ImagePositionPatient ImageOrientationPatient SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence"
)
PIXELS = {0x7FE00008, 0x7FE00009, 0x7FE00010}  # as float, as double, as integers or compressed
_UNDEFINED = 0xFFFFFFFF
_ITEM, _LAST_ITEM = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_DEFLATED = "1.2.840.10008.1.2.1.99"
# Values of ImageType for other images that scanners store in the series of a magnitude image.
_NOT_MAGNITUDE = {"P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY"}
# What all images of one volume have in common where their headers say it.
SHARED = ("PatientID", "StudyInstanceUID", "TemporalPositionIdentifier")


class Plane(NamedTuple):
    """Where a frame lies; empty where missing."""

    spacing: tuple[float, ...]  # mm from row to row and from column to column
    orientation: tuple[float, ...]  # along a row and along a column (left, posterior, superior)
    position: tuple[float, ...]  # of the first pixel in mm (left, posterior, superior)


@dataclass(frozen=True)
class DicomImage:
    """The header of one file of a series."""

    path: Path  # the file
    instance: str  # UID of the image, which its copies share; empty if missing
    syntax: str  # UID of the transfer syntax
    shape: tuple[int, int]  # (rows, columns) of an image; zeros if there is none
    shared: tuple[str, ...]  # values of `SHARED`, empty where missing
    inversion_ms: float  # 0 if missing
    acquisition: str  # its number, empty if missing
    thickness: float  # of the slice in mm, 0 if missing
    samples: int  # values per pixel, 1 for grey, 3 for numbers of colours in a palette
    inverted: bool  # whether the lowest value is white
    bits: int  # stored per sample
    all_bits: bool  # whether values may need all of them, if only for their sign
    padding: tuple[int, ...]  # stored values of pixels outside the image, from lowest to highest; empty if not given
    stored: int  # bytes of its pixels in the file: 0 if it has none, -1 if they break off
    planes: tuple[Plane, ...]  # of its frames


def is_dicom(path: Path) -> bool:
    """Whether a file begins like DICOM: with its preamble, or directly with group 2 or 8."""
    with reading(path), path.open("rb") as file:
        start = file.read(132)
    bare = start[:6] == b"\x02\x00\x00\x00UL" or (start[:2] == b"\x08\x00" and start[3:4] == b"\x00")
    return start[128:] == b"DICM" or bare


def dicom_files(files: Sequence[Path]) -> tuple[list[Path], dict[Path, str]]:
    """The DICOM files among some files, and, by path, why others that may be DICOM cannot be used.

    These are the files that cannot be read, and each folder's first file that is named like a DICOM file, by suffix or
    but for numbers, and is not one, or is a link without its file.
    """
    found, problems, wrong = list[Path](), dict[Path, str](), defaultdict[Path, list[Path]](list)
    lost = {path for path in files if not os.path.exists(path)}
    for path in (path for path in files if path not in lost):
        try:
            found += [path] if is_dicom(path) else []
        except ScanError as error:
            problems[path] = str(error)
    known, names = {*found, *problems}, {_without_numbers(path) for path in found}
    for path in files if found else lost:
        if path not in known and (path.name.lower().endswith(DICOM_SUFFIXES) or _without_numbers(path) in names):
            wrong[path.parent].append(path)
    for first, *others in map(sorted, wrong.values()):
        if first in lost:
            problems[first] = why_no_file(first)
            continue
        more = f", nor {counted(others, 'other')}" if others else ""
        problems[first] = (
            f"{first} is named like the DICOM files beside it, but is not a DICOM file "
            f"({counted(first.stat().st_size, 'byte')}){more}. Copy or unpack it again, or remove it."
        )
    return found, problems


def _without_numbers(path: Path) -> Path:
    return path.with_name(_NUMBER.sub("0", path.name))


@contextmanager
def quietly() -> Iterator[None]:
    """Without pydicom's and highdicom's warnings of values outside the standard: values in use are checked."""
    with warnings.catch_warnings(action="ignore"):
        yield


@contextmanager
def reading_dicom(path: Path, advice: str = "Copy it again, or remove it.") -> Iterator[None]:
    """`untrusted` for pydicom, and `quietly`."""
    with untrusted(path, advice), quietly():
        yield


def read_header(path: Path) -> tuple[Any, DicomImage] | None:
    """The pydicom data set of a file without its pixels, and its image; None if it is not a magnitude image.

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
        header = filereader.read_partial(file, at_pixels, force=True, specific_tags=[*map(Tag, _TAGS.split())])
    name = class_name(header)  # of a private class, the size tells; an image that lost its size is still one
    is_image = "Image" in name.split() if name else bool(header.get("Rows") or header.get("Columns"))
    is_magnitude = not _NOT_MAGNITUDE.intersection(values_of(header, "ImageType"))
    return (header, _image_of(path, header, stored)) if is_image and is_magnitude else None


def _stored(file: BinaryIO, length: int) -> int:
    """The bytes of the pixels that begin at the position of a file, -1 if they break off; see `DicomImage.stored`.

    Pixels of undefined length are compressed, in items that end with an empty item of another kind.
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


def class_name(header: Any) -> str:
    """What the standard calls the class of a file, as MR Image Storage; empty if it knows none."""
    return _name_of_class(text_of(header, "SOPClassUID") or text_of(header.file_meta, "MediaStorageSOPClassUID"))


def _name_of_class(uid: str) -> str:
    from pydicom.uid import UID

    return UID(uid).name if UID(uid).name != uid else ""


def _image_of(path: Path, header: Any, stored: int) -> DicomImage:
    """The image of a header, and of the bytes of its pixels."""
    shared: Any = next(iter(header.get("SharedFunctionalGroupsSequence") or []), {})
    frames = header.get("PerFrameFunctionalGroupsSequence") or []
    colours = text_of(header, "PhotometricInterpretation")
    return DicomImage(
        path=path,
        instance=text_of(header, "SOPInstanceUID"),
        syntax=str(header.file_meta.get("TransferSyntaxUID", "1.2.840.10008.1.2")),
        shape=(int(header.get("Rows") or 0), int(header.get("Columns") or 0)),
        shared=tuple(text_of(header, keyword) for keyword in SHARED),
        inversion_ms=number_of(header, "InversionTime"),
        acquisition=text_of(header, "AcquisitionNumber"),
        thickness=number_of(header, "SliceThickness"),
        samples=3 if colours == "PALETTE COLOR" else int(header.get("SamplesPerPixel") or 1),
        inverted=colours == "MONOCHROME1",
        bits=int(header.get("BitsAllocated") or 0),
        all_bits=header.get("BitsStored") == header.get("BitsAllocated") or bool(header.get("PixelRepresentation")),
        padding=_padding(header),
        stored=stored,
        planes=tuple(_plane(frame, shared) for frame in frames) or (_plane(header, {}),),
    )


def _plane(frame: Any, shared: Any) -> Plane:
    """The plane by functional groups of a frame or of all frames, or else by the header."""
    groups = ("PixelMeasuresSequence", "PlaneOrientationSequence", "PlanePositionSequence")
    keywords = ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient")
    holders = [(frame.get(group) or shared.get(group) or [frame])[0] for group in groups]
    return Plane(*(tuple(map(float, holder.get(key) or ())) for holder, key in zip(holders, keywords, strict=True)))


def _padding(header: Any) -> tuple[int, ...]:
    """The lowest and the highest stored value of pixels outside the image, by a header; empty if it has none."""
    values = [values_of(header, keyword)[:1] for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    span = 2 ** int(header.get("BitsAllocated") or 16)
    lowest = -span // 2 if header.get("PixelRepresentation") else 0  # some scanners write -2000 as 63536
    try:
        return tuple(sorted((int(value) - lowest) % span + lowest for value, *_ in filter(None, values)))
    except ValueError:
        return ()
