"""A reader's rating of a scan's mask: a small file saved by its page, to be placed beside its record."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planar3d.errors import RunError
from planar3d.files import read_json

RATING = "_rating.json"  # the end of a rating's name
RATINGS = {"pass": "the mask can be used", "flag": "the mask needs review", "exclude": "the scan or mask is unusable"}


def rating_file(record: Path) -> Path:
    """The path of a scan's rating, beside its record."""
    return record.with_name(f"{record.stem}{RATING}")


def read_rating(file: Path, record: Mapping[str, Any]) -> str:
    """The rating of a scan, with the reader's comment; a message if it is for another mask or unreadable."""
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
