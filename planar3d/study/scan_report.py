"""The report of one scan: its lesions in three planes, their sizes, and the origin of the mask."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from planar3d.evaluation.lesion_table import lesion_places
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
        record: the content of the JSON file beside the mask.
        mask, probability: on the grid of the scan, which may have any orientation.
        targets: boolean masks of the targets by name, on that grid; None for lesions only.
        noun: word for a connected component of the mask.

    Raises:
        ScanError: the mask or the probabilities are not on the scan's grid.
    """
    pictures = prepare_pictures(scan, mask, probability, targets)
    lesions, digest = record["lesions"], record["result"]["mask_sha256"]
    shown = pictures.to_json()
    parts = [Scan(part, mask.header) for part in targets.values()] if targets else [mask]
    shown["lesions"] = [pictures.place(place) for part in parts for place in lesion_places(part)]
    return write_page(
        path,
        "scan_report.html",
        ["tables.js", "plane.js", "viewer.js", "rating.js"],
        title=f"{record['scan']['name']}: {noun}s",
        noun=noun,
        name=record["scan"]["name"],
        headline=_headline(record),
        warnings=[warning["sentence"] for warning in record["warnings"]],
        pictures=shown,
        reduced=[f"{n:.3g}" for n in pictures.native] if max(pictures.native) > 1 else None,
        lesions=lesions,
        count=counted(lesions, noun),
        has_probabilities=any(lesion.get("mean_probability") is not None for lesion in lesions),
        has_regions=any(lesion.get("region") for lesion in lesions),
        bars=histogram([lesion["volume_ml"] for lesion in lesions], _LIMITS_ML, _VOLUMES),
        conditions={title: as_text(record[part]) for part, title in CONDITIONS.items()},
        files=record["files"] | {"SHA-256 of the mask": digest},
        rated={"ratings": RATINGS, "mask": digest, "file": rating_file(Path(record["files"]["record"])).name},
    )


def _headline(record: Mapping[str, Any]) -> dict[str, str]:
    """The main figures, by meaning: volumes of several targets, or count and volumes of lesions."""
    result = record["result"]
    count = {} if "targets_ml" in result else {"lesions": str(result["lesions"])}
    of_lesions = {"total volume": result["volume_ml"], "largest lesion": result["largest_ml"]}
    volumes = {name: f"{volume:.2f} ml" for name, volume in result.get("targets_ml", of_lesions).items()}
    return {**count, **volumes, "model": record["model"]["name"], "segmented": record["date"]}
