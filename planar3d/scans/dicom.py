"""The DICOM series of a folder, and which of them are FLAIR scans."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from filecmp import cmp
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from planar3d.errors import ScanError, reading
from planar3d.scans import dicom_headers as headers
from planar3d.scans.dicom_headers import DicomImage, text_of, values_of
from planar3d.wording import counted

# Names of FLAIR: GE, Philips, Canon and most users call it FLAIR, Siemens dark-fluid (t2_tirm_tra_dark-fluid,
# t2_spc_da-fl) …
_FLAIR = re.compile(r"flair|dark[ _-]?fl|(?<![a-z])da[ _-]fl|fluid[ _-]?att")
# … and sequences with similar names or times: T1 FLAIR, STIR, double inversion.
_OTHER = re.compile(
    r"(?<![a-z0-9])t1(?!\d)|stir|(?<![a-z])(dir|loc)(?![a-z])|double.?inv|localizer|scout|survey|smartbrain"
)
# Names of images computed from others: subtractions (FLAIR_SUB, unlike sub-01 and sub_01), differences and projections.
DERIVED = re.compile(
    r"(?<=[^a-z])sub(?![a-z-]|[ _]?\d)|subtr|(?<![a-z])(diff(?![a-z])|difference|m(in|n)?ip(?![a-z])|projection)",
    re.IGNORECASE,
)
_INVERSION_MS = (1200, 3500)  # fluid is nulled at 1400 (64 mT) to 2900 (7 T); T1 FLAIR lies below, STIR far below
_LEAST_ECHO_MS = 50  # T2 weighting; MPRAGE and T1 FLAIR have less
_CONTROLS = re.compile(r"[^\w .+()*/-]+")


@dataclass(frozen=True)
class DicomSeries:
    """The files of one series."""

    study: str  # its UID, empty if missing
    uid: str  # empty if missing
    # In the order of their paths; copies, phase images and others that are not magnitude images are excluded.
    images: tuple[DicomImage, ...]
    number: int  # SeriesNumber, 0 if there is none
    description: str  # SeriesDescription or else ProtocolName, without characters that could harm a terminal
    modality: str  # MR, CT, …; empty if missing
    is_flair: bool  # whether names or times say that it is a FLAIR scan
    is_secondary: bool  # reformatted, projected or captured from another series

    @property
    def label(self) -> str:
        """Number and description as part of a file name."""
        return re.sub(r"[^A-Za-z0-9.-]+", "_", f"{self.number}_{self.description}").strip("_.")

    @property
    def mark(self) -> str:
        """A suffix for file names of series with the same label, e.g. of two patients; empty without a UID."""
        return f"_{hashlib.sha256(self.uid.encode()).hexdigest()[:8]}" if self.uid else ""

    def __str__(self) -> str:
        modality = self.modality or "modality not given"
        return f"{self.number} “{self.description}” ({modality}, {counted(self.images, 'file')})"


def find_dicom_series(files: Iterable[Path], problems: dict[Path, str]) -> list[DicomSeries]:
    """Read the headers of DICOM files and group them into series, sorted by number.

    Files that do not state their series (SeriesInstanceUID) are one if they lie in one folder and agree in study,
    number and description. Of identical files the first is taken. `problems` gets, by path, why files are
    left out: damaged ones, and those that could belong to several series.
    """
    by_key = defaultdict[str | _Kin, list[DicomSeries]](list)
    kin_in = defaultdict[str, set[tuple[str | _Kin, _Kin]]](set)  # by folder, each with its key
    firsts: dict[tuple[str | _Kin, str], Path] = {}
    for path in sorted(files):
        try:
            found = _read(path)
        except ScanError as error:
            problems[path], found = str(error), None
        if found is not None:
            kin, one = found
            key, instance = one.uid or kin, one.images[0].instance
            same = firsts.setdefault((key, instance), path) if instance else path
            if same == path or not cmp(same, path, shallow=False):
                by_key[key].append(one)
                kin_in[kin.folder].add((key, kin))
    for key in [*by_key]:
        if isinstance(key, _Kin) and any(key.may_be_of(kin) for other, kin in kin_in[key.folder] if other != key):
            first = by_key.pop(key)[0].images[0].path
            problems[first] = (
                f"{first} does not name its series (SeriesInstanceUID is missing), and its folder has series that it "
                "could belong to. Export the series again, or remove the file."
            )
    return sorted(map(_joined, by_key.values()), key=lambda series: series.number)


def series_of(files: Sequence[Path]) -> DicomSeries:
    """One series of all these files in their order, described by the first; a `ScanError` if one is not an image."""
    found = [_read(path) for path in files]
    if None in found:
        raise ScanError(f"{files[found.index(None)]} contains no image; a series of images is needed. Remove it.")
    return _joined([one for _, one in filter(None, found)])


def series_with(path: Path) -> DicomSeries | None:
    """The series of a DICOM file with all its files in the folder, or a `ScanError`; None for another file."""
    if not headers.is_dicom(path):
        return None
    found, problems = series_in(path.parent)
    if problems:
        raise ScanError(next(iter(problems.values())))
    for is_it in (path.__eq__, partial(cmp, path, shallow=False)):  # it, or the file that it is a copy of
        for series in found:
            if any(is_it(image.path) for image in series.images):
                return series
    raise ScanError(f"{path} is a DICOM file without images; name a file of a FLAIR series, or its folder.")


@lru_cache(maxsize=8)  # a table may name thousands of files of one folder
def series_in(folder: Path) -> tuple[list[DicomSeries], dict[Path, str]]:
    """The series of the DICOM files directly in a folder, and why files cannot be used."""
    named = [path for path in folder.iterdir() if not path.name.startswith(".")]
    files = [path for path in named if path.is_file() or not path.exists()]
    dicom, problems = headers.dicom_files(files)
    return find_dicom_series(dicom, problems), problems


def names_flair(texts: Sequence[str], inversion_ms: float, echo_ms: float) -> bool:
    """Whether names, the most reliable first, and times, 0 if missing, are those of a FLAIR scan."""
    shortest, longest = _INVERSION_MS
    if (inversion_ms and not shortest <= inversion_ms <= longest) or 0 < echo_ms < _LEAST_ECHO_MS:
        return False
    if any(map(DERIVED.search, texts)):
        return False
    for text in map(str.lower, texts):
        if _OTHER.search(text):
            return False
        if _FLAIR.search(text):
            return True
    return bool(inversion_ms and echo_ms)


def choose_usable(
    series: Sequence[DicomSeries], problems: dict[Path, str], place: Path
) -> tuple[list[tuple[DicomSeries, str, str]], dict[Path, str]]:
    """The series that are FLAIR scans, see `choose_flair`, where some files cannot be used, by path in `problems`.

    An unusable file may belong to any series of its folder, so none of them is known to be complete. It may also be
    the FLAIR scan, so no series is taken only because it is the only one.

    Returns:
        The FLAIR scans, each with a note on the choice and the reason why it cannot be segmented, or empty texts; and
        the first problem of each folder that has none of them, by path.
    """
    is_unknown = problems and not any(one.is_flair for one in series)
    chosen, note = ([], "") if is_unknown else choose_flair(series, place)
    firsts = {path.parent: path for path in reversed(problems)}
    found = list[tuple[DicomSeries, str, str]]()
    for one in chosen:
        of = [firsts[image.path.parent] for image in one.images if image.path.parent in firsts]
        problem = f"{problems[of[0]]} It may belong to series {one}." if of else ""
        found.append((one, "" if found else note, problem))
    folders = {image.path.parent for one in chosen for image in one.images}
    return found, {path: problems[path] for folder, path in firsts.items() if folder not in folders}


def choose_flair(series: Sequence[DicomSeries], place: Path) -> tuple[list[DicomSeries], str]:
    """The series that are FLAIR scans, and a note on the choice.

    Reformatted series are left out where the study has original ones. A single MR series is taken whatever it is.

    Raises:
        ScanError: there is no MR series, or there are several and none is identified as FLAIR.
    """
    listed = "; ".join(map(str, series)) or "no series with images"
    scans = [one for one in series if one.modality == "MR"]
    if flair := [one for one in scans if one.is_flair]:
        original = {one.study for one in flair if not one.is_secondary}
        chosen = [one for one in flair if not (one.is_secondary and one.study in original)]
        known = {one.study for one in flair}
        left = {one.study: f"{one.images[0].path.parent}: {one}" for one in scans if one.study not in known}
        note = f"studies without a series identified as FLAIR were left out: {'; '.join(left.values())}"
        return chosen, note if left else ""
    if len(scans) == 1:
        why = "was used as the only MR series; neither its name nor its times identify it as FLAIR"
        return scans, f"series {scans[0]} {why}"
    if not scans:
        raise ScanError(f"{place} has no MR series. Found: {listed}.")
    raise ScanError(
        f"{place} has no series with the name or times of a FLAIR scan. Found: {listed}. Name a file of the right one."
    )


class _Kin(NamedTuple):
    """What the files of a series share besides its UID; empty where it is missing."""

    folder: str
    study: str
    number: str
    description: str

    def may_be_of(self, other: "_Kin") -> bool:
        """Whether the other one has all that is given here."""
        return all(ours in ("", theirs) for ours, theirs in zip(self, other, strict=True))


def _read(path: Path) -> tuple[_Kin, DicomSeries] | None:
    """The kin of a file's series, and a series of that file only; None if it is not a magnitude image."""
    with reading(path), headers.reading_dicom(path):
        found = headers.read_header(path)
        if found is None:
            return None
        header, image = found
        told = (text_of(header, k) for k in ("StudyInstanceUID", "SeriesNumber", "SeriesDescription"))
        return _Kin(str(path.parent), *told), _series(header, image)


