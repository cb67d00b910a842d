"""Training steps on a CPU: plain Keras beside the trainer, in float32 and bf16, from windows and from cached features.

    python benchmarks/training.py [--size 256]
    python benchmarks/training.py --crops
    python benchmarks/training.py --agreement RUN

RUN is a run folder of `planar3d train` with prepared scans and cached features. Without RUN, weights and voxels are
random, because time does not depend on their values.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from side_by_side import Measurement, conditions, measure, record, table

from planar3d.cli import main
from planar3d.recipes import MODERN, PAPER, Recipe

BATCH = 2
SLICES = 32  # of the random scan: three windows of 16
PLANE = 256  # rows and columns of the random scan that crops are cut from
STEPS = 50
EVERY = 10


@dataclass(frozen=True)
class Contestant:
    """A way to train: the plain Keras network or its trainer, in a precision, from windows or from cached features."""

    kind: str
    precision: str
    cached: bool


CONTESTANTS = [
    Contestant(kind, precision, cached)
    for cached in (False, True)
    for precision in ("float32", "bf16")
    for kind in ("plain", "trainer")
]


def recipe_of(size: int, crops: bool) -> Recipe:
    """`paper` in windows of this size, or `modern` in augmented crops of it."""
    chosen = MODERN.changed(crop=size) if crops else PAPER.changed(size=size)
    return chosen.changed(encoder_weights="none", batch_size=BATCH)


def steps(contestant: Contestant, size: int, crops: bool, folder: str) -> Callable[[], float]:
    """Steps of batch 2; each returns the processor's seconds over all cores."""
    from planar3d.training.fit import compiled
    from planar3d.training.samples import read_ahead

    trained, samples, recipe = _setting(contestant, size, crops, Path(folder))
    trainer = compiled(trained, recipe)
    order = np.tile(np.arange(2 * BATCH if crops else len(samples.windows)), 1000)

    def batches() -> Iterator[tuple[Any, Any]]:
        for _, inputs, targets in read_ahead(samples, order, BATCH):
            yield inputs, targets

    reader = batches()

    def step() -> float:
        start = time.process_time()
        trainer.train_on_batch(*next(reader))
        return time.process_time() - start

    return step


def _setting(contestant: Contestant, size: int, crops: bool, folder: Path) -> tuple[Any, Any, Recipe]:
    from planar3d.training.crops import CropSamples
    from planar3d.training.features import FeatureSamples, compute_features, decoder_of, encoder_of
    from planar3d.training.initialization import initial_network
    from planar3d.training.samples import ScanSamples
    from planar3d.training.trainer import trainer_of

    rng, plane = np.random.default_rng(0), PLANE if crops else size
    voxels = rng.integers(0, 256, (SLICES, plane, plane, 1), np.uint8)
    masks = (rng.random(voxels.shape[:3]) < 0.003).astype(np.uint8)
    recipe = recipe_of(size, crops).changed(precision=contestant.precision)
    if contestant.cached:
        recipe = recipe.changed(cached_features=contestant.precision)
    trained = network = initial_network(recipe)
    samples: Any = (CropSamples if crops else ScanSamples)([voxels], [masks], recipe)
    if contestant.cached:
        features = compute_features(encoder_of(network, recipe), voxels, folder / contestant.precision, recipe)
        samples, trained = FeatureSamples([features], samples), decoder_of(network, recipe)
    return (trainer_of(trained) if contestant.kind == "trainer" else trained), samples, recipe


def rate(precision: str) -> Callable[[], float]:
    """GFLOP/s of a product of two matrices of 4096, the best of several."""
    from keras import ops

    n = 4096
    a = ops.cast(ops.ones((n, n)), {"float32": "float32", "bf16": "bfloat16"}[precision])

    def best() -> float:
        times = []
        for _ in range(8):
            start = time.perf_counter()
            float(ops.matmul(a, a)[0, 0])
            times.append(time.perf_counter() - start)
        return 2e-9 * n**3 / min(times)

    return best


def gflop(size: int, crops: bool) -> Callable[[], dict[bool, tuple[float, float]]]:
    """GFLOP of a step, without and with cached features: with all gradients that TensorFlow takes, and those needed."""

    def count() -> dict[bool, tuple[float, float]]:
        from planar3d.graph.described import layer_costs
        from planar3d.training.features import decoder_of
        from planar3d.training.initialization import initial_network
        from planar3d.training.trainer import trainer_of

        recipe = recipe_of(size, crops)
        network = initial_network(recipe)
        forward = {cost.name: cost.macs for cost in layer_costs(network)}
        trained = {layer.name: layer for layer in trainer_of(network).layers if hasattr(layer, "passed_on")}
        kernels = sum(forward[name] for name in trained)
        towards_all = sum(forward[name] for name, layer in trained.items() if layer.passed_on().any())
        towards_needed = sum(forward[name] * float(layer.passed_on().mean()) for name, layer in trained.items())
        of_decoder = set[str]() if crops else {layer.name for layer in decoder_of(network, recipe).layers}
        totals = {}
        for cached in (False, True):
            ahead = sum(macs for name, macs in forward.items() if not cached or name in of_decoder)
            each = 2e-9 * BATCH
            totals[cached] = each * (ahead + kernels + towards_all), each * (ahead + kernels + towards_needed)
        return totals

    return count


