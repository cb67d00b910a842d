"""A BraTS case segmented at full size by each system of volumes, and a training step, on a CPU.

    python benchmarks/systems.py case --data BRATS [--only messaoudi2023-ds,messaoudi2023-dx] [--weights FOLDER]
    python benchmarks/systems.py case --data BRATS --only wacker2019-2d --title "A case of BraTS slice by slice"
    python benchmarks/systems.py engines --data BRATS [--only messaoudi2023-ds,messaoudi2023-dx]
    python benchmarks/systems.py step [--only messaoudi2023-ds,messaoudi2023-dx] [--precision float32,bf16,bf16-xla]

Weights are random unless FOLDER holds `NAME.weights.h5`: the time depends little on the result. Each system runs once,
in a separate process; with other load on the machine, times say little. Without bf16 instructions the package computes
bf16 in float32; `bf16-xla` still computes in bf16, through XLA, which multiplies in float32 and rounds.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from side_by_side import COMMAND, conditions, ended, measure, record, table

from planar3d.cli import run_in_sentences
from planar3d.recipes import Recipe, find_recipe

app = typer.Typer(add_completion=False)
OF_VOLUMES = (
    "wacker2019-3d,messaoudi2020,messaoudi2020-released,messaoudi2023-ds-released,messaoudi2023-ds,messaoudi2023-dx"
)
Data = Annotated[Path, typer.Option("--data", help="Folder of one case in a BraTS layout.")]
Only = Annotated[str, typer.Option("--only", help="Recipes, separated by commas.")]


IMAGES = {"t1", "t1ce", "t2", "flair"}


def chosen(name: str, precision: str = "float32") -> Recipe:
    """A recipe whose encoder is random; of FLAIR if its image is none of BraTS."""
    recipe = find_recipe(name).changed(encoder_weights="none", precision=precision)
    return recipe if IMAGES.issuperset(recipe.preparation.images) else recipe.changed(images=("flair",))


def written(name: str, folder: str) -> Callable[[], str]:
    """A weights file of random values."""
    from planar3d.networks.registry import recipe_network
    from planar3d.networks.weights_file import save_weights

    recipe = chosen(name)
    return lambda: str(save_weights(recipe_network(recipe), f"{folder}/{name}.weights.h5", recipe))


def prediction(weights: str, case: str, engine: str = "auto") -> Callable[[], np.ndarray]:
    """The network alone, from the prepared case to the probabilities of every eighth voxel along each axis."""
    from planar3d.inference.segmenter import Segmenter
    from planar3d.scans.case import read_images
    from planar3d.scans.layouts import find_cases

    segmenter = Segmenter(weights, engine=engine, precision="float32")
    images = find_cases(case).cases[0].images
    prepared = segmenter.prepare(read_images({name: images[name] for name in segmenter.images}))
    segmenter.load()
    return lambda: np.ascontiguousarray(segmenter.predict(prepared).values[::8, ::8, ::8])


def whole(weights: str, case: str) -> tuple[float, float]:
    """Seconds of `planar3d predict`, its start and all its files included, and GiB of its peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["predict", case, "--model", weights, "--out", folder]
        seconds, _, peak = ended([sys.executable, "-c", COMMAND, *words])
        return seconds, peak


def step(name: str, precision: str) -> Callable[[], float]:
    """A step of training on a batch of one tile."""
    trained, inputs, targets = _compiled(name, precision)
    return lambda: float(trained.train_on_batch(inputs, targets)[0])


def tile(name: str, precision: str) -> Callable[[], float]:
    """The prediction of one tile."""
    trained, inputs, _ = _compiled(name, precision)
    return lambda: float(trained.predict_on_batch(inputs).mean())


def _compiled(name: str, precision: str) -> tuple:
    from planar3d.training.fit import compiled
    from planar3d.training.initialization import initial_network
    from planar3d.training.precision import in_precision
    from planar3d.training.trainer import trainer_of

    precision, _, compiler = precision.partition("-")
    recipe = chosen(name, precision)
    network = initial_network(recipe)
    if compiler:
        network = in_precision(network, precision)
    trained = compiled(trainer_of(network), recipe)
    trained.jit_compile = bool(compiler)
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((1, *(length or 0 for length in recipe.window))).astype(np.float32)
    labels = rng.choice([0, 1, 2, 4], inputs.shape[1:4]).astype(np.uint8)
    return trained, inputs, recipe.targets.encode(labels)[None]


@app.command("case")
def case_of(
    data: Data,
    only: Only = OF_VOLUMES,
    weights: Annotated[Path | None, typer.Option("--weights", help="Folder of trained weights files.")] = None,
    title: Annotated[str, typer.Option("--title", help="Title of the result.")] = "A case of BraTS by each system",
) -> None:
    """Seconds and memory of a whole case."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in only.split(","):
            trained = weights / f"{name}.weights.h5" if weights else None
            file = str(trained) if trained and trained.is_file() else measure(written, name, folder).value
            alone = measure(prediction, file, str(data))
            seconds, peak = whole(file, str(data))
            figures = (alone.seconds, seconds)
            rows.append([name, *(f"{s:.0f}" for s in figures), f"{alone.peak_gib:.1f}", f"{peak:.1f}"])
            typer.echo("  ".join(rows[-1]))
    headings = ["recipe", "network, s", "whole command, s", "network, peak GiB", "whole command, peak GiB"]
    record(title, f"{table(headings, rows)}\n\n{conditions()}")


@app.command("engines")
def engines_of(data: Data, only: Only = "wacker2019-3d,messaoudi2023-dx,messaoudi2023-ds") -> None:
    """Seconds and memory of each network on a whole case, by OpenVINO and by plain Keras in turn."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in only.split(","):
            file = measure(written, name, folder).value
            fast, plain = (measure(prediction, file, str(data), engine) for engine in ("openvino", "keras"))
            figures = [text for one in (fast, plain) for text in (f"{one.seconds:.0f}", f"{one.peak_gib:.1f}")]
            difference = np.abs(fast.value - plain.value).max()
            rows.append([name, *figures, f"{plain.seconds / fast.seconds:.2f}", f"{difference:.0e}"])
            typer.echo("  ".join(rows[-1]))
    headings = ["recipe", "OpenVINO, s", "peak GiB", "Keras, s", "peak GiB", "Keras / OpenVINO", "largest difference"]
    record("A case of BraTS by two engines", f"{table(headings, rows)}\n\n{conditions('float32')}")


@app.command("step")
def steps(
    only: Only = "messaoudi2023-ds,messaoudi2023-dx",
    precisions: Annotated[str, typer.Option("--precision", help="Precisions, separated by commas.")] = "float32",
    calls: Annotated[int, typer.Option("--calls", help="Calls; the first, which compiles, is not counted.")] = 3,
) -> None:
    """Seconds of a training step and of a prediction of one tile, the median of the calls after the first."""
    rows = []
    for name in only.split(","):
        for precision in precisions.split(","):
            found = [measure(kind, name, precision, calls=calls) for kind in (tile, step)]
            figures = [text for one in found for text in (f"{one.seconds:.1f}", f"{one.peak_gib:.1f}")]
            rows.append([f"{name}, {precision}", *figures])
            typer.echo("  ".join(rows[-1]))
    headings = ["recipe", "prediction, s", "peak GiB", "training step, s", "peak GiB"]
    record("A tile of each system", f"{table(headings, rows)}\n\n{conditions()}")


if __name__ == "__main__":
    run_in_sentences(app)
