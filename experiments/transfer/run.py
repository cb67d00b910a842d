"""Transfer learning against training from scratch: six arms, three folds of patients, three seeds, run by run.

    python experiments/transfer/run.py --data FOLDER --out RUNS [--arms a,b] [--seeds 0,1,2] [--minutes 120]

Results are added to results.csv and curves.csv beside this file as each run ends; finished runs are skipped. A run
interrupted by `--minutes` or otherwise resumes after its last epoch.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from outcomes import (
    ARMS,
    CURVE_COLUMNS,
    FOLDS,
    HERE,
    RESULT_COLUMNS,
    SEEDS,
    Planned,
    add_rows,
    in_order,
    runs_in,
)
from train import read_outcome

from planar3d.cli import main
from planar3d.commands.options import Data, Out, Settings, Size
from planar3d.errors import RunError
from planar3d.files import read_rows
from planar3d.scans.layouts import find_cases


def run(
    data: Data,
    out: Out,
    arms: Annotated[str, typer.Option("--arms", help="Arms, in this order.")] = ",".join(ARMS),
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds, in this order.")] = ",".join(map(str, SEEDS)),
    folds: Annotated[str, typer.Option("--folds", help="Folds, in this order.")] = ",".join(map(str, FOLDS)),
    size: Size = None,
    settings: Settings = None,
    results: Annotated[Path, typer.Option("--results", help="Folder of results.csv and curves.csv.")] = HERE,
    minutes: Annotated[float, typer.Option("--minutes", help="Minutes until the run stops; 0: no limit.")] = 0,
) -> None:
    """Do the runs missing in results.csv."""
    chosen = _listed(arms)
    unknown = [arm for arm in chosen if arm not in ARMS]
    if unknown:
        raise RunError(f"--arms {arms}: {unknown[0]!r} is unknown; choose from: {', '.join(ARMS)}.")
    planned = in_order(chosen, _numbers("--seeds", seeds), _numbers("--folds", folds))
    changed = [*([f"size={size}"] if size else []), *(settings or [])]
    find_cases(data)
    deadline = time.monotonic() + 60 * minutes if minutes else None
    # `timeout` or `kill` also end the run in progress.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    failed = run_all(planned, out, results, changed, partial(_train, data, out, changed), deadline)
    if failed:
        raise RunError(f"{len(failed)} of {len(planned)} runs failed: {', '.join(map(_named, failed))}; see above.")


def run_all(
    planned: Sequence[Planned],
    out: Path,
    results: Path,
    settings: Sequence[str],
    start: Callable[[Planned, float | None], bool],
    deadline: float | None = None,
) -> list[Planned]:
    """Start the runs missing in results.csv, and add the rows of each as it ends.

    Args:
        planned: runs, in order.
        out: folder of the runs' outcomes.
        results: folder of results.csv and curves.csv.
        settings: changes of all recipes; part of a run's name in the tables.
        start: does a run, with a limit in seconds unless None, and returns whether it ended before the limit.
        deadline: of `time.monotonic()`, at which the work stops; None for no limit.

    Returns:
        The runs that ended without an outcome.
    """
    failed = []
    for number, one in enumerate(planned, start=1):
        if one.key(" ".join(settings)) in runs_in(read_rows(results / "results.csv")):
            continue
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            break
        if read_outcome(out, one, settings) is None:
            typer.echo(f"\n{number}/{len(planned)}  {_named(one)}")
            if not start(one, left):
                typer.echo(f"{_named(one)} was stopped; it goes on the next time.")
                break
        outcome = read_outcome(out, one, settings)
        if outcome is None:
            failed.append(one)
            continue
        # The curves first: the results mark a run as done.
        add_rows(results / "curves.csv", CURVE_COLUMNS, outcome["curves"])
        add_rows(results / "results.csv", RESULT_COLUMNS, outcome["results"])
    return failed


def _train(data: Path, out: Path, settings: Sequence[str], planned: Planned, seconds: float | None) -> bool:
    """Do one run in its own process; False if the time was over before it ended."""
    command = [sys.executable, str(HERE / "train.py"), "--data", str(data), "--out", str(out)]
    command += ["--arm", planned.arm, "--seed", str(planned.seed), "--fold", str(planned.fold)]
    command += [part for setting in settings for part in ("--set", setting)]
    try:
        subprocess.run(command, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return False
    return True


def _named(planned: Planned) -> str:
    return f"{planned.arm}, seed {planned.seed}, fold {planned.fold}"


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(flag: str, text: str) -> list[int]:
    try:
        return [int(part) for part in _listed(text)]
    except ValueError:
        raise RunError(f"{flag} {text}: whole numbers are needed, e.g. {flag} 1,2.") from None


if __name__ == "__main__":
    main(run)
