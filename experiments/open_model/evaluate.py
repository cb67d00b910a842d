"""Score the networks of a cross-validation at many thresholds, precisions and engines.

Every scan is predicted by the network of the fold that tests it. The threshold of each fold is chosen on the scans of
the other folds (`crossed`), so that no scan affects its own threshold.

    python experiments/open_model/evaluate.py RUN --out scores.csv [--engines keras,openvino,openvino-bf16]
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from planar3d.cli import main
from planar3d.commands.options import Settings
from planar3d.errors import RunError
from planar3d.evaluation.scores import score_scan, summarize
from planar3d.files import read_rows, write_csv
from planar3d.inference.predictor import predictor
from planar3d.inference.prepared_scan import native_mask, predict_prepared, prepare
from planar3d.networks.weights_file import load_network
from planar3d.recipes import Recipe
from planar3d.scans.preparation.prepared import load_prepared
from planar3d.scans.volume import Scan, read_mask, read_scan
from planar3d.sections import check_choice
from planar3d.study.run_folder import Run, open_run

THRESHOLDS = (8, 16, 32, 51, 64, 77, 90, 102, 115, 128, 154, 179, 205)  # of 256
ENGINES: dict[str, dict[str, Any]] = {
    "keras": {"engine": "keras"},
    "openvino": {"engine": "openvino", "precision": "float32"},
    "openvino-bf16": {"engine": "openvino", "precision": "bf16"},
}
SCORES = ("dice", "sensitivity", "precision", "lesion_f1")
MEASURES = (*SCORES, "prediction_ml", "reference_ml")
COLUMNS = ("scan", "fold", "engine", "threshold", *MEASURES)


def run(
    folder: Annotated[Path, typer.Argument(help="Run folder of a cross-validation.")],
    out: Annotated[Path, typer.Option("--out", help="CSV of all scores.")],
    engines: Annotated[str, typer.Option("--engines", help="Any of keras, openvino, openvino-bf16.")] = "keras",
    other: Annotated[list[str] | None, typer.Option("--other", help="name=scan,mask of a scan in no fold.")] = None,
    settings: Settings = None,
) -> None:
    """Write the scores of every scan, engine and threshold, and print their means."""
    for engine in engines.split(","):
        check_choice("--engines", engine, ENGINES, RunError)
    run = open_run(folder)
    rows: list[dict[str, Any]] = []
    for number, fold in enumerate(run.folds, start=1):
        weights = run.fold(number) / "best.weights.h5"
        if not (run.fold(number) / "scores.csv").is_file():
            continue
        network, recipe = load_network(weights, run.recipe.with_settings(settings or []))
        for engine in engines.split(","):
            predict = predictor(network, recipe, **ENGINES[engine])
            for scan in fold.test:
                rows += scores_of(run, scan, predict, recipe, {"scan": scan, "fold": number, "engine": engine})
            rows += scores_of_others(other or [], predict, recipe, {"fold": number, "engine": engine})
        write_csv(out, COLUMNS, rows)
    if not rows:
        raise RunError(f"{folder} has no fold with scores.csv; finish a fold with planar3d crossval first.")
    print_means(out, {scan for fold in run.folds for scan in fold.test})


def scores_of(run: Run, scan: str, predict: Any, recipe: Recipe, about: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of one of the run's scans, one per threshold."""
    prepared, _ = load_prepared(run.prepared(scan))
    case = run.cases[scan]
    return _rows(prepared, read_mask(case.label_map, read_scan(case.images["flair"])), predict, recipe, about)


def scores_of_others(other: Sequence[str], predict: Any, recipe: Recipe, about: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of scans in no fold, each given as name=scan,mask; one per scan and threshold."""
    rows = []
    for name, scan, mask in given_scans(other):
        rows += _rows(prepare(scan, recipe), mask, predict, recipe, {"scan": name, **about})
    return rows


def given_scans(other: Sequence[str]) -> Iterator[tuple[str, Scan, Scan]]:
    """The names, scans and masks of scans given as name=scan,mask."""
    for given in other:
        name, _, files = given.partition("=")
        path, comma, mask = files.partition(",")
        if not comma:
            raise RunError(f"{given}: name=scan,mask is needed, e.g. patient26=FLAIR.nii.gz,mask.nii.gz.")
        scan = read_scan(path)
        yield name, scan, read_mask(mask, scan)


def _rows(prepared: Any, reference: Any, predict: Any, recipe: Recipe, about: dict[str, Any]) -> list[dict[str, Any]]:
    probabilities, rows = predict_prepared(predict, prepared, recipe), []
    for threshold in THRESHOLDS:
        mask = native_mask(probabilities, prepared, recipe.changed(threshold=threshold))
        scores = score_scan(reference.voxels, mask.voxels, reference.affine)
        rounded = {name: round(scores[name], 4 if name in SCORES else 2) for name in MEASURES}
        rows.append({**about, "threshold": threshold, **rounded})
    return rows


def print_means(path: Path, tested: set[str]) -> None:
    """Print, for each engine, mean Dice by threshold, at the threshold crossed between folds, and by scan."""
    rows = read_rows(path)
    for engine in dict.fromkeys(row["engine"] for row in rows):
        mine = [row for row in rows if row["engine"] == engine]
        at_home = [row for row in mine if row["scan"] in tested]
        print(f"\n{engine}\nthreshold  " + "  ".join(f"{t:5d}" for t in THRESHOLDS))
        print("Dice       " + "  ".join(f"{_mean(at_home, t):5.3f}" for t in THRESHOLDS))
        for scan in sorted({row["scan"] for row in mine}):
            of_scan = [row for row in mine if row["scan"] == scan]
            print(f"{scan[-10:]:10s} " + "  ".join(f"{_mean(of_scan, t):5.3f}" for t in THRESHOLDS))
        print("crossed: " + "  ".join(crossed(at_home)))


def crossed(rows: list[dict[str, str]]) -> list[str]:
    """Mean scores with each fold at the threshold that is best for the scans of the other folds."""
    folds = sorted({row["fold"] for row in rows})
    if len(folds) < 2:
        return ["needs two folds"]
    kept = []
    for number in folds:
        others = [row for row in rows if row["fold"] != number]
        best = max(THRESHOLDS, key=lambda threshold: _mean(others, threshold))
        kept += [row for row in rows if row["fold"] == number and int(row["threshold"]) == best]
    return [f"{score} {summarize(float(row[score]) for row in kept)}" for score in SCORES]


def _mean(rows: list[dict[str, str]], threshold: int) -> float:
    return float(np.mean([float(row["dice"]) for row in rows if int(row["threshold"]) == threshold]))


if __name__ == "__main__":
    main(run)
