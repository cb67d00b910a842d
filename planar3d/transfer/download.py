"""Downloads that arrive whole or not at all."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from planar3d.errors import WeightsError

# Seconds without an answer after which a download counts as failed; without it a silent firewall hangs for minutes.
_TIMEOUT = 10


def is_offline() -> bool:
    """Whether downloads are switched off by PLANAR3D_OFFLINE."""
    return os.environ.get("PLANAR3D_OFFLINE", "0") not in ("", "0")


@contextmanager
def fetched(url: str, folder: Path, file_hash: str | None = None) -> Iterator[Path]:
    """Fetch a file into a temporary folder inside `folder`, for the block to check and to move to its place.

    Args:
        url: whose last part is the file's name.
        folder: made if it is not there; on the same disk as the temporary one, so that moving is renaming.
        file_hash: MD5 or SHA-256 that the file must have, if it is known.

    Raises:
        WeightsError: the file could not be fetched.
    """
    import keras

    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Keras downloads in place, and deletes what lies there when it fails; a folder of its own spares `folder` that.
        own = tempfile.TemporaryDirectory(dir=folder, prefix=".download-")
    except OSError as error:
        raise WeightsError(f"{url} could not be fetched ({folder}: {error.strerror}).") from error
    with own as place:
        try:
            with _socket_timeout(_TIMEOUT):
                name = url.rpartition("/")[2]
                file = keras.utils.get_file(name, url, cache_dir=place, cache_subdir="", file_hash=file_hash)
        except Exception as error:  # Keras raises bare exceptions for failed downloads
            raise WeightsError(f"{url} could not be fetched ({error}).") from error
        yield Path(file)


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
