"""One process at a time, by a claim: a file that says who is at work, which a dead process leaves and others take over.

Claims need nothing of a file system but exclusive creation and removal, so they hold between computers that share a
network drive, where the system's own locks often do nothing.
"""

import errno
import json
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from planar3d.errors import RunError
from planar3d.files import remove_temporaries

CLAIM = ".claim"  # of a whole folder, inside it
BEAT = 30.0  # seconds between two signs of life
SILENT = 600.0  # seconds without one, after which a process that cannot be seen from here counts as dead
_POLL = 0.2  # seconds between two looks at a claim that is waited for


class Holder(NamedTuple):
    """Who has a claim."""

    host: str  # its name, and on Linux the space of its process numbers, since containers on one host have their own
    pid: int  # the process; 0 if the claim does not say
    born: str  # when it was started, in the system's own count; empty where that cannot be told
    since: float  # when it took the claim, in seconds since 1970

    def __str__(self) -> str:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return (
            f"process {self.pid} on {self.host.partition(' ')[0]} since {at}" if self.pid else f"a process since {at}"
        )


class Claim:
    """A claim of this process; a thread gives signs of life until it is released."""

    def __init__(self, path: Path, holder: Holder) -> None:
        self.path, self._holder, self._ended = path, holder, threading.Event()
        threading.Thread(target=self._live, name="claim", daemon=True).start()

    def _live(self) -> None:
        while not self._ended.wait(BEAT):
            with suppress(OSError):
                if self.is_lost():
                    return
                os.utime(self.path)  # by the clock of the file server

    def is_lost(self) -> bool:
        """Whether another process took it over, because this one stood still for longer than `SILENT`."""
        return read_claim(self.path) != self._holder

    def release(self) -> None:
        """Give the claim back, unless another process has taken it over meanwhile."""
        self._ended.set()
        if not self.is_lost():
            self.path.unlink(missing_ok=True)


def take(path: Path, clean: Callable[[], None] = lambda: None) -> Claim | Holder:
    """Claim what a file's name stands for, or tell who has it; a dead process' claim is taken over.

    Who takes it over has a claim on just that, so only one does; whoever dies of that is taken over in turn.

    Args:
        path: of the claim; its folder is made if it is not there, and may be removed by others when it is empty.
        clean: removes what a dead holder left half-written, while nobody else can have the claim.
    """
    mine = Holder(_host(), os.getpid(), _born(os.getpid()), time.time())
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _created(path, mine):
            return Claim(path, mine)
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
    """The living holder of a claim, if it has one."""
    found = read_claim(path)
    return found if found and alive(path, found) else None


def alive(path: Path, holder: Holder) -> bool:
    """Whether a claim's holder lives: on this host as its process does, elsewhere by the age of its sign of life."""
    if holder.born and holder.host == _host() and not _is_hidden(holder.pid):
        return _born(holder.pid) == holder.born
    try:
        beat = path.stat().st_mtime
    except FileNotFoundError:
        return False
    try:
        # Times of one server are compared: the clocks of two hosts may differ.
        with tempfile.TemporaryFile(dir=path.parent) as now:
            present = os.fstat(now.fileno()).st_mtime
    except OSError:  # the folder is full, or may not be written
        present = time.time()
    return present - beat < SILENT


@contextmanager
def locked(folder: str | Path, doing: str, wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a folder for this process alone, and remove what a killed process left half-written directly in it.

    A process that holds a folder may not lock it again.

    Args:
        folder: made if it is not there.
        doing: what is about to be done there, as in "training fold 1".
        wait: said once that the folder is in use, and then it is waited for; if None, a folder in use is an error.
    """
    claim = waited_for(Path(folder, CLAIM), f"{doing} waits for {folder}", wait)
    if isinstance(claim, Holder):
        raise RunError(
            f"{folder} is in use by {claim}; {doing} there must wait. Start it again when that process has ended, or "
            f"use another --out. If it died on another host, its claim ends {SILENT / 60:.0f} minutes after its last "
            "sign of life."
        )
    try:
        remove_temporaries(folder)
        yield
    finally:
        claim.release()


def waited_for(
    path: Path, waiting: str, wait: Callable[[str], None] | None, clean: Callable[[], None] = lambda: None
) -> Claim | Holder:
    """Claim as `take` does; if `wait` is given, it is said once who is waited for, and then there is always a claim."""
    claim = take(path, clean)
    if isinstance(claim, Holder) and wait:
        wait(f"{waiting}, which is in use by {claim}")
        while isinstance(claim, Holder):
            time.sleep(_POLL)
            claim = take(path, clean)
    return claim


def _created(path: Path, holder: Holder) -> bool:
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except (FileExistsError, FileNotFoundError):  # claimed; or its folder was removed a moment ago
        return False
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(json.dumps(holder._asdict()))
    return True


def read_claim(path: Path) -> Holder | None:
    """The holder that a claim names, alive or not; None if there is no claim. Of an empty one only its age is known."""
    try:
        content, made = path.read_text(encoding="utf-8"), path.stat().st_mtime
        return Holder(**json.loads(content))
    except (ValueError, TypeError):
        return Holder("", 0, "", made)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):  # ESTALE: removed by another host while it was read
            return None
        raise


def _host() -> str:
    name = platform.node()
    try:
        if name.startswith("localhost"):  # as others are named; this start of the machine is not
            name += "-" + Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{name} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return name


def _is_hidden(pid: int) -> bool:
    """Whether a process is there that this user may not look at, as where /proc hides those of others."""
    if _born(pid):
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _born(pid: int) -> str:
    """When a living process was started, in clock ticks of the system; empty if it is dead, or there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
