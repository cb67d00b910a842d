"""Reading of weights files after a trial in a separate process, where files that hang or exhaust memory do no harm.

The parsers of HDF5 and protobuf trust a file in places that no prior check can reach.
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

import h5py

from planar3d.environment import versions
from planar3d.errors import WeightsError
from planar3d.transfer import known_files, published_models
from planar3d.transfer.array_files import Arrays, read_directly
from planar3d.transfer.digests import file_sha256
from planar3d.transfer.download import cached_result, keep_result
from planar3d.transfer.metadata import read_description
from planar3d.transfer.torch_files import LIBRARIES

# Limits of processor seconds and bytes of memory: a constant, and a factor per byte of the file.
_SECONDS, _SECONDS_PER_BYTE = 5, 2e-7
_MEMORY, _MEMORY_PER_BYTE = 2**30, 8
# Factor of wall time over processor time, for busy machines and slow disks.
_PATIENCE = 8
_REFUSED = 3
_PASSED = "readable"  # kind of the notes in the user's cache
# PYTHONPATH cannot name a folder with a colon, nor the empty one of a notebook, from which this package may come.
_START = "import sys; sys.path[:] = sys.argv[3:]; from planar3d.transfer.rehearsal import main; main()"
_SAID = "utf-8", "backslashreplace"  # a path need not be text

State = tuple[int, int, int]
_written: set[tuple[Path, State]] = set()


def read_arrays(path: str | os.PathLike[str]) -> Arrays:
    """Read the named arrays of a weights file in one of `FORMATS`, identified by its content, or of a published model.

    Returns:
        Arrays by `layer/weight`: `block1_conv1/kernel` (kh, kw, cin, cout), `block1_conv1/bias` (cout,), `bn/gamma`, ….
        Weights without a name in the file are numbered: `layer/0`, `layer/1`, ….

    Raises:
        WeightsError: the file is missing, damaged, of unknown format, or unsafe: pickled objects, links to other
            files, paths outside an archive, impossible sizes, or too much time or memory; or its values are not finite
            or do not match its model card.
    """
    path = published_models.find_model(path)
    rehearse(path)
    return read_directly(path)


def rehearse(path: Path) -> State:
    """Read a weights file in another process with limits of time and memory, once for each state of a file.

    Trusted are files with a digest in the tables, those that this process wrote, and those that passed before, by a
    note in the user's cache.

    Returns:
        The state: location of the content, size and last change.

    Raises:
        WeightsError: the message of the reader; or reading crashed, or took too long or too much memory.
    """
    state = _state_of(path)
    if (path.absolute(), state) not in _written:
        _rehearse(path.absolute(), state)
    return state


def trust(path: Path, content: Path) -> None:
    """Read a file that this process wrote without a rehearsal, until it changes; `content` may be renamed to `path`."""
    _written.add((path.absolute(), _state_of(content)))


def _state_of(path: Path) -> State:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


@cache
def _rehearse(path: Path, state: State) -> None:
    sha256 = digest_of(path, state)
    # A file in a table was read when it was entered, with its complete digest.
    published = {f"sha256:{model.sha256}" for model in published_models.published_models().values()}
    if f"sha256:{sha256}" in published | {file.digest for file in known_files.known_files().values()}:
        return
    # All that decides a trial's outcome: the content, by its digest, and what reads it, which the suffix selects.
    readers = {"hdf5": h5py.version.hdf5_version, **versions("onnx", "protobuf", "safetensors")}
    trial = {"weights": sha256, "suffix": path.suffix, **readers}
    if cached_result(_PASSED, trial) == trial:
        return
    _try(path, state[1])
    # The trial opened the file again, perhaps another one meanwhile.
    if _state_of(path) == state:
        keep_result(_PASSED, trial, trial)


def _try(path: Path, nbytes: int) -> None:
    seconds = int(_SECONDS + _SECONDS_PER_BYTE * nbytes)
    folders = [*filter(None, sys.path), os.fspath(Path(__file__).parents[2])]  # of the same package as in this process
    command = [sys.executable, "-P", "-c", _START, os.fspath(path), str(seconds), *folders]
    # One thread, because each thread reserves memory.
    environment = {**os.environ, "PYTHONIOENCODING": ":".join(_SAID), "OPENBLAS_NUM_THREADS": "1"}
    said, pipe = "", subprocess.PIPE
    with subprocess.Popen(
        command, env=environment, stdout=pipe, stderr=pipe, encoding=_SAID[0], errors=_SAID[1]
    ) as trial:
        try:
            for _ in range(10 * _PATIENCE * seconds):  # of the time in which a job is suspended, one wait counts
                with contextlib.suppress(subprocess.TimeoutExpired):
                    said, _ = trial.communicate(timeout=0.1)
                    break
        finally:
            trial.kill()
            trial.wait()  # which leaving the block does not do after an interrupt
    if trial.returncode == 0:
        return
    if trial.returncode == _REFUSED:
        raise WeightsError(said)
    raise WeightsError(
        f"{path} cannot be read as weights: reading it crashed, or took more than {seconds} s or {_memory(nbytes):,} "
        f"bytes of memory (a trial in another process ended with code {trial.returncode}). It is damaged or malicious; "
        "get it again from its source."
    )


@cache
def digest_of(path: Path, state: State) -> str:
    """The SHA-256 of a file in a state from `rehearse`, computed once."""
    return file_sha256(path)


def _memory(nbytes: int) -> int:
    return _MEMORY + _MEMORY_PER_BYTE * nbytes


def _limit(seconds: int, memory: int) -> None:
    """Limit the time and memory that this process takes from now on."""
    seconds += math.ceil(time.process_time())
    with contextlib.suppress(OSError):
        memory += int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    # On systems without such limits, only the parent's timeout applies.
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def main() -> None:
    """The other process: read everything that the package reads from a file in so many seconds, and report errors."""
    path, seconds = Path(sys.argv[1]), int(sys.argv[2])
    if path.suffix in LIBRARIES:
        # Starting takes longer than reading and does not depend on the file; if it fails, the reader reports it.
        with contextlib.suppress(ImportError):
            import_module(LIBRARIES[path.suffix])
    _limit(seconds, _memory(path.stat().st_size))
    try:
        read_directly(path)
        read_description(path)
    except WeightsError as error:
        sys.stdout.write(str(error))
        sys.exit(_REFUSED)
