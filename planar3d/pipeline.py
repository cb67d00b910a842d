"""Work that runs at the same time: many items in stages, each with one in hand, or the parts of one array."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

_MOST_THREADS = 4  # of one array's parts; more would wait for the same memory


@contextmanager
def one_ahead(make: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Iterator[tuple[Item, Future[Made]]]]:
    """Give the items in their order, each with the future of `make(item)`, which a thread makes one item ahead.

    At most one made item waits while the caller is at another. On leaving the block early, what the thread has begun is
    brought to its end, and nothing more is begun.
    """
    with _thread() as thread:

        def pairs() -> Iterator[tuple[Item, Future[Made]]]:
            waiting = None
            for item in items:
                begun = item, thread.submit(make, item)
                if waiting:
                    yield waiting
                waiting = begun
            if waiting:
                yield waiting

        yield pairs()


@contextmanager
def one_behind() -> Iterator[Callable[..., None]]:
    """Give a function that has a thread call what it is given, in order, while the caller goes on.

    It waits for the call before, so that at most one is under way, and raises what that one raised; so does leaving the
    block. What has begun is brought to its end, however the block is left.
    """
    last: Future[Any] | None = None

    def call(function: Callable[..., Any], *args: Any) -> None:
        nonlocal last
        if last:
            last.result()
        last = thread.submit(function, *args)

    with _thread() as thread:
        yield call
        if last:
            last.result()


def in_threads(compute: Callable[[Item], object], parts: Iterable[Item]) -> None:
    """Call a function with each of the parts, several at a time: NumPy computes outside of Python's lock.

    An error in one of them is raised when all have ended.
    """
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as threads:
        for done in [threads.submit(compute, part) for part in parts]:
            done.result()


@contextmanager
def _thread() -> Iterator[ThreadPoolExecutor]:
    thread = ThreadPoolExecutor(max_workers=1)
    try:
        yield thread
    finally:
        thread.shutdown(cancel_futures=True)
