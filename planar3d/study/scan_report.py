"""The report of one scan: its lesions in three planes, their sizes, and the origin of the mask."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from planar3d.evaluation.viewer import prepare_pictures
from planar3d.scans.volume import Scan
from planar3d.study.page import CONDITIONS, as_text, histogram, write_page
from planar3d.study.records import RATINGS, rating_file
from planar3d.wording import counted

# Half decades: lesion volumes spread over many orders of magnitude, and equal limits make reports comparable.
_LIMITS_ML = (0.01, 0.03, 0.1, 0.3, 1, 3, 10)
_VOLUMES = ("< 0.01", "0.01–0.03", "0.03–0.1", "0.1–0.3", "0.3–1", "1–3", "3–10", "≥ 10")


def write_scan_report(
    record: Mapping[str, Any],
    scan: Scan,
    mask: Scan,
    path: str | Path,
    probability: Scan | None = None,
    targets: Mapping[str, np.ndarray] | None = None,
    noun: str = "lesion",
) -> Path:
    """Write the report of a segmented scan as one HTML file that needs no other file and no network.

    Args:
        record: the content of the JSON file beside the mask, which must have `scan` with a name; other parts are shown
            if present.
        scan: the intensities; stored in any orientation.
        mask: the predicted mask on the grid of the scan.
        probability: lesion probabilities on the grid of the scan, for display.
        targets: boolean masks of the targets by name, on the mask's grid; None for lesions only.
        noun: word for a connected component of the mask.

    Raises:
        ScanError: the mask or the probabilities are not on the scan's grid.
    """
    pictures = prepare_pictures(scan, mask, probability, targets)
    lesions = record.get("lesions", [])
    shown = pictures.to_json()
    shown["lesions"] = [pictures.place([lesion[axis] for axis in ("x_mm", "y_mm", "z_mm")]) for lesion in lesions]
    return write_page(
        path,
        "scan_report.html",
        ["tables.js", "plane.js", "viewer.js", "rating.js"],
        title=f"{record['scan']['name']}: {noun}s",
        noun=noun,
        name=record["scan"]["name"],
        headline=_headline(record),
        warnings=[warning["sentence"] for warning in record.get("warnings", [])],
        pictures=shown,
        reduced=[f"{n:.3g}" for n in pictures.native] if max(pictures.native) > 1 else None,
        lesions=lesions,
        count=counted(lesions, noun),
        has_probabilities=any(lesion.get("mean_probability") is not None for lesion in lesions),
        has_regions=any(lesion.get("region") for lesion in lesions),
        bars=histogram([lesion["volume_ml"] for lesion in lesions], _LIMITS_ML, _VOLUMES),
        conditions={title: as_text(record[part]) for part, title in CONDITIONS.items() if record.get(part)},
        files=_files(record),
        rated=_rated(record),
    )


def _headline(record: Mapping[str, Any]) -> dict[str, str]:
    """The main figures, by meaning."""
    result = record.get("result", {})
    of_all = {
        "lesions": result.get("lesions"),
        "total volume": _ml(result.get("volume_ml")),
        "largest lesion": _ml(result.get("largest_ml")),
    }
    known = {
        **({name: _ml(volume) for name, volume in result.get("targets_ml", {}).items()} or of_all),
        "model": record.get("model", {}).get("name"),
        "segmented": record.get("date"),
    }
    return {meaning: str(value) for meaning, value in known.items() if value is not None}


def _files(record: Mapping[str, Any]) -> dict[str, str]:
    """The names of the outputs, and the digest that identifies the mask."""
    digest = record.get("result", {}).get("mask_sha256")
    return {**record.get("files", {}), **({"SHA-256 of the mask": digest} if digest else {})}


def _rated(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The mask's digest in a rating, the choices, and the name of its file; None without a record."""
    name, digest = record.get("files", {}).get("record"), record.get("result", {}).get("mask_sha256")
    return {"ratings": RATINGS, "mask": digest, "file": rating_file(Path(name)).name} if name and digest else None


def _ml(volume: float | None) -> str | None:
    return None if volume is None else f"{volume:.2f} ml"