def losses(precision: str, run_folder: str) -> Callable[[], list[float]]:
    """Train on a run's features, and give the loss of some windows before the first step and after every tenth."""
    from planar3d.scans.preparation.prepared import load_prepared
    from planar3d.study.run_folder import open_run
    from planar3d.training.features import FeatureSamples, compute_features, decoder_of, encoder_of
    from planar3d.training.fit import compiled
    from planar3d.training.initialization import initial_network
    from planar3d.training.samples import ScanSamples, read_ahead
    from planar3d.training.trainer import trainer_of

    run = open_run(run_folder)
    scans = [scan for scan in (*run.folds[0].train, *run.folds[0].validation) if run.features(scan, 1).is_dir()]
    recipe = run.recipe.changed(encoder_weights="none", precision=precision)
    network = initial_network(recipe)
    opened = [load_prepared(run.prepared(scan)) for scan in scans]
    voxels, masks = [prepared.voxels for prepared, _ in opened], [mask for _, mask in opened if mask is not None]
    encoder = encoder_of(network, recipe)
    features = [compute_features(encoder, v, run.features(s, 1), recipe) for s, v in zip(scans, voxels, strict=True)]
    samples = FeatureSamples(features, ScanSamples(voxels, masks, recipe))
    trainer = compiled(trainer_of(decoder_of(network, recipe)), recipe)
    order = recipe.training.samples.order(np.arange(len(samples.windows)), 0, recipe.training.seed)
    # Windows with lesions, which the loss is about.
    held = np.array([n for n in order if samples.targets([n]).any()][: 4 * BATCH])
    order = np.resize(order[~np.isin(order, held)], BATCH * STEPS)

    def loss() -> float:
        values = [trainer.test_on_batch(x, y, return_dict=True)["loss"] for _, x, y in read_ahead(samples, held, BATCH)]
        return float(np.mean(values))

    def train() -> list[float]:
        found = [loss()]
        for step, (_, x, y) in enumerate(read_ahead(samples, order, BATCH), start=1):
            trainer.train_on_batch(x, y)
            if step % EVERY == 0:
                found.append(loss())
        return found

    return train


def run(
    size: Annotated[int, typer.Option(help="Rows and columns of a window.")] = 128,
    crops: Annotated[bool, typer.Option("--crops", help="Crops of `modern` instead of windows of `paper`.")] = False,
    calls: Annotated[int, typer.Option(help="Steps of each contestant; the first is reported separately.")] = 4,
    agreement: Annotated[Path | None, typer.Option(help="Compare losses of the two precisions on this run.")] = None,
) -> None:
    """Time the steps of every contestant, or compare the loss of bf16 with that of float32 after 50 steps."""
    if agreement is not None:
        record("Training in bf16 and float32", _agreement(agreement))
        return
    rates = {precision: measure(rate, precision, calls=2).value for precision in ("float32", "bf16")}
    work = measure(gflop, size, crops).value
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for contestant in (one for one in CONTESTANTS if not (crops and one.cached)):
            results[contestant] = measure(steps, contestant, size, crops, folder, calls=calls)
            print(f"{contestant}: {results[contestant].seconds:.2f} s", flush=True)
    record(f"Training, {'crops of ' * crops}{size}", _table(size, crops, results, rates, work))


def _table(
    size: int,
    crops: bool,
    results: dict[Contestant, Measurement],
    rates: dict[str, float],
    work: dict[bool, tuple[float, float]],
) -> str:
    rows = []
    for contestant, result in results.items():
        plain = results[Contestant("plain", "float32", contestant.cached)]
        same = results[Contestant("plain", contestant.precision, contestant.cached)]
        bound = work[contestant.cached][1] / rates[contestant.precision]
        rows.append(
            [
                f"{contestant.kind}, {contestant.precision}{', cached features' if contestant.cached else ''}",
                f"{result.first:.1f}",
                f"{result.seconds:.2f}",
                f"{result.value:.2f}",
                f"{plain.value / result.value:.2f}×",
                f"{same.value / result.value:.2f}×",
                f"{bound:.2f}",
                f"{result.peak_gib:.2f}",
            ]
        )
    headings = ["", "first s", "s per step", "processor s", "to plain float32", "to plain", "bound s", "peak GiB"]
    all_gradients, needed = work[False]
    cached = "" if crops else f", {work[True][1]:.0f} with cached features"
    network = "crops of `modern`, of whose encoder the first two blocks are frozen" if crops else "frozen encoder"
    return (
        f"A step of batch {BATCH} at 16×{size}×{size}, {network}, the paper's widths. Ratios are of processor "
        "seconds over all cores, which depend least on other programs.\n\n"
        f"{table(headings, rows)}\n\n"
        f"The work is {all_gradients:.0f} GFLOP with all gradients that TensorFlow computes, {needed:.0f} with only "
        f"the needed ones{cached}; the bound divides it by the rate of matrix products measured in this run, "
        f"{rates['float32']:.0f} GFLOP/s in float32 and {rates['bf16']:.0f} in bf16.\n\n"
        f"{conditions()}"
    )


def _agreement(run: Path) -> str:
    found = {precision: measure(losses, precision, str(run)).value for precision in ("float32", "bf16")}
    rows = [
        [str(number * EVERY), f"{wide:.5f}", f"{narrow:.5f}", f"{narrow / wide - 1:+.2%}"]
        for number, (wide, narrow) in enumerate(zip(found["float32"], found["bf16"], strict=True))
    ]
    return (
        f"Loss on eight windows with lesions after training steps of batch {BATCH} on other windows of real scans, "
        "from the same seed, both with the trainer and cached features.\n\n"
        f"{table(['steps', 'float32', 'bf16', 'difference'], rows)}\n\n"
        f"{conditions()}"
    )


if __name__ == "__main__":
    main(run)
