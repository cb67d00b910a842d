"""Finding scans with their masks in the layouts that data sets come in."""

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from planar3d.errors import DatasetError

# The MSSEG 2016 layouts: as first distributed, one folder a patient whose name begins with the center's two digits …
_FIRST_SCAN, _FIRST_MASK = "3DFLAIR.nii", "Consensus.nii"
# … and as the Shanoir portal gives it. The naming schemes of the two are never mapped to each other.
_SHANOIR_SCAN, _SHANOIR_MASK = Path("Raw_Data/FLAIR.nii"), Path("Masks/Consensus.nii")
_TABLE_COLUMNS = ("scan", "mask", "group")


@dataclass(frozen=True)
class Case:
    """A scan, its lesion mask, and the group (center, site) it belongs to."""

    id: str
    scan: Path
    mask: Path
    group: str


@dataclass(frozen=True)
class Dataset:
    """Cases in alphabetical order, and the layout they were found in."""

    cases: tuple[Case, ...]
    layout: str
    folder: Path

    def by_id(self) -> dict[str, Case]:
        """The cases by their ids."""
        return {case.id: case for case in self.cases}


def find_cases(folder: str | Path) -> Dataset:
    """Find all scans with their masks, whatever of the known layouts the folder has.

    Layouts: MSSEG 2016 as first distributed (`TrainingDataset_MSSEG/<ID>/3DFLAIR.nii.gz`, `Consensus.nii.gz`), MSSEG
    2016 of the Shanoir portal (`Training/Center_xx/Patient_yy/Raw_Data/FLAIR.nii.gz`, `Masks/Consensus.nii.gz`), BIDS
    (raw, and lesion masks in a derivatives folder; groups from the site in `participants.tsv`), and a CSV table with
    the columns scan, mask and group. All also un-gzipped.

    Args:
        folder: the data set's folder, or the CSV file.

    Returns:
        A data set with at least one case.

    Raises:
        DatasetError: the folder is missing or empty, its layout unknown, or a scan has no mask.
    """
    folder = Path(folder)
    if not folder.exists():
        raise DatasetError(f"{folder} does not exist. {_EXPECTED}")
    if folder.is_file():
        return _dataset(_read_table(folder), "table", folder)
    if not any(folder.iterdir()):
        raise DatasetError(f"{folder} is empty. {_EXPECTED}")
    for layout, find in _LAYOUTS.items():
        cases = find(folder)
        if cases:
            return _dataset(cases, layout, folder)
    raise DatasetError(f"{folder} has no layout that is known. {_EXPECTED}")


def _dataset(cases: list[Case], layout: str, folder: Path) -> Dataset:
    missing = [case for case in cases if not case.mask.is_file()]
    if missing:
        names = ", ".join(case.id for case in missing)
        raise DatasetError(
            f"{len(missing)} of {len(cases)} scans in {folder} have no mask: {names}. "
            f"Expected e.g. {missing[0].mask}; add it, or take the scan away."
        )
    ids = [case.id for case in cases]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise DatasetError(f"{folder} holds {twice[0]} more than once; every scan needs a name of its own.")
    return Dataset(tuple(sorted(cases, key=lambda case: case.id)), layout, folder)


def _find_first_distribution(folder: Path) -> list[Case]:
    scans = _files(folder, "*/" + _FIRST_SCAN, "TrainingDataset_MSSEG/*/" + _FIRST_SCAN)
    scans += _files(folder, "*/TrainingDataset_MSSEG/*/" + _FIRST_SCAN)
    return [Case(s.parent.name, s, _beside(s.parent / _FIRST_MASK), s.parent.name[:2]) for s in scans]


def _find_shanoir(folder: Path) -> list[Case]:
    inside = f"Center_*/Patient_*/{_SHANOIR_SCAN}"
    scans = _files(folder, inside, f"Training/{inside}", f"*/Training/{inside}")
    cases = []
    for scan in scans:
        patient = scan.parent.parent
        center = patient.parent.name
        cases.append(Case(f"{center}_{patient.name}", scan, _beside(patient / _SHANOIR_MASK), center))
    return cases


