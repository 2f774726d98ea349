"""Threads that help with one piece of work after another, and stay awake between pieces that follow closely.

A processor that has gone to sleep takes some 100 µs to wake, as long as a small piece of work. So a thread with
nothing to do watches for the next piece, without the GIL, before it sleeps.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import numpy as np

from solvers.accelerate import kernel
from solvers.ensemble.atomic import Words, give_way

# How often an idle thread looks before it sleeps; a look takes about half a microsecond.
_LOOKS = 1000

if hasattr(os, "sched_yield"):

    @kernel
    def _watch(word: Words, value: int, looks: int) -> bool:
        """Return whether word[0] differed from `value` at one of so many looks."""
        for _ in range(looks):
            if word[0] != value:
                return True
            give_way()  # which also makes the compiler read the word again
        return False

else:

    def _watch(word: Words, value: int, looks: int) -> bool:
        """Do not wait: there is nothing to give way with."""
        return bool(word[0] != value)


class Workers:
    """Threads that call the same function as the thread that asks for it, until it returns.

    They are started when they are first wanted. Where the system starts no more of them, those there are do the work.

    Parameters
    ----------
    count : int
        Largest number of threads besides the one that asks.
    prepare : callable
        Called once by each thread when it starts.
    """

    def __init__(self, count: int, prepare: Callable[[], object] = lambda: None) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._work: Callable[[], None] | None = None  # None as soon as it is no longer worth starting
        self._calls, self._active = np.zeros(1, np.int64), np.zeros(1, np.int64)
        self._errors: list[BaseException] = []
        self._closed = False
        self._most, self._prepare = count, prepare
        self._threads: list[threading.Thread] = []

    def share(self, work: Callable[[], None], helpers: int) -> None:
        """Call `work()` here and on other threads; return when all calls have ended, and raise their first error.

        At least `helpers` others are there to take part, as far as there may be so many. Those that have not begun by
        the time this one has ended are not needed any more.
        """
        self._start(min(helpers, self._most))
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

    def _start(self, count: int) -> None:
        """Start threads until there are so many, or as many as the system allows."""
        while len(self._threads) < count:
            try:
                thread = threading.Thread(target=self._serve, daemon=True)
                thread.start()
            except (RuntimeError, MemoryError):  # of the system, which has no room for more
                self._most = len(self._threads)
                return
            self._threads.append(thread)

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

    def _serve(self) -> None:
        self._prepare()
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
