"""The inputs to segment: files, folders, tables, data sets and DICOM series, each scan or case with a unique name."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from planar3d.errors import ScanError, reading
from planar3d.scans.bids import derivative_names, find_bids_scans, is_bids
from planar3d.scans.case import Case, read_images
from planar3d.scans.dicom import DicomSeries, choose_usable, find_dicom_series, series_in, series_with
from planar3d.scans.dicom_conversion import read_dicom_series
from planar3d.scans.dicom_headers import DICOM_SUFFIXES, dicom_files
from planar3d.scans.image_files import (
    files_of,
    files_within,
    is_flair,
    is_nifti,
    is_scan,
    stem,
    suffix,
    why_unusable,
    without_copies,
    without_pairs,
)
from planar3d.scans.layouts import find_layout, has_layout
from planar3d.scans.outputs import Outputs, plain_names, series_name, with_unique_names
from planar3d.scans.readers import reader_of
from planar3d.scans.tables import check_name, path_in_table, read_table
from planar3d.scans.volume import Scan, read_scan
from planar3d.wording import counted, listed

Given = str | Path | Mapping[str, str | Path]  # a file or folder; or the images of one case, by name
FLAIR = ("flair",)  # the image of single-image models
_TABLES = (".csv", ".tsv")


@dataclass(frozen=True)
class ScanInput:
    """A scan, or a case of several images, to be segmented."""

    name: str  # unique among the inputs
    path: Path  # the NIfTI file, or the first of a DICOM series or case; given alone, it is the same scan
    dataset: Path | None = None  # the BIDS data set it was found in; None for every other scan
    # The DICOM series, whose files take long to hash; None for NIfTI.
    series: DicomSeries | None = field(default=None, hash=False)
    note: str = ""  # message to the user on how it was chosen, if any
    problem: str = ""  # why it cannot be read, if already known; it is an input so that it counts as failed
    # Of a case from a layout or table; empty for a scan that is FLAIR by its name or tags.
    images: Mapping[str, Path] = field(default_factory=dict, hash=False)
    left_out: tuple[Path, ...] = field(default=(), hash=False)  # images of its folder not named as FLAIR

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the scan, or of the case."""
        if self.series is not None:
            return tuple(image.path for image in self.series.images)
        paths = self.images.values() or [self.path]
        return tuple(dict.fromkeys(file for path in paths for file in files_of(path)))


def find_inputs(inputs: Sequence[Given], images: Sequence[str] = FLAIR) -> list[ScanInput]:
    """Find the scans to segment, and give each a unique name.

    Args:
        inputs: NIfTI files; tables with a column scan (paths relative to the table, or DICOM folders) and perhaps name;
            a BIDS data set, whose raw FLAIR scans are taken; other folders: all NIfTI files with FLAIR in their name,
            or all FLAIR series of DICOM files; single DICOM files, which stand for their series. If nothing is called
            FLAIR, and for several images: folders of a known layout, with or without labels, or of one case; BIDS data
            sets; tables with a column image:<name> for each. Or the files of one case by the names of its images.
        images: the names of the model's images.

    Returns:
        The scans in the order of the inputs, named after their files (DICOM: folder, series number and description),
        with parent folders in front where names would collide; a case has its id. Unreadable files that look like a
        FLAIR scan are included with their problem, and so are cases that lack an image and rows without a FLAIR scan.

    Raises:
        ScanError: an input has no scans, only one that cannot be read, or is ambiguous; a scan is given twice; another
            input is given with a BIDS data set.
        DatasetError: a data set's layout, or a table of several images, is invalid.
        Planar3DError: an input is DICOM, and pydicom is not installed.
    """
    find = _find if tuple(images) == FLAIR else partial(_find_cases, images=images)
    series_in.cache_clear()  # files may have changed since the last call
    found = []
    for given in inputs:
        found += [_of_images(given, images)] if isinstance(given, Mapping) else find(Path(given))
    if left := [path for item in found for path in item.left_out]:
        first = next(number for number, item in enumerate(found) if item.left_out)
        note = f"other images, not named as FLAIR scans, were left out ({len(left):,}, the first is {left[0]})"
        found[first] = replace(found[first], note="; ".join(filter(None, (found[first].note, note))))
    if not found:
        raise ScanError("No scan was given; name files or folders, or the images of one case with --image NAME=FILE.")
    if len({item.dataset for item in found}) > 1:
        alone = next(item.dataset for item in found if item.dataset)
        raise ScanError(
            f"{alone} is a BIDS data set, whose masks are written as one; segment other scans into another folder."
        )
    if len(found) == 1 and found[0].problem:
        raise ScanError(found[0].problem)
    return with_unique_names(found)


