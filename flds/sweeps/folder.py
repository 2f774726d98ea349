"""The folder of a sweep: whose it is, who is at work in it, and which runs it has."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flds.sweeps.grid import CHECKPOINT, ITEM, Grid, Task, plain
from solvers.results.arrays import STATE
from solvers.results.checkpoint import remnants
from solvers.results.files import write_text
from solvers.results.lock import Lock, lock_of
from solvers.results.solution import Solution, load

_DESCRIPTION, _LOCK = "sweep.json", ".sweep.lock"
_SCHEMA = "flds.sweep-folder/1"


def check(folder: Path, plan: Grid) -> None:
    """Refuse the folder of another sweep.

    Raises
    ------
    ValueError
        If the folder holds another sweep; the message says what differs.
    """
    path = folder / _DESCRIPTION
    if not path.exists():
        _check_runs(folder, plan)
        return
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        solver, names, fixed = stored["solver"], list(stored["grid"]), dict(stored["fixed"])
    except (ValueError, LookupError, TypeError):
        raise ValueError(f"{str(path)!r} is not the description of a sweep; choose another folder") from None
    differences = []
    if solver != plan.solver:
        differences.append(_difference("solver", solver, plan.solver))
    if names != list(plan.values):
        differences.append(_difference("grid", ", ".join(names), ", ".join(plan.values)))
    here = plan.fixed
    for name in sorted({*fixed, *here} - {*names, *plan.values}):
        if fixed.get(name) != here.get(name):
            differences.append(_difference(name, fixed.get(name, "not set"), here.get(name, "not set")))
    if differences:
        raise ValueError(f"{str(folder)!r} holds another sweep: {'; '.join(differences)}; choose another folder")


def settle(folder: Path, plan: Grid) -> None:
    """Say in the folder which sweep it holds, once it has been checked."""
    check(folder, plan)
    path = folder / _DESCRIPTION
    if not path.exists():
        described = {"schema": _SCHEMA, "solver": plan.solver, "grid": list(plan.values), "fixed": plan.fixed}
        write_text(path, json.dumps(described, indent=1, ensure_ascii=False) + "\n")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder against other sweeps, until the end of this process at the latest.

    Another one is refused and does not wait: there would be nothing left for it to do, and what waits looks hung.

    Raises
    ------
    OSError
        If another sweep is at work there.
    """
    lock = Lock(folder / _LOCK, f"another sweep is at work in {str(folder)!r}", "folder")
    try:
        yield
    finally:
        lock.release()


def is_done(task: Task, known: Mapping[Path, str]) -> bool:
    """Return whether the file of a run is there, by the fingerprints that are known, or by its own.

    Raises
    ------
    ValueError
        If it is that of another run, or cannot be read.
    """
    if not task.path.exists():
        return False
    if known.get(task.path) == task.fingerprint:
        return True
    try:
        mark = _mark(load(task.path, groups=False))
    except ValueError as error:
        raise ValueError(f"{error}; remove it, and its run is done again") from None
    if mark.get("fingerprint") != task.fingerprint:
        other = f"; values such as {ITEM}0 keep their places in a grid" if f"={ITEM}" in task.path.name else ""
        raise ValueError(f"{str(task.path)!r} belongs to another sweep{other}; choose another folder")
    return True


def sign(solution: Solution, task: Task) -> None:
    """Say in a result of which run it is."""
    solution.extra["sweep"] = {"point": plain(task.point), "fingerprint": task.fingerprint}


def sweep_out(folder: Path, tasks: list[Task], ended: bool = False) -> None:
    """Remove what processes that died while they wrote have left of the description and of runs without a result.

    Where all processes have `ended`, the locks that they held go as well, and checkpoints of runs with a result.
    """
    missing = [task for task in tasks if not task.path.exists()]  # of others it may be the only copy of their arrays
    names = {_DESCRIPTION} | {task.path.name for task in missing} | {task.failure.name for task in missing}
    for part in folder.glob(".*.part"):  # .NAME.PROCESS.RANDOM.part
        if part.name[1:].rsplit(".", 3)[0].removesuffix(STATE) in names:
            part.unlink(missing_ok=True)
    kept = [one for one in folder.iterdir() if CHECKPOINT in one.name] if ended else []
    for task in tasks if kept else ():
        lock_of(task.checkpoint).unlink(missing_ok=True)
        for left in remnants(task.checkpoint, kept) if task.path.exists() else ():
            left.unlink(missing_ok=True)


def _check_runs(folder: Path, plan: Grid) -> None:
    """Refuse a folder without a description, as older versions made them, if its runs are not of this sweep."""
    for path in sorted(folder.glob("*=*.nc")):
        try:
            mark = _mark(load(path, groups=False))
        except ValueError:  # it is not of a sweep, or damaged, which matters where it stands in the way
            continue
        point = mark.get("point", {})
        if mark and list(point) != list(plan.values):
            there = _difference("grid", ", ".join(point), ", ".join(plan.values))
            raise ValueError(f"{str(folder)!r} holds another sweep: {there}; choose another folder")
        if mark and f"={ITEM}" not in path.name and mark.get("fingerprint") != plan.fingerprint(point):
            raise ValueError(f"{str(folder)!r} holds runs of another sweep, such as {path.name}; choose another folder")


def _mark(solution: Solution) -> dict[str, Any]:
    return solution.extra.get("sweep", {})


def _difference(name: str, there: str, here: str) -> str:
    hashed = there.startswith("sha256 ") or here.startswith("sha256 ")
    return f"other {name}" if hashed else f"{name} is {there} there and {here} here"
