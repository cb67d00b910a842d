"""Many scans: a serial loop against a pipeline that prepares and writes scans while the network runs.

    python benchmarks/cohort.py --data FOLDER --model best.weights.h5

FOLDER holds data/ms_flair (default: PLANAR3D_TEST_DATA); its scans are copied until there are --count. The network is
trained: masks of random weights, with marks all over the head, take longer to tabulate than lesions.
"""

import itertools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from side_by_side import Measurement, conditions, measure, record, table

from planar3d.cli import main
from planar3d.errors import DatasetError

MODEL = "ms-flair-open"
FEW = 5  # scans, whose peak memory stands beside that of all
Ways = tuple[str, str, str | None]  # method, engine and precision of `predictor`


def one_after_the_other(folder: Path, model: str, ways: Ways) -> Callable[[], int]:
    """A plain loop: read, prepare, segment, restore, write, then the next."""
    from planar3d.inference.predictor import predictor
    from planar3d.inference.prepared_scan import native_mask, predict_prepared, prepare
    from planar3d.networks.weights_file import load_network
    from planar3d.scans.volume import read_scan

    def call() -> int:
        network, recipe = load_network(model)
        predict = predictor(network, recipe, *ways)
        for path in sorted(folder.glob("*.nii.gz")):
            prepared = prepare(read_scan(path), recipe)
            mask = native_mask(predict_prepared(predict, prepared, recipe), prepared, recipe)
            mask.save(folder / "loop" / path.name)
        return len(list((folder / "loop").iterdir()))

    return call


def pipeline(folder: Path, model: str, ways: Ways) -> Callable[[], int]:
    """The pipeline of `planar3d predict`, including lesion tables, quality checks and records."""
    from planar3d.study.cohort import segment_all
    from planar3d.study.segmented import Request

    def call() -> int:
        out = folder / "pipeline"
        return len(segment_all([folder], model, out, request=Request(*ways), notify=lambda line: None).records)

    return call


def run(
    data: Annotated[Path, typer.Option(envvar="PLANAR3D_TEST_DATA", help="Holds data/ms_flair.")],
    model: Annotated[str, typer.Option(help="Weights file of a trained network, or a published model.")] = MODEL,
    count: Annotated[int, typer.Option(help="Number of scans.")] = 20,
    method: str = "auto",
    engine: str = "auto",
    precision: str | None = None,
) -> None:
    """Measure both ways on a few scans and on all, and record them."""
    ways = (method, engine, precision)
    few = min(FEW, count)
    results: dict[tuple[str, int], Measurement] = {}
    with tempfile.TemporaryDirectory() as name:
        for some in sorted({few, count}):
            for contestant in (one_after_the_other, pipeline):
                folder = _copies(data / "data" / "ms_flair", Path(name) / f"{contestant.__name__}-{some}", some)
                results[contestant.__name__, some] = measure(contestant, folder, model, ways)
                assert results[contestant.__name__, some].value == some
    record(f"A cohort, {Path(model).name}", _report(results, few, count, ways))


def _report(results: dict[tuple[str, int], Measurement], few: int, count: int, ways: Ways) -> str:
    loop = results[one_after_the_other.__name__, count]
    rows = []
    for title, contestant in (("one after the other", one_after_the_other), ("planar3d predict", pipeline)):
        all_of_them = results[contestant.__name__, count]
        rows.append(
            [
                title,
                f"{all_of_them.first:.1f}",
                f"{3600 * count / all_of_them.first:.0f}",
                f"{loop.first / all_of_them.first:.2f}×",
                f"{results[contestant.__name__, few].peak_gib:.2f}",
                f"{all_of_them.peak_gib:.2f}",
            ]
        )
    headings = ["way", "seconds", "scans per hour", "ratio", f"peak GiB, {few} scans", f"peak GiB, {count} scans"]
    given = ", ".join(word for word in ways if word)
    return "\n\n".join(
        [
            f"{count} copies of real scans, file to file, including loading and tracing of the network ({given}). "
            "`planar3d predict` also tabulates lesions, checks quality and writes records.",
            table(headings, rows),
            conditions(),
        ]
    )


def _copies(source: Path, folder: Path, count: int) -> Path:
    folder.mkdir()
    if not (scans := sorted(source.glob("*/anat/*FLAIR.nii.gz"))):
        raise DatasetError(f"{source} has no FLAIR scans (sub-…/anat/…FLAIR.nii.gz); name another folder with --data.")
    for number, scan in zip(range(count), itertools.cycle(scans), strict=False):
        shutil.copyfile(scan, folder / f"{number:03d}_{scan.name}")
    return folder


if __name__ == "__main__":
    main(run)
