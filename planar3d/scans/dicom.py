"""DICOM series: which are in a folder, and which of them are FLAIR scans."""

import re
import warnings
from collections.abc import Iterable, MutableSequence, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from planar3d.errors import ScanError
from planar3d.extras import dicom_extra

_TAGS = [
    *("SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "Manufacturer", "ProtocolName"),
    *("AcquisitionContrast", "ImageType", "InversionTime", "EchoTime"),
    *("Rows", "Columns", "SamplesPerPixel", "BitsAllocated"),
    *("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]
_DEFLATED = "1.2.840.10008.1.2.1.99"

# What vendors call FLAIR: GE, Philips, Canon and most people by its name, Siemens dark-fluid (t2_tirm_tra_dark-fluid,
# t2_spc_da-fl) …
_FLAIR = re.compile(r"flair|dark[ _-]?fl|(?<![a-z])da[ _-]fl|fluid[ _-]?att")
# … and what is none, though its name or its times resemble it: T1 FLAIR, STIR, double inversion.
_OTHER = re.compile(r"(?<![a-z0-9])t1(?!\d)|stir|(?<![a-z])dir(?![a-z])|double.?inv|localizer|scout|survey")
_INVERSION_MS = (1200, 3500)  # fluid is nulled at 1400 (64 mT) to 2900 (7 T); T1 FLAIR lies below, STIR far below
_LEAST_ECHO_MS = 50  # T2 weighting; MPRAGE and T1 FLAIR have less
# Values of ImageType of what scanners may store in the series of a magnitude image.
_NOT_MAGNITUDE = {"P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY"}
_CONTROLS = re.compile(r"[^\w .+()*/-]+")


@dataclass(frozen=True)
class DicomImage:
    """What the header of one file of a series says.

    Attributes:
        path: the file.
        syntax: UID of the transfer syntax.
        shape: (rows, columns) of an image; zeros if there is none.
        samples: values a pixel, 1 for grey.
        bits: stored a sample.
        spacing: mm from row to row and from column to column, of each frame.
        orientation: along a row and along a column (left, posterior, superior), of each frame; empty if not said.
        position: of the first pixel in mm (left, posterior, superior), of each frame; empty if not said.
    """

    path: Path
    syntax: str
    shape: tuple[int, int]
    samples: int
    bits: int
    spacing: tuple[tuple[float, ...], ...]
    orientation: tuple[tuple[float, ...], ...]
    position: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class DicomSeries:
    """The files of one SeriesInstanceUID.

    Attributes:
        images: in the order of their paths; phase and other images that are no magnitudes are left out.
        number: SeriesNumber, 0 if there is none.
        description: SeriesDescription or else ProtocolName, without characters that could harm a terminal.
        modality: MR, CT, …
        is_flair: whether names or times say that it is a FLAIR scan.
        is_secondary: reformatted or projected from another series.
    """

    images: tuple[DicomImage, ...]
    number: int
    description: str
    modality: str
    is_flair: bool
    is_secondary: bool

    @property
    def label(self) -> str:
        """Number and description as part of a file name."""
        return re.sub(r"[^A-Za-z0-9.-]+", "_", f"{self.number}_{self.description}").strip("_.")

    def __str__(self) -> str:
        return f"{self.number} “{self.description}” ({self.modality}, {len(self.images)} files)"


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does, with its preamble or, as old ones, with group 8."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError as error:
        raise ScanError(f"{path} cannot be read ({error.strerror}).") from None
    return start[128:] == b"DICM" or (start[:2] == b"\x08\x00" and start[3:4] == b"\x00")


def find_dicom_series(files: Iterable[Path]) -> list[DicomSeries]:
    """Read the headers of DICOM files and sort them into series, by number.

    Raises:
        ScanError: a file is damaged; it might be a slice of any of the series.
        Planar3DError: pydicom is not installed.
    """
    by_uid: dict[str, DicomSeries] = {}
    for path in sorted(files):
        found = _read(path)
        if found is not None:
            uid, one = found
            before = by_uid.get(uid, replace(one, images=()))
            by_uid[uid] = replace(before, images=before.images + one.images)
    return sorted(by_uid.values(), key=lambda series: series.number)


def choose_flair(series: Sequence[DicomSeries], place: Path) -> tuple[list[DicomSeries], str]:
    """The series that are FLAIR scans, and what is to be said of the choice.

    Reformatted series are left out where the original ones are there. A single MR series is taken whatever it is.

    Raises:
        ScanError: there is no MR series, or there are several and none is known as FLAIR.
    """
    listed = "; ".join(map(str, series)) or "none with images"
    scans = [one for one in series if one.modality == "MR"]
    flair = [one for one in scans if one.is_flair]
    if flair:
        return [one for one in flair if not one.is_secondary] or flair, ""
    if len(scans) == 1:
        return scans, f"series {scans[0]} is not known as FLAIR by name or times; it was taken as the only MR series"
    if not scans:
        raise ScanError(f"{place} holds no MR series. Found: {listed}.")
    raise ScanError(
        f"{place} holds no series that is known as FLAIR by name or times. Found: {listed}. Name a file of the one "
        "that is meant."
    )


def names_flair(texts: Sequence[str], inversion_ms: float, echo_ms: float) -> bool:
    """Whether a series is a FLAIR scan.

    Args:
        texts: what it is called, the most telling first.
        inversion_ms: InversionTime, 0 if not said.
        echo_ms: EchoTime, 0 if not said.
    """
    shortest, longest = _INVERSION_MS
    if (inversion_ms and not shortest <= inversion_ms <= longest) or 0 < echo_ms < _LEAST_ECHO_MS:
        return False
    for text in map(str.lower, texts):
        if _OTHER.search(text):
            return False
        if _FLAIR.search(text):
            return True
    return bool(inversion_ms and echo_ms)


def _read(path: Path) -> tuple[str, DicomSeries] | None:
    """The SeriesInstanceUID of a file and a series of that file alone; None for what is no magnitude image."""
    with dicom_extra():
        from pydicom import dcmread
        from pydicom.filereader import read_file_meta_info, read_preamble
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # pydicom's, of values that break the standard: what is used is checked
            if read_preamble(file, force=True) is not None:
                syntax = read_file_meta_info(path).get("TransferSyntaxUID")
                if syntax == _DEFLATED:  # pydicom would unzip it whole, however large that is
                    raise ScanError(f"{path} is a deflated DICOM file; write it without, e.g. with gdcmconv --raw.")
            header = dcmread(path, stop_before_pixels=True, force=True, specific_tags=_TAGS)
            uid = str(header.get("SeriesInstanceUID", ""))
            if not uid or _NOT_MAGNITUDE.intersection(_values(header, "ImageType")):
                return None
            return uid, _series(path, header)
    except ScanError:
        raise
    except Exception as error:  # whatever the bytes of a stranger's file provoke in pydicom
        raise ScanError(f"{path} is a damaged DICOM file ({error}). Copy it again, or take it away.") from None


def _series(path: Path, header: Any) -> DicomSeries:
    names = ["SeriesDescription", "ProtocolName", "AcquisitionContrast"]
    if str(header.get("Manufacturer", "")).startswith("GE"):
        names.remove("ProtocolName")  # GE's is that of the whole session
    texts = [str(header.get(name, "")) for name in names] + [" ".join(_values(header, "ImageType"))]
    inversion, echo = (float((_values(header, k) or ["0"])[0]) for k in ("InversionTime", "EchoTime"))
    return DicomSeries(
        images=(_image(path, header),),
        number=int(header.get("SeriesNumber") or 0),
        description=_CONTROLS.sub(" ", texts[0] or texts[1])[:64].strip(),
        modality=_CONTROLS.sub(" ", str(header.get("Modality", "")))[:16],
        is_flair=names_flair(texts, inversion, echo),
        is_secondary="SECONDARY" in _values(header, "ImageType"),
    )


def _image(path: Path, header: Any) -> DicomImage:
    shared = next(iter(header.get("SharedFunctionalGroupsSequence") or []), None)
    frames = [(frame, shared) for frame in header.get("PerFrameFunctionalGroupsSequence") or []]
    places = [*(_place(*groups) for groups in frames)] if frames else [_place_of(header, header, header)]
    return DicomImage(
        path=path,
        syntax=str(header.file_meta.get("TransferSyntaxUID", "1.2.840.10008.1.2")),
        shape=(int(header.get("Rows") or 0), int(header.get("Columns") or 0)),
        samples=int(header.get("SamplesPerPixel") or 1),
        bits=int(header.get("BitsAllocated") or 0),
        spacing=tuple(place[0] for place in places),
        orientation=tuple(place[1] for place in places),
        position=tuple(place[2] for place in places),
    )


def _place(frame: Any, shared: Any) -> tuple[tuple[float, ...], ...]:
    """Spacing, orientation and position of a frame, from its own groups or from those that all frames share."""
    groups = []
    for keyword in ("PixelMeasuresSequence", "PlaneOrientationSequence", "PlanePositionSequence"):
        own = frame.get(keyword) or (shared.get(keyword) if shared is not None else None)
        groups.append(own[0] if own else {})
    return _place_of(*groups)


def _place_of(measures: Any, orientation: Any, position: Any) -> tuple[tuple[float, ...], ...]:
    named = (measures, "PixelSpacing"), (orientation, "ImageOrientationPatient"), (position, "ImagePositionPatient")
    return tuple(tuple(float(value) for value in group.get(keyword) or ()) for group, keyword in named)


def _values(header: Any, keyword: str) -> list[str]:
    value = header.get(keyword)
    if value is None or value == "":
        return []
    return [str(one) for one in value] if isinstance(value, MutableSequence) else [str(value)]
