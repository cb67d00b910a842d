"""The image of a DICOM file by its header: its pixels, where it is, and what it shares with others of its volume."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planar3d.scans.dicom_headers import number_of, text_of, values_of

# What all images of one volume have in common where their headers say it.
SHARED = ("PatientID", "StudyInstanceUID", "TemporalPositionIdentifier")


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
    spacing: tuple[tuple[float, ...], ...]  # mm from row to row and from column to column, of each frame
    # Along a row and along a column (left, posterior, superior), of each frame; empty if missing.
    orientation: tuple[tuple[float, ...], ...]
    # Of the first pixel in mm (left, posterior, superior), of each frame; empty if missing.
    position: tuple[tuple[float, ...], ...]


def image_of(path: Path, header: Any, stored: int) -> DicomImage:
    """The image of a header, and of the bytes of its pixels."""
    shared: Any = next(iter(header.get("SharedFunctionalGroupsSequence") or []), {})
    frames = header.get("PerFrameFunctionalGroupsSequence") or []
    places = [_place(frame, shared) for frame in frames] or [_place(header, {})]
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
        spacing=tuple(place[0] for place in places),
        orientation=tuple(place[1] for place in places),
        position=tuple(place[2] for place in places),
    )


def _place(frame: Any, shared: Any) -> list[tuple[float, ...]]:
    """Spacing, orientation and position, in functional groups of a frame or of all frames, or else in the header."""
    groups = ("PixelMeasuresSequence", "PlaneOrientationSequence", "PlanePositionSequence")
    keywords = ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient")
    holders = [(frame.get(group) or shared.get(group) or [frame])[0] for group in groups]
    return [tuple(map(float, holder.get(key) or ())) for holder, key in zip(holders, keywords, strict=True)]


def _padding(header: Any) -> tuple[int, ...]:
    """The lowest and the highest stored value of pixels outside the image, by a header; empty if it has none."""
    values = [values_of(header, keyword)[:1] for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    span = 2 ** int(header.get("BitsAllocated") or 16)
    lowest = -span // 2 if header.get("PixelRepresentation") else 0  # some scanners write -2000 as 63536
    try:
        return tuple(sorted((int(value) - lowest) % span + lowest for value, *_ in filter(None, values)))
    except ValueError:
        return ()
