"""Many processes in one folder, some of them killed: is every mask written once, and as a serial run writes it?

    python tests/robustness/many_processes.py --scans 40 --processes 20 --kills 5 --repetitions 3

Tiny heads are segmented by one process alone. Then --processes are started together, each with its --part (or all with
all scans, --whole), --kills of them are killed (SIGKILL) at random moments, and the same are started again. The masks
must be those of the serial run byte for byte, none written twice, and nothing left half-written.
"""

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from forks import Fork

SHAPE = (20, 28, 24)
sys.path.append(str(Path(__file__).parents[1]))  # for the tests' tiny model


def main() -> None:
    """Print what became of every repetition."""
    with tempfile.TemporaryDirectory() as name:
        wrong = 0
        for repetition, found in enumerate(segment_by_many(Path(name), **vars(_arguments()))):
            print(json.dumps({"repetition": repetition, **found}), flush=True)
            wrong += not (found["equal"] and found["once"]) or bool(found["left"])
    sys.exit(min(wrong, 1))


def segment_by_many(
    work: Path, scans: int, processes: int, kills: int, repetitions: int = 1, seed: int = 0, whole: bool = False
) -> Iterator[dict[str, Any]]:
    """Write the scans to a folder, segment them by one process, then by many with kills; what became of each time."""
    wait(Fork(partial(make, work, scans), work / "log"))
    model, began = work / "tiny.weights.h5", time.monotonic()
    wait(Fork(partial(segment, model, work / "serial"), work / "serial.log"))
    serial, moments = time.monotonic() - began, random.Random(seed)
    for _ in range(repetitions):
        yield repeat(model, processes, kills, whole, moments, serial)


def repeat(model: Path, count: int, kills: int, whole: bool, moments: random.Random, serial: float) -> dict[str, Any]:
    """Start many, kill some, start many again, and compare with the serial run."""
    work = model.parent
    out, began = work / "many", time.monotonic()
    shutil.rmtree(out, ignore_errors=True)
    killed = 0
    for to_kill in (kills, 0):
        parts = [None if whole else f"{number}/{count}" for number in range(1, count + 1)]
        moments.shuffle(parts)
        processes = [
            Fork(partial(segment, model, out, part), work / f"{number}-{to_kill}.log")
            for number, part in enumerate(parts)
        ]
        for process in moments.sample(processes, to_kill):
            time.sleep(moments.uniform(0, serial / 2))
            process.send_signal(signal.SIGKILL)
        codes = Counter(process.wait() for process in processes)
        killed += codes[-signal.SIGKILL]
        assert set(codes) <= {0, -signal.SIGKILL}, f"{codes}, see {work}"
    lines = [line for log in work.glob("*-*.log") for line in log.read_text().splitlines()]
    written = Counter(
        line.split(" → ")[1].split("  ")[0] for line in lines if " → " in line and " is there" not in line
    )
    for log in work.glob("*-*.log"):
        log.unlink()
    masks = sorted((work / "serial").glob("*_mask.nii.gz"))
    return {
        "killed": killed,
        "equal": all(mask.read_bytes() == (out / mask.name).read_bytes() for mask in masks),
        "once": max(written.values()) == 1,
        "left": sorted(str(path.relative_to(out)) for path in out.rglob(".*")),
        "seconds": round(time.monotonic() - began, 1),
    }


def make(work: Path, scans: int) -> None:
    """Write heads with a bright lesion, and a small network."""
    import nibabel as nib
    import numpy as np
    from msseg import write_model

    write_model(work)
    (work / "scans").mkdir()
    for number in range(scans):
        head = 100 * np.random.default_rng(number).random(SHAPE)
        head[6:12, 9:16, 8:13] += 60
        image = nib.Nifti1Image(head.astype(np.int16), np.diag([-1.1, -1.0, 1.2, 1.0]))
        nib.save(image, work / "scans" / f"{number:04d}_FLAIR.nii.gz")


def segment(model: Path, out: Path, part: str | None = None) -> None:
    """Segment the scans, or a part of them, as `planar3d predict` does."""
    import narrow_encoder  # noqa: F401

    from planar3d.study.cohort import segment_all
    from planar3d.study.cohort_folder import Part
    from planar3d.study.segmented import Asked

    takes = Part.parse(part).takes if part else None
    segment_all([out.with_name("scans")], model, out, asked=Asked(engine="keras"), takes=takes)


def wait(process: Fork) -> None:
    """Wait for a process that has to succeed."""
    assert process.wait() == 0, process.log.read_text()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=40)
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--whole", action="store_true", help="give every process all scans instead of a part")
    return parser.parse_args()


if __name__ == "__main__":
    main()
