"""The work of a sweep: runs on processes or on an executor, of which each one fails for itself."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from threading import RLock
from typing import TYPE_CHECKING

from flds.processes import run_each
from flds.sweeps.folder import is_done, sign, sweep_out
from flds.sweeps.grid import Task, plain
from solvers.processors import available_threads
from solvers.progress import progress_bar
from solvers.results.checkpoint import EVERY, Checkpoint
from solvers.results.files import write_text

if TYPE_CHECKING:
    from solvers.results.solution import Solution


def run_all(tasks: list[Task], executor: Executor | None, workers: int, progress: bool) -> dict[Path, str]:
    """Do all runs, and return the errors that could not be written, by the paths of their runs."""
    unwritten: dict[Path, str] = {}
    if not tasks:
        return unwritten
    threads = max(1, available_threads() // workers) if executor is None else 1
    given = [replace(task, options={"threads": threads} | task.options) for task in tasks]
    with progress_bar(len(tasks), progress) as bar:

        def ended(task: Task, error: str) -> None:
            if error and not task.path.exists() and not _keep(task, error):
                unwritten[task.path] = error
            bar.update()

        if executor is not None:
            _run_on(executor, given, ended)
            return unwritten
        try:
            run_each(_run_apart, given, workers, ended)
        finally:
            sweep_out(tasks[0].path.parent, tasks, ended=True)
    return unwritten


def run(task: Task) -> str:
    """Solve one task and write its file; return its error, or nothing."""
    checkpoint = Checkpoint()
    try:
        if is_done(task, {}):  # an executor does again what a worker had done that died since
            return ""
        sweep_out(task.path.parent, [task])
        checkpoint = Checkpoint(task.checkpoint, task.options.get("checkpoint_every", EVERY), stays=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the status says it
            solution: Solution = task.solve(checkpoint)
        if solution.status != "interrupted":
            sign(solution, task)
            solution.save(task.path)
            checkpoint.remove()
            task.failure.unlink(missing_ok=True)
    except KeyboardInterrupt:
        return ""
    except Exception as error:
        return _told(error)
    finally:
        checkpoint.close()
    return ""


def _run_apart(task: Task) -> str:
    """Do a run in a process that may be killed."""
    from tqdm import tqdm

    tqdm.set_lock(RLock())  # its own lock, between processes, would be told as leaked
    return run(task)


def _run_on(executor: Executor, tasks: list[Task], ended: Callable[[Task, str], None]) -> None:
    futures: dict[Future[str], Task] = {}
    finished: SimpleQueue[Future[str]] = SimpleQueue()
    try:
        for task in tasks:
            try:
                future = executor.submit(run, task)
            except BrokenExecutor as error:
                ended(task, _told(error))
                continue
            futures[future] = task
            future.add_done_callback(finished.put)
        for _ in range(len(futures)):
            future = finished.get()
            ended(futures[future], _outcome(future))
    except BaseException:
        for future in futures:
            future.cancel()
        raise


def _outcome(future: Future[str]) -> str:
    try:
        return future.result()
    except Exception as error:  # of the executor; those of runs are caught where they are raised
        return _told(error)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _keep(task: Task, error: str) -> bool:
    """Write the error of a run beside its file; return whether that could be done."""
    text = json.dumps({"point": plain(task.point), "error": error}, indent=1)
    try:
        write_text(task.failure, text + "\n")
    except OSError:
        return False
    return True
