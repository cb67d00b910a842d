"""The user's cache, and atomic downloads into it, verified by digest."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from planar3d.errors import WeightsError
from planar3d.files import temporary_folder, write_json
from planar3d.locks import locked
from planar3d.transfer.digests import fault

# Timeout in seconds; without it, a silent firewall blocks for minutes.
_TIMEOUT = 10
_LOG = logging.getLogger(__name__)


def cache_folder() -> Path:
    """The user's cache: `planar3d` in XDG_CACHE_HOME, or in `~/.cache`. Raises `OSError` for a user without a home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "planar3d"
    except RuntimeError:
        raise OSError("this user has no home folder for the cache; set XDG_CACHE_HOME to a folder") from None


def cached_result(kind: str, conditions: Mapping[str, Any]) -> Any:
    """The result in the user's cache that holds under these conditions; None if another user could have written it."""
    with suppress(OSError, ValueError, RecursionError), _note(kind, conditions).open(encoding="utf-8") as file:
        found = os.fstat(file.fileno())
        if not hasattr(os, "geteuid") or (found.st_uid == os.geteuid() and not found.st_mode & 0o022):
            return json.load(file)
    return None


def keep_result(kind: str, conditions: Mapping[str, Any], result: Any) -> None:
    """Keep a result that holds under these conditions in the user's cache, if that is writable; all are JSON values."""
    with suppress(OSError):
        note = _note(kind, conditions)
        write_json(note, result)
        note.chmod(0o600)


def _note(kind: str, conditions: Mapping[str, Any]) -> Path:
    key = hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()
    return cache_folder() / kind / f"{key}.json"


def download(url: str, path: Path, digest: str) -> None:
    """Download a file, and move it into place if its digest, as in `fault`, is right; one process at a time per folder.

    Raises:
        WeightsError: PLANAR3D_OFFLINE is set, or the file could not be downloaded or has another digest.
    """
    # Slow to import, and most runs download nothing.
    import http.client
    import urllib.request

    if os.environ.get("PLANAR3D_OFFLINE", "0") not in ("", "0"):
        raise WeightsError(f"PLANAR3D_OFFLINE disables the download of {path}.")
    request = urllib.request.Request(url, headers={"User-Agent": "planar3d"})  # some servers refuse Python's default
    try:
        with locked(path.parent, "a download", wait=_LOG.info), temporary_folder(path.parent) as place:
            if path.is_file() and not fault(path, digest):  # downloaded by another process meanwhile
                return
            _LOG.info("downloading %s to %s", url, path)
            got = Path(place, path.name)
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer, got.open("wb") as file:
                shutil.copyfileobj(answer, file)
                if getattr(answer, "length", None):
                    raise OSError(f"it stopped {answer.length:,} bytes before its end")
            if wrong := fault(got, digest):
                raise ValueError(f"the address has another file: {wrong}")
            os.replace(got, path)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise WeightsError(f"{url} could not be downloaded ({error}).") from error
