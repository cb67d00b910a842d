"""Growth of time and memory with the size of a scan and the number of threads, beside the counted work.

    python benchmarks/growth.py --keep FOLDER

Writes tables to RESULTS.md and a plot beside it, one for each processor. Time does not depend on values: weights and
voxels are random.
"""

import importlib.util
import json
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from side_by_side import conditions, kind_of_processor, measure, record, table

from planar3d.cli import main
from planar3d.recipes import PAPER
from planar3d.scans.windows import window_starts

PLOT = Path(__file__).with_name(f"growth-{re.sub('[^a-z0-9]+', '-', kind_of_processor().lower()).strip('-')}.png")
FEW = 4  # windows


@dataclass(frozen=True)
class Method:
    """A method of computing a scan."""

    arguments: tuple[str, str, str]  # method, engine and precision of `predictor`
    needs: tuple[str, ...]  # packages without which it is left out
    alike: bool  # each window is computed by itself and costs the same, so that a few of them tell of the scan
    color: str  # in the plot


METHODS = {
    "windowed, keras": Method(("windowed", "keras", "float32"), (), True, "#3b6fb6"),
    "shared, keras": Method(("shared", "keras", "float32"), (), False, "#1b9e77"),
    "shared, openvino": Method(("shared", "openvino", "float32"), ("openvino",), False, "#d95f02"),
    "shared, openvino, bf16": Method(("shared", "openvino", "bf16"), ("openvino",), False, "#7570b3"),
}


@dataclass(frozen=True)
class Point:
    """One measurement: seconds per scan, peak memory, and whether the seconds are scaled from fewer windows."""

    seconds: float
    peak_gib: float
    scaled: bool


def segment(size: int, slices: int, method: str, engine: str, precision: str) -> Callable[[], Any]:
    """Predict a scan of random voxels with random weights; a short scan before it is the warm-up."""
    from planar3d.inference.predictor import predictor
    from planar3d.networks.registry import recipe_network

    recipe = PAPER.changed(size=size)
    predict = predictor(recipe_network(recipe), recipe, method=method, engine=engine, precision=precision)
    voxels = np.random.default_rng(0).integers(0, 256, (slices, size, size, 1), np.uint8)
    predict(voxels[: recipe.depth + 2 * recipe.stride])
    # Only the time and the memory are asked for.
    return lambda: predict(voxels) is None


def run(
    sizes: Annotated[str, typer.Option(help="Voxels along each axis.")] = "64,128,256,384",
    threads: Annotated[str, typer.Option(help="Numbers of cores; numbers above the machine's are skipped.")] = "1,2",
    only: Annotated[str | None, typer.Option(help="Methods, separated by semicolons; default: all.")] = None,
    longest: Annotated[float, typer.Option(help="Most TFLOP per thread; longer scans are timed in part.")] = 40,
    most: Annotated[int, typer.Option(help="Largest size timed with fewer threads than the machine has.")] = 256,
    keep: Annotated[Path | None, typer.Option(help="Folder of measurements, which are not repeated.")] = None,
) -> None:
    """Measure every method at every size and number of threads, one after another."""
    chosen = [name.strip() for name in only.split(";")] if only else list(METHODS)
    if unknown := set(chosen) - set(METHODS):
        raise typer.BadParameter(f"{', '.join(unknown)}; there are: {'; '.join(METHODS)}")
    cores = len(os.sched_getaffinity(0))
    columns = [int(size) for size in sizes.split(",")]
    work = {size: _work(size) for size in columns}
    points: dict[tuple[str, int, int], Point] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for count in (int(count) for count in threads.split(",") if int(count) <= cores):
            for size in (size for size in columns if size <= most or count == cores):
                for name in chosen:
                    method = METHODS[name]
                    if all(importlib.util.find_spec(package) for package in method.needs):
                        share = min(longest * count / work[size].windowed, 1)
                        points[name, size, count] = _point(name, size, count, share, folder)
    record("Growth", _tables(points, work))
    _plot(points, work)


def _point(name: str, size: int, threads: int, share: float, folder: Path) -> Point:
    """Measure a share of a scan's windows, or read an earlier measurement."""
    method, recipe = METHODS[name], PAPER.changed(size=size)
    windows = len(window_starts(size, recipe.depth, recipe.stride))
    timed = min(FEW, windows) if method.alike else max(FEW, int(share * windows))
    kept = folder / f"{name}, {size}, {threads}, {timed} of {windows}.json"
    if not kept.is_file():
        slices = size if timed == windows else recipe.depth + (timed - 1) * recipe.stride
        result = measure(segment, size, slices, *method.arguments, threads=threads)
        print(f"{name}, {size}³, {threads} threads: {result.seconds:.1f} s for {timed} windows", flush=True)
        scale = windows / timed if method.alike else _share(method, size, timed, windows)
        point = {"seconds": result.seconds * scale, "peak_gib": result.peak_gib, "scaled": timed < windows}
        kept.write_text(json.dumps(point), encoding="utf-8")
    return Point(**json.loads(kept.read_text(encoding="utf-8")))


