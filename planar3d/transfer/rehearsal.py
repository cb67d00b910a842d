"""Weights files read first in a process of their own, where one made to hang or to fill the memory does no harm.

The libraries that parse HDF5 and protobuf take a file at its word in places that no check before them can see.
"""

import contextlib
import math
import os
import subprocess
import sys
import time
from functools import cache
from importlib import import_module
from pathlib import Path

from planar3d.errors import WeightsError
from planar3d.transfer import known_files, published_models
from planar3d.transfer.array_files import read_directly
from planar3d.transfer.digests import file_sha256
from planar3d.transfer.metadata import read_description
from planar3d.transfer.torch_files import TORCH_FORMATS

# Seconds of computing, and bytes of memory, that a file may take: so much in any case, and so much a byte of it.
_SECONDS, _SECONDS_PER_BYTE = 5, 2e-7
_MEMORY, _MEMORY_PER_BYTE = 2**30, 8
# How much longer than its computing a file may take where the machine is busy or the disk is slow.
_PATIENCE = 8
_REFUSED = 3

State = tuple[int, int, int]


def rehearse(path: Path) -> State:
    """Read a weights file in another process, within bounds of time and memory; once for each file and its state.

    A file that the tables know by its digest is taken as it is.

    Returns:
        That state: where its content lies, its size and its last change.

    Raises:
        WeightsError: the sentence of the reader there; or it crashed, or took too long or too much memory.
    """
    found = path.stat()
    state = found.st_ino, found.st_size, found.st_mtime_ns
    _rehearse(path.absolute(), state)
    return state


@cache
def _rehearse(path: Path, state: State) -> None:
    if _is_published(digest_of(path, state)):
        return
    seconds = int(_SECONDS + _SECONDS_PER_BYTE * state[1])
    command = [sys.executable, "-P", "-m", __name__, os.fspath(path), str(seconds)]
    # Found where this process found it; one thread, because each further one reserves memory.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
    said = ""
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as trial:
        try:
            for _ in range(10 * _PATIENCE * seconds):  # of the time in which a job is suspended, one wait counts
                with contextlib.suppress(subprocess.TimeoutExpired):
                    said, _ = trial.communicate(timeout=0.1)
                    break
        finally:
            trial.kill()
    if trial.returncode == 0:
        return
    if trial.returncode == _REFUSED:
        raise WeightsError(said)
    raise WeightsError(
        f"{path} cannot be read as weights: reading it crashed, or took over {seconds} s or {_memory(state[1]):,} "
        f"bytes of memory (a trial in another process ended with code {trial.returncode}). It is damaged or malicious; "
        "get it again from its source."
    )


@cache
def digest_of(path: Path, state: State) -> str:
    """The SHA-256 of a file in a state that `rehearse` found, computed once."""
    return file_sha256(path)


def _is_published(sha256: str) -> bool:
    """Whether a digest is, in all its digits, that of a file that was read when it was entered in a table."""
    published = {f"sha256:{model.sha256}" for model in published_models.published_models().values()}
    known = {file.digest for file in known_files.known_files().values()}
    return f"sha256:{sha256}" in published | known


def _memory(nbytes: int) -> int:
    return _MEMORY + _MEMORY_PER_BYTE * nbytes


def _limit(seconds: int, memory: int) -> None:
    """Bound what this process takes from now on; what it was started with does not count."""
    seconds += math.ceil(time.process_time())
    with contextlib.suppress(OSError):
        memory += int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    # Where the system knows no such limits, the parent's patience is the only one.
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _read(path: Path, seconds: int) -> None:
    """What the other process does: read all that the package ever reads of the file, and say why if it cannot."""
    if path.suffix in TORCH_FORMATS:
        # Starting takes longer than any file, and is not the file's doing; where it fails, the reader says so.
        with contextlib.suppress(ImportError):
            import_module(TORCH_FORMATS[path.suffix].library)
    _limit(seconds, _memory(path.stat().st_size))
    try:
        read_directly(path)
        read_description(path)
    except WeightsError as error:
        sys.stdout.write(str(error))
        sys.exit(_REFUSED)


if __name__ == "__main__":
    _read(Path(sys.argv[1]), int(sys.argv[2]))
