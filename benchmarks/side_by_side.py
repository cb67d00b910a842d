"""Contestants measured one after another in one run, each in a separate process, and a table with its conditions.

A contestant is a function that prepares its work and returns the function to time. It runs in a fresh process, so that
peak memory is its own and caches are as cold as for a user. The first call is reported separately.
"""

import datetime
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from planar3d.cli import run_in_sentences
from planar3d.environment import processor, versions

RESULTS = Path(__file__).with_name("RESULTS.md")
COMMAND = "import sys; from planar3d.cli import main; sys.exit(main())"  # `planar3d`, for `python -c`
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as the command line has it
_OTHERS = ("onnxruntime", "monai")  # packages that contestants compute with


@dataclass(frozen=True)
class Measurement:
    """A contestant's time and memory, and its result."""

    first: float  # seconds of the first call, tracing and compiling included
    seconds: float  # the median of the later calls; the first where there was one alone
    peak_gib: float  # the largest resident memory of the process, imports included
    value: Any  # what the last call returned


def measure(
    contestant: Callable[..., Callable[[], Any]], *args: Any, calls: int = 1, threads: int | None = None
) -> Measurement:
    """Set a contestant up in a fresh process and time its calls.

    Args:
        contestant: a function of a module, which returns the function to time.
        *args: for the contestant; they must pickle.
        calls: number of calls; the first is reported separately.
        threads: cores it may use; all if None.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_contest, args=(theirs, contestant, args, calls, threads))
    process.start()
    theirs.close()
    try:
        times, peak, value = ours.recv()
    except EOFError:
        process.join()
        raise SystemExit(f"{contestant.__name__} ended with exit code {process.exitcode}.") from None
    process.join()
    later = sorted(times[1:] or times)
    return Measurement(times[0], later[len(later) // 2], peak, value)


def ended(command: Sequence[str], **options: Any) -> tuple[float, float, float]:
    """Run a command to its end: its seconds, processor seconds and peak GiB; options are those of `Popen`."""
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=said, **options)
        _, status, used = os.wait4(process.pid, 0)  # its own peak; RUSAGE_CHILDREN has the largest of all so far
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{command} ended with exit code {process.returncode}:\n{said.read().decode()}")
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20


def conditions(extra: str = "") -> str:
    """The machine, the versions and the date, in a sentence."""
    found = ", ".join(f"{name} {version}" for name, version in versions(*_OTHERS).items())
    machine = f"{len(os.sched_getaffinity(0))} cores of {processor()} ({_arithmetic()}), {_memory_gib():.0f} GiB"
    return f"{datetime.date.today()}; {machine}; {found}{'; ' + extra if extra else ''}."


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all but the first column are aligned to the right."""
    rule = ["---"] + ["---:"] * (len(headings) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (headings, rule, *rows))


def record(title: str, text: str) -> None:
    """Print a result, and write it to RESULTS.md under its title, replacing the last one of the same processor."""
    title = f"{title}: {kind_of_processor()}"
    section = f"## {title}\n\n{text.strip()}\n"
    print(f"\n{section}")
    before = RESULTS.read_text(encoding="utf-8") if RESULTS.is_file() else "# Speed\n"
    sections = re.split(r"(?m)^(?=## )", before.rstrip() + "\n")
    kept = [part for part in sections if not part.startswith(f"## {title}\n")]
    place = next((i for i, part in enumerate(sections) if part.startswith(f"## {title}\n")), len(kept))
    kept.insert(place, section)
    RESULTS.write_text("\n\n".join(part.strip() for part in kept) + "\n", encoding="utf-8")


def kind_of_processor() -> str:
    """The processor's name and what it lacks: some of one name differ in instructions that decide a network's time."""
    return processor() + {"no AVX-512": " without AVX-512", "avx512f": " without bf16"}.get(_arithmetic(), "")


def _contest(
    pipe: Any, contestant: Callable[..., Callable[[], Any]], args: tuple, calls: int, threads: int | None
) -> None:
    if threads:
        # Before any library starts its threads: all of them count the cores that they may use.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    call = run_in_sentences(lambda: contestant(*args))
    times, value = [], None
    for _ in range(calls):
        value = None
        start = time.perf_counter()
        value = call()
        times.append(time.perf_counter() - start)
    pipe.send((times, _peak_gib(), value))
    pipe.close()
    # Some runtimes take seconds to unload, or end with an error in a thread of theirs; the result is out.
    sys.stdout.flush()
    os._exit(0)


def _peak_gib() -> float:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 2**20


def _arithmetic() -> str:
    """The processor's instructions that matter here."""
    flags = re.search(r"flags\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    known = (flags.group(1) if flags else "").split()
    return ", ".join(name for name in ("avx512f", "avx512_bf16", "amx_bf16") if name in known) or "no AVX-512"


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice of two masks; 1 where both are empty."""
    both = np.count_nonzero(a) + np.count_nonzero(b)
    return 2 * np.count_nonzero(a & b) / both if both else 1.0
