"""The records of masks in a folder, files of another origin with the name of an output, and readers' ratings."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from planar3d.errors import RunError, reading
from planar3d.files import read_json, written_at
from planar3d.scans.image_files import SYSTEM, files_of, stem, why_closed
from planar3d.scans.inputs import ScanInput
from planar3d.scans.nifti import volume_of
from planar3d.study.record_form import read_record
from planar3d.transfer.digests import file_sha256, files_sha256, stamp
from planar3d.wording import printable

RATING = "_rating.json"  # the end of the name of a rating, a small file saved by the page of a scan
_AGAIN = (" (1)", "(1)")  # how Chrome and Firefox mark a second file of a name
# How tables and pages begin, without quotation marks, by the ends of their names.
_BEGINNINGS = {
    "scans.csv": "scan,state,",
    "lesions.csv": "(scan,)?(target,)?lesion,volume_ml,",
    "lesions.tsv": "(target,)?lesion,volume_ml,",
    ".html": "(?s).*<meta name=generator content=planar3d>",
    "comparison.json": r"\{\s*baseline: \{",
}
RATINGS = {"pass": "the mask can be used", "flag": "the mask needs review", "exclude": "the scan or mask is unusable"}


def records_within(folder: Path, damaged: dict[str, str] | None = None) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The records in a folder, each with its file, without hidden notes and half-written files.

    A scan that has several records has only its newest one here: alone and in a group, its outputs have other names.

    Args:
        damaged: gets, by path, why files that may be records cannot be used, and folders not be opened.
    """
    found = list(all_records_within(folder, damaged))
    named = []
    for file, record in found:
        place, name = os.path.split(record["scan"].get("path") or file)
        named.append((place, (name, record["scan"].get("sha256"))))  # another file at its place is another scan
    times = Counter(name for _, name in named)
    # A copy elsewhere is another scan. A link to a folder is followed, but not one to a file: git-annex keeps copies of
    # a scan as links to one file. On a network drive it is slow to follow links, so only those in question are.
    scans = [(os.path.realpath(place) if times[name] > 1 else place, name) for place, name in named]
    newest = dict(sorted(zip(scans, found, strict=True), key=lambda pair: pair[1][1].get("date", "")))
    yield from (one for scan, one in zip(scans, found, strict=True) if newest[scan] is one)


def all_records_within(folder: Path, damaged: dict[str, str] | None = None) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The records in a folder one by one, also several of a scan; see `records_within`."""

    def note(error: OSError) -> None:
        if damaged is not None and not isinstance(error, FileNotFoundError | NotADirectoryError):
            damaged[error.filename] = why_closed(error.filename, error)

    found = list[Path]()
    for place, folders, files in os.walk(folder, onerror=note):  # what other processes remove meanwhile is passed over
        folders[:] = [name for name in folders if not name.startswith(".") and name not in SYSTEM]
        found += [Path(place, name) for name in files if name.endswith(".json") and not name.startswith(".")]
    for path in sorted(found):
        try:
            record = read_record(path)
        except FileNotFoundError:  # removed by another process
            continue
        except RunError as error:
            if damaged is not None and not path.name.endswith(RATING):
                damaged[str(path)] = str(error)
            continue
        if record is not None:
            yield path, record


def scan_sha256(item: ScanInput) -> str:
    """The digest of a scan's files; of a case's images in their order, with the numbers of their volumes.

    The same files as other images are another scan, and so is another volume of a file. Errors as in `reading`.
    """
    volumes = [volume_of(path) for path in item.images.values() or [item.path]]
    with reading(item.path):
        if [number for _, number in volumes] == [None]:
            return files_sha256(item.files)
        digests = {file: files_sha256(files_of(file)) for file in dict(volumes)}  # once, also of one with all images
    return hashlib.sha256(repr([(digests[file], number) for file, number in volumes]).encode()).hexdigest()


def scan_stamp(item: ScanInput) -> str:
    """The `stamp` of a scan's files and of its images."""
    return stamp(item.files, item.images.values())


def mask_is_gone(file: Path, record: Mapping[str, Any]) -> str:
    """A sentence if the mask that a record names does not exist, else nothing."""
    mask = record["files"]["mask"]
    return "" if (file.parent / mask).is_file() else f"{mask} does not exist. Run predict again."


def mask_was_changed(file: Path, record: Mapping[str, Any]) -> str:
    """A sentence if the mask that a record names is another than the one it describes, else nothing.

    Only a mask of another time than the record names is read, as in a copy of the folder.
    """
    known, mask = record["result"].get("mask_sha256"), file.parent / record["files"]["mask"]
    is_same = not (known and mask.is_file()) or record.get("mask_written_ns") == written_at(mask)
    if is_same or file_sha256(mask) == known:
        return ""
    return (
        f"{mask.name} is not the mask that its record describes: it was changed, or predict was killed before it "
        "replaced it."
    )


def record_of(mask: Path) -> dict[str, Any] | None:
    """The record beside a mask; None if there is none, or if it describes another mask."""
    for name in (stem(mask), stem(mask).removesuffix("_mask")):  # in a BIDS data set, and elsewhere
        with suppress(OSError, RunError):
            file = mask.with_name(f"{name}.json")
            record = read_record(file)
            if record and record["files"]["mask"] == mask.name and not mask_was_changed(file, record):
                return record
    return None


def is_own(path: Path) -> bool:
    """Whether this package wrote a table or a page, also if its record is gone."""
    return any(path.name.endswith(end) and begins(path, beginning) for end, beginning in _BEGINNINGS.items())


def begins(path: Path, beginning: str) -> bool:
    """Whether a table or page begins with a pattern, without quotation marks."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(400).decode("utf-8-sig", "replace")
    # A spreadsheet program may have saved it again.
    return re.match(beginning, re.sub("[;\t]", ",", start.replace('"', ""))) is not None


def refuse_other(*paths: Path) -> None:
    """Raise a `RunError` if a file with the name of a table or page of a folder is another file."""
    for path in paths:
        if path.exists() and not is_own(path):
            raise RunError(
                f"{path} has the name of a table or page of planar3d but is another file. Rename or move it, or use "
                "another folder."
            )


def rating_file(record: Path) -> Path:
    """The path of a scan's rating, beside its record, without characters that a browser replaces as it saves a file."""
    return record.with_name(re.sub(r'["*/:<>?\\|~%]', "_", printable(record.stem)) + RATING)


def read_rating(file: Path, record: Mapping[str, Any]) -> str:
    """The rating of a scan, with the reader's comment; a message if it is for another mask, not alone or unreadable."""
    path = rating_file(file)
    if others := [other for mark in _AGAIN if (other := path.with_stem(path.stem + mark)).is_file()]:
        return f"several ratings: keep one as {path.name}, and remove {others[0].name}"
    if not path.is_file():
        return ""
    try:
        found = read_json(path)
    except (OSError, RunError):
        found = None
    if not isinstance(found, dict) or found.get("rating") not in list(RATINGS):  # it may be anything
        return f"unreadable: {path.name}"
    if found.get("mask_sha256") != record["result"].get("mask_sha256"):
        return "the rating is for another mask"
    words = " ".join(str(found.get("comment") or "").split())
    return f"{found['rating']}: {words}" if words else str(found["rating"])
