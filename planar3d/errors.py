"""Errors for users, each one sentence: what was found, where, what was expected, what to do."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from planar3d.wording import printable


class Planar3DError(Exception):
    """A problem that the user can fix; the command line prints its sentence and exits with code 2."""


class Planar3DWarning(UserWarning):
    """What the user should know about data that are used nevertheless; the command line prints its sentence."""


class ScanError(Planar3DError):
    """A scan or mask file that cannot be used."""


class DatasetError(Planar3DError):
    """A folder or table of scans with an unknown or incomplete layout."""


class WeightsError(Planar3DError):
    """Weights that are missing, damaged or for another network."""


class ConversionError(Planar3DError):
    """A 2D network, or one of its layers, without a 3D counterpart."""


class RecipeError(Planar3DError):
    """A recipe that does not exist or has an invalid value."""


class FoldsError(Planar3DError):
    """Folds that do not exist or do not fit the data."""


class RunError(Planar3DError):
    """A run folder that cannot be used as requested."""


def path_of(given: object, what: str, error: type[Planar3DError] = Planar3DError) -> Path:
    """The path given to a public function; an error for None, numbers and empty text, which are not paths."""
    if not isinstance(given, str | os.PathLike) or given == "":
        found = "an empty string" if given == "" else type(given).__name__
        raise error(f"{what} must be given as a string or a Path; got {found}.")
    return Path(given)


def text_of(path: Path, reader: str, error: type[Planar3DError] = Planar3DError) -> str:
    """A path as text, for a reader in C++ that takes no other and may end the process; an error if it is not text."""
    if (text := printable(str(path))) != str(path):
        raise error(
            f"{text} is not text in {sys.getfilesystemencoding()}, the encoding of file names here, so {reader} cannot "
            "open it. Rename it or its folder; in a terminal without UTF-8, set PYTHONUTF8=1."
        )
    return text


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise a `ScanError` if the system cannot read a file of the scan at `path`, so that it fails alone."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:  # of a temporary file
            raise
        raise ScanError(
            f"{error.filename or path} cannot be read ({error.strerror or error}). Check its permissions and its disk, "
            "or leave it out."
        ) from None


@contextmanager
def untrusted(path: Path, advice: str) -> Iterator[None]:
    """Raise a `ScanError` for whatever the bytes of a file provoke in a library, with the last line of what it says.

    Errors of the system are those of `reading`.
    """
    try:
        yield
    except Planar3DError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise
        said = "".join(str(error).strip().splitlines()[-1:]) or type(error).__name__
        raise ScanError(f"{path} is damaged or cannot be read ({said}). {advice}") from None
