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


def require_room(path: str | Path, size: int, cause: Exception | None = None) -> None:
    """Raise the error of a full disk, naming `path`, if less than `size` bytes are free in its folder.

    A `cause` that names no file, as when a quota is used up, is raised again with `path`. Call it without a cause
    before HDF5 writes, which end in a segmentation fault at a full disk or a quota: `size` is then that of the arrays.
    """
    size += 0 if cause else 2**20  # for all that a weights file has besides its arrays
    if shutil.disk_usage(Path(path).parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from cause
    cause = cause or _refusal(Path(path).parent, size)
    part = re.fullmatch(r"\d+ requested and \d+ written", str(cause))  # NumPy's error, which has no number
    if isinstance(cause, OSError) and not cause.filename and (cause.errno or part):
        reason = os.strerror(cause.errno) if cause.errno else f"{cause}, as when a quota is used up"
        raise OSError(cause.errno or errno.EIO, reason, str(path)) from cause  # HDF5's reason has several lines


def require_temporary_room(cause: Exception, size: int = FULL) -> None:
    """Raise the error of a full disk, naming the system's folder of temporary files, if less than `size` is free."""
    if shutil.disk_usage(place := tempfile.gettempdir()).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place) from cause


@contextmanager
def temporary_place() -> Iterator[Path]:
    """Yield a folder of the system's temporary files; any error there is that of a full disk if it is full."""
    with tempfile.TemporaryDirectory(prefix="planar3d-") as place:
        try:
            yield Path(place)
        except Exception as error:
            require_temporary_room(error)
            raise


def _refusal(folder: Path, size: int) -> OSError | None:
    """The error with which a folder refuses a file of this size; None if it takes it, or cannot tell."""
    with tempfile.TemporaryFile(dir=folder) as trial:
        try:
            getattr(os, "posix_fallocate", lambda *given: None)(trial.fileno(), 0, size)
        except OSError as error:
            return error if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else None
    return None
