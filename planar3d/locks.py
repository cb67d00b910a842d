"""Locks between processes by claims: files that name their process, and that others take over after its death.

Claims need only exclusive creation and removal of files, so they work between computers that share a network drive,
where system locks often have no effect.
"""

import errno
import glob
import json
import os
import platform
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from planar3d.disk import naming
from planar3d.errors import Planar3DWarning, RunError
from planar3d.files import make_folder, remove_temporaries, remove_temporaries_of, written_at

CLAIM = ".claim"  # of a whole folder, inside it
BEAT = 30.0  # seconds between two signs of life
SILENT = 600.0  # seconds without one after which a process on another host counts as dead
_UNNAMED = 60.0  # the same for a claim without a name: its process was killed before writing it, or is about to
_LATEST = 2**40  # seconds since 1970; of a later time, no date is known


class Holder(NamedTuple):
    """The holder of a claim."""

    host: str  # its name, and on Linux its process namespace, since containers on one host have their own
    pid: int  # the process; 0 if unknown
    born: str  # its start, in the system's own count; empty if unknown
    since: float  # time of the claim, in seconds since 1970

    def __str__(self) -> str:
        process = f"process {self.pid} on {self.host.partition(' ')[0]}" if self.pid else "a process"
        return f"{process} since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(self.since))}"


class Claim:
    """A claim of this process. As no interrupt ends a thread, one creates it, gives signs of life, and removes it."""

    def __init__(self, path: Path, holder: Holder) -> None:
        self.path, self._holder = path, holder
        self._created, self._ended = Future[bool](), threading.Event()
        self._thread = threading.Thread(target=self._live, name="claim", daemon=True)
        try:
            self._thread.start()
            self.is_created = self._created.result()
        except BaseException:
            self.release()
            raise

    def _live(self) -> None:
        try:
            created = _create(self.path, self._holder)
        except BaseException as error:
            self._created.set_exception(error)
            return
        self._created.set_result(created)
        while created and not self._ended.wait(BEAT):
            with suppress(OSError):
                if self.is_lost():
                    return
                os.utime(self.path)  # by the clock of the file server
        with suppress(OSError):  # of a server that is gone: the claim ends with this process
            if created and not self.is_lost():
                self.path.unlink(missing_ok=True)

    def is_lost(self) -> bool:
        """Whether another process took it over, because this one was suspended for longer than `SILENT`."""
        return read_claim(self.path) != self._holder

    def require(self, what: Path | None = None) -> None:
        """Raise a `RunError` that names `what`, by default the folder, if it is lost: two must not write the same."""
        if (found := read_claim(self.path)) != self._holder:
            moved = "" if found else ", or the output folder was moved or removed"
            raise RunError(
                f"{what or self.path.parent} was taken over by another process because the heartbeat of this process "
                f"stopped{moved}."
            )

    def release(self) -> None:
        """Release the claim, unless another process has taken it over."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(BEAT)  # not for ever, as threads stand still while Python ends


def take(path: Path, clean: Callable[[], None] = lambda: None) -> Claim | Holder:
    """Take a claim, or return its holder; a dead process' claim is taken over.

    Taking over needs a separate claim, so only one process does; if it dies, it is taken over in turn. `clean`
    removes half-written files of a dead holder, while no other process can have the claim. The claim's folder is
    created if needed, and may be removed by others when it is empty.
    """
    mine = Holder(_host(), os.getpid(), _born(os.getpid()), time.time())
    while True:
        if (claim := Claim(path, mine)).is_created:
            return claim
        found = read_claim(path)
        if found is None:  # released a moment ago
            continue
        if alive(path, found):
            return found
        successor = take(path.with_name(f"{path.name}~"))
        if isinstance(successor, Holder):
            return successor
        try:
            if read_claim(path) == found:
                clean()
                path.unlink(missing_ok=True)
        finally:
            successor.release()


def holder_of(path: Path) -> Holder | None:
    """The living holder of a claim, if any."""
    found = read_claim(path)
    return found if found and alive(path, found) else None


def alive(path: Path, holder: Holder) -> bool:
    """Whether a claim's holder is alive: on this host by its process, elsewhere by the age of its heartbeat."""
    if holder.born and holder.host == _host() and not _is_hidden(holder.pid):
        return _born(holder.pid) == holder.born
    beat = written_at(path) / 1e9  # 0 without a claim
    try:
        # Times of one server are compared, as the clocks of two hosts may differ.
        with tempfile.TemporaryFile(dir=path.parent) as now:
            present = os.fstat(now.fileno()).st_mtime
    except OSError:  # the disk is full, or the folder is read-only
        present = time.time()
    # A beat in the future is of a clock that was set back; a living holder soon gives another.
    return abs(present - beat) < (SILENT if holder.pid else _UNNAMED)


