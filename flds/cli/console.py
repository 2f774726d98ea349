"""How a command ends: with an error of one line, on Ctrl-C or a signal, or where the pipe of its output was closed.

It is loaded before everything else, so it imports nothing that takes time.
"""

from __future__ import annotations

import _thread
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from solvers.interrupts import ENDING

# 128 and the number of a signal, as shells have it; 2 for a user's mistake.
SIGNALLED, CLOSED, BAD_USAGE = 128, 141, 2
# An argument of a solver that is also an option, with a value.
_ARGUMENT = re.compile(r'\b(dtype|operator|keep_state|device|sampling)=(")?([\w.]+)(?(2)")')
# Ctrl-C again within so many seconds belongs to the one before.
_TOGETHER = 2.0
# Seconds until an interrupt that was lost is raised again, which must not be here and now.
_LATER = 0.05


class Interrupts:
    """Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt; again soon after, or while a command ends, they do nothing.

    A second KeyboardInterrupt would come in the middle of what deals with the first one.
    """

    def __init__(self) -> None:
        self.last: float | None = None
        self.seen = False
        self.number: int = signal.SIGINT
        self.caught: list[int] = []

    @property
    def status(self) -> int:
        """The exit status of a command that was interrupted."""
        return SIGNALLED + self.number

    def catch(self) -> None:
        """Deal with these signals from now on, but for those that a shell or nohup has its jobs ignore."""
        sys.unraisablehook = self.unraisable
        for number in ENDING:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                self.caught.append(number)
                signal.signal(number, self.interrupt)

    def ignore(self) -> None:
        """Let these signals do nothing from now on."""
        for number in self.caught:
            signal.signal(number, signal.SIG_IGN)

    def check(self) -> None:
        """Raise KeyboardInterrupt if there was one, for work that a solver ended early and without an error."""
        if self.seen:
            raise KeyboardInterrupt

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, unless one was raised just now."""
        now = time.monotonic()
        if self.last is None or now - self.last > _TOGETHER:
            self.last, self.seen, self.number = now, True, number
            raise KeyboardInterrupt

    def unraisable(self, lost: Any) -> None:
        """Raise an interrupt again that came where Python cannot pass it on, such as in a callback."""
        if isinstance(lost.exc_value, KeyboardInterrupt):
            self.last = None
            again = threading.Timer(_LATER, _thread.interrupt_main, [self.number])
            again.daemon = True
            again.start()
        elif "ignored due to race condition" not in str(lost.exc_value):  # Ctrl-C in the instant of `ignore`
            sys.__unraisablehook__(lost)


interrupts = Interrupts()
# Ends all ranks of an MPI job with a status, where there are any, since the others may wait for this one.
end_all: Callable[[int, str], None] | None = None


def run(start: Callable[[], None]) -> None:
    """Run the command line and end the process without a traceback for what its user did."""
    interrupts.catch()
    try:
        with ending():
            start()
    except Exception as error:
        if not interrupts.seen:
            raise
        interrupted(f"{type(error).__name__}: {error}")  # what a library made of the interrupt
    finally:
        interrupts.ignore()
        _finish_output()


@contextmanager
def ending() -> Iterator[None]:
    """End the process on Ctrl-C, and where output goes to a pipe that was closed, as by `head`."""
    try:
        yield
    except KeyboardInterrupt as error:
        interrupted(str(error))
    except BrokenPipeError:
        sys.exit(CLOSED)


def interrupted(kept: str = "") -> NoReturn:
    """Say that the command was interrupted, and what it kept; end the process."""
    interrupts.ignore()
    if end_all is not None:
        end_all(interrupts.status, f"flds: interrupted; {kept}" if kept else "flds: interrupted")
    fail(f"interrupted; {kept}" if kept else "interrupted before anything was computed", interrupts.status)


def fail(error: object, code: int) -> NoReturn:
    """Print an error as one line and end the process with this status, or that of an interrupt if there was one."""
    note(f"flds: {as_options(str(error))}")
    sys.exit(interrupts.status if interrupts.seen else code)


def as_options(said: str) -> str:
    """Return what a solver said of arguments as options of the command line: ``dtype="float32"`` as --dtype float32."""
    named = _ARGUMENT.sub(lambda found: f"--{found[1].replace('_', '-')} {found[3]}".removesuffix(" True"), said)
    named = named.replace("give the problem= itself", "go on in Python, with problem=")
    return named.replace("rank_budget", "--rank-budget")


def note(line: str) -> None:
    """Print a line on standard error; a closed pipe there is no error."""
    with suppress(BrokenPipeError):
        print(line, file=sys.stderr)


def _finish_output() -> None:
    """Write what was printed, since Python would say at length that it cannot; end the process if it cannot."""
    for stream in (sys.stderr, sys.stdout):
        try:
            if stream is not None:
                stream.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # takes what is left
            if stream is sys.stdout:
                sys.exit(CLOSED) if isinstance(error, BrokenPipeError) else fail(error, BAD_USAGE)


@contextmanager
def extra() -> Iterator[None]:
    """Say what to install where torch is missing, which `validation` needs and the solvers do not."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("torch", "torchsde"):
            raise
        raise ValueError(
            f"this command needs {error.name}: install the extra with pip install 'flds[validation]'"
        ) from None


def show_list(descriptions: dict[str, str]) -> None:
    """Print names and the first sentence on what they stand for."""
    longest = max(map(len, descriptions))
    for name, description in descriptions.items():
        print(f"{name:{longest}}  {re.split(r'[.] (?=[A-Z])', description)[0].rstrip('.')}")


def say(line: str) -> None:
    """Print a line, unless an interrupt waits."""
    interrupts.check()
    print(line, flush=True)


def silent(line: str) -> None:
    """Print nothing; an interrupt comes all the same."""
    interrupts.check()
