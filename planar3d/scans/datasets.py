"""Finding scans with their masks in the layouts that data sets come in."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from planar3d.errors import DatasetError
from planar3d.scans.bids import NOT_RAW, entities, find_bids_scans, is_bids
from planar3d.scans.bids_masks import find_lesion_masks
from planar3d.scans.case import Case, Dataset
from planar3d.scans.image_files import by_stem, files_within, stem, suffix, why_unusable
from planar3d.scans.participants import EVERYONE, read_sites
from planar3d.scans.tables import check_name, path_in_table, read_table

# The layouts of MSSEG 2016: where patients lie, and scan and mask of each. As first distributed, a folder's name begins
# with the center's two digits; the naming scheme of the Shanoir portal is never mapped to that.
_MSSEG = {
    "MSSEG 2016, first distribution": (
        "(?:(?:[^/]+/)?TrainingDataset_MSSEG/)?(?P<id>(?P<group>[^/]{1,2})[^/]*)",
        ("3DFLAIR", "Consensus"),
    ),
    "MSSEG 2016, Shanoir portal": (
        "(?:(?:[^/]+/)?Training/)?(?P<id>(?P<group>Center_[^/]+)/Patient_[^/]+)",
        ("Raw_Data/FLAIR", "Masks/Consensus"),
    ),
}
_TABLE_COLUMNS = ("scan", "mask", "group")


def find_cases(folder: str | Path) -> Dataset:
    """Find all scans with their masks, whatever of the known layouts the folder has.

    Layouts: MSSEG 2016 as first distributed (`TrainingDataset_MSSEG/<ID>/3DFLAIR.nii.gz`, `Consensus.nii.gz`), MSSEG
    2016 of the Shanoir portal (`Training/Center_xx/Patient_yy/Raw_Data/FLAIR.nii.gz`, `Masks/Consensus.nii.gz`), BIDS
    (raw, and lesion masks in a derivatives folder; groups from the site in `participants.tsv`), and a CSV table with
    the columns scan, mask and group. All also un-gzipped, and in capitals or small letters.

    Args:
        folder: the data set's folder, or the CSV file.

    Returns:
        A data set with at least one case.

    Raises:
        DatasetError: the folder is missing or empty, its layout unknown, or a scan or its mask is missing or cannot be
            read.
    """
    folder = Path(folder)
    if not os.path.exists(folder):
        raise DatasetError(f"{folder} does not exist. {_EXPECTED}")
    if os.path.isfile(folder):
        return _dataset(_read_table(folder), "table", folder)
    files, closed = files_within(folder, leave=NOT_RAW)
    if closed:
        raise DatasetError(next(iter(closed.values())))
    if not any(folder.iterdir()):
        raise DatasetError(f"{folder} is empty. {_EXPECTED}")
    for layout, (patients, names) in _MSSEG.items():
        cases = _find_msseg(folder, files, patients, names)
        if cases:
            return _dataset(cases, layout, folder)
    if is_bids(folder):
        return _dataset(_find_bids(folder), "BIDS", folder)
    raise DatasetError(f"{folder} has no layout that is known. {_EXPECTED}")


def _dataset(cases: list[Case], layout: str, folder: Path) -> Dataset:
    scans = [(case.id, path) for case in cases for path in case.images.values()]
    masks = [(case.id, case.labels) for case in cases if case.labels]
    _require_usable(folder, {path: why_unusable(path) for _, path in (*scans, *masks)})
    for kind, files in (("scan", scans), ("mask", masks)):
        missing = [(name, path) for name, path in files if not os.path.isfile(path)]
        if missing:
            names = ", ".join(name for name, _ in missing)
            raise DatasetError(
                f"{len(missing)} of {len(cases)} scans in {folder} have no {kind}: {names}. "
                f"Expected e.g. {missing[0][1]}; add it, or take the patient away."
            )
    for values, name in (([case.id for case in cases], "id"), ([os.path.abspath(path) for _, path in scans], "scan")):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise DatasetError(f"{folder} holds the {name} {twice[0]} more than once; every scan needs one of its own.")
    return Dataset(tuple(sorted(cases, key=lambda case: case.id)), layout, folder)


def _require_usable(folder: Path, problems: dict[Path, str]) -> None:
    """Raise a `DatasetError` that names all files with a problem, and says what the first one is."""
    unusable = {path: problem for path, problem in problems.items() if problem}
    if unusable:
        names = ", ".join(str(path.relative_to(folder) if path.is_relative_to(folder) else path) for path in unusable)
        raise DatasetError(f"{folder}: {len(unusable)} files cannot be used: {names}. {next(iter(unusable.values()))}")


def _find_msseg(folder: Path, files: Iterable[Path], patients: str, names: Sequence[str]) -> list[Case]:
    """The cases of a layout of MSSEG 2016; a patient who has a mask alone is one without a scan."""
    found: dict[Path, tuple[re.Match[str], dict[str, Path]]] = {}
    for alike in by_stem(path for path in files if suffix(path)):
        within = alike[0].with_name(stem(alike[0])).relative_to(folder).as_posix()
        for name in names:
            match = re.fullmatch(f"{patients}/{name}", within, re.IGNORECASE)
            if match:
                patient = folder / match.string[: match.end("id")]
                found.setdefault(patient, (match, {}))[1][name] = alike[0]
    if not any(names[0] in images for _, images in found.values()):
        return []
    cases = []
    for patient, (match, images) in found.items():
        scan, mask = (images.get(name, patient / f"{name}.nii.gz") for name in names)
        cases.append(Case(match["id"].replace("/", "_"), {"flair": scan}, mask, match["group"]))
    return cases


def _find_bids(folder: Path) -> list[Case]:
    found = find_bids_scans(folder)
    _require_usable(folder, found)
    scans = [alike[0] for alike in by_stem(found)]
    masks = find_lesion_masks(folder, scans)
    subjects = {scan: next(part for part in scan.relative_to(folder).parts) for scan in scans}
    sites = read_sites(folder / "participants.tsv", set(subjects.values()))
    return [Case(entities(scan), {"flair": scan}, masks[scan], sites.get(subjects[scan], EVERYONE)) for scan in scans]


def _read_table(path: Path) -> list[Case]:
    table = read_table(path, (*_TABLE_COLUMNS, "id"), DatasetError)
    if table.lacks(_TABLE_COLUMNS[:2]):
        raise DatasetError(
            f"{path} has the columns {table.found}; it needs {', '.join(_TABLE_COLUMNS)} (group and id are optional)."
        )
    if not table.rows:
        raise DatasetError(f"{path} has no rows. {_EXPECTED}")
    cases = []
    for row in table.rows:
        if not row["scan"] or not row["mask"]:
            raise DatasetError(f"{row.place}: scan or mask is empty.")
        scan, mask = (path_in_table(path, row[name]) for name in ("scan", "mask"))
        if not os.path.lexists(scan):
            raise DatasetError(f"{row.place}: {scan} does not exist.{table.hint}")
        check_name(row["id"], row, DatasetError)
        cases.append(Case(row["id"] or _id_of(row["scan"]), {"flair": scan}, mask, row["group"] or EVERYONE))
    return cases


def _id_of(scan: str) -> str:
    """A readable id: the path without its suffix, its folders joined."""
    path = Path(scan)
    return re.sub(r"[^A-Za-z0-9.-]+", "_", str(path.with_name(stem(path)))).strip("_.")


_EXPECTED = (
    "Expected one of: TrainingDataset_MSSEG/<ID>/3DFLAIR.nii.gz with Consensus.nii.gz beside it; "
    "Training/Center_xx/Patient_yy/Raw_Data/FLAIR.nii.gz with Masks/Consensus.nii.gz; BIDS (sub-*/anat/*_FLAIR.nii.gz "
    "with derivatives/*/sub-*/anat/*_label-lesion_mask.nii.gz); or a CSV table with the columns scan,mask,group."
)
