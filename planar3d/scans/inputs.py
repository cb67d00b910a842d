"""What is given to be segmented: files, folders, tables, BIDS data sets and DICOM series, each scan with a name."""

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from planar3d.errors import ScanError
from planar3d.scans.bids import derivative_names, find_bids_scans, is_bids
from planar3d.scans.dicom import DicomSeries, choose_flair, find_dicom_series, is_dicom
from planar3d.scans.dicom_conversion import read_dicom_series
from planar3d.scans.outputs import Outputs, plain_names
from planar3d.scans.volume import Scan, read_scan

_NIFTI = (".nii", ".nii.gz")
_OUTPUTS = re.compile(r"_(mask|probability|probseg)\.nii(\.gz)?$")
_TABLE = ".csv"
_NAME = re.compile(r"[^\W_][\w.+-]*")  # a file name everywhere, and no path


@dataclass(frozen=True)
class ScanInput:
    """A scan to be segmented.

    Attributes:
        name: no other scan of the inputs has it.
        path: the NIfTI file, or the first file of a DICOM series; given alone it is the same scan again.
        dataset: the BIDS data set it was found in; None for every other scan.
        series: the DICOM series; None for NIfTI.
        note: what the user is to be told of how it was chosen, if anything.
    """

    name: str
    path: Path
    dataset: Path | None = None
    series: DicomSeries | None = None
    note: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the scan."""
        return (self.path,) if self.series is None else tuple(image.path for image in self.series.images)


def find_inputs(inputs: Sequence[str | Path]) -> list[ScanInput]:
    """Find the scans that are meant, and give each a name of its own.

    Args:
        inputs: NIfTI files; CSV tables with a column scan (paths relative to the table, or DICOM folders) and perhaps
            name; a BIDS data set, whose raw FLAIR scans are taken; other folders, in which all NIfTI files with FLAIR
            in their name are taken, or all FLAIR series of DICOM files; single DICOM files, which stand for their
            series in their folder.

    Returns:
        The scans in the order of the inputs. Their names are those of their files (DICOM: folder, series number and
        description), with as many folders before as are needed to tell them apart.

    Raises:
        ScanError: an input holds no scans, or it cannot be told which are meant; a scan is given twice; a BIDS data
            set is not given alone.
        Planar3DError: an input is DICOM, and pydicom is not installed.
    """
    found = [item for path in inputs for item in _find(Path(path))]
    datasets = {item.dataset for item in found}
    if len(datasets) > 1:
        alone = next(item.dataset for item in found if item.dataset)
        raise ScanError(
            f"{alone} is a BIDS data set, and its masks become one; give it alone, and segment the other scans into "
            "another folder."
        )
    return _named(found)


def read_input(item: ScanInput, assume_affine: bool = False) -> Scan:
    """Read a scan; a DICOM series is converted with dcm2niix. Raises what `read_scan` and `read_dicom_series` raise."""
    return read_scan(item.path, assume_affine) if item.series is None else read_dicom_series(item.series)


def outputs_of(item: ScanInput, out: str | Path) -> Outputs:
    """Where the outputs of a scan lie in the folder `out`, which BIDS scans make a derivatives data set."""
    if item.dataset is None:
        return plain_names(item.name, Path(out))
    return derivative_names(item.dataset, item.path, Path(out))


def _find(path: Path) -> list[ScanInput]:
    if path.is_dir():
        return [_of_file(scan, path) for scan in find_bids_scans(path)] if is_bids(path) else _find_in_folder(path)
    if path.suffix.lower() == _TABLE:
        return _find_in_table(path)
    if not path.name.endswith(_NIFTI) and path.is_file() and is_dicom(path):
        return _find_series_of(path)
    return [_of_file(path)]


def _find_in_folder(folder: Path) -> list[ScanInput]:
    """All FLAIR scans of a folder, of one format."""
    files = [p for p in sorted(folder.rglob("*")) if not _is_hidden(p.relative_to(folder)) and p.is_file()]
    scans = [p for p in files if "flair" in p.name.lower() and p.name.endswith(_NIFTI) and not _OUTPUTS.search(p.name)]
    others = (p for p in files if not p.name.endswith(_NIFTI))
    first = next((p for p in others if is_dicom(p)), None)
    if scans and first:
        raise ScanError(
            f"{folder} holds NIfTI scans ({scans[0].name} …) and DICOM files ({first.name} …); name the files or "
            "folders of those that are meant."
        )
    if first:
        series, note = choose_flair(find_dicom_series(p for p in files if is_dicom(p)), folder)
        return [_of_series(one, note) for one in series]
    if not scans:
        raise ScanError(
            f"{folder} holds no .nii or .nii.gz file with FLAIR in its name and no DICOM files; name the scans "
            "themselves."
        )
    return [_of_file(path) for path in scans]


def _find_series_of(path: Path) -> list[ScanInput]:
    """The series that one DICOM file belongs to, whatever it is."""
    beside = [p for p in path.parent.iterdir() if not _is_hidden(Path(p.name)) and p.is_file() and is_dicom(p)]
    for series in find_dicom_series(beside):
        if path in [image.path for image in series.images]:
            note = "" if series.is_flair else f"series {series} is not known as FLAIR by name or times; it was named"
            return [_of_series(series, note)]
    raise ScanError(f"{path} is a DICOM file of no series of images; name one of a FLAIR series, or its folder.")


def _find_in_table(table: Path) -> list[ScanInput]:
    """The scans of a table, each line one."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScanError(f"{table} is not readable as a CSV table in UTF-8 ({error}).") from None
    if not rows or "scan" not in rows[0]:
        raise ScanError(f"{table} has no column “scan”, or no lines; a table with scan and perhaps name is needed.")
    found = []
    for number, row in enumerate(rows, start=2):
        line = f"{table}, line {number}"
        if not row["scan"]:
            raise ScanError(f"{line}: scan is empty.")
        path, name = table.parent / row["scan"], row.get("name") or row.get("id")
        if not path.exists():
            raise ScanError(f"{line}: {path} does not exist.")
        scans = _find(path) if path.suffix.lower() != _TABLE else []
        if len(scans) != 1 or scans[0].dataset:
            raise ScanError(f"{line}: {path} is not a single scan; name a file, or a folder with one series.")
        if name and not _NAME.fullmatch(name):
            raise ScanError(f"{line}: “{name}” cannot be part of a file name; use letters, digits and . _ + - alone.")
        found.append(replace(scans[0], name=name) if name else scans[0])
    return found


