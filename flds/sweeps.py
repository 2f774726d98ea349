"""Sweeps: one run for every point of a grid, each with a file of its own, resumed where it was left."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import pickle
import re
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from multiprocessing import current_process, get_context
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from flds.console import Interrupts
from flds.mean_ode.problem import MeanFieldProblem
from flds.mean_ode.settings import MeanOptions
from flds.problem import TrainingProblem
from flds.settings import Options
from flds.solution import load
from flds.solve import progress_bar
from solvers import checks
from solvers.blocks import available_threads
from solvers.solution import Solution

if TYPE_CHECKING:
    import xarray

_SOLVERS = {
    TrainingProblem: ("solve_flds", "simulate_resnet"),
    MeanFieldProblem: ("solve_mean_ode", "solve_tangent_ode"),
}
# Fields of problems that older sweeps did not know; at their defaults they mean what was meant then.
_LATER = ("divergence_factor",)
# Dimensions along which a run that ends early is shorter.
_IN_TRAINING = ("record", "step")


@dataclass(frozen=True)
class Task:
    """One run: what is solved, how, and where it is written."""

    solver: str
    problem: Any
    options: dict[str, Any]
    path: Path
    point: dict[str, Any]
    fingerprint: str

    @property
    def failure(self) -> Path:
        return self.path.with_suffix(".error.json")


def sweep(
    problem: TrainingProblem | MeanFieldProblem,
    grid: Mapping[str, Sequence[Any]],
    *,
    folder: str | Path,
    solver: str | None = None,
    executor: Executor | None = None,
    workers: int | None = None,
    progress: bool = False,
    **options: Any,
) -> xarray.Dataset:
    """Solve a problem at every point of a grid over its fields and its solver's settings.

    Each run writes a file of its own. Worker processes import the script that calls this, which must do so under
    ``if __name__ == "__main__":``. A second call with the same folder does only what is missing or failed. A run
    that fails leaves its error in a file and does not stop the others; an interrupt stops the sweep and keeps what is
    done.

    Parameters
    ----------
    problem : TrainingProblem or MeanFieldProblem
        What the grid varies.
    grid : dict
        Values by name: fields of the problem, such as ``learning_rate``, or arguments of the solver, such as ``depth``.
    folder : path
        Where the files go; it is made if needed.
    solver : str, optional
        solve_flds, simulate_resnet, solve_mean_ode or solve_tangent_ode; by default simulate_resnet where there is a
        width, else the first of the problem's kind.
    executor : concurrent.futures.Executor, optional
        What runs the tasks, such as ``dask.distributed.Client(...).get_executor()``; by default processes of its own.
    workers : int, optional
        Number of these processes; default one for each CPU. Numbers do not depend on it.
    progress : bool
        Show a progress bar on standard error.
    **options
        Arguments of the solver that are the same in all runs.

    Returns
    -------
    xarray.Dataset
        Every array that has one shape in all runs, with the grid's names as first dimensions and NaN where a run is
        missing; ``status`` is "completed", "diverged", …, or "failed".

    Raises
    ------
    ValueError, TypeError
        If the grid or an option is not valid, or the folder holds runs of another sweep.
    KeyboardInterrupt
        If the user ends it.
    """
    tasks = _tasks(problem, grid, Path(folder), solver, options)
    waiting = [task for task in tasks if not _is_done(task)]
    Path(folder).mkdir(parents=True, exist_ok=True)
    if waiting:
        most = available_threads() if workers is None else checks.positive_integer("workers", workers)
        workers = min(len(waiting), most)
        _run_all(waiting, executor, workers, progress)
    return _collect(tasks, grid)


_SCRIPT = "a script must call flds.sweep under  if __name__ == '__main__':  since worker processes import it"


def _run_all(tasks: list[Task], executor: Executor | None, workers: int, progress: bool) -> None:
    share = {"threads": max(1, available_threads() // workers) if executor is None else 1}
    with progress_bar(len(tasks), progress) as bar, _pool(executor, workers) as pool:
        futures: list[Future[None]] = []
        # an interrupt can leave the locks of a pool taken, so it may come only while the main thread waits here
        ended: SimpleQueue[Future[None]] = SimpleQueue()
        try:
            with _uninterruptible() if executor is None else nullcontext():
                for task in tasks:
                    futures.append(pool.submit(_run, replace(task, options=share | task.options)))
                    futures[-1].add_done_callback(ended.put)
            for _ in futures:
                ended.get().result()
                bar.update()
        except BaseException:
            with _uninterruptible():
                for future in futures:
                    future.cancel()
                if executor is None:
                    pool.shutdown()
            raise


@contextmanager
def _pool(executor: Executor | None, workers: int) -> Iterator[Executor]:
    if executor is not None:
        yield executor
        return
    if getattr(current_process(), "_inheriting", False):  # a worker that imports a script, which calls us again
        raise SystemExit(_SCRIPT)
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_ignore_interrupts) as pool:
            yield pool
    except BrokenProcessPool:
        raise RuntimeError(f"the worker processes ended before their work: out of memory, or {_SCRIPT}") from None


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _uninterruptible() -> Iterator[None]:
    """Ignore Ctrl-C, as processes that start meanwhile do from the beginning: while they load it is a traceback."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or handler is None:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end a run in a process that otherwise ignores it."""
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if not ours:
        yield
        return
    interrupts = Interrupts()
    try:
        interrupts.catch()
        yield
    finally:
        interrupts.ignore()


