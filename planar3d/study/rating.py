"""What a reader thinks of a scan's mask: a small file that its page saves, to be put beside its record."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planar3d.errors import RunError
from planar3d.files import read_json

RATINGS = {"pass": "the mask can be used", "flag": "the mask needs review", "exclude": "the scan or mask is unusable"}


def rating_file(record: Path) -> Path:
    """Where the rating of a scan lies: beside its record."""
    return record.with_name(f"{record.stem}_rating.json")


def read_rating(file: Path, record: Mapping[str, Any]) -> str:
    """The rating of a scan, with the reader's words; of another mask, or unreadable, it is none and says so."""
    path = rating_file(file)
    if not path.is_file():
        return ""
    try:
        found = read_json(path)
    except (OSError, RunError):
        found = None
    if not isinstance(found, dict) or found.get("rating") not in RATINGS:
        return f"unreadable: {path.name}"
    if found.get("mask_sha256") != record["result"].get("mask_sha256"):
        return "the rating is for another mask"
    words = " ".join(str(found.get("comment") or "").split())
    return f"{found['rating']}: {words}" if words else str(found["rating"])
