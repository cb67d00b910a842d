"""The form of a record and of notes, which were written beside masks but may have been edited or damaged since."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from planar3d.files import parse_json, read_json

_NUMBER, _HUGE = int | float, 1e99  # beyond which numbers cannot be written and drawn
_LESION = {
    **dict.fromkeys(("lesion", "volume_ml", "voxels", "x_mm", "y_mm", "z_mm"), _NUMBER),
    "extent_mm": [_NUMBER] * 3,
    "mean_probability": _NUMBER | None,
    "region?": str | None,
    "region_sure?": bool | None,
    "target?": str,
}
# What readers of records rely on, by field: a type, the form of an object, or in a list the form of all items or of
# each. A question mark marks a field that may be missing; an asterisk stands for all fields.
_FORM: dict[str, Any] = {
    "scan": {"name": str, "path?": str, "sha256?": str, "spacing_mm?": [_NUMBER]},
    "model": {"name": str, "sha256": str, "members?": [dict]},
    "result": {
        "lesions": int,
        "volume_ml": _NUMBER,
        "largest_ml": _NUMBER,
        "targets_ml?": {"*": _NUMBER},
        "mask_sha256?": str,
    },
    "files": {"mask": str, "*": str},
    "recipe": dict,
    "lesions": [_LESION],
    "warnings": [{"sentence": str}],
    "requested?": dict | None,
    "how?": dict,
    "versions?": dict,
    "date?": str,
    "mask_written_ns?": int,
    "scan_stamp?": str,
}
_PARTS = "scan", "model", "result", "files"
_ADVICE = "If it is the record of a mask, delete it with all other outputs of the scan, and run predict again."
# Of the notes of an output folder, by the first word of their names: requested scans, and why one was not segmented.
_NOTES: dict[str, Any] = {
    "request": [{"path": str, "problem": str, "record": str, "mask": str}],
    "failed": {"why": str},
}


def read_record(path: Path) -> dict[str, Any] | None:
    """The record in a JSON file, None if it is another file.

    Raises:
        RunError: the file is damaged, or a record that was changed into another form.
    """

    def record_in(content: Any) -> dict[str, Any] | None:
        if not isinstance(content, dict) or not all(isinstance(content.get(part), dict) for part in _PARTS):
            return None
        _check(content, _FORM, "")
        return content

    return read_json(path, record_in, _ADVICE)


def read_note(path: Path) -> Any:
    """The content of a note that other processes write and remove; None if it is gone, damaged or in another form."""
    with suppress(ValueError, FileNotFoundError):
        content = parse_json(path)
        _check(content, _NOTES[path.name.partition("-")[0]], "")
        return content
    return None


def _check(content: Any, form: Any, place: str) -> None:
    """Raise a `ValueError` that names the first place where a content has another form."""
    if isinstance(form, dict) and isinstance(content, dict):
        for field, inner in form.items():
            name = field.removesuffix("?")
            if name == field != "*" and name not in content:
                raise ValueError(f"{place}{name} is missing")
            for each in content if name == "*" else {name} & content.keys():
                _check(content[each], inner, f"{place}{each}.")
    elif isinstance(form, list) and isinstance(content, list) and len(form) in (1, len(content)):
        for number, item in enumerate(content):
            _check(item, form[number % len(form)], f"{place}{number}.")
    else:
        is_wild = isinstance(content, _NUMBER) and not -_HUGE < content < _HUGE
        if isinstance(form, dict | list) or not isinstance(content, form) or is_wild:
            raise ValueError(f"{place.removesuffix('.')} is {str(content)[:40]!r}")