def _run(task: Task) -> None:
    """Solve one task and write its file, or its error."""
    import flds

    try:
        with _interruptible(), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the status says it
            solution: Solution = getattr(flds, task.solver)(task.problem, **task.options)
    except KeyboardInterrupt:
        return
    except Exception as error:
        text = json.dumps({"point": _plain(task.point), "error": f"{type(error).__name__}: {error}"}, indent=1)
        task.failure.write_text(text + "\n", encoding="utf-8")
        return
    if solution.status == "interrupted":
        return
    solution.extra["sweep"] = {"point": _plain(task.point), "fingerprint": task.fingerprint}
    solution.save(task.path)
    task.failure.unlink(missing_ok=True)


def _tasks(
    problem: Any, grid: Mapping[str, Sequence[Any]], folder: Path, solver: str | None, options: dict[str, Any]
) -> list[Task]:
    """Check everything and return the runs, in the order of the grid."""
    kind = next((kind for kind in _SOLVERS if isinstance(problem, kind)), None)
    if kind is None:
        raise TypeError(
            f"problem must be a flds.TrainingProblem or flds.MeanFieldProblem, got {type(problem).__name__}"
        )
    if not isinstance(grid, Mapping) or not grid:
        raise ValueError(f"grid must be a dictionary of lists of values by name, got {checks.shown(grid)}")
    default = _SOLVERS[kind][1 if kind is TrainingProblem and "width" in {*grid, *options} else 0]
    solver = checks.choice("solver", solver or default, _SOLVERS[kind])
    described = {item.name for item in fields(problem) if item.init}
    settable = _arguments(solver)
    for name in options:
        if name not in settable:
            raise TypeError(f"{solver} takes no {name!r}; it takes {', '.join(sorted(settable))}")
    values = {name: _checked_values(name, given, described | settable) for name, given in grid.items()}
    tasks, names = [], set()
    for chosen in itertools.product(*values.values()):
        point = dict(zip(values, chosen, strict=True))
        changed = replace(problem, **{name: value for name, value in point.items() if name in described})
        settings = options | {name: value for name, value in point.items() if name not in described}
        label = ",".join(f"{name}={_label(value, values[name])}" for name, value in point.items())
        if label in names:
            raise ValueError(f"grid must not repeat values, got {label} twice")
        names.add(label)
        mark = _fingerprint(solver, changed, settings)
        tasks.append(Task(solver, changed, settings, folder / f"{label}.nc", point, mark))
    return tasks


def _arguments(solver: str) -> set[str]:
    """Names of the keyword arguments of a solver."""
    import flds

    named = set(inspect.signature(getattr(flds, solver)).parameters) - {"problem", "options", "progress"}
    return named | set((Options if solver in _SOLVERS[TrainingProblem] else MeanOptions).__annotations__)


def _checked_values(name: str, values: Any, known: set[str]) -> list[Any]:
    if name not in known:
        raise ValueError(f"grid must name fields of the problem or arguments of the solver, got {name!r}; "
                         f"valid are {', '.join(sorted(known))}")  # fmt: skip
    if isinstance(values, (str, bytes)) or not hasattr(values, "__len__") or not len(values):
        raise ValueError(f"grid[{name!r}] must be a list of values, got {checks.shown(values)}")
    return [value.item() if isinstance(value, np.generic) else value for value in values]


