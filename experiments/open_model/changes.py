"""An ablation of the recipe `modern`: retrained without each of its choices.

    python experiments/open_model/changes.py --data FOLDER --out RUNS [--changes a,b] [--folds 2,3] [--seeds 0,1]
    python experiments/open_model/changes.py --table

Scores are added to changes.csv beside this file as each run ends; finished runs are skipped, and interrupted runs
resume after their last epoch. All take 450 steps, half of the recipe's.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from evaluate import ENGINES, MEASURES, THRESHOLDS, scores_of, scores_of_others

from planar3d.cli import main
from planar3d.commands.options import Settings
from planar3d.errors import RunError
from planar3d.evaluation.scores import summarize
from planar3d.files import read_rows, write_csv
from planar3d.recipes import MODERN, Recipe
from planar3d.sections import check_choice

TABLE = Path(__file__).parent / "changes.csv"
EPOCHS, FOLDS = 9, 3
WHOLE = "modern"
WITHOUT_EXTRACTION = tuple(name for name in MODERN.augmentation if name != "extraction")
# The ablated choice in words, and the fields that remove it, mostly with their values in `paper`.
CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    WHOLE: ("nothing", {}),
    "random": (
        "ImageNet weights; all layers random, of unit variance, and trained",
        {"encoder_weights": "none", "frozen": (), "unit_variance": ("encoder", "bridge", "decoder")},
    ),
    "biases": ("encoder biases divided by 128", {"encoder_range": "unit"}),
    "augmentation": ("augmentation", {"augmentation": ()}),
    "rate": (
        "learning rate 5e-4 with warm-up, cosine and clipping; 5e-5 throughout",
        {"learning_rate": 5e-5, "schedule": "decay", "warmup_steps": 0, "clip_norm": 0.0},
    ),
    "frozen": ("training of blocks 3 and 4", {"frozen": ("encoder",)}),
    "grey-levels": (
        "grey levels by the median, and with them crops of extracted brains; by minimum and maximum",
        {"grey_levels": "min-max", "augmentation": WITHOUT_EXTRACTION, "planes": "whole"},
    ),
    "start": ("unit-variance initialization and output prior", {"unit_variance": (), "output_prior": 0.5}),
    "extraction": ("crops of extracted brains", {"augmentation": WITHOUT_EXTRACTION}),
    "lesion-share": ("crops around lesions; all anywhere in the head", {"lesion_share": 0.0}),
}
KEY = ("change", "seed", "fold")
Row = dict[str, str]


def run(
    data: Annotated[Path | None, typer.Option("--data", help="Data set of the nine patients.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the run folders.")] = None,
    changes: Annotated[str, typer.Option("--changes", help="Names of changes, in this order.")] = ",".join(CHANGES),
    folds: Annotated[str, typer.Option("--folds", help="Folds, in this order.")] = "1,2,3",
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds, in this order.")] = "0",
    engine: Annotated[str, typer.Option("--engine", help=f"One of {', '.join(ENGINES)}.")] = "keras",
    other: Annotated[list[str] | None, typer.Option("--other", help="name=scan,mask of a scan in no fold.")] = None,
    settings: Settings = None,
    results: Annotated[Path, typer.Option("--results", help="CSV of all scores.")] = TABLE,
    table: Annotated[bool, typer.Option("--table", help="Only print the table.")] = False,
) -> None:
    """Do the runs missing in the CSV, and print the table of all runs."""
    if not table:
        if data is None or out is None:
            raise RunError("Name the scans with --data and a folder for the runs with --out, or ask for --table alone.")
        unknown = [name for name in changes.split(",") if name not in CHANGES]
        if unknown:
            raise RunError(f"--changes {changes}: {unknown[0]!r} is unknown; choose from: {', '.join(CHANGES)}.")
        check_choice("--engine", engine, ENGINES, RunError)
        for seed in map(int, seeds.split(",")):
            for number in map(int, folds.split(",")):
                for change in changes.split(","):
                    key = {"change": change, "seed": str(seed), "fold": str(number)}
                    if all({name: row[name] for name in KEY} != key for row in read_rows(results)):
                        recipe = recipe_of(change, seed, settings or [])
                        rows = scored(data, out / change / f"seed-{seed}", recipe, number, engine, other or [])
                        add_rows(results, [key | row for row in rows])
    typer.echo("\n".join(markdown(read_rows(results))))


def recipe_of(change: str, seed: int = 0, settings: Sequence[str] = ()) -> Recipe:
    """`modern` with half the steps and one choice removed."""
    fields = {"epochs": EPOCHS, "seed": seed, **CHANGES[change][1]}
    return MODERN.changed(**fields).with_settings(list(settings))


def scored(data: Path, folder: Path, recipe: Recipe, number: int, engine: str, other: Sequence[str]) -> list[dict]:
    """Train or resume a fold, and score its test scans, and others, at every threshold."""
    from planar3d.inference.predictor import predictor
    from planar3d.networks.weights_file import load_network
    from planar3d.scans.layouts import find_cases
    from planar3d.study.cross_validation import train_fold
    from planar3d.study.preparing import prepare_scans
    from planar3d.study.reproduce import folds_for
    from planar3d.study.run_folder import start_run

    dataset = find_cases(data)
    run = start_run(folder, dataset, recipe, folds_for(dataset, str(FOLDS)))
    prepare_scans(run, typer.echo)
    typer.echo(f"{folder}, fold {number}")
    if not (run.fold(number) / "training.json").is_file():
        train_fold(run, number, typer.echo)
    network, _ = load_network(run.fold(number) / "best.weights.h5", recipe)
    predict, rows = predictor(network, recipe, **ENGINES[engine]), []
    for scan in run.folds[number - 1].test:
        rows += scores_of(run, scan, predict, recipe, {"scan": scan, "tested": "yes", "engine": engine})
    return rows + scores_of_others(other, predict, recipe, {"tested": "no", "engine": engine})


def add_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Add the rows of a run to the CSV."""
    write_csv(path, (*KEY, "scan", "tested", "engine", "threshold", *MEASURES), [*read_rows(path), *rows])


