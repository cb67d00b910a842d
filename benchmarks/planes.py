"""Planes cropped to the head against whole planes: Dice of the masks, seconds, and the size of the box.

    python benchmarks/planes.py --data FOLDER

FOLDER holds data/ (default: PLANAR3D_TEST_DATA); the published model segments each of its FLAIR scans in both ways, one
after the other.
"""

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from side_by_side import conditions, dice, record, table

from planar3d.cli import main
from planar3d.errors import DatasetError

MODEL = "ms-flair-open"
LEAST = 0.999  # Dice that a box may cost


def run(
    data: Annotated[Path, typer.Option(envvar="PLANAR3D_TEST_DATA", help="Holds data/.")],
    beside: Annotated[str, typer.Option(help="Other load on the machine, for the record.")] = "",
) -> None:
    """Segment every scan in both ways and record the differences."""
    folders = ("ms_flair/sub-*", "open_ms/*", "open_ms_more/*", "mslesseg/*")
    paths = [path for folder in folders for path in sorted((data / "data").glob(f"{folder}/**/*FLAIR.nii.gz"))]
    if not paths:
        raise DatasetError(
            f"{data} has no data/ms_flair, data/open_ms or data/mslesseg with FLAIR scans; name the folder above."
        )
    rows, least = _compared(paths)
    seconds = ["whole: s (processor s)", "head: s (processor s)", "×"]
    headings = ["scan", "slices", "planes, of 256 × 256", *seconds, "mask, voxels", "Dice"]
    text = (
        f"Native masks of {MODEL} with `planes=head` and `planes=whole`, in one process after loading the network; "
        f"compiling for new plane sizes is included. The lowest Dice is {least:.4f}."
    )
    record(f"Planes cropped to the head, {MODEL}", "\n\n".join([text, table(headings, rows), conditions(beside)]))
    if least < LEAST:
        raise SystemExit(f"The lowest Dice is {least:.4f}; {LEAST} is needed.")


def _compared(paths: list[Path]) -> tuple[list[list[str]], float]:
    from planar3d.inference.segmenter import Segmenter
    from planar3d.networks.weights_file import Model
    from planar3d.scans.volume import read_scan

    model = Model.open(MODEL)
    network = model.network()
    ways = [Segmenter((network, model.recipe.changed(planes=name))) for name in ("whole", "head")]
    rows, least = [], 1.0
    for path in paths:
        prepared = ways[0].prepare({ways[0].images[0]: read_scan(path)})
        voxels = prepared[0].voxels
        part = voxels[:, *ways[1].recipes[0].tiles.part(voxels)]
        (whole, before), (head, after) = (_segmented(segmenter, prepared) for segmenter in ways)
        agreed = dice(whole, head)
        least = min(least, agreed)
        name = path.name.removesuffix(".nii.gz").removesuffix("FLAIR").rstrip("_") or path.parent.name
        taken = [f"{seconds:.1f} ({processor:.1f})" for seconds, processor in (before, after)]
        ratio, shape = before[1] / after[1], " × ".join(map(str, part.shape[1:3]))
        rows.append(
            [name, str(len(voxels)), shape, *taken, f"{ratio:.2f}", str(np.count_nonzero(whole)), f"{agreed:.5f}"]
        )
        print(*rows[-1], sep=" | ", flush=True)
    return rows, least


def _segmented(segmenter: Any, prepared: Any) -> tuple[np.ndarray, tuple[float, float]]:
    """The native mask, and seconds and processor seconds of its prediction."""
    start, processor = time.perf_counter(), time.process_time()
    found = segmenter.predict(prepared)
    taken = time.perf_counter() - start, time.process_time() - processor
    return found.mask().voxels > 0, taken


if __name__ == "__main__":
    main(run)
