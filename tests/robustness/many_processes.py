"""Many processes in one folder, some of them killed: is every mask written once, and as a serial run writes it?

    python tests/robustness/many_processes.py --scans 40 --processes 20 --kills 5 --repetitions 3
    python tests/robustness/many_processes.py --scans 2000 --processes 8 --kills 3 --cluster

Tiny heads are segmented by one process alone. Then --processes are started together, each with its --part (or all with
all scans, --whole), --kills of them are killed (SIGKILL) at random moments, and the same are started again. With
--cluster they are the workers of a dask LocalCluster instead, which starts a worker in the place of each killed one.
The masks must be those of the serial run byte for byte, none written twice, all in the table, and nothing left
half-written. How often a mask is put in its place is what the Linux kernel reports (inotify).
"""

import argparse
import ctypes
import json
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from forks import Fork

SHAPE = (12, 14, 12)
PATIENCE = 7200  # seconds for a call: a busy machine may hold processes up
_MOVED_TO, _OVERFLOW = 0x80, 0x4000  # of inotify
sys.path.append(str(Path(__file__).parents[1]))  # for the tests' tiny model


def main() -> None:
    """Print what became of every repetition."""
    asked = vars(_arguments())
    with tempfile.TemporaryDirectory() as name:
        wrong = 0
        work = (asked.pop("work") or Path(name)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        for repetition, found in enumerate(segment_by_many(work, **asked)):
            print(json.dumps({"repetition": repetition, **found}), flush=True)
            wrong += not is_right(found)
    sys.exit(min(wrong, 1))


def is_right(found: dict[str, Any]) -> bool:
    """Whether a repetition wrote every mask once, as the serial run, and left nothing."""
    return found["equal"] and found["once"] and found["listed"] and not found["left"]


def segment_by_many(
    work: Path,
    scans: int,
    processes: int,
    kills: int,
    repetitions: int = 1,
    seed: int = 0,
    whole: bool = False,
    cluster: bool = False,
) -> Iterator[dict[str, Any]]:
    """Segment the scans of a folder by one process, then by many with kills; what became of each time.

    Scans that are not there are made, and masks of the serial run that are there are kept.
    """
    wait(Fork(partial(make, work, scans), work / "log"))
    model, moments = work / "tiny.weights.h5", random.Random(seed)
    wait(Fork(partial(segment, model, work / "serial"), work / "serial.log"))
    for _ in range(repetitions):
        shutil.rmtree(work / "many", ignore_errors=True)
        (work / "many").mkdir()
        began, many = time.monotonic(), on_cluster if cluster else partial(together, whole=whole)
        with closing(Renames(work / "many")) as written:
            killed = many(model, processes, sorted(moments.choices(range(scans), k=kills)), moments, written)
            found = compare(work, written.masks())
        yield {"killed": killed, **found, "seconds": round(time.monotonic() - began, 1)}


class Renames:
    """How often files were put in their places in a folder since this was made."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._events = libc.inotify_init1(os.O_NONBLOCK)
        watched = libc.inotify_add_watch(self._events, os.fsencode(folder), _MOVED_TO)
        assert watched >= 0, os.strerror(ctypes.get_errno())
        self._counts = Counter[str]()

    def masks(self) -> Counter[str]:
        """Of masks, by their names."""
        with suppress(BlockingIOError):
            while events := os.read(self._events, 2**16):
                while events:
                    _, kind, _, length = struct.unpack_from("iIII", events)
                    assert not kind & _OVERFLOW, "more events at once than the kernel keeps"
                    self._counts[events[16 : 16 + length].rstrip(b"\0").decode()] += 1
                    events = events[16 + length :]
        masks = (name for name in self._counts if name.endswith("_mask.nii.gz") and not name.startswith("."))
        return Counter({name: self._counts[name] for name in masks})

    def close(self) -> None:
        """End the watch, of which a user may have few."""
        os.close(self._events)


def together(
    model: Path, count: int, kills: list[int], moments: random.Random, written: Renames, whole: bool = False
) -> int:
    """Start many, kill one at each of these counts of masks, and start the same again; how many were killed."""
    work, killed = model.parent, 0
    for at in (kills, []):
        parts = [None if whole else f"{number}/{count}" for number in range(1, count + 1)]
        moments.shuffle(parts)
        processes = [
            Fork(partial(segment, model, work / "many", part), work / f"{number}.log")
            for number, part in enumerate(parts)
        ]
        for least in at:
            until(least, written, moments, processes)
            if living := [process for process in processes if process.exitcode is None]:
                moments.choice(living).send_signal(signal.SIGKILL)
        codes = Counter(process.wait(PATIENCE) for process in processes)
        killed += codes[-signal.SIGKILL]
        assert set(codes) <= {0, -signal.SIGKILL}, f"{codes}, see {work}"
    return killed


def on_cluster(model: Path, count: int, kills: list[int], moments: random.Random, written: Renames) -> int:
    """Give the scans to workers, and kill one at each of these counts of masks; how many were killed."""
    import dask
    from distributed import LocalCluster

    work, killed = model.parent, 0
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),  # that of the forks
        LocalCluster(
            n_workers=count, threads_per_worker=1, dashboard_address=None, preload=["narrow_encoder"]
        ) as cluster,
    ):
        assert len(cluster.workers) == count
        call = partial(segment, model, work / "many", cluster=cluster.scheduler_address)
        client = Fork(call, work / "client.log")
        for least in kills:
            until(least, written, moments, [client])
            living = [nanny.pid for nanny in cluster.workers.values() if nanny.pid]
            if client.exitcode is None:
                os.kill(moments.choice(living), signal.SIGKILL)
                killed += 1
        wait(client)
    return killed


def until(least: int, written: Renames, moments: random.Random, processes: list[Fork]) -> None:
    """Wait until so many masks are written, and some moments more, or until all processes have ended."""
    while written.masks().total() < least and any(process.exitcode is None for process in processes):
        time.sleep(0.005)
    time.sleep(moments.uniform(0, 0.2))


def compare(work: Path, written: Counter[str]) -> dict[str, Any]:
    """Compare what many wrote with the serial run."""
    from planar3d.files import read_rows

    out = work / "many"
    serial, many = (
        {mask.name: mask.read_bytes() for mask in folder.glob("*_mask.nii.gz")} for folder in (work / "serial", out)
    )
    return {
        "scans": len(serial),
        "equal": many == serial,
        "once": written == dict.fromkeys(serial, 1),
        "listed": sum(row["state"] == "done" for row in read_rows(out / "scans.csv")) == len(serial),
        "left": sorted(str(path.relative_to(out)) for path in out.rglob(".*")),
    }


def make(work: Path, scans: int) -> None:
    """Write heads with a bright lesion, and a small network."""
    import nibabel as nib
    import numpy as np
    from msseg import RECIPE

    from planar3d.networks.weights_file import save_weights
    from planar3d.training.initialization import initial_network

    if not (model := work / "tiny.weights.h5").exists():
        recipe = RECIPE.with_settings(["size=16"])
        save_weights(initial_network(recipe), model, recipe)
    (work / "scans").mkdir(exist_ok=True)
    for number in range(scans):
        if (path := work / "scans" / f"{number:04d}_FLAIR.nii.gz").exists():
            continue
        head = 100 * np.random.default_rng(number).random(SHAPE)
        head[4:8, 5:9, 4:7] += 60
        nib.save(nib.Nifti1Image(head.astype(np.int16), np.diag([-1.1, -1.0, 1.2, 1.0])), path)


def segment(model: Path, out: Path, part: str | None = None, cluster: str | None = None) -> None:
    """Segment the scans, or a part of them, as `planar3d predict` does."""
    import narrow_encoder  # noqa: F401

    from planar3d.study.cohort import segment_all
    from planar3d.study.cohort_folder import takes_part
    from planar3d.study.segmented import Request

    takes = takes_part(part) if part else None
    segment_all([out.with_name("scans")], model, out, request=Request(), takes=takes, cluster=cluster)


def wait(process: Fork) -> None:
    """Wait for a process that has to succeed."""
    assert process.wait(PATIENCE) == 0, process.log.read_text()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=40)
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--whole", action="store_true", help="give every process all scans instead of a part")
    parser.add_argument("--cluster", action="store_true", help="the processes are workers of a LocalCluster")
    parser.add_argument("--work", type=Path, help="a folder whose scans and serial run are kept for another call")
    return parser.parse_args()


if __name__ == "__main__":
    main()