def _find_bids(folder: Path) -> list[Case]:
    scans = _files(folder, "sub-*/anat/*_FLAIR.nii", "sub-*/ses-*/anat/*_FLAIR.nii")
    sites = _sites(folder / "participants.tsv")
    cases = []
    for scan in scans:
        stem = scan.name.removesuffix(".gz").removesuffix("_FLAIR.nii")
        within = scan.parent.relative_to(folder)
        masks = sorted(folder.glob(f"derivatives/*/{within}/{stem}*_mask.nii*")) + sorted(
            folder.glob(f"derivatives/*/{within}/{stem}*label-lesion*.nii*")
        )
        masks = list(dict.fromkeys(masks))
        if len(masks) > 1:
            raise DatasetError(
                f"{scan} has {len(masks)} masks ({', '.join(m.name for m in masks)} …); one is needed. Take the others "
                "out of the derivatives folder, or name the right ones in a CSV table."
            )
        expected = folder / "derivatives/manual" / within / f"{stem}_label-lesion_mask.nii.gz"
        subject = next(part for part in within.parts if part.startswith("sub-"))
        cases.append(Case(stem, scan, masks[0] if masks else expected, sites.get(subject, "all")))
    return cases


def _sites(table: Path) -> dict[str, str]:
    if not table.is_file():
        return {}
    with table.open(newline="", encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    return {row["participant_id"]: row.get("site") or "all" for row in rows if row.get("participant_id")}


def _read_table(table: Path) -> list[Case]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns, rows = reader.fieldnames or [], list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{table} is not a table in UTF-8 ({error}). {_EXPECTED}") from None
    absent = [c for c in _TABLE_COLUMNS[:2] if c not in columns]
    if absent:
        raise DatasetError(
            f"{table} has the columns {', '.join(columns) or 'none'}; it needs {', '.join(_TABLE_COLUMNS)} (group and "
            "id are optional)."
        )
    if not rows:
        raise DatasetError(f"{table} has no rows. {_EXPECTED}")
    cases = []
    for number, row in enumerate(rows, start=2):
        if not row["scan"] or not row["mask"]:
            raise DatasetError(f"{table}, line {number}: scan or mask is empty.")
        scan, mask = table.parent / row["scan"], table.parent / row["mask"]
        if not scan.is_file():
            raise DatasetError(f"{table}, line {number}: {scan} does not exist.")
        cases.append(Case(row.get("id") or _id_of(Path(row["scan"])), scan, mask, row.get("group") or "all"))
    return cases


def _id_of(scan: Path) -> str:
    """A readable id: the path without its suffix, its folders joined."""
    name = str(scan).removesuffix(".gz").removesuffix(".nii")
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("_.")


def _files(folder: Path, *patterns: str) -> list[Path]:
    """Files by pattern, gzipped or not; of a pair of both, the gzipped one."""
    found: dict[Path, Path] = {}
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)) + sorted(folder.glob(pattern + ".gz")):
            found[path.with_name(path.name.removesuffix(".gz"))] = path
    return list(found.values())


def _beside(unzipped: Path) -> Path:
    """The file as it is there, gzipped or not; the gzipped name if neither is."""
    return unzipped if unzipped.is_file() else unzipped.with_name(unzipped.name + ".gz")


_LAYOUTS: dict[str, Callable[[Path], list[Case]]] = {
    "MSSEG 2016, first distribution": _find_first_distribution,
    "MSSEG 2016, Shanoir portal": _find_shanoir,
    "BIDS": _find_bids,
}

_EXPECTED = (
    "Expected one of: TrainingDataset_MSSEG/<ID>/3DFLAIR.nii.gz with Consensus.nii.gz beside it; "
    "Training/Center_xx/Patient_yy/Raw_Data/FLAIR.nii.gz with Masks/Consensus.nii.gz; BIDS (sub-*/anat/*_FLAIR.nii.gz "
    "with derivatives/*/sub-*/anat/*_mask.nii.gz); or a CSV table with the columns scan,mask,group."
)
