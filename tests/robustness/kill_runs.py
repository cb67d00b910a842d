"""kill -9 at random moments of prepare, train, crossval and predict; each rerun must end as an uninterrupted run did.

    python tests/robustness/kill_runs.py --kills 200 --seed 0 --out FOLDER

Every command runs to its end once, which gives its files and its duration. Then it is started in an empty folder,
killed after a part of that duration that is uniformly random, and started again until it ends; some are killed twice.
All files must be those of the whole run, as `run_contents` compares them, and none may be left half-written.
A stopped run of this script goes on when it is started again: what became of each kill is a line of
FOLDER/results.jsonl. LOGICAL_DEVICES=2 in the environment has folds trained on two logical devices of the processor.

Runs are forks of a process that has TensorFlow loaded; --real N has the first N of the table start in a new
interpreter, to show that it makes no difference.
"""

import argparse
import collections
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from forks import Fork, run_command
from run_contents import contents, temporaries

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.append(str(ROOT / "tests"))  # for the narrow encoder and logical devices
TINY = (
    *("size=16", "decoder_filters=4,4", "bridge_filters=4", "encoder_weights=none", "epochs=3"),
    "encoder=narrow-vgg16",
    *("learning_rate=1e-3", "threshold=128", "shuffle=every epoch", "cached_features=float32"),
)
SETTINGS = [word for setting in TINY for word in ("--set", setting)]
DEVICES = os.environ.get("LOGICAL_DEVICES", "1")
SEVERAL = ["--devices", "all", "--set", f"batch_size={DEVICES}"] if DEVICES != "1" else []
MODULES = "sys, logical_devices, narrow_encoder, quick_runs"
PROGRAM = f"import {MODULES}; from planar3d import cli; cli.main(getattr(cli, sys.argv.pop(1)))"
MODEL = "model.weights.h5"  # that of the whole run of crossval, for predict


def main() -> None:
    """Kill, compare, and print the figures."""
    arguments = _arguments()
    summary = kill_runs(arguments.out.absolute(), arguments.kills, arguments.seed, arguments.real)
    print(json.dumps(summary, indent=2))
    sys.exit(0 if summary["all"]["equal"] == arguments.kills else 1)


def kill_runs(
    work: Path, kills: int, seed: int, real: int = 0, without: tuple[str, ...] = ()
) -> dict[str, collections.Counter]:
    """Make the data and the whole runs in a folder, kill, compare, and count what became of the kills by command."""
    commands = {name: words for name, words in _prepare_work(work).items() if name not in without}
    # Crossval comes before predict, which needs its weights.
    whole = {name: _whole_run(name, command, work) for name, command in commands.items()}
    print("seconds of whole runs:", {name: round(seconds, 1) for name, (_, seconds) in whole.items()}, flush=True)
    kept = work / "results.jsonl"
    results = [json.loads(line) for line in kept.read_text().splitlines()] if kept.is_file() else []
    with kept.open("a", buffering=1) as lines:
        for number in range(len(results), kills):
            name = list(commands)[number % len(commands)]
            files, seconds = whole[name]
            start = start_interpreter if number < real else start_fork
            outcome = kill_and_rerun(name, commands[name], work, files, seconds, [seed, number], start)
            results.append({"number": number, "command": name, **outcome})
            lines.write(json.dumps(results[-1]) + "\n")
            if not outcome["equal"]:
                break
    summary: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for result in results:
        for of in (result["command"], "all"):
            summary[of].update({name: result[name] for name in ("runs", "kills", "left_by_kills", "equal")})
    return summary


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", type=int, default=0, help="the first of all kills that start a new interpreter")
    parser.add_argument("--out", type=Path, required=True, help="where data and runs are kept")
    return parser.parse_args()


def _prepare_work(work: Path) -> dict[str, list[str]]:
    """Data, and the words of each command; what is there is kept."""
    from msseg import write_msseg

    data, out = work / "data", work / "run"
    if not (work / "made").is_file():
        shutil.rmtree(data, ignore_errors=True)
        write_msseg(data, shape=(12, 14, 12))
        (work / "made").touch()
    scans = [str(path) for path in sorted(data.rglob("3DFLAIR.nii.gz"))[:2]]
    return {
        "prepare": _training(data, out),
        "train": [*_training(data, out, "1"), *SEVERAL],
        "crossval": [*_training(data, out), "--only", "1", *SEVERAL],
        "predict": [*scans, "--model", str(work / MODEL), "--out", str(out), "--engine", "keras", "--overlay"],
    }


def _training(data: Path, out: Path, fold: str = "") -> list[str]:
    return ["--data", str(data), "--out", str(out), *SETTINGS, *(["--fold", fold] if fold else [])]


def start_fork(name: str, words: list[str], work: Path) -> Fork:
    """Start a command in a fork."""
    work.mkdir(parents=True, exist_ok=True)
    return run_command(name, words, work / "log", "quick_runs")


def start_interpreter(name: str, words: list[str], work: Path) -> subprocess.Popen:
    """Start a command in an interpreter of its own."""
    with (work / "log").open("a") as log:
        command = [sys.executable, "-c", PROGRAM, name, *words]
        paths = os.pathsep.join(map(str, [ROOT, ROOT / "tests", HERE, os.environ.get("PYTHONPATH", "")]))
        return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}, stdout=log, stderr=log)


def _whole_run(name: str, words: list[str], work: Path) -> tuple[dict[str, str], float]:
    """The files of an uninterrupted run, and how long it takes; measured once in a work folder."""
    kept = work / f"whole-{name}.json"
    if kept.is_file():
        return tuple(json.loads(kept.read_text()))
    _clear(work)
    began = time.monotonic()
    code = start_fork(name, words, work).wait()
    seconds = time.monotonic() - began
    if code:
        raise SystemExit(f"an uninterrupted {name} ended with {code}; see {work / 'log'}")
    files = contents(work / "run")
    if name == "crossval":
        shutil.copyfile(work / "run" / "fold-1" / "best.weights.h5", work / MODEL)
    kept.write_text(json.dumps([files, seconds]))
    return files, seconds


def kill_and_rerun(
    name: str, words: list[str], work: Path, files: dict[str, str], seconds: float, seed: list[int], start=start_fork
) -> dict[str, int]:
    """Kill a run at a random moment, one in four twice, run it to its end, and compare its files."""
    import numpy as np

    rng = np.random.default_rng(seed)
    _clear(work)
    killed = left = 0
    # A new interpreter loads for some seconds before it begins.
    loading = 0.0 if start is start_fork else 6.0
    for _ in range(2 if rng.random() < 0.25 else 1):
        process = start(name, words, work)
        time.sleep(loading + rng.uniform(0, seconds))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        left += len(temporaries(work / "run"))
    code = start(name, words, work).wait()
    found = contents(work / "run")
    wrong = sorted(path for path in found.keys() | files.keys() if found.get(path) != files.get(path))
    after = temporaries(work / "run")
    if code or wrong or after:
        print(f"{name} {seed}: exit {code}, different: {wrong[:9]}, left: {after[:9]}; see {work}", flush=True)
    return {"runs": 1, "kills": killed, "left_by_kills": left, "equal": int(not (code or wrong or after))}


def _clear(work: Path) -> None:
    shutil.rmtree(work / "run", ignore_errors=True)
    (work / "log").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
