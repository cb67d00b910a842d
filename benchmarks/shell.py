"""One scan segmented from the shell in several ways, in turn, against the import of TensorFlow and Keras alone.

    python benchmarks/shell.py SCAN --before CHECKOUT

Each way is a command in a separate process, from a checkout: first the checkouts named by --before, oldest first, then
this one with whole planes, with the defaults, and in int8. Each mask is compared with the mask of the way above.
"""

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer
from side_by_side import COMMAND, conditions, dice, ended, record, table

from planar3d.cli import main
from planar3d.scans.volume import read_scan

MODEL = "ms-flair-open"
HERE = Path(__file__).parents[1]
IMPORT = "import of TensorFlow and Keras alone"
_IMPORT = "import tensorflow, keras"


@dataclass
class Way:
    """Arguments of `planar3d`, or none for the import; and for each run: seconds, processor seconds, peak GiB."""

    name: str
    checkout: Path
    arguments: list[str] = field(default_factory=list)
    runs: list[tuple[float, float, float]] = field(default_factory=list)

    def run(self, scan: Path, out: Path) -> None:
        """Run it once; the mask is written to `out`."""
        command = [sys.executable, "-c", _IMPORT]
        if self.arguments:
            given = [*self.arguments, str(scan), "--out", str(out / "masks"), "--overwrite"]
            command = [sys.executable, "-c", COMMAND, *given]
        environment = {**os.environ, "PYTHONPATH": str(self.checkout), "TF_CPP_MIN_LOG_LEVEL": "2"}
        self.runs.append(ended(command, cwd=out, env=environment))

    def took(self, part: int) -> float:
        """The median over its runs."""
        return median(run[part] for run in self.runs)


def run(
    scan: Path,
    before: Annotated[list[Path] | None, typer.Option(help="An older checkout; repeatable.")] = None,
    engine: str = "auto",
    rounds: int = 3,
    beside: Annotated[str, typer.Option(help="Other load on the machine, for the record.")] = "",
) -> None:
    """Run all ways in turn, and write the table to RESULTS.md."""
    predict = ["predict", "--model", MODEL, "--engine", engine]
    ways = [Way(IMPORT, HERE), *(Way(_commit(path), path.resolve(), predict) for path in before or [])]
    ways.append(Way(f"{_commit(HERE)}, `--set planes=whole`", HERE, [*predict, "--set", "planes=whole"]))
    ways.append(Way(f"{_commit(HERE)}, default", HERE, predict))
    ways.append(Way(f"{_commit(HERE)}, `--precision int8`", HERE, [*predict, "--precision", "int8"]))
    volume = read_scan(scan)
    with tempfile.TemporaryDirectory() as folder:
        outs = [Path(folder, str(number)) for number in range(len(ways))]
        for way, out in zip(ways, outs, strict=True):
            out.mkdir()
            # As an installation does; the environment may forbid Python to write compiled modules.
            subprocess.run([sys.executable, "-m", "compileall", "-q", str(way.checkout / "planar3d")], check=True)
        for number in range(rounds):
            for way, out in zip(ways, outs, strict=True):
                way.run(scan.resolve(), out)
                print(f"{number + 1}/{rounds}  {way.name}: {way.runs[-1]}", flush=True)
        masks = [_mask(out) for out in outs[1:]]
    voxels, sizes = "×".join(map(str, volume.voxels.shape)), " × ".join(f"{mm:.2g}" for mm in volume.spacing)
    text = (
        f"`planar3d predict SCAN --model {MODEL} --engine {engine}`, a scan of {voxels} voxels of {sizes} mm, "
        f"{rounds} rounds, medians. Masks are compared with those of the row above."
    )
    kind = "thick slices" if max(volume.spacing) > 3 else "thin slices"
    title = f"From the shell, {kind}, {engine}"
    record(title, "\n\n".join([text, _table(ways, masks), conditions(beside)]))


def _table(ways: list[Way], masks: list[np.ndarray]) -> str:
    alone = ways[0]
    rows = [[IMPORT, *_taken(alone), "", "1.0", f"{alone.took(2):.2f}", ""]]
    for number, (way, mask) in enumerate(zip(ways[1:], masks, strict=True)):
        before, other = (ways[number], masks[number - 1]) if number else (None, mask)
        ratio = f"{before.took(0) / way.took(0):.2f} ({before.took(1) / way.took(1):.2f})" if before else ""
        against = f"{way.took(0) / alone.took(0):.1f}"
        rows.append([way.name, *_taken(way), ratio, against, f"{way.took(2):.2f}", _compared(mask, other, number)])
    headings = ["way", "s", "processor s", "× (processor)", "of the import", "peak GiB", "mask"]
    return table(headings, rows)


def _taken(way: Way) -> list[str]:
    return [f"{way.took(part):.1f}" for part in (0, 1)]


def _compared(mask: np.ndarray, other: np.ndarray, number: int) -> str:
    if not number:
        return f"{np.count_nonzero(mask)} voxels"
    differing = np.count_nonzero(mask != other)
    return f"Dice {dice(mask, other):.5f}, {differing} voxels differ" if differing else "the same"


def _mask(out: Path) -> np.ndarray:
    (path,) = (path for path in out.rglob("*.nii.gz") if re.search("mask|seg", path.name))
    return read_scan(path).voxels > 0


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "log", "-1", "--format=%h"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or checkout.name


if __name__ == "__main__":
    main(run)
