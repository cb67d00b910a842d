"""Continue training `ms-flair-open` for other scanners, in several concurrent variants on one GPU.

    python experiments/open_model/packed.py --data DATA --imagenet vgg16_imagenet_conv.npz --out .dev
    KERAS_BACKEND=torch python experiments/open_model/train_gpu.py --data .dev --out OUT --minutes 9
    python experiments/open_model/train_gpu.py --assemble OUT --out all.weights.h5

The first line packs the data for another machine. The second takes the given time: it generates heads, trains all
variants until a sixth of the time is left, and scores them. OUT then has the weights of the variant `all` in three
files, `scores.csv` of every variant, scan and threshold, and `history.json`. The third line combines the three into a
weights file.

Version 2 was trained this way, from version 1. To repeat it, set `PUBLISHED = "ms-flair-open-1"` in `packed.py`.
"""

import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from heads import Times, work
from packed import PUBLISHED
from scoring import COLUMNS
from steps import KEPT, Settings, train
from variants import Variant

from planar3d.cli import main
from planar3d.errors import RunError
from planar3d.files import read_rows, write_csv, write_json
from planar3d.recipes import MODERN

VARIANTS = "all,version-1,without-open-ms,without-p39,without-home,fold-1,fold-2,fold-3"
_POOL, _SCORING = 0.1, 0.17  # shares of the time, before and after the training
_SHOWN = (32, 128)
_spawned = multiprocessing.get_context("spawn")


def run(
    out: Annotated[Path, typer.Option("--out", help="Folder of the results; a weights file with --assemble.")],
    data: Annotated[Path, typer.Option("--data", help="Folder that packed.py wrote.")] = Path(".dev"),
    minutes: Annotated[float, typer.Option("--minutes", help="Total time.")] = 9.0,
    variants: Annotated[str, typer.Option("--variants", help="Names of variants.")] = VARIANTS,
    synthetic: Annotated[float, typer.Option("--synthetic", help="Share of generated crops.")] = 0.4,
    batch: Annotated[int, typer.Option("--batch", help="Crops per step.")] = 4,
    crop: Annotated[int, typer.Option("--crop", help="Rows and columns of a crop.")] = 128,
    precision: Annotated[str, typer.Option("--precision", help="bf16 or float32.")] = "bf16",
    processes: Annotated[int, typer.Option("--processes", help="Processes that generate heads and score.")] = 14,
    generating: Annotated[int, typer.Option("--generating", help="Number that continue during training.")] = 5,
    workers: Annotated[int, typer.Option("--workers", help="Processes that cut crops, for each training.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Seed of crops and new layers.")] = 0,
    tuned: Annotated[bool, typer.Option("--tuned/--untuned", help="Search for the fastest convolutions.")] = True,
    assemble: Annotated[Path | None, typer.Option("--assemble", help="Results to assemble, without training.")] = None,
) -> None:
    """Run all steps, and print the result."""
    if assemble:
        typer.echo(f"{assembled(assemble, out)}")
        return
    if not (data / "shapes.npz").is_file():
        raise RunError(f"{data} has no shapes.npz; write the folder with packed.py first, and name it with --data.")
    begun, seconds = time.time(), 60 * minutes
    times = Times(begun + _POOL * seconds, begun + (1 - _SCORING) * seconds, begun + seconds)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder = Path(place)
        for name in ("history", "found", "scores", "tested"):
            (folder / name).mkdir()
        settings = Settings(data, folder, out, times, synthetic, batch, crop, precision, workers, seed, tuned)
        makers = [_begun(work, (n, processes, generating, data, folder, times)) for n in range(processes)]
        trainings = [_begun(train, (Variant.of(name), settings)) for name in variants.split(",")]
        try:
            while time.time() < times.end and not _is_over(trainings, folder):
                time.sleep(1)
                if int(time.time() - begun) % 10 == 0:
                    gather(folder, out)
            gather(folder, out)
        finally:  # also when interrupted
            for process in (*trainings, *makers):
                process.kill()
                process.join()
    typer.echo("\n".join(summary(out)))


def _begun(what: Callable[..., None], arguments: tuple[Any, ...]) -> Any:
    process = _spawned.Process(target=what, args=arguments)
    process.start()
    return process


def _is_over(trainings: Sequence[Any], folder: Path) -> bool:
    """Whether all has been trained and scored."""
    return not any(process.is_alive() for process in trainings) and not any((folder / "found").iterdir())


def gather(folder: Path, out: Path) -> None:
    """Write the results so far to two files."""
    rows = [row for path in sorted((folder / "scores").glob("[!.]*.csv")) for row in read_rows(path)]
    write_csv(out / "scores.csv", COLUMNS, rows)
    histories = sorted((folder / "history").glob("[!.]*.json"))
    made = len(list((folder / "generated").glob("*.npy")))
    write_json(
        out / "history.json", {"stacks": made, **{path.stem: json.loads(path.read_text()) for path in histories}}
    )


def summary(out: Path) -> list[str]:
    """Means over scans by variant, source, thickness of slabs and threshold, of which two are shown."""
    rows = [row for row in read_rows(out / "scores.csv") if int(row["threshold"]) in _SHOWN]
    keys = sorted({(row["variant"], row["source"], row["slice_mm"], int(row["threshold"])) for row in rows})
    lines = ["variant source slabs threshold: scans, Dice, lesion F1, lesions found of, false; false ml, most"]
    for key in keys:
        chosen = [
            row for row in rows if (*(row[n] for n in ("variant", "source", "slice_mm")), int(row["threshold"])) == key
        ]
        values = {name: np.array([float(row[name]) for row in chosen]) for name in COLUMNS[5:]}
        lines.append(
            f"{' '.join(map(str, key))}: {len(chosen)}, {np.nanmean(values['dice']):.3f}, "
            f"{np.nanmean(values['lesion_f1']):.3f}, {values['found'].sum():.0f} of {values['lesions'].sum():.0f}, "
            f"{(values['marked'] - values['confirmed']).sum():.0f}; "
            f"{np.median(values['false_ml']):.3f}, {values['false_ml'].max():.3f}"
        )
    return lines


def assembled(parts: Path, out: Path) -> Path:
    """Combine the three files into a weights file; blocks 1 and 2 of the encoder are version 1's and not trained."""
    from planar3d.networks.weights_file import load_network, save_weights
    from planar3d.transfer.transplant import transplant

    network, _ = load_network(PUBLISHED)
    for path in sorted(parts.glob(f"{KEPT}-*.npz")):
        with np.load(path) as file:
            transplant(network, {name: file[name].astype(np.float32) for name in file.files})
    return save_weights(network, out, MODERN)


if __name__ == "__main__":
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(run)