def _joined(series: Sequence[DicomSeries]) -> DicomSeries:
    """The images of all in their order, described by the first."""
    return replace(series[0], images=tuple(image for one in series for image in one.images))


def _series(header: Any, image: DicomImage) -> DicomSeries:
    names = ["SeriesDescription", "ProtocolName", "AcquisitionContrast"]
    if text_of(header, "Manufacturer").startswith("GE"):
        names.remove("ProtocolName")  # on GE scanners it names the whole session
    texts = [text_of(header, name) for name in names] + [" ".join(values_of(header, "ImageType"))]
    modality = text_of(header, "Modality") or ("MR" if "MR" in headers.class_name(header).split() else "")
    inversion, echo = (headers.number_of(header, keyword) for keyword in ("InversionTime", "EchoTime"))
    return DicomSeries(
        study=text_of(header, "StudyInstanceUID"),
        uid=text_of(header, "SeriesInstanceUID"),
        images=(image,),
        number=int(header.get("SeriesNumber") or 0),
        description=_CONTROLS.sub(" ", texts[0] or texts[1])[:64].strip(),
        modality=_CONTROLS.sub(" ", modality)[:16],
        is_flair=names_flair(texts, inversion, echo),
        is_secondary="SECONDARY" in values_of(header, "ImageType") or "Secondary" in headers.class_name(header),
    )
