"""Score cross-validated networks of several runs, alone and averaged, with and without mirror images.

The runs have the same folds, and differ in seed or settings. Every scan is predicted by the networks of the fold that
tests it; probabilities are averaged on the prepared grid, then decided by every rule.

    python experiments/open_model/ensembles.py RUN-1 RUN-2 --out ensembles.csv
"""

from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from evaluate import ENGINES, SCORES, THRESHOLDS

from planar3d.cli import main
from planar3d.errors import RunError
from planar3d.evaluation.scores import score_scan
from planar3d.files import read_rows, write_csv
from planar3d.inference.predictor import predictor
from planar3d.inference.prepared_scan import native_mask, predict_prepared
from planar3d.networks.weights_file import load_network
from planar3d.scans.preparation.prepared import load_prepared
from planar3d.scans.volume import read_mask, read_scan
from planar3d.study.run_folder import Run, open_run

LEAST_MEANS = (0, 140, 154)  # of 256
RULE = ("networks", "mirrored", "threshold", "least_mean")
COLUMNS = ("scan", "fold", *RULE, *SCORES)


def run(
    folders: Annotated[list[Path], typer.Argument(help="Run folders of cross-validations with the same folds.")],
    out: Annotated[Path, typer.Option("--out", help="CSV of all scores.")],
    engine: Annotated[str, typer.Option("--engine", help="keras, openvino or openvino-bf16.")] = "openvino",
) -> None:
    """Write the scores of every scan, set of networks and rule, and print their means."""
    runs = {folder.name: open_run(folder) for folder in folders}
    first = runs[folders[0].name]
    if any(other.folds != first.folds for other in runs.values()):
        raise RunError(f"The runs have different folds; give runs with the folds of {folders[0]}.")
    rows: list[dict[str, Any]] = []
    for number, fold in enumerate(first.folds, start=1):
        trained = {
            name: load_network(one.fold(number) / "best.weights.h5", one.recipe)
            for name, one in runs.items()
            if (one.fold(number) / "scores.csv").is_file()
        }
        predicts = {name: (predictor(*loaded, **ENGINES[engine]), loaded[1]) for name, loaded in trained.items()}
        for scan in fold.test:
            rows += [{"scan": scan, "fold": number, **row} for row in scores_of(first, scan, predicts)]
        write_csv(out, COLUMNS, rows)
    print_means(out)


def scores_of(run: Run, scan: str, predicts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of a scan, one for each set of networks and rule."""
    prepared, _ = load_prepared(run.prepared(scan))
    case = run.cases[scan]
    reference = read_mask(case.label_map, read_scan(case.images["flair"]))
    values = {
        mirrored: {
            name: predict_prepared(predict, prepared, recipe.changed(mirrored=mirrored))
            for name, (predict, recipe) in predicts.items()
        }
        for mirrored in (False, True)
    }
    for mirrored, size in product(values, range(1, len(predicts) + 1)):
        for names in combinations(predicts, size):
            mean = np.mean([values[mirrored][name] for name in names], axis=0)
            recipe = predicts[names[0]][1]
            for threshold, least_mean in product(THRESHOLDS, LEAST_MEANS):
                mask = native_mask(mean, prepared, recipe.changed(threshold=threshold, least_mean=least_mean))
                scores = score_scan(reference.voxels, mask.voxels, reference.affine)
                rule = dict(zip(RULE, ("+".join(names), mirrored, threshold, least_mean), strict=True))
                yield rule | {name: round(scores[name], 4) for name in SCORES}


def print_means(path: Path) -> None:
    """Print the mean scores of each set of networks and rule, over all scans."""
    rows = read_rows(path)
    for rule in dict.fromkeys(tuple(row[name] for name in RULE) for row in rows):
        mine = [row for row in rows if tuple(row[name] for name in RULE) == rule]
        means = "  ".join(f"{name} {np.nanmean([float(row[name]) for row in mine]):.3f}" for name in SCORES)
        typer.echo(f"{'  '.join(f'{name} {value}' for name, value in zip(RULE, rule, strict=True))}  {means}")


if __name__ == "__main__":
    main(run)