def _label(value: Any, values: list[Any]) -> str:
    """A value as a part of a file's name; its place in the list where it is not a word or a number."""
    if isinstance(value, (int, float, str)) and len(str(value)) <= 40:
        return re.sub(r"[^\w.+-]", "-", str(value))
    return f"item{next(i for i, other in enumerate(values) if other is value)}"


def _fingerprint(solver: str, problem: Any, options: dict[str, Any]) -> str:
    """A hash of everything that decides the numbers."""
    digest = hashlib.sha256(solver.encode())
    parts = {item.name: getattr(problem, item.name) for item in fields(problem)
             if item.init and not (item.name in _LATER and getattr(problem, item.name) == item.default)}  # fmt: skip
    parts |= {f"option {name}": value for name, value in options.items() if name != "threads"}
    for name, value in sorted(parts.items()):
        digest.update(name.encode())
        if isinstance(value, np.ndarray):
            digest.update(f"{value.dtype}{value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
            continue
        try:
            digest.update(repr(value).encode() if value is None or isinstance(value, (str, int, float))
                          else pickle.dumps(value, protocol=5))  # fmt: skip
        except (pickle.PicklingError, AttributeError, TypeError):
            raise TypeError(
                f"{name} must be something that can be sent to another process, such as a function of a module; "
                f"got {checks.shown(value)}"
            ) from None
    return digest.hexdigest()


def _is_done(task: Task) -> bool:
    if not task.path.exists():
        return False
    stored = load(task.path, groups=False).extra.get("sweep", {})
    if stored.get("fingerprint") != task.fingerprint:
        raise ValueError(f"{str(task.path)!r} belongs to another sweep; choose another folder")
    return True


def _collect(tasks: list[Task], grid: Mapping[str, Sequence[Any]]) -> xarray.Dataset:
    """Stack the arrays of all runs over the grid."""
    import xarray

    shape = tuple(len(values) for values in grid.values())
    found = [load(task.path, groups=False) if task.path.exists() else None for task in tasks]
    status = [_status(task, solution) for task, solution in zip(tasks, found, strict=True)]
    dims = tuple(grid)
    described = {"long_name": "how the run ended", "units": "1"}
    variables: dict[str, Any] = {"status": (dims, np.array(status).reshape(shape), described)}
    done = [solution for solution in found if solution is not None]
    for name in dict.fromkeys(name for solution in done for name in solution.fields):
        stacked = _stack(found, name, shape)
        if stacked is None:
            continue
        item = next(solution.fields[name] for solution in done if name in solution.fields)
        renamed = [f"{dim}_axis" if dim in dims else dim for dim in item.dims]
        attributes = {"long_name": item.long_name, "units": item.units}
        variables[f"{name}_values" if name in dims else name] = ((*dims, *renamed), stacked, attributes)
    coordinates = {}
    for name, values in grid.items():
        plain = [value if isinstance(value, (int, float, str)) else index for index, value in enumerate(values)]
        coordinates[name] = (name, plain, {"long_name": name.replace("_", " "), "units": "1"})
    return xarray.Dataset(variables, coords=coordinates, attrs={"schema": "flds.sweep/1"})


def _status(task: Task, solution: Solution | None) -> str:
    if solution is not None:
        return solution.status
    return "failed" if task.failure.exists() else "missing"


def _stack(found: list[Solution | None], name: str, shape: tuple[int, ...]) -> Any:
    """One array over the grid, runs that ended early filled up with NaN; None if others differ, or are not numbers."""
    items = [None if solution is None else solution.fields.get(name) for solution in found]
    there = [item for item in items if item is not None]
    if any(item.dims != there[0].dims or item.values.dtype.kind not in "iuf" for item in there):
        return None
    most = np.max([item.values.shape for item in there], axis=0).astype(int) if there[0].dims else ()
    stacked = np.full((len(found), *most), np.nan)
    for row, item in zip(stacked, items, strict=True):
        if item is None:
            continue
        if any(size != full and dim not in _IN_TRAINING
               for dim, size, full in zip(item.dims, item.values.shape, most, strict=True)):  # fmt: skip
            return None
        row[tuple(slice(size) for size in item.values.shape)] = item.values
    return stacked.reshape(shape + stacked.shape[1:])


def _plain(point: dict[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, (int, float, str)) else repr(value) for name, value in point.items()}
