"""BIDS: raw FLAIR scans, their images of other contrasts, and their lesion masks among the derivatives."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from planar3d.errors import DatasetError
from planar3d.scans.bids import DESCRIPTION, entities, find_bids_scans, is_bids, made_by_planar3d, read_json_object
from planar3d.scans.case import EVERYONE, Case, Layout
from planar3d.scans.image_files import by_stem, files_within, first_of, require_usable, stem, suffix
from planar3d.scans.tables import read_sites
from planar3d.wording import counted, has_or_have

# Other contrasts, by the suffixes of their names in lower case. With a contrast agent (ce-gadolinium), t1 is t1ce.
_CONTRASTS = {"t1w": "t1", "t2w": "t2", "pdw": "pd"}
_SUFFIXES = {"mask", "dseg", "seg", "roi"}  # the last two are from older drafts of the standard and still in use
# Entities that identify the scan of a mask; all other entities describe the mask.
_RAW = {"sub", "ses", "acq", "ce", "trc", "rec", "dir", "run", "echo", "flip", "inv", "mt", "part", "task", "chunk"}
_INDICES = {"run", "echo", "flip", "inv"}  # may have leading zeros
# Values of label, or else of desc, in common use; the standard's label is L. T1 lesions, for example, do not count.
_LESION = re.compile(r"(ms|wm|t2|flair)?(lesions?|wmh|wml)(mask|manual|consensus|expert)?", re.IGNORECASE)
_OWN_SPACES = {"orig", "scanner", "native", "flair"}  # the scan's own space, not that of a template or another scan


class Bids(Layout):
    """Raw scans and derivatives, a case for each FLAIR scan; groups are the sites in `participants.tsv`."""

    name = "BIDS"
    expected = "BIDS (sub-*/anat/*_FLAIR.nii.gz with derivatives/*/sub-*/anat/*_label-lesion_mask.nii.gz)"

    def find(self, folder: Path, files: Sequence[Path], labelled: bool) -> list[Case]:
        if not is_bids(folder):
            return []
        found = find_bids_scans(folder)
        require_usable(folder, found)
        scans = list(map(first_of, by_stem(found)))
        masks, alone = find_lesion_masks(folder, scans) if labelled else ({}, [])
        others = _other_images(files)
        subjects = {scan: scan.relative_to(folder).parts[0] for scan in scans}
        sites = read_sites(folder / "participants.tsv", set(subjects.values()))
        cases = [
            Case(entities(scan), _images(scan, others), masks.get(scan), sites.get(subjects[scan], EVERYONE))
            for scan in scans
        ]
        return cases + [Case(stem(mask), {}, mask) for mask in alone]


@dataclass(frozen=True)
class _Name:
    """A file's name: its entities, and the parts between them, the suffix last."""

    entities: dict[str, str]
    others: tuple[str, ...]

    @property
    def visit(self) -> tuple[str, str]:
        """Subject and session, which may be missing."""
        return self.entities.get("sub", ""), self.entities.get("ses", "")

    @property
    def raw(self) -> dict[str, str]:
        """The entities of its scan."""
        return {key: value for key, value in self.entities.items() if key in _RAW}


