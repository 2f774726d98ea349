"""Threads that help with one piece of work after another, and stay awake between pieces that follow closely.

A processor that has gone to sleep takes some 100 µs to wake, as long as a small piece of work. So a thread with
nothing to do watches for the next piece, without the GIL, before it sleeps.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import numpy as np
from numba import types
from numpy.typing import NDArray

from solvers.accelerate import kernel

Counter = NDArray[np.int64]

# How often an idle thread looks before it sleeps; a look takes about half a microsecond.
_LOOKS = 1000

if hasattr(os, "sched_yield"):
    # gives way to any other thread that could run here, and makes the compiler read the word again
    _give_way = types.ExternalFunction("sched_yield", types.intc())

    @kernel
    def _watch(word: Counter, value: int, looks: int) -> bool:
        """Return whether word[0] differed from `value` at one of so many looks."""
        for _ in range(looks):
            if word[0] != value:
                return True
            _give_way()
        return False

else:

    def _watch(word: Counter, value: int, looks: int) -> bool:
        """Do not wait: there is nothing to give way with."""
        return bool(word[0] != value)


class Workers:
    """Threads that call the same function as the thread that asks for it, until it returns.

    Parameters
    ----------
    count : int
        Number of threads besides the one that asks.
    prepare : callable
        Called once by each thread when it starts.
    """

    def __init__(self, count: int, prepare: Callable[[], object] = lambda: None) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._work: Callable[[], None] | None = None  # None as soon as it is no longer worth starting
        self._calls, self._active = np.zeros(1, np.int64), np.zeros(1, np.int64)
        self._errors: list[BaseException] = []
        self._closed = False
        self._threads = [threading.Thread(target=self._serve, args=(prepare,), daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def share(self, work: Callable[[], None]) -> None:
        """Call `work()` here and on the other threads; return when all calls have ended, and raise their first error.

        Threads that have not begun by the time this one has ended are not needed any more.
        """
        self._post(work)
        try:
            work()
        finally:
            with self._changed:
                self._work = None
            self._settle()
        if self._errors:
            raise self._errors[0]

    def close(self) -> None:
        """End the threads."""
        self._closed = True
        self._post(None)
        for thread in self._threads:
            thread.join()

    def _post(self, work: Callable[[], None] | None) -> None:
        with self._changed:
            self._work, self._errors = work, []
            self._calls[0] += 1
            self._changed.notify_all()

    def _settle(self) -> None:
        """Wait for those at work, who write into the caller's arrays and are about to end."""
        while active := int(self._active[0]):
            if not _watch(self._active, active, _LOOKS):
                with self._changed:
                    self._changed.wait_for(lambda: self._active[0] == 0)

    def _serve(self, prepare: Callable[[], object]) -> None:
        prepare()
        seen = 0
        while True:
            _watch(self._calls, seen, _LOOKS)
            with self._changed:
                self._changed.wait_for(lambda seen=seen: self._calls[0] != seen)  # type: ignore[misc]
                seen, work = int(self._calls[0]), self._work
                if self._closed:
                    return
                if work is None:
                    continue
                self._active[0] += 1
            try:
                work()
            except BaseException as error:  # raised where the work was asked for
                self._errors.append(error)
            with self._changed:
                self._active[0] -= 1
                self._changed.notify_all()
