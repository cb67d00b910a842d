"""Native Dice of overlapping windows, composed as in the paper (eq. 1) or averaged, at several strides.

Every scan of a cross-validation is predicted by the network of the fold that tests it, with Keras in float32.

    python experiments/open_model/overlap.py RUN --out overlap.csv
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import keras
import numpy as np
import typer

from planar3d.cli import main
from planar3d.evaluation.lesions import ratio
from planar3d.files import read_rows, write_csv
from planar3d.inference.prepared_scan import native_mask, predict_prepared
from planar3d.networks.weights_file import load_network
from planar3d.recipes import Recipe
from planar3d.scans.preparation.prepared import load_prepared
from planar3d.scans.volume import read_mask, read_scan
from planar3d.scans.windows import compose, cut_windows, network_input
from planar3d.study.run_folder import open_run

STRIDES, THRESHOLDS = (8, 4, 2), (32, 77)
COLUMNS = ("scan", "fold", "stride", "composition", "threshold", "dice")
Compose = Callable[[np.ndarray, int, int], np.ndarray]


def run(
    folder: Annotated[Path, typer.Argument(help="Run folder of a cross-validation.")],
    out: Annotated[Path, typer.Option("--out", help="CSV of all scores.")],
) -> None:
    """Write the Dice of every scan, stride, composition and threshold, and print the means."""
    run, rows = open_run(folder), []
    for number, fold in enumerate(run.folds, start=1):
        network, recipe = load_network(run.fold(number) / "best.weights.h5", run.recipe)
        for scan in fold.test:
            prepared, _ = load_prepared(run.prepared(scan))
            case = run.cases[scan]
            lesion = read_mask(case.label_map, read_scan(case.images["flair"])).voxels > 0
            for stride in STRIDES:
                windows: dict[bytes, np.ndarray] = {}
                for name, composed in COMPOSITIONS.items():
                    predict = _Composing(network, recipe.changed(stride=stride), composed, windows)
                    probabilities = predict_prepared(predict, prepared, recipe)
                    about = {"scan": scan, "fold": number, "stride": stride, "composition": name}
                    for of_256 in THRESHOLDS:
                        mask = native_mask(probabilities, prepared, recipe.changed(threshold=of_256)).voxels > 0
                        dice = ratio(2 * int((mask & lesion).sum()), int(mask.sum()) + int(lesion.sum()))
                        rows.append({**about, "threshold": of_256, "dice": round(dice, 4)})
            write_csv(out, COLUMNS, rows)
    summarize(out)


def averaged(windows: np.ndarray, stride: int, slices: int) -> np.ndarray:
    """The mean of all windows that contain a slice."""
    depth = windows.shape[1]
    total = np.zeros(((len(windows) - 1) * stride + depth, *windows.shape[2:]), np.float32)
    count = np.zeros(len(total), np.float32)
    for number, window in enumerate(windows):
        place = slice(number * stride, number * stride + depth)
        total[place] += window
        count[place] += 1
    return (total / count[:, np.newaxis, np.newaxis])[:slices]


COMPOSITIONS: dict[str, Compose] = {"eq. 1": compose, "averaged": averaged}


class _Composing:
    """Predicts stacks with one composition; the network's outputs are cached in `known`."""

    description = "windows on Keras, float32"

    def __init__(self, network: keras.Model, recipe: Recipe, composed: Compose, known: dict[bytes, np.ndarray]) -> None:
        self.network, self.recipe, self.composed, self.known = network, recipe, composed, known

    def __call__(self, voxels: np.ndarray, progress: object = None) -> np.ndarray:
        key, stride = voxels.tobytes(), self.recipe.stride
        if key not in self.known:
            inputs = (
                network_input(window[np.newaxis], self.recipe.channels)
                for window in cut_windows(voxels, self.recipe.depth, stride)
            )
            given = [np.asarray(self.network.predict_on_batch(each))[..., 0] for each in inputs]
            self.known[key] = np.concatenate(given)
        return self.composed(self.known[key], stride, len(voxels))


def summarize(path: Path) -> None:
    """Print mean Dice by stride, composition and threshold, and the number of scans in which it exceeds the paper's."""
    rows = read_rows(path)
    dice = {tuple(row[name] for name in COLUMNS if name not in ("dice", "fold")): float(row["dice"]) for row in rows}
    scans = sorted({row["scan"] for row in rows})
    for stride in STRIDES:
        for name in COMPOSITIONS:
            for of_256 in THRESHOLDS:
                found = np.array([dice[scan, str(stride), name, str(of_256)] for scan in scans])
                before = np.array([dice[scan, "8", "eq. 1", str(of_256)] for scan in scans])
                mean = f"{found.mean():.4f}, above in {(found > before).sum()} of {len(scans)}"
                print(f"stride {stride}  {name:8s}  {of_256:3d}/256  {mean}")


if __name__ == "__main__":
    main(run)
