"""Ctrl-C and requests to end: a process cleans up behind itself, and the same command goes on later."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interruptible() -> Iterator[None]:
    """Have SIGINT and SIGTERM leave the block like an error, so that nothing half-written stays behind.

    The process then exits with 128 and the signal's number, as shells have it; a second signal ends it at once. A
    signal that is ignored, as Ctrl-C by what a shell runs in the background, stays so.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        for interrupting in before:
            signal.signal(interrupting, signal.SIG_DFL)
        print("Interrupted. The same command goes on from what is done.", file=sys.stderr, flush=True)
        raise SystemExit(128 + number)

    heeded = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, leave) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
