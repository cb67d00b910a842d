"""Concurrent work: items in a pipeline with one item per stage, or the parts of one array."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, pairwise
from typing import Any, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

_MOST_THREADS = 4  # for the parts of one array; more would be limited by memory bandwidth


@contextmanager
def one_ahead(make: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Iterator[tuple[Item, Future[Made]]]]:
    """Yield the items in order, each with the future of `make(item)`, computed by a thread one item ahead.

    At most one result waits while the caller works on another. On leaving the block early, the thread finishes its
    current item and starts no other.
    """
    with _threads(1) as thread:
        begun = ((item, thread.submit(make, item)) for item in items)
        yield (now for now, _ in pairwise(chain(begun, [None])) if now)


@contextmanager
def one_behind() -> Iterator[Callable[..., None]]:
    """Yield a function that makes a thread run calls in order, while the caller continues.

    It waits for the previous call, so that at most one is running, and raises its error; so does leaving the block. A
    running call is always finished.
    """
    last: Future[Any] | None = None

    def call(function: Callable[..., Any], *args: Any) -> None:
        nonlocal last
        if last:
            last.result()
        last = thread.submit(function, *args)

    with _threads(1) as thread:
        yield call
        if last:
            last.result()


def in_threads(compute: Callable[[Item], object], parts: Iterable[Item]) -> None:
    """Call a function with each of the parts, several at a time: NumPy releases Python's lock.

    An error, also an interrupt, is raised after the running calls have ended; no other is started.
    """
    with _threads(min(_MOST_THREADS, os.cpu_count() or 1)) as threads:
        for done in [threads.submit(compute, part) for part in parts]:
            done.result()


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    threads = ThreadPoolExecutor(count)
    try:
        yield threads
    finally:
        threads.shutdown(cancel_futures=True)
