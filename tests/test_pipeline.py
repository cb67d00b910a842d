"""Stages run at the same time, in order, with few items in memory, and stop when they are told to."""

import gc
import os
import threading
import weakref

import pytest

from planar3d.pipeline import in_threads, one_ahead, one_behind


class _Made:
    """Something whose life can be watched."""

    def __init__(self, number):
        self.number = number


def test_items_come_in_order_with_what_was_made_of_them():
    with one_ahead(lambda n: n * n, range(7)) as coming:
        assert [(n, made.result()) for n, made in coming] == [(n, n * n) for n in range(7)]
    with one_ahead(abs, []) as coming:
        assert list(coming) == []


def test_the_next_item_is_made_while_the_caller_is_at_this_one_and_the_one_after_is_not():
    begun = [threading.Event() for _ in range(4)]

    def make(number):
        begun[number].set()
        return number

    with one_ahead(make, range(4)) as coming:
        _, first = next(coming)
        assert first.result() == 0 and begun[1].wait(10)
        assert not begun[2].wait(0.05)
        next(coming)
        assert begun[2].wait(10) and not begun[3].wait(0.05)


def test_an_error_belongs_to_its_item_and_the_others_go_on():
    with one_ahead(lambda n: 12 // n, (3, 0, 4)) as coming:
        outcomes = [made.exception() or made.result() for _, made in coming]
    assert outcomes[0] == 4 and isinstance(outcomes[1], ZeroDivisionError) and outcomes[2] == 3


def test_what_is_left_behind_happens_in_order_and_in_another_thread():
    seen = []
    with one_behind() as behind:
        for number in range(20):
            behind(lambda n: seen.append((n, threading.get_ident())), number)
    assert [number for number, _ in seen] == list(range(20))
    assert threading.get_ident() not in {thread for _, thread in seen}


def test_an_error_behind_is_raised_at_the_next_call_or_at_the_end():
    with pytest.raises(ZeroDivisionError), one_behind() as behind:
        behind(divmod, 1, 0)
    with pytest.raises(ZeroDivisionError), one_behind() as behind:
        behind(divmod, 1, 0)
        behind(print, "never reached")
        pytest.fail("the error was not raised")


def test_leaving_early_ends_what_was_begun_and_begins_nothing():
    begun, made, written = [], [], []
    goes_on = threading.Event()

    def make(number):
        begun.append(number)
        goes_on.wait(10 if number == 3 else 0)
        made.append(number)
        return number

    with pytest.raises(KeyboardInterrupt), one_ahead(make, range(100)) as coming, one_behind() as behind:
        for number, future in coming:
            behind(written.append, future.result())
            if number == 2:
                threading.Timer(0.05, goes_on.set).start()
                raise KeyboardInterrupt
    assert begun == made and begun in ([0, 1, 2], [0, 1, 2, 3])
    assert written in ([0, 1], [0, 1, 2])


@pytest.mark.parametrize("count", [5, 25])
def test_no_more_than_three_items_are_alive_however_many_there_are(count):
    alive, most = weakref.WeakSet(), [0]
    lock = threading.Lock()

    def make(number):
        made = _Made(number)
        with lock:
            alive.add(made)
            most[0] = max(most[0], len(alive))
        return made

    def leave(made):
        assert made.number >= 0

    def work(made):
        return made.result()

    gc.disable()
    try:
        with one_ahead(make, range(count)) as coming, one_behind() as behind:
            for _, made in coming:
                behind(leave, work(made))
    finally:
        gc.enable()
    assert most[0] <= 4  # one in each stage, and for a moment the one that is handed on


@pytest.mark.skipif(os.cpu_count() == 1, reason="a single core does one after the other")
def test_parts_are_done_at_the_same_time():
    together = threading.Barrier(2, timeout=10)
    done = []

    def compute(part):
        together.wait()
        done.append(part)

    in_threads(compute, [0, 1])
    assert sorted(done) == [0, 1]


def test_an_error_of_a_part_is_raised():
    def compute(part):
        if part == 2:
            raise ValueError("part 2")

    with pytest.raises(ValueError, match="part 2"):
        in_threads(compute, range(5))


def test_no_part_is_nothing_to_do():
    in_threads(print, [])
