"""One run of the comparison: train one fold of an arm with a seed, then predict and score its test scans.

    python experiments/transfer/train.py --data FOLDER --out RUNS --arm imagenet-frozen --seed 0 --fold 1

Writes RUNS/<arm>/seed-<n>/fold-<n>/outcome.json, and resumes an interrupted run. `run.py` starts one such process after
another, so that peak memory is per run.
"""

import resource
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from outcomes import ARMS, HERE, Planned, has_collapsed

from planar3d.cli import main
from planar3d.commands.options import Data, Out, Settings
from planar3d.errors import RunError
from planar3d.files import read_json, write_json
from planar3d.recipes import Recipe, find_recipe

FOLDS = 3
Outcome = dict[str, list[dict[str, Any]]]
_VERSIONS = ("planar3d", "python", "keras", "tensorflow", "tensorflow-cpu", "numpy", "backend", "machine")


def arm_recipe(planned: Planned, settings: Sequence[str] = ()) -> Recipe:
    """The recipe of a run: its arm's file with its seed, changed by settings such as `size=64`."""
    recipe = find_recipe(str(HERE / "recipes" / f"{planned.arm}.json"))
    return recipe.with_settings(list(settings)).changed(seed=planned.seed)


def run_folder(out: Path, planned: Planned) -> Path:
    """The run folder of an arm with a seed, with its folds."""
    return out / planned.arm / f"seed-{planned.seed}"


def outcome_file(out: Path, planned: Planned) -> Path:
    """The path of a run's outcome."""
    return run_folder(out, planned) / f"fold-{planned.fold}" / "outcome.json"


def train(
    data: Data,
    out: Out,
    arm: Annotated[str, typer.Option("--arm", help=f"One of: {', '.join(ARMS)}.")],
    seed: Annotated[int, typer.Option("--seed", help="Seed of initialization and shuffling.")] = 0,
    fold: Annotated[int, typer.Option("--fold", help=f"1 to {FOLDS}.")] = 1,
    settings: Settings = None,
) -> None:
    """Train, predict and score one run, and write its outcome."""
    if arm not in ARMS:
        raise RunError(f"--arm {arm} is unknown; choose one of: {', '.join(ARMS)}.")
    planned = Planned(arm, seed, fold)
    if read_outcome(out, planned, settings or []) is not None:
        typer.echo(f"{outcome_file(out, planned)} is there already")
        return
    write_json(outcome_file(out, planned), outcome(data, out, planned, settings or []))


def outcome(data: Path, out: Path, planned: Planned, settings: Sequence[str]) -> Outcome:
    """Train or resume a run, and return its rows of results.csv and of curves.csv."""
    from planar3d.inference.predictor import predictor
    from planar3d.scans.layouts import find_cases
    from planar3d.study.cross_validation import train_fold
    from planar3d.study.preparing import prepare_scans
    from planar3d.study.reproduce import folds_for
    from planar3d.study.run_folder import environment, start_run
    from planar3d.training.checkpoint import finished_progress

    recipe, dataset = arm_recipe(planned, settings), find_cases(data)
    run = start_run(run_folder(out, planned), dataset, recipe, folds_for(dataset, str(FOLDS)))
    _share_prepared(run.folder, out / f"prepared-{recipe.size}")
    prepare_scans(run, typer.echo)
    network = train_fold(run, planned.fold, typer.echo)
    progress = finished_progress(run.fold(planned.fold))

    predict = predictor(network, recipe, engine="keras")
    begin = time.monotonic()
    scores = [_scored(run, scan, predict, recipe) for scan in run.folds[planned.fold - 1].test]
    steps = _steps_of_an_epoch(run, planned.fold)
    about = dict(zip(("arm", "seed", "fold", "settings"), planned.key(" ".join(settings)), strict=True))
    versions = environment(recipe)
    common = {
        "steps": steps * progress.epoch,
        "best_val_dice": round(progress.best, 5),
        "best_epoch": progress.best_epoch,
        "last_val_dice": round(progress.history[-1]["val_dice"], 5),
        "train_seconds": round(sum(row["seconds"] for row in progress.history)),
        "predict_seconds": round(time.monotonic() - begin),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "versions": ", ".join(f"{name} {versions[name]}" for name in _VERSIONS if name in versions),
    }
    curves = [
        {**about, "steps": int(row["epoch"]) * steps}
        | {k: int(v) if k == "epoch" else round(v, 5) for k, v in row.items() if k != "learning_rate"}
        for row in progress.history
    ]
    _remove_what_only_training_needed(run, planned.fold)
    return {"results": [{**about, **row, **common} for row in scores], "curves": curves}


def read_outcome(out: Path, planned: Planned, settings: Sequence[str]) -> Outcome | None:
    """The outcome of a run, or None if it has not ended.

    Raises:
        RunError: the run had other settings.
    """
    path = outcome_file(out, planned)
    if not path.is_file():
        return None
    found = read_json(path)
    if {row["settings"] for row in found["results"]} != {" ".join(settings)}:
        raise RunError(
            f"{path} was made with --set {found['results'][0]['settings']!r}, now {' '.join(settings)!r} is asked. Use "
            "another --out."
        )
    return found


def _scored(run: Any, scan: str, predict: Any, recipe: Recipe) -> dict[str, Any]:
    """Scores of a test scan on its native grid at the recipe's threshold, and Dice at 128 of 256."""
    from planar3d.evaluation.scores import score_scan
    from planar3d.inference.prepared_scan import native_mask
    from planar3d.scans.preparation.prepared import load_prepared
    from planar3d.scans.targets import threshold
    from planar3d.scans.volume import read_mask

    prepared, _ = load_prepared(run.prepared(scan))
    probabilities = predict(prepared.voxels)
    native = native_mask(probabilities, prepared, recipe)
    reference = read_mask(run.cases[scan].label_map, native, assume_affine=True).voxels
    scores = score_scan(reference, native.voxels, native.affine)
    at_128 = score_scan(reference, prepared.restore(threshold(probabilities, 128)).voxels, native.affine)
    largest = float(probabilities.max())
    collapsed = has_collapsed(largest, recipe.threshold, int(np.count_nonzero(native.voxels)))
    measures = {name: round(scores[name], 5) for name in ("dice", "sensitivity", "precision", "lesion_f1")}
    typer.echo(f"{scan}  Dice {scores['dice']:.3f}  at 128 {at_128['dice']:.3f}  largest probability {largest:.3f}")
    return {
        "scan": scan,
        **measures,
        "dice_at_128": round(at_128["dice"], 5),
        "largest_probability": round(largest, 5),
        "collapsed": "yes" if collapsed else "no",
    }


def _steps_of_an_epoch(run: Any, fold: int) -> int:
    parts = run.folds[fold - 1]
    sampling, tiles = run.recipe.training.samples, run.recipe.tiles
    training, _ = sampling.split(len(parts.train), len(parts.validation), run.recipe.slices, tiles)
    return -(-len(training) // run.recipe.batch_size)


def _share_prepared(run_folder: Path, prepared: Path) -> None:
    """Link a run to the prepared scans shared by all arms, whose preparations are the same."""
    prepared.mkdir(parents=True, exist_ok=True)
    link = run_folder / "prepared"
    if not link.is_symlink():
        link.symlink_to(prepared.absolute(), target_is_directory=True)


def _remove_what_only_training_needed(run: Any, fold: int) -> None:
    """Remove cached features, which take 350 MB per scan at 128³ and are computed in seconds."""
    for folder in (run.folder, run.fold(fold)):
        shutil.rmtree(folder / "features", ignore_errors=True)


if __name__ == "__main__":
    main(train)
