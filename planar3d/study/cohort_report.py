"""The report of many scans: their lesion loads side by side, what was warned of, and what failed."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from planar3d.errors import RunError
from planar3d.files import read_json
from planar3d.study.page import CONDITIONS, as_text, histogram, write_page
from planar3d.wording import counted

_LIMITS_ML = (0.1, 0.3, 1, 3, 10, 30, 100)
_VOLUMES = ("< 0.1", "0.1–0.3", "0.3–1", "1–3", "3–10", "10–30", "30–100", "≥ 100")
_LIMITS_COUNT = (1, 2, 5, 10, 20, 50, 100)
_COUNTS = ("0", "1", "2–4", "5–9", "10–19", "20–49", "50–99", "≥ 100")
_OWN = {"scan"}  # parts of a record that differ from scan to scan by their nature


class _Scan(NamedTuple):
    """A line of the table."""

    name: str
    link: str | None
    lesions: int
    volume_ml: float
    largest_ml: float
    spacing: str
    warnings: list[str]


class _Difference(NamedTuple):
    """A condition that is not the same for all, one of its values, and the scans that have it."""

    condition: str
    value: str
    scans: list[str]


def report_records(folder: str | Path, failed: Mapping[Path, str] | None = None) -> Path:
    """Write the report of all scans that are segmented in a folder, now or before.

    Args:
        folder: an `out` of `segment_all`.
        failed: why scans are not, by their paths.
    """
    return write_cohort_report(list(_records(folder)), Path(folder) / "report.html", failed)


def holds_records(folder: str | Path) -> bool:
    """Whether a folder is an `out` of `segment_all`."""
    return next(_records(folder), None) is not None


def _records(folder: str | Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The records in a folder that `segment_all` wrote, each with its file."""
    for path in sorted(Path(folder).rglob("*.json")):
        try:
            content = read_json(path)
        except RunError:
            continue
        if isinstance(content, dict) and {"scan", "model", "result", "files"} <= content.keys():
            yield path, content


def write_cohort_report(
    records: Sequence[tuple[Path, Mapping[str, Any]]], path: str | Path, failed: Mapping[Path, str] | None = None
) -> Path:
    """Write the report of segmented scans as one HTML file that needs no network; it links the scans' own reports.

    Args:
        records: the JSON files beside the masks, each with its content, of which `scan` with a name and `result` are
            needed.
        path: where the page goes.
        failed: why scans were not segmented, by their paths.

    Raises:
        Planar3DError: jinja2 is not installed.
    """
    path = Path(path)
    scans = [_line(file, record, path.parent) for file, record in records]
    shared, differing = _conditions([record for _, record in records])
    return write_page(
        path,
        "cohort_report.html",
        ["tables.js"],
        title=f"Lesions of {counted(scans, 'scan')}",
        scans=scans,
        headline={
            "scans": str(len(scans)),
            "lesions": str(sum(scan.lesions for scan in scans)),
            "total volume": f"{sum(scan.volume_ml for scan in scans):.1f} ml",
            "with warnings": str(sum(bool(scan.warnings) for scan in scans)),
            "failed": str(len(failed or {})),
        },
        failed={str(scan): sentence for scan, sentence in (failed or {}).items()},
        volumes=histogram([scan.volume_ml for scan in scans], _LIMITS_ML, _VOLUMES),
        counts=histogram([scan.lesions for scan in scans], _LIMITS_COUNT, _COUNTS),
        shared=shared,
        differing=differing,
    )


def _line(file: Path, record: Mapping[str, Any], folder: Path) -> _Scan:
    report, result = record.get("files", {}).get("report"), record["result"]
    return _Scan(
        record["scan"]["name"],
        # Quoted, so that no name of a file is taken for a scheme or a query.
        quote(Path(os.path.relpath(file.parent / report, folder)).as_posix()) if report else None,
        result["lesions"],
        result["volume_ml"],
        result["largest_ml"],
        " × ".join(f"{mm:.3g}" for mm in record["scan"].get("spacing_mm", [])),
        [warning["sentence"] for warning in record.get("warnings", [])],
    )


def _conditions(records: Sequence[Mapping[str, Any]]) -> tuple[dict[str, dict[str, str]], list[_Difference]]:
    """Tell the conditions that all records share, by part, from those which differ."""
    shared: dict[str, dict[str, str]] = {}
    differing = []
    for part, title in CONDITIONS.items():
        if part in _OWN:
            continue
        contents = {record["scan"]["name"]: as_text(record.get(part) or {}) for record in records}
        for name in dict.fromkeys(name for content in contents.values() for name in content):
            scans_by_value: dict[str, list[str]] = {}
            for scan, content in contents.items():
                scans_by_value.setdefault(content.get(name, "–"), []).append(scan)
            if len(scans_by_value) == 1:
                shared.setdefault(title, {})[name] = next(iter(scans_by_value))
            else:
                differing += [_Difference(f"{title}: {name}", *found) for found in scans_by_value.items()]
    return shared, differing
