"""Downloads that arrive whole or not at all."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from planar3d.errors import WeightsError
from planar3d.files import temporary_folder
from planar3d.locks import locked

# Seconds without an answer after which a download counts as failed; without it a silent firewall hangs for minutes.
_TIMEOUT = 10
_LOG = logging.getLogger(__name__)


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

    with ExitStack() as stack:
        try:
            place = stack.enter_context(download_folder(folder))
        except OSError as error:
            raise WeightsError(f"{url} could not be fetched ({folder}: {error.strerror}).") from error
        try:
            with _socket_timeout(_TIMEOUT), _silent_keras():
                _LOG.info("downloading %s to %s", url, folder)
                name = url.rpartition("/")[2]
                file = keras.utils.get_file(name, url, cache_dir=place, cache_subdir="", file_hash=file_hash)
        except Exception as error:  # Keras raises bare exceptions for failed downloads
            raise WeightsError(f"{url} could not be fetched ({error}).") from error
        yield Path(file)


@contextmanager
def download_folder(folder: Path) -> Iterator[Path]:
    """An empty folder inside `folder`, on the same disk, so that what was checked there takes its place by a rename.

    One process downloads to a folder at a time, and removes what a killed one left there. Keras and pooch download in
    place, and delete what lies there when they fail; a folder of their own spares `folder` that.
    """
    with locked(folder, "a download", wait=_LOG.info), temporary_folder(folder) as place:
        yield Path(place)


@contextmanager
def _silent_keras() -> Iterator[None]:
    """Keep Keras' progress bar off the standard output stream, which may be a program's."""
    import keras

    was_interactive = keras.config.is_interactive_logging_enabled()
    keras.config.disable_interactive_logging()
    try:
        yield
    finally:
        if was_interactive:
            keras.config.enable_interactive_logging()


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
