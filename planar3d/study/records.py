"""The records of masks in a folder, and what has the name of one but is none."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from planar3d.errors import RunError
from planar3d.files import read_json
from planar3d.study.rating import RATING


def records_within(folder: Path, damaged: dict[str, str] | None = None) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The records in a folder, each with its file, without hidden notes and half-written files.

    Args:
        damaged: gets, by path, why files that may be records cannot be read.
    """
    for path in sorted(folder.rglob("*.json")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        try:
            content = read_json(path)
        except FileNotFoundError:  # removed by another process
            continue
        except RunError as error:
            if damaged is not None and not path.name.endswith(RATING):
                advice = "If it is the record of a mask, delete both and run predict again."
                damaged[str(path)] = f"{path} is not readable as JSON ({error.__cause__}). {advice}"
            continue
        if _is_record(content):
            yield path, content


def mask_is_gone(file: Path, record: Mapping[str, Any]) -> str:
    """A sentence if the mask that a record names does not exist, else nothing."""
    mask = record.get("files", {}).get("mask")
    return f"{mask} does not exist. Run predict again." if mask and not (file.parent / mask).is_file() else ""


def refuse_other_record(path: Path) -> None:
    """Raise a `RunError` if a file with the name of a record is another file, such as the scan's sidecar."""
    if path.is_file() and not _is_record(read_json(path)):
        raise RunError(
            f"{path} has the name of a record of planar3d but is another file, perhaps the scan's sidecar. Use another "
            "output folder."
        )


def _is_record(content: Any) -> bool:
    return isinstance(content, dict) and {"scan", "model", "result", "files"} <= content.keys()