def _of_file(path: Path, dataset: Path | None = None) -> ScanInput:
    return ScanInput(path.name.removesuffix(".gz").removesuffix(".nii"), path, dataset)


def _of_series(series: DicomSeries, note: str) -> ScanInput:
    path = series.images[0].path
    return ScanInput(f"{Path(os.path.abspath(path)).parent.name}_{series.label}", path, series=series, note=note)


def _named(found: list[ScanInput]) -> list[ScanInput]:
    """Put as many folders before the names as are needed to tell the scans apart."""
    # Links are not followed: in data sets kept by git-annex they lead to files named by their digests.
    places = [Path(os.path.abspath(item.path)) for item in found]
    twice = [item.path for item, place in zip(found, places, strict=True) if places.count(place) > 1]
    if twice:
        raise ScanError(f"{twice[0]} was given twice; give every scan once.")
    for folders in range(max((len(place.parts) for place in places), default=1)):
        names = [_with_folders(item, place, folders) for item, place in zip(found, places, strict=True)]
        if len(set(names)) == len(names):
            return [replace(item, name=name) for item, name in zip(found, names, strict=True)]
    alike = [str(item.path) for item, name in zip(found, names, strict=True) if names.count(name) > 1]
    raise ScanError(f"{' and '.join(alike[:2])} would have masks of one name; rename one, or segment it by itself.")


def _with_folders(item: ScanInput, place: Path, folders: int) -> str:
    """The name of a scan behind that many of its folders; a name from a table stays."""
    own = _of_file(item.path) if item.series is None else _of_series(item.series, "")
    if item.name != own.name or not folders:
        return item.name
    above = place.parent if item.series is None else place.parent.parent
    return "_".join([*above.parts[1:][-folders:], item.name])


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