def _other_images(files: Sequence[Path]) -> dict[tuple[str, str], dict[str, list[Path]]]:
    """The raw images of contrasts other than FLAIR, by visit and by planar3d's name."""
    found: dict[tuple[str, str], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for alike in by_stem(path for path in files if suffix(path) and path.parent.name.lower() == "anat"):
        name = _name(alike[0])
        if contrast := _CONTRASTS.get("".join(name.others).lower()):
            found[name.visit][f"{contrast}ce" if "ce" in name.entities else contrast].append(first_of(alike))
    return found


def _images(scan: Path, others: Mapping[tuple[str, str], Mapping[str, Sequence[Path]]]) -> dict[str, Path]:
    """A FLAIR scan and the images of its visit; of several images of one contrast, the one with the same entities.

    If there is not exactly one, their names include their entities (t1_run-1), so that none is taken by mistake.
    """
    images = {"flair": scan}
    for contrast, paths in others.get(_name(scan).visit, {}).items():
        fitting = paths if len(paths) == 1 else [path for path in paths if _places(path) == _places(scan)]
        if len(fitting) == 1:
            images[contrast] = fitting[0]
        else:
            images |= {"_".join((contrast, *map("-".join, _places(path)))): path for path in paths}
    return images


def _places(path: Path) -> list[tuple[str, str]]:
    """The entities of an image beyond its visit and its contrast."""
    return [(key, value) for key, value in _name(path).entities.items() if key not in ("sub", "ses", "ce")]


def find_lesion_masks(dataset: Path, scans: Sequence[Path]) -> tuple[dict[Path, Path], list[Path]]:
    """Find the lesion mask of each raw scan, at any depth in the folder `derivatives`, and the masks of no scan.

    A lesion mask is marked by `label-lesion` (L, WMH, …) or `desc-lesion` in its name, or by `"Type": "Lesion"` in its
    sidecar JSON. It is in the space of the scan and was not made by this package. It belongs to the scan with the same
    entities; entities in which scans do not differ may be omitted.

    Raises:
        DatasetError: scans without a mask, or with several.
    """
    derivatives = dataset / "derivatives"
    files, closed = files_within(derivatives, leave={"sourcedata"}) if os.path.isdir(derivatives) else ([], {})
    is_ours = cache(lambda folder: made_by_planar3d(read_json_object(folder / DESCRIPTION)))
    sidecars: dict[tuple[Path, str], list[Path]] = defaultdict(list)  # by folder, and the subject in their names
    for path in files:
        if path.name.endswith(".json"):
            sidecars[path.parent, _subject(Path(path.stem))].append(path)
    scans_of = {subject: list(its) for subject, its in groupby(scans, _subject)}
    masks: dict[Path, list[Path]] = {scan: [] for scan in scans}
    refused: dict[str, list[str]] = defaultdict(list)  # by subject
    alone: list[Path] = []
    for alike in by_stem(path for path in files if suffix(path)):
        path = alike[0]
        reason = _why_no_lesion_mask(derivatives, sidecars, path, is_ours)
        owners = _owners(path, scans_of.get(_subject(path), ()))
        if not reason and not owners:
            alone.append(path)
        if not reason and len(owners) == 1:
            masks[owners[0]].append(first_of(alike))
        elif _is_mask(path) or "lesion" in path.name.lower():
            reason = reason or ("it fits several scans" if owners else "its entities differ from the scan's")
            refused[_subject(path)].append(f"{path.relative_to(dataset).as_posix()} ({reason})")
    for scan, its in masks.items():
        if len(its) > 1:
            names = ", ".join(mask.relative_to(dataset).as_posix() for mask in its)
            raise DatasetError(
                f"{scan} has {len(its)} lesion masks ({names}); one is needed. Remove the others from the "
                "derivatives folder, or name the right ones in a CSV table with the columns scan and mask."
            )
    if near := {scan: refused[_subject(scan)] for scan, its in masks.items() if not its}:
        raise DatasetError(" ".join((_missing(dataset, near, len(scans)), *closed.values())))
    return {scan: its[0] for scan, its in masks.items()}, alone


def _missing(dataset: Path, near: dict[Path, list[str]], count: int) -> str:
    """The message about scans without lesion masks, with files near the expected mask of the first."""
    names = ", ".join(entities(scan) for scan in near)
    first = next((scan for scan in near if near[scan]), next(iter(near)))
    found = f" Near {entities(first)} are: {'; '.join(near[first][:5])}." if near[first] else ""
    place = Path("derivatives/manual", first.parent.relative_to(dataset)).as_posix()
    return (
        f"{len(near)} of {counted(count, 'scan')} in {dataset} {has_or_have(near)} no lesion mask: {names}.{found} "
        f'Expected e.g. {place}/{entities(first)}_label-lesion_mask.nii.gz. Rename the masks, write "Type": "Lesion" '
        "into their sidecar JSON, name scans and masks in a CSV table, or remove the scans."
    )


def _why_no_lesion_mask(
    derivatives: Path, sidecars: Mapping[tuple[Path, str], Sequence[Path]], path: Path, is_ours: Callable[[Path], bool]
) -> str:
    """Why a file is not a lesion mask of a raw FLAIR scan; empty if it is one."""
    name = _name(path)
    folders = [folder for folder in path.parents if folder == derivatives or derivatives in folder.parents]
    if not _is_mask(path):
        return "it is not a mask"
    if name.entities.get("space", "orig").lower() not in _OWN_SPACES:
        return f"it is in the space {name.entities['space']}"
    if any(other.lower() != "flair" for other in (*name.others[:-1], name.entities.get("mod", "flair"))):
        return "it is of another contrast"
    beside = [sorted(p for s in {"", name.visit[0]} for p in sidecars.get((f, s), ())) for f in reversed(folders)]
    about = _about(chain.from_iterable(beside), path)
    if made_by_planar3d(about) or any(map(is_ours, folders)):
        return "planar3d made it"
    label = name.entities.get("label", "")
    called = label.lower() == "l" or _LESION.fullmatch(label or name.entities.get("desc", ""))
    if not called and str(about.get("Type", "")).lower() != "lesion":
        return "neither its name nor a sidecar mentions lesions"
    return ""


def _owners(path: Path, scans: Iterable[Path]) -> list[Path]:
    """The scans with exactly a mask's entities, or else those with more entities, which the mask may omit."""
    raw = _name(path).raw
    same = [scan for scan in scans if _name(scan).raw == raw]
    return same or [scan for scan in scans if raw.items() <= _name(scan).raw.items()]


def _about(sidecars: Iterable[Path], path: Path) -> dict[str, Any]:
    """The fields of an image's JSON files, by its name or part of it; those of outer folders first."""
    name = _name(path)
    about: dict[str, Any] = {}
    for beside in sidecars:
        other = _name(Path(beside.stem))
        if other.others[-1:] == name.others[-1:] and other.entities.items() <= name.entities.items():
            about |= read_json_object(beside)
    return about


def _subject(path: Path) -> str:
    return _name(path).visit[0]


def _is_mask(path: Path) -> bool:
    return "".join(_name(path).others[-1:]).lower() in _SUFFIXES


def _name(path: Path) -> _Name:
    """Split a file's name into its parts; subject and session may be only in the names of its folders."""
    pairs = [part.partition("-") for part in path.parts[:-1] if re.fullmatch(r"(sub|ses)-[^-]+", part)]
    pieces = stem(path).split("_")
    pairs += [piece.partition("-") for piece in pieces if "-" in piece]
    found = {key.lower(): value.lstrip("0") or "0" if key in _INDICES else value for key, _, value in pairs}
    return _Name(found, tuple(piece for piece in pieces if "-" not in piece))