def _share(method: Method, size: int, timed: int, windows: int) -> float:
    """How much more a scan needs than a shorter one, where windows share: the first and the last cost more."""
    from planar3d.graph.described import described
    from planar3d.inference.plan import make_plan
    from planar3d.networks.registry import recipe_network

    recipe = PAPER.changed(size=size)
    plan = make_plan(described(recipe_network(recipe)), recipe.stride, exact=method.arguments[1] == "keras")
    return plan.macs(windows) / plan.macs(timed)


@dataclass(frozen=True)
class Work:
    """TFLOP of a scan: each window by itself, what windows share once, and with convolutions split for that."""

    windowed: float
    shared: float
    split: float


def _work(size: int) -> Work:
    """Count the work from the network's own layers."""
    from planar3d.graph.described import described, layer_costs
    from planar3d.inference.plan import make_plan
    from planar3d.networks.registry import recipe_network

    recipe = PAPER.changed(size=size)
    network = recipe_network(recipe)
    windows = len(window_starts(size, recipe.depth, recipe.stride))
    macs = windows * sum(cost.macs for cost in layer_costs(network))
    exact, apart = (make_plan(described(network), recipe.stride, exact).macs(windows) for exact in (True, False))
    return Work(2e-12 * macs, 2e-12 * exact, 2e-12 * apart)


def _tables(points: dict[tuple[str, int, int], Point], work: dict[int, Work]) -> str:
    parts = []
    for threads in sorted({count for _, _, count in points}):
        names = list(dict.fromkeys(name for name, _, count in points if count == threads))
        rows = [
            ["TFLOP per scan, windowed", *(f"{each.windowed:.3g}" for each in work.values())],
            ["TFLOP per scan, shared on Keras", *(f"{each.shared:.3g}" for each in work.values())],
            ["TFLOP per scan, shared on OpenVINO", *(f"{each.split:.3g}" for each in work.values())],
        ]
        for unit, cell in (("s", _seconds), ("GiB", lambda point: f"{point.peak_gib:.2f}")):
            cells = {(name, size): cell(points[name, size, threads]) for name, size, n in points if n == threads}
            rows += [[f"{name}: {unit}", *(cells.get((name, size), "–") for size in work)] for name in names]
        heading = f"{threads} thread{'s' if threads > 1 else ''}"
        parts.append(table([heading, *(f"{size}³" for size in work)], rows))
    return "\n\n".join(
        [
            *parts,
            "≈: timed on a shorter scan and scaled by the work; the memory is that of the shorter scan. "
            f"![Seconds per scan against its work]({PLOT.name})",
            conditions("random weights; float32 unless bf16 is stated"),
        ]
    )


def _seconds(point: Point) -> str:
    return f"{'≈ ' if point.scaled else ''}{point.seconds:.3g}"


def _plot(points: dict[tuple[str, int, int], Point], work: dict[int, Work]) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import StrMethodFormatter

    figure = Figure(figsize=(12, 4.6), layout="constrained")
    panels = figure.subplots(1, 2)
    most = max(count for _, _, count in points)
    across = [each.windowed for each in work.values()]
    for name, method in METHODS.items():
        for threads in sorted({count for found, _, count in points if found == name}):
            here = [size for size in work if (name, size, threads) in points]
            series = [points[name, size, threads] for size in here]
            amount = [work[size].windowed for size in here]
            style: dict[str, Any] = {"color": method.color, "linestyle": "-" if threads == most else "--"}
            style |= {"marker": "o" if threads == most else "s", "markersize": 4}
            label = f"{name}, {threads} thread{'s' if threads > 1 else ''}"
            panels[0].plot(amount, [point.seconds for point in series], label=label, **style)
            panels[1].plot(amount, [point.peak_gib for point in series], **style)
    for panel, unit in zip(panels, ("seconds per scan", "peak memory in GiB"), strict=True):
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.set_ylabel(unit)
        panel.set_xlabel("TFLOP per scan, windowed")
        panel.grid(which="major", color="#dddddd", linewidth=0.6)
        top = panel.secondary_xaxis("top")
        top.set_xticks(across, [f"{size}³" for size in work])
        top.minorticks_off()
        panel.spines["right"].set_visible(False)
    panels[0].set_yscale("log")
    panels[0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panels[1].set_ylim(bottom=0)
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    figure.savefig(PLOT, dpi=130)


if __name__ == "__main__":
    main(run)
