"""The tables and the report of a folder of masks: a row per scan and per lesion, made only from records."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from planar3d.evaluation.lesion_regions import REGIONS, UNKNOWN
from planar3d.evaluation.lesion_table import Lesion, write_lesion_lines
from planar3d.files import write_csv
from planar3d.study.cohort_folder import Records
from planar3d.study.page import CONDITIONS, Bars, as_text, histogram, write_page
from planar3d.study.records import mask_is_gone, mask_was_changed, read_rating, refuse_other
from planar3d.wording import counted

PAGE, SCANS, LESIONS = "report.html", "scans.csv", "lesions.csv"
_LIMITS_ML = (0.1, 0.3, 1, 3, 10, 30, 100)
_VOLUMES = ("< 0.1", "0.1–0.3", "0.3–1", "1–3", "3–10", "10–30", "30–100", "≥ 100")
_LIMITS_COUNT = (1, 2, 5, 10, 20, 50, 100)
_COUNTS = ("0", "1", "2–4", "5–9", "10–19", "20–49", "50–99", "≥ 100")
# Columns of a record's figures on the page; for several targets, the columns are their volumes.
_FIGURES = {"lesions": "lesions", "volume [ml]": "volume_ml", "largest [ml]": "largest_ml"}
_HISTOGRAMS: dict[str, tuple[str, str, str, Sequence[float], Sequence[str]]] = {
    "volume [ml]": ("Lesion volume", "scans by total lesion volume in ml", " ml", _LIMITS_ML, _VOLUMES),
    "lesions": ("Number of lesions", "scans by number of lesions", " lesions", _LIMITS_COUNT, _COUNTS),
}
# Columns of the table of scans, before and after the volumes of targets and regions.
_BEFORE = ("scan", "state", *_FIGURES.values())
_AFTER = ("warnings", "rating", "failure", "model", "model_sha256", "versions", "mask", "path")


def write_cohort_tables(folder: Path, records: Records, failed: Mapping[str, str]) -> list[dict[str, Any]]:
    """Write `scans.csv` and `lesions.csv` of all segmented scans of a folder.

    Args:
        failed: why other scans were not segmented, by path; they have their own rows, unless an earlier mask exists.

    Returns:
        The rows of the scans, with the volume in ml of each target, if there are several, and of each region, if known.

    Raises:
        RunError: a file of another origin has the name of one of the tables.
    """
    refuse_other(folder / SCANS, folder / LESIONS)
    scans, failed = [_row(file, record, folder) for file, record in records], dict(failed)
    for scan in scans:
        scan["failure"] = failed.pop(os.path.abspath(scan["path"]), "")
    write_lesion_lines(folder / LESIONS, ["scan", "target"], _lesions(records))
    regions = [_by_region(record) for _, record in records]
    if any(any(volumes.values()) for volumes in regions):  # else the model names none
        scans = [scan | volumes for scan, volumes in zip(scans, regions, strict=True)]
    scans += [
        {"scan": Path(path).name, "state": "failed", "failure": why, "path": path} for path, why in failed.items()
    ]
    known = {*_BEFORE, *_AFTER}
    targets = list(dict.fromkeys(column for scan in scans for column in scan if column not in known))
    write_csv(folder / SCANS, [*_BEFORE, *targets, *_AFTER], scans)
    return scans


def _lesions(records: Records) -> Iterator[tuple[dict[str, str], Lesion]]:
    for _, record in records:
        for lesion in record["lesions"]:
            about = {"scan": record["scan"]["name"], "target": lesion.get("target", "")}
            yield about, Lesion(**{name: lesion[name] for name in Lesion._fields if name in lesion})


def _row(file: Path, record: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    result, model, changed = record["result"], record["model"], mask_was_changed(file, record)
    return {
        "scan": record["scan"]["name"],
        "state": "no mask" if mask_is_gone(file, record) else "mask changed" if changed else "done",
        **{name: result[name] for name in _FIGURES.values()},
        **{f"{name}_ml": volume for name, volume in _volumes(result).items()},
        "warnings": " ".join(filter(None, [changed, *(warning["sentence"] for warning in record["warnings"])])),
        "rating": read_rating(file, record),
        "model": model["name"],
        "model_sha256": model["sha256"],
        "versions": ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items()),
        "mask": Path(os.path.relpath(file.parent / record["files"]["mask"], folder)).as_posix(),
        "path": record["scan"].get("path", ""),
    }


def _volumes(result: Mapping[str, Any]) -> dict[str, float]:
    """The volume of each target by the name of its column, marked if a total or a region has the same."""
    taken = {"volume", "largest", UNKNOWN, *REGIONS}
    return {f"target_{name}" if name in taken else name: ml for name, ml in result.get("targets_ml", {}).items()}


def _by_region(record: Mapping[str, Any]) -> dict[str, float]:
    """The volume of the lesions in each region: 0 without any, and none of others where some lesions' is unknown."""
    lesions = [lesion for lesion in record["lesions"] if lesion.get("target", "lesion") == "lesion"]
    regions = {lesion.get("region") for lesion in lesions}
    complete = "lesion" in record["result"].get("targets_ml", {"lesion"}) and regions.isdisjoint({UNKNOWN, None})
    volumes = {f"{region}_ml": 0.0 for region in REGIONS if complete}
    for lesion in lesions:
        if region := lesion.get("region"):
            volumes[f"{region}_ml"] = volumes.get(f"{region}_ml", 0.0) + lesion["volume_ml"]
    return volumes


def write_cohort_report(folder: Path, records: Records, failed: Mapping[str, str]) -> Path:
    """Write the report of segmented scans as one HTML file without network access, with links to the scans' reports.

    Arguments are those of `write_cohort_tables`; a `RunError` if a file of another origin has the name of the report.
    """
    refuse_other(folder / PAGE)
    scans = [_line(file, record, folder) for file, record in records]
    shared, differing = _conditions([record for _, record in records])
    columns = list(dict.fromkeys(column for scan in scans for column in scan["figures"])) or [*_FIGURES]
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
    report, result = file.parent / record["files"].get("report", ""), record["result"]
    doubts = filter(None, (mask_is_gone(file, record), mask_was_changed(file, record)))
    page = Path(os.path.relpath(report, folder)).as_posix()
    return {
        "name": record["scan"]["name"],
        # Quoted, so that no file name is read as a scheme or a query.
        "link": quote(page, errors="surrogateescape") if report.is_file() else None,
        "figures": {f"{name} [ml]": volume for name, volume in _volumes(result).items()}
        or {column: result[key] for column, key in _FIGURES.items()},
        "spacing": " × ".join(f"{mm:.3g}" for mm in record["scan"].get("spacing_mm", [])),
        "warnings": [*doubts, *(warning["sentence"] for warning in record["warnings"])],
        "rating": read_rating(file, record),
    }


def _histograms(values: Mapping[str, Sequence[float]]) -> list[tuple[str, Bars, str, str]]:
    """The histograms of all scans: title, bars, quantity, and unit of the limits."""
    targets = [column.removesuffix(" [ml]") for column in values if column not in _FIGURES]
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
