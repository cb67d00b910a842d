"""Many processes in one folder, some of them killed: is every mask written once, and as a serial run writes it?

    python tests/robustness/many_processes.py --scans 40 --processes 20 --kills 5 --repetitions 3

Tiny heads are segmented by one process alone. Then --processes are started together, each with its --part (or all with
all scans, --whole), --kills of them are killed (SIGKILL) at random moments, and the same are started again. The masks
must be those of the serial run byte for byte, none written twice, and nothing left half-written.

So that a start takes no seconds, this process loads TensorFlow, without running anything in it, and forks.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from forks import fork

SHAPE = (20, 28, 24)


def main() -> None:
    """Write the scans, run serially, run by many with kills, compare, and print the figures."""
    arguments = _arguments()
    import planar3d.study.cohort  # noqa: F401
    from planar3d.networks.weights_file import Model

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        wait(fork(lambda: make(work, arguments.scans), work / "log"))
        model = Model.open(work / "tiny.weights.h5")
        began = time.monotonic()
        wait(fork(lambda: segment(model, work / "serial"), work / "serial.log"))
        serial, random_moments = time.monotonic() - began, random.Random(arguments.seed)
        wrong = 0
        for repetition in range(arguments.repetitions):
            found = repeat(model, arguments, random_moments, serial)
            print(json.dumps({"repetition": repetition, **found}), flush=True)
            wrong += not (found["equal"] and found["once"]) or bool(found["left"])
    sys.exit(min(wrong, 1))


def repeat(model: Any, arguments: argparse.Namespace, moments: random.Random, serial: float) -> dict[str, object]:
    """Start many, kill some, start many again, and compare with the serial run."""
    work = model.path.parent
    out, count, began = work / "many", arguments.processes, time.monotonic()
    shutil.rmtree(out, ignore_errors=True)
    killed = 0
    for kills in (arguments.kills, 0):
        parts = [None if arguments.whole else f"{number}/{count}" for number in range(1, count + 1)]
        moments.shuffle(parts)
        processes = [
            fork(partial(segment, model, out, part), work / f"{number}-{kills}.log")
            for number, part in enumerate(parts)
        ]
        for pid in moments.sample(processes, kills):
            time.sleep(moments.uniform(0, serial / 2))
            os.kill(pid, signal.SIGKILL)
        codes = Counter(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in processes)
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

    from planar3d.networks.planar_resunet import PlanarResUNet
    from planar3d.networks.weights_file import save_weights
    from planar3d.recipes import PAPER

    settings = ("size=32", "decoder_filters=4,4,4,4", "bridge_filters=4", "encoder_weights=none", "threshold=128")
    network = PlanarResUNet((16, 32, 32, 3), encoder_weights=None, decoder_filters=(4, 4, 4, 4), bridge_filters=4)
    save_weights(network, work / "tiny.weights.h5", PAPER.with_settings(list(settings)))
    (work / "scans").mkdir()
    for number in range(scans):
        head = 100 * np.random.default_rng(number).random(SHAPE)
        head[6:12, 9:16, 8:13] += 60
        image = nib.Nifti1Image(head.astype(np.int16), np.diag([-1.1, -1.0, 1.2, 1.0]))
        nib.save(image, work / "scans" / f"{number:04d}_FLAIR.nii.gz")


def segment(model: Any, out: Path, part: str | None = None) -> None:
    """Segment the scans, or a part of them, as `planar3d predict` does."""
    from planar3d.study.cohort import segment_all
    from planar3d.study.cohort_folder import Part
    from planar3d.study.segmented import Asked

    takes = Part.parse(part).takes if part else None
    segment_all([out.with_name("scans")], model, out, asked=Asked(engine="keras"), takes=takes)


def wait(pid: int) -> None:
    """Wait for a fork that has to succeed."""
    _, status = os.waitpid(pid, 0)
    assert status == 0, "a process failed; it says why in its log"


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
