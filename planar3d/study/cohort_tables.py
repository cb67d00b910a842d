"""The tables of a folder of masks, with one row per scan and per lesion, made only from records."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from planar3d.evaluation.lesion_regions import REGIONS, UNKNOWN
from planar3d.evaluation.lesion_table import Lesion, write_lesion_lines
from planar3d.files import write_csv
from planar3d.study.cohort_folder import CohortFolder, Records
from planar3d.study.records import mask_is_gone, mask_was_changed, read_rating, refuse_other

SCANS, LESIONS = "scans.csv", "lesions.csv"
_FIGURES = ("lesions", "volume_ml", "largest_ml")
_BEFORE, _AFTER = (
    ("scan", "state", *_FIGURES),
    ("warnings", "rating", "failure", "model", "model_sha256", "versions", "mask", "path"),
)


def write_cohort_tables(cohort: CohortFolder, records: Records, failed: Mapping[str, str]) -> list[dict[str, Any]]:
    """Write `scans.csv` and `lesions.csv` of all segmented scans of a folder.

    Args:
        records: those in the folder.
        failed: why other scans were not segmented, by path; they have their own rows, unless an earlier mask exists.

    Returns:
        The rows of the scans, with the volume in ml of each target, if there are several, and of each region, if known.

    Raises:
        RunError: a file of another origin has the name of one of the tables.
    """
    refuse_other(cohort.path / SCANS, cohort.path / LESIONS)
    scans, failed = [_line(file, record, cohort.path) for file, record in records], dict(failed)
    for scan in scans:
        scan["failure"] = failed.pop(os.path.abspath(scan["path"]), "")
    write_lesion_lines(cohort.path / LESIONS, ["scan", "target"], _lesions(records))
    regions = [_by_region(record) for _, record in records]
    if any(any(volumes.values()) for volumes in regions):  # else the model names none
        scans = [scan | volumes for scan, volumes in zip(scans, regions, strict=True)]
    scans += [
        {"scan": Path(path).name, "state": "failed", "failure": why, "path": path} for path, why in failed.items()
    ]
    known = {*_BEFORE, *_AFTER}
    targets = list(dict.fromkeys(column for scan in scans for column in scan if column not in known))
    write_csv(cohort.path / SCANS, [*_BEFORE, *targets, *_AFTER], scans)
    return scans


def _lesions(records: Records) -> Iterator[tuple[dict[str, str], Lesion]]:
    for _, record in records:
        for lesion in record["lesions"]:
            about = {"scan": record["scan"]["name"], "target": lesion.get("target", "")}
            yield about, Lesion(**{name: lesion[name] for name in Lesion._fields if name in lesion})


def _line(file: Path, record: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    result, model, changed = record["result"], record["model"], mask_was_changed(file, record)
    return {
        "scan": record["scan"]["name"],
        "state": "no mask" if mask_is_gone(file, record) else "mask changed" if changed else "done",
        **{name: result[name] for name in _FIGURES},
        **{f"{name}_ml": volume for name, volume in result.get("targets_ml", {}).items()},
        "warnings": " ".join(filter(None, [changed, *(warning["sentence"] for warning in record["warnings"])])),
        "rating": read_rating(file, record),
        "model": model["name"],
        "model_sha256": model["sha256"],
        "versions": ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items()),
        "mask": Path(os.path.relpath(file.parent / record["files"]["mask"], folder)).as_posix(),
        "path": record["scan"].get("path", ""),
    }


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
