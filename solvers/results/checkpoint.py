"""Checkpoints: what it takes to go on with a run whose process has ended before it.

A checkpoint is a file that is written beside its place and renamed, so that the last one is always whole. Rows of
arrays that only grow, such as those of bases, lie in a file beside it to which they are appended.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from solvers import checks
from solvers.ranks import on_first, shared
from solvers.results.arrays import read_arrays, write_arrays
from solvers.results.files import Variable
from solvers.results.growing import GrowingRows
from solvers.results.lock import Lock, lock_of
from solvers.results.versions import library_versions

State = Mapping[str, Variable]
Grows = Callable[[str], bool]

EVERY = 600.0
# How a run ends that has come to its end; others may go on.
FINAL = ("completed", "diverged", "stopped")
_SCHEMA = "flds.checkpoint/1"
_HEADER = "checkpoint"
# A run may spend 1/40 of its time on checkpoints.
_SHARE = 40.0
# A file of rows with more dead bytes than this, and than others, is written anew.
_DEAD = 2**26
# Bytes of what may change that are copied, for the disk to have them while the run goes on.
_COPIED = 2**28
_ROUNDING, _TINY = 1e-9, 1e-12


class Checkpoint:
    """The checkpoint of one run, or none.

    Parameters
    ----------
    path : path, optional
        The file; without it nothing is kept.
    every : float
        Seconds from one to the next, at least; more where writing takes more than 1/40 of the time.
    stays : bool
        Whether the file stays, and is held, until `close`, for results that are yet to be written.

    Attributes
    ----------
    stored : dict
        Groups of arrays by name, as an earlier process left them.
    notes : list of str
        What a user should know.

    Raises
    ------
    TypeError, ValueError
        If `path` is not the name of a file, or `every` not a number of seconds.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, every: Any = EVERY, stays: bool = False) -> None:
        self.every, self.stays = checks.positive_number("checkpoint_every", every, zero=True), stays
        if path is not None and not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"checkpoint must be the name of a file, got {checks.shown(path)}")
        self.path = None if path is None else Path(path)
        self.stored: dict[str, State] = {}
        self.notes: list[str] = []
        self._ended: dict[str, State] = {}
        self._communicator: Any = None
        self._described: dict[str, Any] = {}
        self._lock: Lock | None = None
        self._next, self._start = np.inf, 0.0
        self._thread: threading.Thread | None = None
        self._error: OSError | MemoryError | None = None

    @staticmethod
    def of(given: Any, every: float | None = None) -> Checkpoint:
        """Return a checkpoint from the name of its file, or None, or one that was made before."""
        return given if isinstance(given, Checkpoint) else Checkpoint(given, EVERY if every is None else every)

    @contextmanager
    def opened(self, described: Callable[[], Mapping[str, Any]], communicator: Any = None) -> Iterator[Checkpoint]:
        """Hold the file and read what an earlier run has left of which described() returned the same.

        Raises
        ------
        ValueError
            If it is that of another run or version, or is not a checkpoint.
        OSError
            If it cannot be written, or another process is at work on it.
        """
        if self.path is None:
            yield self
            return
        self._communicator = communicator
        self._described = json.loads(json.dumps(described()))
        on_first(self._hold, communicator)
        try:
            self._read()
            self._next = time.monotonic() + self.every
            yield self
        except BaseException:
            self.close()
            raise
        if not self.stays:
            self.close()

    def due(self) -> bool:
        """Whether it is time to keep the run; ranks ask together."""
        return self.path is not None and on_first(self._is_time, self._communicator)

    def keep(self, name: str, state: State, grows: Grows = lambda name: False) -> None:
        """Write a group of arrays, beside those that have ended, in place of what was there.

        The rows of arrays whose names say that they grow are those of before, and some more. The disk may take its
        time for it, for which `wait` waits. Where it cannot be written the run goes on, with a warning.
        """
        if self.path is None:
            return
        self.wait()
        self._start = time.monotonic()
        groups = {**self._ended, name: state}
        try:
            fixed, apart = self._fixed(groups, grows)
            rows = self._appended(groups, grows)
        except (OSError, MemoryError) as error:
            self._error = error
            self._rest()
        else:
            header = self._header(groups, rows)
            if apart:
                self._thread = threading.Thread(target=self._commit, args=(fixed, header, rows))
                self._thread.start()
                return
            self._commit(fixed, header, rows)
        self.wait()

    def wait(self) -> None:
        """Wait until what is kept is on the disk, and warn if it could not be written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            why = getattr(error, "strerror", None) or checks.reason(error)
            self._warn(f"no checkpoint could be written ({why}); the run goes on without")

    def end(self, name: str, state: State, grows: Grows | None = lambda name: False) -> None:
        """Write a group that stays as it is from now on; without `grows` only when the next one is written."""
        if self.path is None:
            return
        self._ended[name] = state
        if grows is not None:
            self.keep(name, state, grows)

    def settle(self, status: str) -> None:
        """Remove the files of a run that has ended so, if it has come to its end and they need not stay."""
        if status in FINAL and not self.stays:
            self.remove()

    def remove(self) -> None:
        """Remove the files: the run has come to its end."""
        if self.path is None:
            return
        self.wait()
        on_first(self._remove, self._communicator)

    def close(self) -> None:
        """Let other processes have the file."""
        self.wait()
        if self._lock is not None:
            self._lock.release(remove=True)
            self._lock = None

    def check(self) -> None:
        """Refuse a place where no checkpoint can be written; raises ValueError or OSError."""
        path = self.path
        if path is None:
            return
        if not path.name or path.is_dir():
            raise ValueError(f"checkpoint must name a file, got {str(path)!r}")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"checkpoint: the folder {str(path.parent)!r} does not exist; create it first")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise PermissionError(f"checkpoint: the folder {str(path.parent)!r} cannot be written to; choose another")

    def _hold(self) -> None:
        """Check the place, and hold it."""
        self.check()
        path = self.path
        assert path is not None
        busy = f"another run is at work on the checkpoint {str(path)!r}"
        self._lock = self._lock or Lock(lock_of(path), busy, "file")

    def _read(self) -> None:
        """Read what was left; a file of rows that nothing refers to is removed."""
        path = self.path
        assert path is not None
        if not on_first(path.exists, self._communicator):
            self._rows = GrowingRows(self._rows_file(0), self._communicator)
            on_first(self._clean, self._communicator)
            return
        try:
            groups = read_arrays(path, self._communicator)
            if _HEADER not in groups:
                raise ValueError("it holds something else")
            header = groups.pop(_HEADER)["json"].json()
            if header["schema"] != _SCHEMA:
                raise ValueError(f"it is written as {header['schema']!r}, which this version does not read")
        except (ValueError, LookupError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise shared(
                ValueError(f"{str(path)!r} is no checkpoint that can be read: {reason}; choose another file")
            ) from None
        self._compare(header)
        try:
            # that of this name, so that a copy does not append to the rows of the original
            rows = self._rows_file(int(header["rows"]["file"].rpartition("rows")[2]))
            self._rows = GrowingRows.of(header["rows"], rows, self._communicator)
            grown = self._rows.read()
        except (ValueError, LookupError, TypeError, OSError) as error:
            raise self._refusal(f"is damaged: {error}; remove it to begin anew") from None
        found: dict[str, dict[str, Variable]] = {name: dict(groups.get(name, {})) for name in header["groups"]}
        for (group, name), item in grown.items():
            found[group][name] = item
        self.stored.update(found)
        self._ended = {name: found[name] for name in header["ended"]}
        on_first(self._clean, self._communicator)

    def _compare(self, header: Mapping[str, Any]) -> None:
        """Refuse the checkpoint of another run, or of another version of this library."""
        then, now = header["versions"], library_versions()
        if then.get("flds") != now["flds"]:
            raise self._refusal(f"is of version {then.get('flds')}, and this is {now['flds']}; choose another file")
        found = difference(header["described"], self._described)
        if found is not None:
            raise self._refusal(f"is that of another run: {found}; choose another file")
        changed = [f"{name} {then.get(name)} then, {now[name]} now" for name in now if then.get(name) != now[name]]
        if changed:
            self._warn(f"the checkpoint was written elsewhere, so the last digits may differ: {', '.join(changed)}")

    def _refusal(self, why: str) -> BaseException:
        return shared(ValueError(f"the checkpoint {str(self.path)!r} {why}"))

    def _is_time(self) -> bool:
        busy = self._thread is not None and self._thread.is_alive()
        return not busy and time.monotonic() >= self._next

    def _fixed(self, groups: Mapping[str, State], grows: Grows) -> tuple[dict[str, State], bool]:
        """Return what does not grow, and whether the disk may have it while the run goes on: copies, if not large."""
        fixed: dict[str, State] = {g: {n: i for n, i in one.items() if not grows(n)} for g, one in groups.items()}
        size = sum(item.values.nbytes for one in fixed.values() for item in one.values())
        if self._communicator is not None or size > _COPIED:
            return fixed, False
        return {g: {n: i._replace(values=i.values.copy()) for n, i in one.items()} for g, one in fixed.items()}, True

    def _appended(self, groups: Mapping[str, State], grows: Grows) -> GrowingRows:
        """Append rows, for the disk to take; return where they are, which may be a new file."""
        growing = {(g, n): item for g, state in groups.items() for n, item in state.items() if grows(n)}
        rows = self._rows
        rows.forget(growing)
        whole = groups.keys() == self._ended.keys()  # which may be the end, where all of it is removed
        if rows.dead > max(_DEAD, rows.end - rows.dead) and not whole:
            rows = GrowingRows(self._rows_file(int(rows.path.name.rpartition("rows")[2]) + 1), self._communicator)
        rows.append(growing)
        return rows

    def _header(self, groups: Mapping[str, State], rows: GrowingRows) -> State:
        header = {
            "schema": _SCHEMA,
            "versions": library_versions(),
            "described": self._described,
            "groups": list(groups),
            "ended": list(self._ended),
            "rows": rows.index(),
        }
        return {"json": Variable.of_json(header, "header")}

    def _commit(self, fixed: Mapping[str, State], header: State, rows: GrowingRows) -> None:
        """Wait until the disk has the rows, and write the file that refers to them."""
        assert self.path is not None
        before = self._rows.path
        try:
            rows.sync()
            write_arrays(self.path, {**fixed, _HEADER: header}, self._communicator)
            self._rows = rows
            if rows.path != before:
                on_first(lambda: before.unlink(missing_ok=True), self._communicator)
        except (OSError, MemoryError) as error:
            self._error = error
        self._rest()

    def _rest(self) -> None:
        """Settle when the next checkpoint is due."""
        end = time.monotonic()
        self._next = end + max(self.every, _SHARE * (end - self._start))

    def _rows_file(self, number: int) -> Path:
        assert self.path is not None
        return self.path.with_name(f"{self.path.name}.rows{number}")

    def _clean(self) -> None:
        """Remove what killed processes have left, and files of rows that are not referred to."""
        assert self.path is not None
        for other in remnants(self.path):
            if other not in (self.path, lock_of(self.path), self._rows.path):
                other.unlink(missing_ok=True)

    def _remove(self) -> None:
        assert self.path is not None
        self.path.unlink(missing_ok=True)  # first, since it refers to the others
        self._rows.path.unlink(missing_ok=True)
        self._clean()

    def _warn(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)
            if self._communicator is None or self._communicator.Get_rank() == 0:
                warnings.warn(note, RuntimeWarning, stacklevel=2)


def remnants(path: Path, among: Iterable[Path] | None = None) -> list[Path]:
    """Return all files of a checkpoint, its lock included, that there are in its folder, or among some of these."""
    name = re.escape(path.name)
    left = re.compile(rf"{name}|{name}\.rows\d+|\.{name}\.lock|\.{name}\.\d+\.[^.]+\.part")
    return [one for one in (path.parent.iterdir() if among is None else among) if left.fullmatch(one.name)]


def difference(there: Any, here: Any, name: str = "") -> str | None:
    """Return the first thing in which two descriptions differ, with its values, or None.

    Lists of numbers, which are values of functions, are compared up to the rounding of another machine.
    """
    if isinstance(there, dict) and isinstance(here, dict):
        if "sha256" in there and there != here:
            return f"other {name}"
        for key in dict.fromkeys([*there, *here]):
            found = difference(there.get(key), here.get(key), key)
            if found is not None:
                return found
        return None
    if there == here:
        return None
    if isinstance(there, list) and isinstance(here, list):
        with suppress(TypeError, ValueError):
            if len(there) == len(here) and np.allclose(there, here, rtol=_ROUNDING, atol=_TINY):
                return None
        return f"other {name}"
    return f"{name} is {checks.shown(there)} there and {checks.shown(here)} here"
