"""Scores of the trainings' predictions, on the native grid at several thresholds, by free processes."""

import contextlib
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from planar3d.evaluation.lesions import lesion_scores, ratio
from planar3d.files import write_csv
from planar3d.recipes import MODERN
from planar3d.scans.preparation.prepared import load_prepared

THRESHOLDS = (8, 16, 32, 64, 102, 128, 154, 179, 205, 230)  # of 256
MEASURES = ("dice", "sensitivity", "precision", "lesion_f1", "lesions", "found", "marked", "confirmed")
VOLUMES = ("prediction_ml", "reference_ml", "false_ml")
ABOUT = ("variant", "source", "scan", "slice_mm", "seen")
COLUMNS = (*ABOUT, "threshold", *MEASURES, *VOLUMES)
Row = dict[str, Any]


def score_what_was_found(folder: Path, end: float) -> None:
    """Score found/<variant>--<source>--<scan>@<slab>--<seen>.npy as they appear, each once, until the end."""
    while time.time() < end:
        for path in sorted((folder / "found").glob("*.npy")):
            claimed = path.with_suffix(".claimed")
            with contextlib.suppress(FileNotFoundError):
                path.rename(claimed)
                break
        else:
            time.sleep(0.2)
            continue
        with told():
            write_csv(folder / "scores" / f"{path.stem}.csv", COLUMNS, list(rows_of(folder, path.stem, claimed)))
        claimed.unlink()


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Print an error instead of raising it: one failing scan must not end the whole run."""
    try:
        yield
    except Exception:
        traceback.print_exc()


def rows_of(folder: Path, name: str, found: Path) -> Iterator[Row]:
    """The rows of a scan, one per threshold."""
    variant, source, scan, seen = name.split("--")
    place = folder / "tested" / source / scan
    prepared, _ = load_prepared(place)
    about = dict(zip(ABOUT, (variant, source, *scan.split("@"), seen), strict=True))
    probabilities = prepared.restore(np.load(found).astype(np.float32))
    reference = np.load(place / "reference.npy")
    for row in score(probabilities.voxels, reference, probabilities.affine):
        yield {**about, **row}


def score(probabilities: np.ndarray, reference: np.ndarray, affine: np.ndarray) -> Iterator[Row]:
    """Scores of native probabilities at every threshold.

    Args:
        probabilities: float32 (i, j, k).
        reference: bool of the same shape.
        affine: 4×4, of the grid.
    """
    voxel_ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    true = int(reference.sum())
    for threshold in THRESHOLDS:
        mask = MODERN.changed(threshold=float(threshold)).targets.decode(probabilities[..., None], affine) > 0
        both, marked = int((mask & reference).sum()), int(mask.sum())
        lesions = lesion_scores(reference, mask, affine)
        counts = (
            lesions["reference_lesions"],
            lesions["detected_lesions"],
            lesions["prediction_lesions"],
            lesions["confirmed_lesions"],
        )
        shares = (ratio(2 * both, marked + true), ratio(both, true), ratio(both, marked), lesions["lesion_f1"])
        volumes = (marked * voxel_ml, true * voxel_ml, (marked - both) * voxel_ml)
        rounded = (*(round(share, 4) for share in shares), *counts, *(round(ml, 3) for ml in volumes))
        yield {"threshold": threshold, **dict(zip((*MEASURES, *VOLUMES), rounded, strict=True))}
