"""Room on a disk, and its refusals, as errors that name the file."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = 2**16  # bytes; with less free space, a failed write counts as a full disk


def require_room(path: str | Path, size: int) -> None:
    """Raise the error of a full disk or a used-up quota, naming `path`, if arrays of `size` bytes have no room there.

    Call it before HDF5 writes, which end in a segmentation fault at a full disk or a quota.
    """
    size += 2**20  # for all that a weights file has besides its arrays
    if number := _refusal(Path(path).parent, size):
        raise OSError(number, os.strerror(number), str(path))


def require_temporary_room(cause: Exception, size: int = FULL) -> None:
    """Raise the error of a full disk, naming the system's folder of temporary files, if less than `size` is free."""
    if shutil.disk_usage(place := tempfile.gettempdir()).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place) from cause


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name `path` in the error of a full disk, whatever the writer raised there, and in errors that name no file."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # NumPy and HDF5 do not say that the disk is full
        if shutil.disk_usage(path.parent).free < FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        part = re.fullmatch(r"\d+ requested and \d+ written", str(error))  # NumPy's error, which has no number
        if isinstance(error, OSError) and not error.filename and (error.errno or part):
            reason = os.strerror(error.errno) if error.errno else f"{error}, as when a quota is used up"
            raise OSError(error.errno or errno.EIO, reason, str(path)) from error  # HDF5's reason has several lines
        raise


@contextmanager
def temporary_place() -> Iterator[Path]:
    """Yield a folder of the system's temporary files; any error there is that of a full disk if it is full."""
    with tempfile.TemporaryDirectory(prefix="planar3d-") as place:
        try:
            yield Path(place)
        except Exception as error:
            require_temporary_room(error)
            raise


def _refusal(folder: Path, size: int) -> int | None:
    """The number of the error with which a folder refuses a file of this size; None if it takes it, or cannot tell."""
    if shutil.disk_usage(folder).free < size:
        return errno.ENOSPC
    with tempfile.TemporaryFile(dir=folder) as trial:
        try:
            getattr(os, "posix_fallocate", lambda *given: None)(trial.fileno(), 0, size)
        except OSError as error:
            return error.errno if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else None
    return None
