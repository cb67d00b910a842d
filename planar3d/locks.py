"""One process at a time in a folder, by a lock that no killed process can leave behind."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from planar3d.errors import RunError
from planar3d.files import remove_temporaries

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(folder: str | Path, doing: str, wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a folder for this process alone, and remove what a killed process left half-written directly in it.

    The lock lies on the open folder itself: it leaves no file, and the system releases it however a process ends.
    Where the system has no such locks (Windows, some network drives) the block runs without one. A process that
    holds a folder may not lock it again.

    Args:
        folder: made if it is not there.
        doing: what is about to be done there, as in "training fold 1".
        wait: said once that the folder is in use, and then it is waited for; if None, a folder in use is an error.

    Raises:
        RunError: another process holds the folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    handle = _opened(folder)
    try:
        if not _acquired(handle):
            if wait is None:
                raise RunError(
                    f"{folder} is in use{_holder(handle)}; {doing} there has to wait. Start it again when that process "
                    "has ended, or use another --out."
                )
            wait(f"{doing} waits for {folder}, which is in use{_holder(handle)}")
            _acquired(handle, waiting=True)
        remove_temporaries(folder)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _opened(folder: Path) -> int | None:
    """A handle of a folder, or None where folders cannot be opened to be locked."""
    return None if fcntl is None else os.open(folder, os.O_RDONLY)


def _acquired(handle: int | None, waiting: bool = False) -> bool:
    """Try to lock a handle, or wait until it can be; where locks are not to be had, that counts as locked."""
    if handle is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if waiting else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a network drive that locks no folders
        return True
    return True


def _holder(handle: int | None) -> str:
    """Which process holds the lock, as the end of a clause; Linux lists it, other systems do not say."""
    table = Path("/proc/locks")
    if handle is None or not table.is_file():
        return " by another process"
    inode = os.fstat(handle).st_ino
    for line in table.read_text().splitlines():
        # "1: FLOCK  ADVISORY  WRITE 4711 08:01:131073 0 EOF"
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5].rsplit(":", 1)[-1] == str(inode) and int(fields[4]) > 0:
            return f" by process {fields[4]}"
    return " by another process"
