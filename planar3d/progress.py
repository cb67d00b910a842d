"""Progress of long work as lines of a log, not more often than a reader wants them."""

import time
from collections.abc import Callable


class Ticker:
    """Tells how far a piece of work is, and how long the rest will take, at most once in `seconds`.

    Args:
        what: the work's name, which begins the line.
        seconds: between two lines; work that ends sooner says nothing.
    """

    def __init__(self, notify: Callable[[str], None], what: str, seconds: float = 30.0) -> None:
        self.notify, self.what, self.seconds = notify, what, seconds
        self.began = self.told = time.monotonic()

    def __call__(self, done: int, of: int) -> None:
        """Say that `done` of `of` steps are done."""
        now = time.monotonic()
        if done < of and now - self.told >= self.seconds:
            self.told = now
            self.notify(f"{self.what}: {done}/{of}, {duration((now - self.began) / done * (of - done))} left")


def duration(seconds: float) -> str:
    """Seconds as a reader would say them: `2 h 05 min`, `3 min 10 s`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
