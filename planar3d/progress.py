"""Progress of long work as log lines, at a limited rate."""

import sys
import time
from collections.abc import Callable

_SECONDS = 30.0  # between two lines; shorter work is not reported
Progress = Callable[[int, int], None]  # called with the number of steps done and their total
Notify = Callable[[str], None]  # called with a line of the log


def tell(text: str) -> None:
    """Print a line of the log, with escapes for signs that the output cannot show, as in a file on Windows."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


class Ticker:
    """Reports progress and remaining time, each line with the name of the work: `what`."""

    def __init__(self, notify: Notify, what: str) -> None:
        self.notify, self.what = notify, what
        self.began = self.told = time.monotonic()

    def __call__(self, done: int, of: int) -> None:
        """Report that `done` of `of` steps are done."""
        now = time.monotonic()
        if done < of and now - self.told >= _SECONDS:
            self.told = now
            self.notify(f"{self.what}: {done}/{of}, {duration((now - self.began) / done * (of - done))} left")


def part_of(progress: Progress | None, number: int, parts: int) -> Progress | None:
    """The progress of one of several equal parts, counted from 0, as a part of the whole; None without one."""
    return progress and (lambda done, of: progress(number * of + done, parts * of))


def duration(seconds: float) -> str:
    """Seconds in readable form: `2 h 05 min`, `3 min 10 s`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
