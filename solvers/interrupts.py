"""Signals that end a program, and their delay while work is in hand that must not be cut.

Loaded before everything else, so it imports nothing that takes time.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Those that there are on this system.
ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupts:
    """Ctrl-C and its like during a solve, dealt with where no thread is at work and no lock is held.

    A signal that Python handles is noted, and its handler called at the next `check`; a second one comes at once.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self.held = False
        self.handlers: dict[int, Callable[..., object]] = {}

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Hold signals back until `check`, or the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        found = {number: signal.getsignal(number) for number in ENDING}
        self.handlers = {number: handler for number, handler in found.items() if callable(handler)}
        for number in self.handlers:
            signal.signal(number, self._note)
        try:
            yield
        finally:
            for number, handler in self.handlers.items():
                signal.signal(number, handler)
        self.check()

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """Let `check` do nothing in the meantime."""
        self.held = True
        try:
            yield
        finally:
            self.held = False

    def check(self) -> None:
        """Let the handler of a noted signal do what it does, which mostly is to raise KeyboardInterrupt."""
        if self.pending is not None and not self.held:
            number, self.pending = self.pending, None
            self.handlers[number](number, None)

    def _note(self, number: int, frame: object) -> None:
        if self.pending is not None:
            self.handlers[number](number, frame)
        self.pending = number


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put off signals until the end of what must not be left half done; one that came is then raised again."""
    ours = threading.current_thread() is threading.main_thread()
    handlers = {number: handler for number in ENDING if ours and callable(handler := signal.getsignal(number))}
    pending: list[int] = []
    for number in handlers:
        signal.signal(number, lambda number, frame: pending.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if pending:
            signal.raise_signal(pending[0])
