"""The command line: one command a verb. Heavy imports wait until a command runs, so that --help is instant."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from planar3d.errors import Planar3DError
from planar3d.options import (
    AssumeAffine,
    Data,
    Folds,
    Model,
    Only,
    Out,
    Precision,
    RecipeName,
    Seed,
    Settings,
    Size,
    chosen_recipe,
    model_recipe,
)

app = typer.Typer(
    name="planar3d",
    help="Planar 3D transfer learning: ImageNet weights in 3D, lesions in raw FLAIR scans (Kolarik et al. 2020).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def weights(
    out: Out = Path("weights"),
    source: Annotated[str, typer.Option("--source", help="imagenet, or a file of 2D kernels.")] = "imagenet",
    format: Annotated[str, typer.Option("--format", help="keras: .weights.h5; h5: as the release.")] = "keras",
) -> None:
    """Map 2D VGG-16 weights into planar 3D kernels and write them, with a figure of a few kernels."""
    from planar3d.study.planar_weights import write_planar_weights

    for path in write_planar_weights(out, source, format, notify=_say):
        _say(f"wrote {path}")


@app.command()
def phantom(
    out: Out,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same phantom.")] = 0,
    reduction: Annotated[float, typer.Option("--reduction", help="Divides the grids of the real scans.")] = 1.0,
) -> None:
    """Write the embedded phantom: 15 whole heads of three centers in the challenge's layout."""
    from planar3d.scans.phantom import write_phantom

    ids = write_phantom(out, seed=seed, reduction=reduction, progress=_say)
    _say(f"{len(ids)} phantom scans in {out}; they are no patients.")


@app.command()
def prepare(
    data: Data,
    out: Out,
    recipe: RecipeName = "paper",
    settings: Settings = None,
    size: Size = None,
    folds: Folds = None,
    assume_affine: AssumeAffine = False,
) -> None:
    """Prepare all scans of a data set: sagittal view, resampled, 8 bit."""
    from planar3d.study.cross_validation import prepare_scans

    prepare_scans(_run(data, out, chosen_recipe(recipe, settings, size), folds), _say, assume_affine)


@app.command()
def train(
    data: Data,
    out: Out,
    fold: Annotated[int, typer.Option("--fold", help="The round to train, from 1.")] = 1,
    recipe: RecipeName = "paper",
    settings: Settings = None,
    size: Size = None,
    seed: Seed = None,
    precision: Precision = None,
    folds: Folds = None,
    assume_affine: AssumeAffine = False,
) -> None:
    """Train one round; a stopped one goes on where it was."""
    from planar3d.scans.folds import choose_rounds
    from planar3d.study.cross_validation import prepare_scans, train_fold

    run = _run(data, out, chosen_recipe(recipe, settings, size, seed, precision), folds)
    (number,) = choose_rounds([fold], len(run.folds))
    prepare_scans(run, _say, assume_affine)
    train_fold(run, number, _say)
    _say(f"best weights: {run.fold(number) / 'best.weights.h5'}")


@app.command()
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
    assume_affine: AssumeAffine = False,
) -> None:
    """Train, predict and score the rounds of a cross-validation, and write the report."""
    from planar3d.scans.datasets import find_cases
    from planar3d.study.reproduce import reproduce

    chosen = chosen_recipe(recipe, settings, size, seed, precision)
    _show(reproduce(find_cases(data), out, chosen, folds, only, _say, assume_affine=assume_affine))


def reproduce_msseg(
    demo: Annotated[bool, typer.Option("--demo", help="The embedded phantom at reduced size.")] = False,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of MSSEG 2016, or other scans with masks.")
    ] = None,
    out: Out = Path("runs/msseg"),
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="paper, released, modern, demo, or a JSON file.")
    ] = None,
    settings: Settings = None,
    size: Size = None,
    seed: Seed = None,
    precision: Precision = None,
    folds: Folds = None,
    only: Only = None,
    assume_affine: AssumeAffine = False,
) -> None:
    """Reproduce the paper end to end: folds, masks on the native grid, tables 2 and 3, report."""
    from planar3d.scans.datasets import find_cases
    from planar3d.study.reproduce import demonstrate, reproduce

    if demo == (data is not None):
        raise typer.BadParameter("give either --demo (the embedded phantom) or --data FOLDER (your scans).")
    chosen = chosen_recipe(recipe or ("demo" if demo else "paper"), settings, size, seed, precision)
    if data is None:
        _show(demonstrate(out, chosen, only, _say))
    else:
        _show(reproduce(find_cases(data), out, chosen, folds, only, _say, assume_affine=assume_affine))


@app.command()
def predict(
    inputs: Annotated[list[Path], typer.Argument(help="FLAIR scans (.nii, .nii.gz) or folders of them.")],
    model: Model,
    out: Out,
    recipe: Annotated[str | None, typer.Option("--recipe", help="Overrides the recipe in the weights file.")] = None,
    settings: Settings = None,
    size: Size = None,
    method: Annotated[str, typer.Option("--method", help="shared (faster), windowed (as the paper), auto.")] = "auto",
    engine: Annotated[str, typer.Option("--engine", help="keras, openvino, or auto: the fastest here.")] = "auto",
    precision: Annotated[
        str | None, typer.Option("--precision", help="float32 or bf16; if left out, bf16 where the masks agree.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Windows at once, of --method windowed.")] = 1,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Write a picture of the mask on the scan as well.")
    ] = False,
    assume_affine: AssumeAffine = False,
) -> None:
    """Segment the lesions of raw FLAIR scans; masks lie on the scans' own grids."""
    from planar3d.study.cohort import segment_all

    chosen = model_recipe(model, recipe, settings, size)
    failed = segment_all(
        inputs, model, out, chosen, batch_size, overlay, assume_affine, _say, method, engine, precision
    )
    if failed:
        raise typer.Exit(1)