def markdown(rows: Sequence[Row]) -> list[str]:
    """A row for each change at its best threshold, compared with `modern` at its own, over their common runs."""
    lines = ["| removed | runs | Dice | of `modern` | difference | lower in | lesion F1 | other scanner |"]
    lines += ["| :-- | --: | --: | --: | --: | --: | --: | --: |"]
    runs = {change: {_run(row) for row in rows if row["change"] == change} for change in CHANGES}
    for change, (label, _) in CHANGES.items():
        shared = runs[change] & runs[WHOLE]
        if not shared:
            continue
        without, whole = (
            _at_best([row for row in rows if row["change"] == name and _run(row) in shared]) for name in (change, WHOLE)
        )
        dice, dice_of_whole = (_of_scans(each, "yes") for each in (without, whole))
        differences = [dice[scan] - dice_of_whole[scan] for scan in dice]
        lower = f"{sum(d < 0 for d in differences)} of {len(differences)}"
        elsewhere = list(_of_scans(without, "no").values())
        cells = [
            *(label, str(len(shared)), f"{_mean(dice.values())} at {without[0]['threshold']}"),
            *((_mean(dice_of_whole.values()), str(summarize(differences)), lower) if change != WHOLE else ("", "", "")),
            *(_mean(_of_scans(without, "yes", "lesion_f1").values()), _mean(elsewhere)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _run(row: Row) -> tuple[str, str]:
    return row["seed"], row["fold"]


def _at_best(rows: Sequence[Row]) -> list[Row]:
    """The rows at the threshold of the highest mean Dice over the test scans."""
    by_threshold = [[row for row in rows if int(row["threshold"]) == of_256] for of_256 in THRESHOLDS]
    return max(by_threshold, key=lambda chosen: np.mean(list(_of_scans(chosen, "yes").values())))


def _of_scans(rows: Sequence[Row], tested: str, score: str = "dice") -> dict[str, float]:
    """A score of every scan in the folds (`"yes"`) or of scans in none (`"no"`), as the mean over runs."""
    scans = sorted({row["scan"] for row in rows if row["tested"] == tested})
    # In rows of earlier versions, a lesion F1 of nan means that none of a scan's lesions was found.
    return {scan: float(np.mean([np.nan_to_num(float(r[score])) for r in rows if r["scan"] == scan])) for scan in scans}


def _mean(values: Iterable[float]) -> str:
    listed = list(values)
    return f"{np.mean(listed):.3f}" if listed else "–"


if __name__ == "__main__":
    main(run)
