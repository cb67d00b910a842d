"""Commands that train and score: train, crossval, reproduce, report, tune."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Option

from planar3d.commands.options import (
    AsJson,
    AssumeAffine,
    Cluster,
    Data,
    Devices,
    Folds,
    Only,
    Out,
    Precision,
    RecipeName,
    RunOut,
    Seed,
    Settings,
    Size,
    chosen_recipe,
)
from planar3d.commands.output import list_failed, log, print_json, say, show

if TYPE_CHECKING:
    from planar3d.study.results import Results


def train(
    data: Data,
    out: Out,
    fold: Annotated[int, Option(help="Fold to train, counted from 1.")] = 1,
    recipe: RecipeName = "paper",
    settings: Settings = None,
    size: Size = None,
    seed: Seed = None,
    precision: Precision = None,
    folds: Folds = None,
    devices: Devices = None,
    assume_affine: AssumeAffine = False,
) -> None:
    """Train one fold; interrupted training resumes where it stopped."""
    from planar3d.scans.folds import choose_folds
    from planar3d.scans.layouts import find_cases
    from planar3d.study.reproduce import folds_for
    from planar3d.study.run_folder import start_run

    chosen = chosen_recipe(recipe, settings, size=size, seed=seed, precision=precision)
    dataset = find_cases(data)
    all_folds = folds_for(dataset, folds)
    (number,) = choose_folds([fold], len(all_folds))  # before a run folder is written
    from planar3d.study.cross_validation import train_fold  # imports TensorFlow, like the following
    from planar3d.study.preparing import prepare_scans
    from planar3d.training.checkpoint import BEST_WEIGHTS
    from planar3d.training.devices import choose_devices

    choose_devices(devices, chosen)
    run = start_run(out, dataset, chosen, all_folds)
    prepare_scans(run, say, assume_affine)
    train_fold(run, number, say, devices)
    say(f"best weights: {run.fold(number) / BEST_WEIGHTS}")


def crossval(
    data: Data,
    out: Out,
    recipe: RecipeName = "paper",
    settings: Settings = None,
    size: Size = None,
    seed: Seed = None,
    precision: Precision = None,
    folds: Folds = None,
    only: Only = None,
    cluster: Cluster = None,
    devices: Devices = None,
    assume_affine: AssumeAffine = False,
    as_json: AsJson = False,
) -> None:
    """Train, predict and score the folds of a cross-validation, and write the report."""
    from planar3d.scans.layouts import find_cases
    from planar3d.study.reproduce import reproduce

    chosen = chosen_recipe(recipe, settings, size=size, seed=seed, precision=precision)
    notify = log(as_json)
    dataset = find_cases(data.absolute() if cluster else data)
    results = reproduce(
        dataset, out, chosen, folds, only, notify, assume_affine=assume_affine, cluster=cluster, devices=devices
    )
    _show(results, as_json)


def reproduce(
    system: Annotated[str, Option(help="Name of the system's recipe; an unknown name lists all.")] = "paper",
    demo: Annotated[bool, Option("--demo", help="Use the embedded phantom at reduced size.")] = False,
    data: Annotated[Path | None, Option(help="Folder of the system's data set, with masks.")] = None,
    out: RunOut = None,
    recipe: Annotated[str | None, Option(help="Recipe or JSON file to use instead of the system's.")] = None,
    settings: Settings = None,
    size: Size = None,
    seed: Seed = None,
    precision: Precision = None,
    folds: Folds = None,
    only: Only = None,
    devices: Devices = None,
    assume_affine: AssumeAffine = False,
    as_json: AsJson = False,
) -> None:
    """Reproduce a paper end to end: folds, masks on the native grid, the paper's tables and a report."""
    from planar3d.recipes.demonstrations import DEMONSTRATIONS
    from planar3d.scans.layouts import find_cases
    from planar3d.sections import check_choice
    from planar3d.study.reproduce import demonstrate, reproduce as reproduce_on

    check_choice("--system", system, DEMONSTRATIONS)
    if demo == (data is not None):
        raise BadParameter("give either --demo (the embedded phantom) or --data FOLDER (your scans).")
    shown, out, notify = DEMONSTRATIONS[system], out or Path("runs", system), log(as_json)
    named = recipe or (shown.recipe if demo else system)
    chosen = chosen_recipe(named, settings, size=size, seed=seed, precision=precision)
    if data is None:
        demonstration = replace(shown, recipe=chosen, folds=folds or shown.folds)
        results = demonstrate(out, demonstration, only, notify, devices)
    else:
        results = reproduce_on(
            find_cases(data), out, chosen, folds, only, notify, assume_affine=assume_affine, devices=devices
        )
    _show(results, as_json)


def report(
    out: Annotated[Path, Argument(help="A run folder, or an output folder of predict.")], as_json: AsJson = False
) -> None:
    """Write the report of a run folder, with the paper's tables, or the report of an output folder of predict."""
    from planar3d.study.cohort_folder import CohortFolder
    from planar3d.study.cohort_report import write_cohort_report
    from planar3d.study.report import write_report
    from planar3d.study.run_folder import is_run

    cohort, damaged = CohortFolder(out), dict[str, str]()
    if not is_run(out) and (cohort.notes.is_dir() or cohort.has_records(damaged) or damaged):
        with cohort.alone(log(as_json)):
            standing, records = cohort.read()
            page = write_cohort_report(out, records, standing.failed)
        list_failed(standing.failed, as_json)
        if as_json:
            print_json({"report": str(page), "scans": [record for _, record in records], "failed": standing.failed})
        else:
            say(f"Report: {page}")
        return
    _show(write_report(out, log(as_json)), as_json)


def tune(
    out: Annotated[Path, Argument(help="Run folder of a cross-validated recipe with nested regions.")],
    model: Annotated[Path | None, Option(help="Weights file to write the value into.")] = None,
) -> None:
    """Find, on a run's test scans, the size below which an innermost region is relabelled as the region around it."""
    from planar3d.study.run_folder import open_run
    from planar3d.study.tuning import FIELD, tune as tune_run, write_rule

    run = open_run(out)
    tuned = tune_run(run)
    say(str(tuned))
    if model:
        write_rule(model, tuned.smallest_mm3, run.recipe.targets)
        say(f"{model}: {FIELD}={tuned.smallest_mm3:g}")


def _show(results: "Results", as_json: bool) -> None:
    from planar3d.study.tables import print_tables

    if as_json:
        scores = [{**vars(scan), "values": scan.values} for scan in results.scans]
        print_json({"report": str(results.page), "scores": scores, "notes": results.notes})
        return
    print_tables(results)
    show(f"Report: {results.page}")
    for note in results.notes:
        show(note)
