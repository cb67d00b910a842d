"""The report of many scans: their lesion loads, warnings and failures."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from planar3d.study.page import CONDITIONS, Bars, as_text, histogram, write_page
from planar3d.study.records import mask_is_gone, mask_was_changed, read_rating, refuse_other
from planar3d.wording import counted

PAGE = "report.html"
_LIMITS_ML = (0.1, 0.3, 1, 3, 10, 30, 100)
_VOLUMES = ("< 0.1", "0.1–0.3", "0.3–1", "1–3", "3–10", "10–30", "30–100", "≥ 100")
_LIMITS_COUNT = (1, 2, 5, 10, 20, 50, 100)
_COUNTS = ("0", "1", "2–4", "5–9", "10–19", "20–49", "50–99", "≥ 100")
# Columns of a record's figures for lesions only; for other targets, the columns are their volumes.
_LESIONS = {"lesions": "lesions", "volume [ml]": "volume_ml", "largest [ml]": "largest_ml"}
_HISTOGRAMS: dict[str, tuple[str, str, str, Sequence[float], Sequence[str]]] = {
    "volume [ml]": ("Lesion volume", "scans by total lesion volume in ml", " ml", _LIMITS_ML, _VOLUMES),
    "lesions": ("Number of lesions", "scans by number of lesions", " lesions", _LIMITS_COUNT, _COUNTS),
}


def write_cohort_report(
    folder: Path, records: Sequence[tuple[Path, Mapping[str, Any]]], failed: Mapping[str, str]
) -> Path:
    """Write the report of segmented scans as one HTML file without network access, with links to the scans' reports.

    Args:
        folder: gets `report.html`.
        records: the JSON files beside the masks, with their content, which must have `scan` with a name and `result`.
        failed: why scans were not segmented, by path.

    Raises:
        RunError: a file of another origin has the name of the report.
    """
    refuse_other(folder / PAGE)
    scans = [_line(file, record, folder) for file, record in records]
    shared, differing = _conditions([record for _, record in records])
    columns = list(dict.fromkeys(column for scan in scans for column in scan["figures"])) or [*_LESIONS]
    values = {column: [scan["figures"][column] for scan in scans if column in scan["figures"]] for column in columns}
    sums = {}
    if "lesions" in values:
        sums = {"lesions": str(sum(values["lesions"])), "total volume": f"{sum(values['volume [ml]']):.1f} ml"}
    return write_page(
        folder / PAGE,
        "cohort_report.html",
        ["tables.js"],
        title=f"{'Lesions' if sums else 'Targets'} of {counted(scans, 'scan')}",
        scans=scans,
        columns=columns,
        rated=any(scan["rating"] for scan in scans),
        headline={
            "scans": str(len(scans)),
            **sums,
            "with warnings": str(sum(bool(scan["warnings"]) for scan in scans)),
            "failed": str(len(failed)),
        },
        failed=failed,
        histograms=_histograms(values),
        shared=shared,
        differing=differing,
    )


def _line(file: Path, record: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    report, result = file.parent / record.get("files", {}).get("report", ""), record["result"]
    doubts = filter(None, (mask_is_gone(file, record), mask_was_changed(file, record)))
    page = Path(os.path.relpath(report, folder)).as_posix()
    return {
        "name": record["scan"]["name"],
        # Quoted, so that no file name is read as a scheme or a query.
        "link": quote(page, errors="surrogateescape") if report.is_file() else None,
        "figures": {f"{name} [ml]": volume for name, volume in result.get("targets_ml", {}).items()}
        or {column: result[key] for column, key in _LESIONS.items()},
        "spacing": " × ".join(f"{mm:.3g}" for mm in record["scan"].get("spacing_mm", [])),
        "warnings": [*doubts, *(warning["sentence"] for warning in record["warnings"])],
        "rating": read_rating(file, record),
    }


def _histograms(values: Mapping[str, Sequence[float]]) -> list[tuple[str, Bars, str, str]]:
    """The histograms of all scans: title, bars, quantity, and unit of the limits."""
    targets = [column.removesuffix(" [ml]") for column in values if column not in _LESIONS]
    volumes = {f"{n} [ml]": (f"{n} volume", f"scans by {n} volume in ml", " ml", _LIMITS_ML, _VOLUMES) for n in targets}
    return [
        (title, histogram(values[column], limits, labels), what, unit)
        for column, (title, what, unit, limits, labels) in (_HISTOGRAMS | volumes).items()
        if column in values
    ]


def _conditions(
    records: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, dict[str, str]], list[tuple[str, str, list[str]]]]:
    """The conditions of all records, by part; and those that differ, with a value and the scans that have it."""
    shared: dict[str, dict[str, str]] = {}
    differing = []
    for part, title in CONDITIONS.items():
        if part == "scan":  # which is another one in every record
            continue
        # Scans of several folders may share a name.
        contents = [(record["scan"]["name"], as_text(record.get(part) or {})) for record in records]
        for name in dict.fromkeys(name for _, content in contents for name in content):
            scans_by_value: dict[str, list[str]] = {}
            for scan, content in contents:
                scans_by_value.setdefault(content.get(name, "–"), []).append(scan)
            if len(scans_by_value) == 1:
                shared.setdefault(title, {})[name] = next(iter(scans_by_value))
            else:
                differing += [(f"{title}: {name}", *found) for found in scans_by_value.items()]
    return shared, differing
