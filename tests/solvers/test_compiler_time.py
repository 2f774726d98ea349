"""Compiling is counted apart from solving, wherever in a run it happens."""

from __future__ import annotations

import threading
import time

from numba import njit

from solvers.accelerate import compiler_time


def fresh():
    @njit
    def square_and_more(x):
        return x * x + 1.0

    return square_and_more


def test_what_is_compiled_is_counted_once():
    """In this thread and in another; what is compiled, or what is no compiling, adds nothing."""
    start = time.perf_counter()
    with compiler_time() as outer, compiler_time() as compiler:
        one, other = fresh(), fresh()
        assert compiler.seconds == 0.0
        one(1.0)
        first = compiler.seconds
        assert first > 0
        one(2.0)
        assert compiler.seconds == first
        thread = threading.Thread(target=other, args=(1.0,))
        thread.start()
        thread.join()
        second = compiler.seconds
        assert second > first
    assert abs(outer.seconds - second) < 1e-3  # both count the same, one after the other
    assert outer.seconds <= time.perf_counter() - start
    fresh()(1.0)
    assert compiler.seconds == second
