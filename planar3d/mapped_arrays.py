"""Arrays of a run folder, memory-mapped."""

import errno
from contextlib import suppress
from functools import cache
from pathlib import Path
from tokenize import TokenError

import numpy as np

from planar3d.errors import RunError

# More than any training maps, and few enough for programs that close all that could be open; and what macOS accepts.
_MOST_FILES = 2**16, 10240


def map_array(path: Path) -> np.ndarray:
    """Open an array of a run folder, memory-mapped: values are read when used; the file is open as long as the array.

    Where the file system does not map files, as some drivers of cloud storage, it is read at once.

    Raises:
        RunError: the file is missing or damaged, or too many are open.
        OSError: the system cannot open it for another reason.
    """
    _allow_many_files()
    try:
        array: np.ndarray
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            array = np.load(path, allow_pickle=False)
        if array.dtype.kind not in "fiub" or not array.size:
            raise ValueError(f"it has {array.dtype} of the shape {array.shape}")
        return array
    except (OSError, ValueError, EOFError, OverflowError, TypeError, SyntaxError, TokenError) as error:
        reason = error.errno if isinstance(error, OSError) else None
        if reason == errno.EMFILE:
            raise RunError(
                f"{path} cannot be opened, as too many files are open: each prepared scan needs two. Ask your "
                "administrator to raise the hard limit of open files (ulimit -Hn)."
            ) from None
        if reason not in (None, errno.ENOENT):
            raise  # the file may be good
        raise RunError(f"{path} is damaged ({error}). Delete {path.parent} to create it again.") from None


@cache
def _allow_many_files() -> None:
    """Let this process have as many files open as its user may: by default often 1024, or two for each of 512 scans."""
    for largest in _MOST_FILES:
        with suppress(ImportError, OSError, ValueError):  # Windows has no such limit
            import resource

            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            most = largest if hard == resource.RLIM_INFINITY else min(hard, largest)
            if soft != resource.RLIM_INFINITY and soft < most:
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
                return