def _refuse(text: str) -> None:
    raise RunError(
        f"{text}. Start it again when that process has ended, or use another --out. If it was killed, its claim "
        f"expires at most {SILENT / 60:.0f} minutes after its last heartbeat."
    )


def _warn(text: str) -> None:
    warnings.warn(f"{text}.", Planar3DWarning, stacklevel=3)


@contextmanager
def locked(folder: str | Path, doing: str, wait: Callable[[str], None] | None = None) -> Iterator[Claim]:
    """Lock a folder for this process, and remove half-written files of a killed process directly in it.

    A folder that does not exist is created. A process must not lock a folder twice. `doing` is the purpose, as in
    "training fold 1"; `wait` gets one message before waiting for a folder in use, which is an error without it.
    """
    with held(Path(folder, CLAIM), folder, doing, wait or _refuse) as claim:
        remove_temporaries(folder)
        yield claim


@contextmanager
def alone_with(*files: Path, doing: str = "writing", wait: Callable[[str], None] = _warn) -> Iterator[None]:
    """Let one process at a time write these files, and remove half-written versions from killed ones."""
    last = files[-1]
    with held(last.with_name(f"{CLAIM}-{last.name}"), last, doing, wait):
        remove_temporaries_of(*(file.with_name(glob.escape(file.name)) for file in files))
        yield


@contextmanager
def held(
    path: Path, what: str | Path, doing: str, wait: Callable[[str], None], clean: Callable[[], None] = lambda: None
) -> Iterator[Claim]:
    """Hold a claim, taken as by `take`; before waiting for one in use, `wait` gets a message with its holder."""
    claim = take(path, clean)
    if isinstance(claim, Holder):
        wait(f"{what} is in use by {claim}; {doing} must wait")
    while isinstance(claim, Holder):
        time.sleep(0.2)
        claim = take(path, clean)
    try:
        yield claim
    finally:
        claim.release()


def _create(path: Path, holder: Holder) -> bool:
    make_folder(path.parent)
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except (FileExistsError, FileNotFoundError):  # claimed; or its folder was removed a moment ago
        return False
    try:
        with naming(path), os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(holder._asdict()))
        return True
    except OSError:  # the disk is full
        path.unlink(missing_ok=True)
        raise


def read_claim(path: Path) -> Holder | None:
    """The holder named by a claim, alive or not; None without a claim. An empty or damaged claim has only an age."""
    try:
        content, made = path.read_bytes(), path.stat().st_mtime
        with suppress(ValueError, TypeError, RecursionError):
            found = Holder(**json.loads(content))
            kinds = zip(found, (str, int, str, int | float), strict=True)
            known = all(isinstance(value, kind) for value, kind in kinds)
            if known and 0 <= found.since < _LATEST and 0 <= found.pid < 2**31:
                return found
        return Holder("", 0, "", made)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):  # ESTALE: removed by another host during reading
            return None
        raise


def _host() -> str:
    name = platform.node()
    try:
        if name.startswith("localhost"):  # a common name; the boot id is unique
            name += "-" + Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{name} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return name


def _is_hidden(pid: int) -> bool:
    """Whether a process exists that this user cannot inspect, as when /proc hides those of others."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError) and not _born(pid)
    return False


def _born(pid: int) -> str:
    """The start of a living process, in clock ticks of the system; empty if it is dead or without /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
