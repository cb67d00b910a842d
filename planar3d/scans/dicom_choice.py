"""The FLAIR scans among the DICOM series of a folder, and those that unusable files may have left incomplete."""

from collections.abc import Sequence
from pathlib import Path

from planar3d.errors import ScanError
from planar3d.scans.dicom import DicomSeries


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
    if problems and not any(one.is_flair for one in series):
        chosen, note = list[DicomSeries](), ""
    else:
        chosen, note = choose_flair(series, place)
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
    flair = [one for one in scans if one.is_flair]
    if flair:
        original = {one.study for one in flair if not one.is_secondary}
        chosen = [one for one in flair if not (one.is_secondary and one.study in original)]
        known = {one.study for one in flair}
        left = {one.study: f"{one.images[0].path.parent}: {one}" for one in scans if one.study not in known}
        if not left:
            return chosen, ""
        return chosen, f"studies without a series identified as FLAIR were left out: {'; '.join(left.values())}"
    if len(scans) == 1:
        why = "was used as the only MR series; neither its name nor its times identify it as FLAIR"
        return scans, f"series {scans[0]} {why}"
    if not scans:
        raise ScanError(f"{place} has no MR series. Found: {listed}.")
    raise ScanError(
        f"{place} has no series with the name or times of a FLAIR scan. Found: {listed}. Name a file of the right "
        "series."
    )
