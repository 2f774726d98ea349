"""Sweeps: one run for every point of a grid, each with a file of its own, resumed where it was left."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from flds.mean_ode.problem import MeanFieldProblem
from flds.processes import refuse_unguarded
from flds.results.sweep import Sweep
from flds.sweeps.folder import alone, check, is_done, settle, sweep_out
from flds.sweeps.grid import Grid
from flds.sweeps.results import RESULT, collect, earlier, is_of
from flds.sweeps.runs import run_all
from flds.training.apart import check_executor
from flds.training.problem import TrainingProblem
from solvers import checks
from solvers.processors import available_threads


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
) -> Sweep:
    """Solve a problem at every point of a grid over its fields and its solver's settings.

    Each run writes a file of its own. Worker processes import the script that calls this, which must do so under
    ``if __name__ == "__main__":``. A second call with the same folder does only what is missing or failed, and may
    extend the sweep by other values of the same names. A run that fails, or whose process dies twice, leaves its error
    in a file and does not stop the others; an interrupt stops the sweep and keeps what is done.

    Parameters
    ----------
    problem : TrainingProblem or MeanFieldProblem
        What the grid varies.
    grid : dict
        Values by name: fields of the problem, such as ``learning_rate``, or arguments of the solver, such as ``depth``.
    folder : path
        Where the files go; it is made if needed. It belongs to one sweep, which ``sweep.json`` in it describes.
    solver : str, optional
        solve_flds, simulate_resnet, solve_mean_ode or solve_tangent_ode; by default simulate_resnet where there is a
        width, else the first of the problem's kind.
    executor : concurrent.futures.Executor, optional
        What runs the tasks, such as ``dask.distributed.Client(...).get_executor()``; by default processes of its own,
        which end when the calling process does.
    workers : int, optional
        Number of these processes; default one for each CPU. Numbers do not depend on it.
    progress : bool
        Show a progress bar on standard error.
    **options
        Arguments of the solver that are the same in all runs. Each run is kept in a checkpoint beside its file while it
        goes on, every ``checkpoint_every`` seconds, from which a second call goes on.

    Returns
    -------
    Sweep
        Every array that has one shape in all runs, over the grid, and how each run ended. It is also written as
        ``sweep.nc`` to the folder, which `load` reads.

    Raises
    ------
    ValueError, TypeError
        If the grid or an option is not valid, or the folder holds another sweep.
    OSError
        If another process is at work on a sweep in the folder, or the folder cannot be written to; runs that are there
        are kept.
    RuntimeError
        If worker processes end before they begin to work.
    KeyboardInterrupt
        If the user ends it.

    Warns
    -----
    RuntimeWarning
        If the errors of runs that failed could not be written; the warning has them.
    """
    plan = Grid(problem, grid, solver, options)
    place = Path(folder)
    tasks = plan.tasks(place)
    check(place, plan)
    check_executor(executor)
    if executor is not None and workers is not None:
        raise ValueError("workers is the number of processes of the sweep's own; leave it out with an executor")
    most = available_threads() if workers is None else checks.positive_integer("workers", workers)
    found, known = earlier(place)
    waiting = [task for task in tasks if not is_done(task, known)]
    if not waiting:
        if found is None or not is_of(found, tasks, known):
            found = collect(tasks, plan, {}, 0)
            with suppress(OSError):  # the folder may be one to read only
                found.save(place / RESULT)
        return replace(found, reused=len(tasks))
    refuse_unguarded(executor is None)
    place.mkdir(parents=True, exist_ok=True)
    with alone(place):
        settle(place, plan)
        waiting = [task for task in waiting if not is_done(task, {})]
        unwritten = run_all(waiting, executor, min(len(waiting), most), progress)
        sweep_out(place, tasks, ended=True)
        found = collect(tasks, plan, unwritten, len(tasks) - len(waiting))
        if unwritten:
            told = "; ".join(f"{path.name}: {' '.join(error.split())}" for path, error in unwritten.items())
            warnings.warn(f"runs failed whose errors could not be written: {told}", RuntimeWarning, stacklevel=2)
        found.save(place / RESULT)
    return found