def read_input_images(item: ScanInput, assume_affine: bool = False, flat: bool = False) -> dict[str, Scan]:
    """Read the images of a scan or case by name; errors as in `reading`, `read_images` and `read_dicom_series`."""
    if item.problem:
        raise ScanError(item.problem)
    with reading(item.path):
        if item.images:
            return read_images(item.images, assume_affine, flat)
        return {"flair": read_dicom_series(item.series) if item.series else read_scan(item.path, assume_affine)}


def read_one(path: Path, assume_affine: bool = False) -> Scan:
    """Read the only FLAIR scan of a file or folder; errors as in `find_inputs` and `read_input_images`."""
    if len(found := find_inputs([path])) > 1:
        raise ScanError(f"{path} has {len(found)} FLAIR scans; name one, e.g. {found[0].path}.")
    return read_input_images(found[0], assume_affine)["flair"]


def outputs_of(item: ScanInput, out: str | Path, several: bool = False) -> Outputs:
    """The paths of a scan's outputs in the folder `out`, a derivatives data set for BIDS scans.

    `several` says whether its mask is a label map of several targets.
    """
    if item.dataset is None:
        own = suffix(item.path) if reader_of(item.path).write else ".nii.gz"
        return plain_names(item.name, Path(out), own)
    return derivative_names(item.dataset, item.path, Path(out), several)


def _find(path: Path) -> list[ScanInput]:
    if os.path.isdir(path):
        if not is_bids(path):
            return _find_in_folder(path)
        return [_of_file(scan, path, problem) for scan, problem in without_pairs(find_bids_scans(path)).items()]
    if path.name.lower().endswith(_TABLES):
        return _find_in_table(path)
    try:
        found = series_with(path) if not suffix(path) and os.path.isfile(path) else None
    except ScanError as error:
        return [_of_file(path, problem=str(error))]
    note = f"series {found} is not identified as FLAIR; it is used because it was named"
    return [_of_series(found, "" if found.is_flair else note) if found else _of_file(path)]


def _find_in_folder(folder: Path) -> list[ScanInput]:
    files, closed = files_within(folder)
    others = [path for path in (*files, *closed) if not is_nifti(path)]
    dicom, problems = dicom_files([path for path in others if os.path.isfile(path) or not os.path.exists(path)])
    closed = {path: why for path, why in closed.items() if path not in problems}
    scans = without_copies({path for path in files if is_flair(path)}.difference(dicom, problems))
    nifti = [path for path in scans if is_nifti(path)]
    if nifti and dicom:
        raise ScanError(
            f"{folder} has NIfTI scans ({nifti[0].name} …) and DICOM files ({dicom[0].name} …); name those to segment."
        )
    unique = without_pairs(dict.fromkeys(scans, ""))
    found = [_of_file(path, problem=problem) for path, problem in (unique | closed).items()]
    if dicom or problems:
        series, failed = choose_usable(find_dicom_series(dicom, problems), problems, folder)
        found += [replace(_of_series(one, note), problem=problem) for one, note, problem in series]
        found += [_of_file(path, problem=problem) for path, problem in failed.items()]
    unnamed = {path for path in files if is_scan(path) and not is_flair(path)}.difference(dicom, problems)
    if found and unnamed and not has_layout(folder):  # a layout has images of other contrasts
        found[0] = replace(found[0], left_out=tuple(without_copies(unnamed)))
    if not found:
        found = [_of_case(case, FLAIR) for case in find_layout(folder, labelled=False)[1]]
    if not found:
        named = [path.name for path in files if suffix(path) or path.name.lower().endswith(DICOM_SUFFIXES)]
        raise ScanError(
            f"{folder} has no .nii or .nii.gz file with FLAIR in its name and no DICOM files. Its other images and "
            f"masks: {listed(named)}. Name the scans themselves."
        )
    return found


