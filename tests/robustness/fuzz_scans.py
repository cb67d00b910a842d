"""Damaged scans through all that `planar3d predict` does with a scan, each watched for crashes, time and memory.

    python tests/robustness/fuzz_scans.py --files 20000 --seed 0 --out FOLDER

Every file must end in a mask on its own grid or in one of the package's own errors. What does not is kept in FOLDER,
named by its number, and the exit code is 1. Memory is that of the whole process, network and TensorFlow included.
A stopped run goes on when it is started again: what became of each file is a line of FOLDER/results.jsonl.
"""

import argparse
import collections
import json
import os
import queue
import resource
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from mutations import damaged_scan

SECONDS, MEMORY = 10.0, 2 * 2**30
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
READY = "ready\n"
LARGEST = 16 * 2**30  # bytes of address space, so that a file that asks for all memory does not get it
SIZE = 32  # voxels along each axis of the prepared grid


def main() -> None:
    """Run the workers, count what became of the files, and keep those that broke a promise."""
    arguments = _arguments()
    if arguments.worker is not None:
        work(arguments.worker, arguments.seed, arguments.workers, arguments.files)
        return
    began = time.monotonic()
    arguments.out.mkdir(parents=True, exist_ok=True)
    kept = arguments.out / "results.jsonl"
    results = [json.loads(line) for line in kept.read_text().splitlines()] if kept.is_file() else []
    with kept.open("a", buffering=1) as lines:

        def keep(result: dict) -> None:
            results.append(result)
            lines.write(json.dumps(result) + "\n")

        parts = range(arguments.workers)
        done = {p: [r["number"] for r in results if r["number"] % arguments.workers == p] for p in parts}
        first = [max(done[part], default=part - arguments.workers) + arguments.workers for part in parts]
        threads = [threading.Thread(target=_watch, args=(arguments, number, keep)) for number in first]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    broken = [result for result in results if result["broke"]]
    for result in sorted(broken, key=lambda result: result["number"]):
        name, content = damaged_scan(arguments.seed, result["number"])
        (arguments.out / f"{result['number']}-{name}").write_bytes(content)
        print(
            f"file {result['number']}: {result['broke']}: {result['outcome']}  {result['seconds']} s, "
            f"{result['bytes'] // 2**20} MiB"
        )
    summary = {
        "files": len(results),
        "seed": arguments.seed,
        "outcomes": dict(collections.Counter(result["outcome"] for result in results).most_common()),
        "broke": len(broken),
        "slowest_s": max(result["seconds"] for result in results),
        "largest_MiB": max(result["bytes"] for result in results) // 2**20,
        "seconds": round(time.monotonic() - began),
    }
    print(json.dumps(summary, indent=2))
    (arguments.out / "summary.json").write_text(json.dumps(summary, indent=2))
    sys.exit(1 if broken or len(results) < arguments.files else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def _watch(arguments: argparse.Namespace, number: int, keep: Callable[[dict], None]) -> None:
    """Have a worker process do every so manieth file; start another behind a file that ended the one before."""
    part, end = number % arguments.workers, arguments.files
    while number < end:
        command = [sys.executable, __file__, "--worker", str(number), "--seed", str(arguments.seed)]
        command += ["--files", str(end), "--workers", str(arguments.workers), "--out", str(arguments.out)]
        with (
            (arguments.out / f"worker-{part}.log").open("a") as log,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
        ):
            lines: queue.Queue[str] = queue.Queue()
            threading.Thread(target=_read, args=(process, lines), daemon=True).start()
            if lines.get() != READY:
                print(f"worker {part} did not start, see {log.name}")
                return
            while number < end:
                try:
                    line, how = lines.get(timeout=3 * SECONDS), "crash"
                except queue.Empty:
                    line, how = "", "hang"
                    process.kill()
                if not line:
                    outcome = f"worker ended with {process.wait()}"
                    keep({"number": number, "outcome": outcome, "broke": how, "seconds": 0.0, "bytes": 0})
                    number += arguments.workers
                    break
                keep(json.loads(line))
                number += arguments.workers


def _read(process: subprocess.Popen, lines: "queue.Queue[str]") -> None:
    for line in process.stdout or ():
        lines.put(line)
    lines.put("")


def work(first: int, seed: int, step: int, end: int) -> None:
    """Segment damaged scans in this process, and print what became of each."""
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", **dict.fromkeys(THREADS, "1")}
    # Overflow and the like in the package's own arithmetic would end in a mask of nonsense.
    warnings.filterwarnings("error", category=RuntimeWarning, module="planar3d")
    resource.setrlimit(resource.RLIMIT_AS, (LARGEST, LARGEST))
    segmentations = _segmentations()
    print(READY, end="", flush=True)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        for number in range(first, end, step):
            name, content = damaged_scan(seed, number)
            path = Path(folder, name)
            path.write_bytes(content)
            Path("/proc/self/clear_refs").write_text("5")  # the peak of memory begins anew
            began = time.monotonic()
            outcome, broke = _outcome(segmentations[number // step % len(segmentations)], path)
            seconds, peak = time.monotonic() - began, _peak()
            broke = broke or ("time" if seconds > SECONDS else "") or ("memory" if peak > MEMORY else "")
            path.unlink()
            result = {"number": number, "outcome": outcome, "broke": broke, "seconds": round(seconds, 3), "bytes": peak}
            print(json.dumps(result), flush=True)


def _segmentations() -> list:
    """A recipe of each kind of grid, and what predicts its scans: one convolution, as the network sees no header."""
    import keras

    from planar3d.inference.predictor import predictor
    from planar3d.recipes import MODERN, PAPER

    made = []
    for recipe in (PAPER.changed(size=SIZE), MODERN.changed(size=SIZE, precision="float32")):
        keras.utils.set_random_seed(0)
        layer = keras.layers.Conv3D(1, 3, padding="same", activation="sigmoid")
        network = keras.Sequential([keras.Input((recipe.depth, SIZE, SIZE, recipe.channels)), layer])
        made.append((recipe, predictor(network, recipe, method="windowed", engine="keras")))
    return made


def _outcome(segmentation: tuple, path: Path) -> tuple[str, str]:
    """The class of what became of a file, and what that breaks, if anything."""
    import nibabel as nib
    import numpy as np

    from planar3d.errors import Planar3DError
    from planar3d.inference.prepared_scan import native_mask, predict_prepared, prepare
    from planar3d.scans.volume import read_scan

    recipe, predict = segmentation
    saved = path.with_name("mask.nii.gz")
    try:
        scan = read_scan(path)
        prepared = prepare(scan, recipe)
        probabilities = predict_prepared(predict, prepared, recipe)
        if not np.isfinite(probabilities).all():
            return "NaN probabilities", "values"
        mask = native_mask(probabilities, prepared, recipe)
        mask.save(saved)
        again = nib.load(saved)
        if not (np.array_equal(again.dataobj, mask.voxels) and np.array_equal(again.affine, scan.affine)):
            return "another mask, or elsewhere, when read again", "values"
        return "mask", ""
    except Planar3DError as error:
        return f"{type(error).__name__}: {_kind(str(error).replace(str(path), ''))}", ""
    except BaseException as error:
        import traceback

        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} {error} at {Path(place.filename).name}:{place.lineno}"[:200], "exception"
    finally:
        saved.unlink(missing_ok=True)


def _kind(sentence: str) -> str:
    """The first words of a sentence that are the same for all files."""
    words = [word for word in sentence.split() if word.isalpha()]
    return " ".join(words[:4])


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
