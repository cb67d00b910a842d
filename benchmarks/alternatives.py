"""This package beside its alternatives: the same weights, the same scan, one run.

    python benchmarks/alternatives.py --data FOLDER --model best.weights.h5

Without --data the scan is a phantom; without --model the weights are random. Contestants with missing packages are
skipped.
"""

import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from contestants import CONTESTANTS, REFERENCE, read_about
from side_by_side import conditions, dice, measure, record, table

from planar3d.cli import main
from planar3d.errors import RunError
from planar3d.recipes import PAPER, Recipe
from planar3d.scans.targets import threshold
from planar3d.scans.windows import window_starts
from planar3d.sections import check_choice

THRESHOLDS = (16, 128)  # of 256


def run(
    data: Annotated[Path | None, typer.Option(help="Folder of scans with masks; default: a phantom.")] = None,
    scan: Annotated[str | None, typer.Option(help="Name of a scan; default: the first.")] = None,
    model: Annotated[Path | None, typer.Option(help="Trained weights; default: random weights.")] = None,
    size: Annotated[int, typer.Option(help="Voxels along each axis of the prepared scan.")] = 256,
    windows: Annotated[int | None, typer.Option(help="Middle windows to time; seconds are scaled.")] = None,
    only: Annotated[str | None, typer.Option(help="Contestants, separated by semicolons; default: all.")] = None,
    threads: Annotated[int | None, typer.Option(help="Cores to use; default: all.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Folder of measurements, which are not repeated.")] = None,
) -> None:
    """Measure the contestants one after another, and write the table to RESULTS.md."""
    chosen = [name.strip() for name in only.split(";")] if only else list(CONTESTANTS)
    if unknown := set(chosen) - set(CONTESTANTS):
        raise typer.BadParameter(f"{', '.join(unknown)}; there are: {'; '.join(CONTESTANTS)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "about.json").is_file():
            _set_up(folder, data, scan, model, size, windows)
        for name in chosen:
            contestant = CONTESTANTS[name]
            missing = [package for package in contestant.needs if importlib.util.find_spec(package) is None]
            if missing:
                print(f"{name}: skipped, {', '.join(missing)} is not installed.")
            elif not (folder / f"{name}.json").is_file():
                _measure(name, folder, threads)
        text = _results(folder, threads)
        if windows is None:
            record("Alternatives", text)
        else:
            print(f"\n{text}")  # a quick look, no result


def _set_up(
    folder: Path, data: Path | None, scan: str | None, model: Path | None, size: int, windows: int | None
) -> None:
    """Write the scan, its mask, and the weights as each contestant reads them."""
    from planar3d.networks.weights_file import load_network, read_recipe, save_weights

    recipe = ((model and read_recipe(model)) or PAPER).changed(size=size)
    voxels, mask, name = _prepared(folder, data, scan, recipe)
    of = len(window_starts(size, recipe.depth, recipe.stride))
    windows = min(windows or of, of)
    slices = recipe.depth + (windows - 1) * recipe.stride if windows < of else size
    middle = slice((size - slices) // 2, (size - slices) // 2 + slices)
    np.save(folder / "voxels.npy", voxels[middle])
    np.save(folder / "mask.npy", mask[middle])

    network = load_network(model, recipe)[0] if model else _random_network(recipe)
    save_weights(network, folder / "network.weights.h5", recipe)
    arrays = {f"{layer.name}/{weight.name}": weight.numpy() for layer in network.layers for weight in layer.weights}
    np.savez(folder / "arrays.npz", **arrays)
    weights = f"weights {model.name} ({recipe.name})" if model else "random weights"
    about = {"scan": f"{name}, {size}³, {weights}", "windows": windows, "of": of, "recipe": recipe.to_json()}
    (folder / "about.json").write_text(json.dumps(about), encoding="utf-8")


def _prepared(folder: Path, data: Path | None, scan: str | None, recipe: Recipe) -> tuple[np.ndarray, np.ndarray, str]:
    from planar3d.inference.prepared_scan import prepare
    from planar3d.scans.layouts import find_cases
    from planar3d.scans.phantom import write_phantom
    from planar3d.scans.volume import read_mask, read_scan

    if data is None:
        write_phantom(folder / "phantom", scans_per_center=1, reduction=2)
    cases = find_cases(data or folder / "phantom").by_id()
    check_choice("--scan", scan or next(iter(cases)), cases, RunError)
    case = cases[scan or next(iter(cases))]
    raw = read_scan(case.images["flair"])
    prepared = prepare(raw, recipe)
    name = f"scan {case.id}" if data else "a phantom"
    return prepared.voxels, prepared.align(read_mask(case.label_map, raw)), name


def _random_network(recipe: Recipe) -> Any:
    import keras

    from planar3d.networks.registry import recipe_network

    keras.utils.set_random_seed(0)
    return recipe_network(recipe)


def _measure(name: str, folder: Path, threads: int | None) -> None:
    contestant = CONTESTANTS[name]
    if contestant.before:
        contestant.before(folder)
    result = measure(contestant.run, folder, *contestant.arguments, calls=contestant.calls, threads=threads)
    print(f"{name}: {result.seconds:.1f} s (first {result.first:.1f} s), {result.peak_gib:.2f} GiB", flush=True)
    np.save(folder / f"{name}.npy", result.value)
    taken = {"first": result.first, "seconds": result.seconds, "peak_gib": result.peak_gib}
    (folder / f"{name}.json").write_text(json.dumps(taken), encoding="utf-8")


def _results(folder: Path, threads: int | None) -> str:
    _, about = read_about(folder)
    scale = about["of"] / about["windows"]
    names = [name for name in CONTESTANTS if (folder / f"{name}.json").is_file()]
    taken = {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in names}
    expert = np.load(folder / "mask.npy")
    reference = np.load(folder / f"{REFERENCE}.npy") if REFERENCE in names else None
    rows = []
    for name in names:
        found = np.load(folder / f"{name}.npy")
        ratio = f"{taken[REFERENCE]['seconds'] / taken[name]['seconds']:.2f}" if reference is not None else ""
        rows.append(
            [
                name,
                f"{scale * taken[name]['seconds']:.1f}",
                ratio,
                f"{taken[name]['peak_gib']:.2f}",
                *_differences(found, reference),
                f"{dice(threshold(found, THRESHOLDS[0]), expert):.4f}",
            ]
        )
    headings = ["", "s per scan", "speed-up", "peak GiB", "largest difference"]
    headings += [f"mask voxels that differ, threshold {t}" for t in THRESHOLDS] + ["Dice to the expert"]
    some = f" Only {about['windows']} of {about['of']} windows were timed; seconds are scaled." if scale > 1 else ""
    notes = (
        f"One scan: {about['scan']}, {about['of']} windows.{some} Differences are relative to '{REFERENCE}': of the "
        "composed probabilities, and voxels in only one mask, as a share of the reference's mask. MONAI averages "
        "overlapping windows where equation 1 keeps the center of each, so it differs by method."
    )
    limit = f"{threads} threads" if threads else ""
    return f"{table(headings, rows)}\n\n{notes}\n\n{conditions(limit)}"


def _differences(found: np.ndarray, reference: np.ndarray | None) -> list[str]:
    if reference is None:
        return [""] * (1 + len(THRESHOLDS))
    shares = []
    for limit in THRESHOLDS:
        mask, other = threshold(reference, limit), threshold(found, limit)
        voxels = np.count_nonzero(mask)
        shares.append(f"{np.count_nonzero(mask != other) / voxels:.2%}" if voxels else "no mask")
    return [f"{np.abs(found - reference).max():.1e}", *shares]


if __name__ == "__main__":
    main(run)