def _find_in_table(path: Path) -> list[ScanInput]:
    table = read_table(path, ("scan", "name", "id"), ScanError)
    if "image:flair" in table.names:
        return _find_cases(path, FLAIR)
    if not table.rows or "scan" not in table.names:
        raise ScanError(
            f"{path} has no {'lines of scans' if 'scan' in table.names else 'column “scan”'}; a table with the column "
            f"scan, and optionally name, is needed. Found: {table.found}, {counted(table.rows, 'line')}."
        )
    found = []
    for row in table.rows:
        if not row["scan"]:
            raise ScanError(f"{row.place}: scan is empty.")
        scan, name = path_in_table(path, row["scan"]), row["name"] or row["id"]
        if not os.path.lexists(scan):
            raise ScanError(f"{row.place}: {scan} does not exist.{table.hint}")
        try:
            scans = _find(scan) if not scan.name.lower().endswith(_TABLES) else []
        except ScanError as error:  # as of a study without FLAIR
            scans = [ScanInput(stem(scan), scan, problem=str(error))]
        lost = [one for one in scans if one.problem]
        scans = [one for one in scans if not one.problem] or lost[:1]
        if len(scans) != 1 or scans[0].dataset:
            raise ScanError(f"{row.place}: {scan} is not a single scan; name a file, or a folder with one series.")
        check_name(name, row, ScanError)
        one = scans[0]
        note = one.note if one.note or not lost else lost[0].problem  # of a file in another folder than the series
        found.append(replace(one, name=name or one.name, note=note))
    return found


def _find_cases(path: Path, images: Sequence[str]) -> list[ScanInput]:
    """The cases of a folder or table of a known layout."""
    if not os.path.exists(path):
        raise ScanError(f"{path} does not exist.")
    is_table = path.name.lower().endswith(_TABLES)
    if len(images) == 1 and os.path.isfile(path) and not is_table:
        return [replace(_of_file(path), images={images[0]: path})]
    cases = find_layout(path, labelled=False)[1] if is_table or os.path.isdir(path) else []
    if not cases:
        raise ScanError(
            f"{path} does not show which files are the images {', '.join(images)} of a case. Name a BraTS, nnU-Net or "
            f"BIDS folder, a table with the columns {', '.join(f'image:{name}' for name in images)}, or each image "
            f"with --image {images[0]}=FILE."
        )
    dataset = path if os.path.isdir(path) and is_bids(path) else None
    return [replace(_of_case(case, images), dataset=dataset) for case in cases]


def _of_images(given: Mapping[str, str | Path], images: Sequence[str]) -> ScanInput:
    """The images of one case, named after the file of the model's first image."""
    paths = {name: Path(path) for name, path in given.items()}
    first = next((paths[name] for name in images if name in paths), next(iter(paths.values())))
    return _of_case(Case(stem(first), paths, None), images)


def _of_case(case: Case, images: Sequence[str]) -> ScanInput:
    lacking = case.lacking(images)
    chosen = {name: case.images[name] for name in images if name in case.images}
    problems = [f"{lacking}."] if lacking else filter(None, map(why_unusable, chosen.values()))
    path = next(iter((chosen or case.images).values()))
    return ScanInput(case.id, path, problem=next(iter(problems), ""), images=chosen)


def _of_file(path: Path, dataset: Path | None = None, problem: str = "") -> ScanInput:
    return ScanInput(stem(path), path, dataset, problem=problem or why_unusable(path))


def _of_series(series: DicomSeries, note: str) -> ScanInput:
    return ScanInput(series_name(series), series.images[0].path, series=series, note=note)
