"""Work done by several processes: one that dies costs the item it was at, and none outlives its parent.

It imports nothing that takes time, since a process can end with its parent only once it has loaded this module.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from solvers.interrupts import undisturbed

T = TypeVar("T")

# How often an item is tried that its process does not survive: others may have taken the memory the first time.
_TRIES = 2
# How many processes in a row may be killed before they begin to work.
_STARTS = 4
# Seconds that a process with nothing left to do may take to end.
_PATIENCE = 10.0
# The exit status of a process that imported a script which starts processes itself.
_UNGUARDED = 97
# Asks Linux to kill a process when its parent ends: PR_SET_PDEATHSIG of prctl(2).
_PARENT_DEATH_SIGNAL = 1
_KILL = 9
_SCRIPT = "a script must call flds.sweep under  if __name__ == '__main__':  since worker processes import it"


@dataclass
class _Job(Generic[T]):
    """An item, and how many processes died at it."""

    item: T
    deaths: int = 0


def run_each(work: Callable[[T], str], items: Sequence[T], processes: int, ended: Callable[[T, str], None]) -> None:
    """Call work(item) for every item in processes of their own, and here ended(item, what it returned).

    An item at which a process dies is tried once more, after all others; then `ended` is told how it died. Whatever
    is raised here, such as KeyboardInterrupt, ends the processes at once.

    Raises
    ------
    RuntimeError
        If the processes end before they begin to work.
    """
    jobs = deque(_Job(item) for item in items)
    crew: list[_Worker[T]] = []
    try:
        killed = 0
        while jobs or any(worker.job for worker in crew):
            processes = _enlarge(crew, jobs, processes)
            for worker in _heard(crew):
                said = worker.answer()
                job, worker.job = worker.job, None
                if said is None:
                    crew.remove(worker)
                    killed = _lost(job, worker.leave(), killed, jobs, ended)
                    continue
                killed = 0
                if job is not None:
                    ended(job.item, said)
                if jobs:
                    worker.give(work, jobs.popleft())
                else:
                    crew.remove(worker)
                    worker.leave()
    finally:  # none is left but those that still load, or after an error
        with undisturbed():
            for worker in crew:
                worker.process.kill()
            for worker in crew:
                worker.leave()


def refuse_unguarded(ours: bool) -> None:
    """End a process that came here because it imports a script without a guard; `run_each` says so if it is ours."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(_UNGUARDED if ours else _SCRIPT)


class _Worker(Generic[T]):
    """A process that says when it has begun, and then works on one job after another."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.job: _Job[T] | None = None
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        try:
            self.process.start()
        finally:
            theirs.close()

    def give(self, work: Callable[[T], str], job: _Job[T]) -> None:
        self.job = job
        with suppress(OSError):  # it has died, as its silence will tell
            self.connection.send((work, job.item))

    def answer(self) -> str | None:
        """Return what the process says, or None if it has died."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return None

    def leave(self) -> int:
        """Let the process end, and return its exit status, or its signal with a minus sign."""
        self.connection.close()
        self.process.join(_PATIENCE)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        return self.process.exitcode or 0


def _enlarge(crew: list[_Worker[T]], jobs: deque[_Job[T]], processes: int) -> int:
    """Start processes while there is work for more, and return how many there may be."""
    while len(crew) < processes and sum(worker.job is None for worker in crew) < len(jobs):
        try:
            with undisturbed(), _interrupts_blocked():
                crew.append(_Worker())
        except OSError:
            if not crew:
                raise
            return len(crew)  # the system has no room for another
    return processes


def _heard(crew: list[_Worker[T]]) -> list[_Worker[T]]:
    """Wait, and return the processes that have something to say, or have died."""
    ready = wait([worker.connection for worker in crew])
    return [worker for worker in crew if worker.connection in ready]


def _lost(job: _Job[T] | None, code: int, killed: int, jobs: deque[_Job[T]], ended: Callable[[T, str], None]) -> int:
    """Deal with a process that died, and return how many in a row were killed before they began."""
    how = f"killed by signal {-code}" if code < 0 else f"it ended with exit status {code}"
    how += ", perhaps out of memory" if -code == _KILL else ""
    if job is not None:
        job.deaths += 1
        if job.deaths < _TRIES:
            jobs.append(job)
        else:
            ended(job.item, f"the worker process died: {how}")
        return 0
    if code == _UNGUARDED:
        raise RuntimeError(_SCRIPT)
    if code >= 0:
        raise RuntimeError(f"a worker process ended with exit status {code} before it began; {_SCRIPT}")
    if killed + 1 >= _STARTS:
        raise RuntimeError(f"{_STARTS} worker processes in a row died before they began: {how}; take fewer workers")
    return killed + 1


def _serve(connection: Connection) -> None:
    """Do what the parent asks for until there is no more; this is all that the process runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes, and the parent ends this one
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    _end_with_parent()
    with suppress(EOFError, OSError):  # the parent is done, or gone
        connection.send("")
        while True:
            asked = connection.recv_bytes()
            connection.send(_answer(asked))


def _answer(asked: bytes) -> str:
    try:
        work, item = pickle.loads(asked)
        return work(item)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _end_with_parent() -> None:
    """See that this process ends when its parent does, by whatever end."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if sys.platform == "linux" and _ask_kernel():
        if os.getppid() != parent.pid:  # it ended before the kernel was asked
            os._exit(1)
        return
    threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()


def _ask_kernel() -> bool:
    try:
        return ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, ctypes.c_ulong(_KILL)) == 0
    except (OSError, AttributeError):
        return False


def _watch(parent: Any) -> None:
    wait([parent])
    os._exit(1)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Let processes that start here put Ctrl-C off, which would be a traceback while they load."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it would lift the block when the first process starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