@app.command()
def evaluate(
    prediction: Annotated[Path, typer.Argument(help="Predicted mask, on the grid of the reference.")],
    reference: Annotated[Path, typer.Argument(help="Expert mask.")],
) -> None:
    """Score a predicted mask against an expert's: voxels, lesions and surfaces."""
    from planar3d.evaluation.scores import score_scan
    from planar3d.scans.volume import read_mask

    expert = read_mask(reference)
    for name, value in score_scan(expert.voxels, read_mask(prediction, expert).voxels, expert.spacing).items():
        typer.echo(f"{name:24s} {value:.4g}")


@app.command()
def report(out: Annotated[Path, typer.Argument(help="Run folder.")]) -> None:
    """Write tables 2 and 3 and the HTML report of a run folder."""
    from planar3d.study.report import write_report
    from planar3d.study.reproduce import Reproduction
    from planar3d.study.run_folder import open_run

    run = open_run(out)
    _show(Reproduction(run, write_report(run.folder)))


@app.command()
def info(
    model: Annotated[
        str | None, typer.Option("--model", help="A weights file or published model, whose network is shown.")
    ] = None,
    network: Annotated[str | None, typer.Option("--network", help="resunet (if left out) or vgg16.")] = None,
    recipe: Annotated[str | None, typer.Option("--recipe", help="The file's own, or paper, if left out.")] = None,
    settings: Settings = None,
    size: Size = None,
    depth: Annotated[int | None, typer.Option("--depth", help="Slices of a window.")] = None,
) -> None:
    """Show a network layer by layer: shape, parameters, multiply-accumulates; and the work for a whole scan."""
    from planar3d.inference.plan import describe_work
    from planar3d.networks.model_card import read_card, summarize_card
    from planar3d.networks.summary import named_network, summarize
    from planar3d.networks.weights_file import load_network

    if model is not None and network is not None:
        raise typer.BadParameter("give either --model (a file, whose network is shown) or --network.")
    settings = (settings or []) + ([] if depth is None else [f"depth={depth}"])
    card: list[str] = []
    if model is not None:
        shown, chosen = load_network(model, model_recipe(model, recipe, settings, size))
        card = summarize_card(read_card(model))
    else:
        chosen = chosen_recipe(recipe or "paper", settings, size)
        shown = named_network(network or "resunet", chosen)
    for line in filter(None, [*card, *summarize(shown, chosen), describe_work(shown, chosen)]):
        typer.echo(line)


@app.command()
def export(
    model: Model,
    out: Out,
    formats: Annotated[
        str, typer.Option("--format", help="Of openvino, onnx, savedmodel, litert; several with commas.")
    ] = "openvino,onnx,savedmodel",
    recipe: Annotated[str | None, typer.Option("--recipe", help="Overrides the recipe in the weights file.")] = None,
    settings: Settings = None,
    size: Size = None,
    depth: Annotated[int | None, typer.Option("--depth", help="Slices of a window.")] = None,
) -> None:
    """Write a trained network for other runtimes, each file run again and compared with Keras."""
    from planar3d.inference.export import export_network
    from planar3d.networks.weights_file import load_network

    settings = (settings or []) + ([] if depth is None else [f"depth={depth}"])
    network, chosen = load_network(model, model_recipe(model, recipe, settings, size))
    export_network(network, out, [name.strip() for name in formats.split(",")], chosen, notify=lambda e: _say(str(e)))


def main(command: Callable[..., Any] | None = None) -> None:
    """Run the command line, or one command of it as a script; a user's problem is a sentence and exit code 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        if command is None:
            app()
        else:
            typer.run(command)
    except Planar3DError as error:
        _fail(str(error))
    except OSError as error:
        # A full disk or a folder that may not be written; anything else keeps its traceback.
        if error.strerror is None:
            raise
        _fail(f"{error.filename or 'A file'}: {error.strerror}. Nothing half-written was left behind.")


def _fail(sentence: str) -> None:
    typer.secho(f"Error: {sentence}", fg="red", err=True)
    sys.exit(2)


def _say(text: str) -> None:
    typer.echo(f"[{time.strftime('%H:%M:%S')}] {text}")


def _run(data: Path, out: Path, recipe: Any, folds: str | None) -> Any:
    from planar3d.scans.datasets import find_cases
    from planar3d.study.reproduce import folds_for
    from planar3d.study.run_folder import start_run

    dataset = find_cases(data)
    return start_run(out, dataset, recipe, folds_for(dataset, folds))


def _show(reproduction: Any) -> None:
    from planar3d.study.results import read_results
    from planar3d.study.tables import print_tables

    print_tables(reproduction.run.folder)
    typer.echo(f"Report: {reproduction.report}")
    for note in read_results(reproduction.run.folder).notes:
        typer.echo(note)
