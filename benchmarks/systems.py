"""A case of BraTS segmented by each system of volumes at its full size, and a step of training, on a CPU.

    python benchmarks/systems.py case --data BRATS [--only messaoudi2023-ds,messaoudi2023-dx] [--weights FOLDER]
    python benchmarks/systems.py step [--only messaoudi2023-ds,messaoudi2023-dx] [--precision float32,bf16]

Weights are random unless FOLDER holds `NAME.weights.h5`: the time depends little on what is found. Each is run in a
process of its own, once; beside other load times say little.
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from side_by_side import COMMAND, conditions, measure, record, table

from planar3d.recipes import RECIPES, Recipe

app = typer.Typer(add_completion=False)
OF_VOLUMES = (
    "wacker2019-3d,messaoudi2020,messaoudi2020-released,messaoudi2023-ds-released,messaoudi2023-ds,messaoudi2023-dx"
)
Only = Annotated[str, typer.Option("--only", help="Recipes, with commas.")]


def chosen(name: str, precision: str = "float32") -> Recipe:
    """A recipe whose encoder is random."""
    return RECIPES[name].changed(encoder_weights="none", precision=precision)


def written(name: str, folder: str) -> Callable[[], str]:
    """A weights file of random values."""
    from planar3d.networks.registry import recipe_network
    from planar3d.networks.weights_file import save_weights

    recipe = chosen(name)
    return lambda: str(save_weights(recipe_network(recipe), f"{folder}/{name}.weights.h5", recipe))


def prediction(weights: str, case: str) -> Callable[[], float]:
    """The network alone, from the prepared case to its probabilities."""
    from planar3d.inference.segmenter import Segmenter
    from planar3d.scans.case import read_images
    from planar3d.scans.datasets import find_cases

    segmenter = Segmenter(weights)
    images = find_cases(case).cases[0].images
    prepared = segmenter.prepare(read_images({name: images[name] for name in segmenter.images}))
    segmenter.load()
    return lambda: float(segmenter.predict(prepared).values.mean())


def whole(weights: str, case: str) -> tuple[float, float]:
    """Seconds of `planar3d predict`, its start and all its files included, and GiB of its peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        words = ["predict", case, "--model", weights, "--out", folder]
        subprocess.run([sys.executable, "-c", COMMAND, *words], check=True, stderr=subprocess.DEVNULL)
        return time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20


def step(name: str, precision: str) -> Callable[[], float]:
    """A step of training on a batch of one tile."""
    trained, inputs, targets = _compiled(name, precision)
    return lambda: float(trained.train_on_batch(inputs, targets)[0])


def tile(name: str, precision: str) -> Callable[[], float]:
    """The prediction of one tile."""
    trained, inputs, _ = _compiled(name, precision)
    return lambda: float(trained.predict_on_batch(inputs).mean())


def _compiled(name: str, precision: str) -> tuple:
    from planar3d.training.fit import build_network, compiled
    from planar3d.training.trainer import trainer_of

    recipe = chosen(name, precision)
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((1, *(length or 0 for length in recipe.window))).astype(np.float32)
    labels = rng.choice([0, 1, 2, 4], inputs.shape[1:4]).astype(np.uint8)
    return compiled(trainer_of(build_network(recipe)), recipe), inputs, recipe.targets.encode(labels)[None]


@app.command("case")
def case_of(
    data: Annotated[Path, typer.Option("--data", help="A folder of one case in a layout of BraTS.")],
    only: Only = OF_VOLUMES,
    weights: Annotated[Path | None, typer.Option("--weights", help="A folder of trained files.")] = None,
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
    record("A case of BraTS by each system", f"{table(headings, rows)}\n\n{conditions()}")


@app.command("step")
def steps(
    only: Only = "messaoudi2023-ds,messaoudi2023-dx",
    precisions: Annotated[str, typer.Option("--precision", help="With commas.")] = "float32",
) -> None:
    """Seconds of a training step and of a prediction of one tile; the first call, which compiles, is left out."""
    rows = []
    for name in only.split(","):
        for precision in precisions.split(","):
            found = [measure(kind, name, precision, calls=3) for kind in (tile, step)]
            figures = [text for one in found for text in (f"{one.seconds:.1f}", f"{one.peak_gib:.1f}")]
            rows.append([f"{name}, {precision}", *figures])
            typer.echo("  ".join(rows[-1]))
    headings = ["recipe", "prediction, s", "peak GiB", "training step, s", "peak GiB"]
    record("A tile of each system", f"{table(headings, rows)}\n\n{conditions()}")


if __name__ == "__main__":
    app()
