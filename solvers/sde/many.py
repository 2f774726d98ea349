"""Many solves of one equation, with other parameters or seeds, as one solution."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers import checks
from solvers.partition import STRETCH
from solvers.processors import thread_count
from solvers.progress import step_bar
from solvers.results.solution import Solution, Variable
from solvers.sde.equation import McKeanVlasov
from solvers.sde.parameters import as_args
from solvers.sde.solve import solve

Array = NDArray[Any]

# The status of several runs is the first of these that one of them has.
_WORST = ("interrupted", "failed", "diverged", "stopped", "completed")
# Options of `solve` that belong to a single run.
_SINGLE = ("communicator", "checkpoint", "checkpoint_every")


def solve_many(
    equation: McKeanVlasov,
    x0: Any,
    t0: float,
    t1: float,
    steps: int,
    *,
    args: Sequence[Any] | None = None,
    seed: int | Sequence[int] = 0,
    threads: int | None = None,
    progress: bool = False,
    **options: Any,
) -> Solution:
    """Solve an equation for several values of its parameters, or several seeds, or for pairs of both.

    The equation is compiled once. Runs of few particles go side by side, one on each thread; those of many one after
    the other, each on all threads. Each has the bits that `solve` gives it.

    Parameters
    ----------
    equation, x0, t0, t1, steps
        As for `solve`.
    args : sequence, optional
        Parameters as for `solve`, one for each run, all of one kind.
    seed : int or sequence of int
        One seed for all runs, whose particles then follow the same Brownian paths, or one for each.
    threads : int, optional
        By default all available CPUs.
    progress : bool
        Whether a bar on standard error counts the runs.
    **options
        All others of `solve`, but for `communicator` and `checkpoint`.

    Returns
    -------
    Solution
        That of `solve` with "run" as the first dimension of everything but `times`, and `seeds`, (run,). Where a run
        ended early the rest is NaN; `settings["statuses"]` has the status of each, and `status` the worst of them.

    Raises
    ------
    TypeError, ValueError
        If there are neither several parameters nor several seeds, they are not as many, or as for `solve`.
    RuntimeError, MemoryError
        As for `solve`, of the first run.

    Warns
    -----
    RuntimeWarning
        If a run ended early.

    References
    ----------
    As for `solve`.

    Examples
    --------
    >>> from numba import njit
    >>> import numpy as np, solvers
    >>> equation = solvers.McKeanVlasov(drift=njit(lambda t, x, m, rate: -rate * x))
    >>> runs = solvers.solve_many(equation, np.ones(10), 0.0, 1.0, 100, args=[1.0, 2.0, 3.0])
    >>> runs.mean.shape
    (3, 101)
    """
    for name in _SINGLE:
        if name in options:
            raise TypeError(f"solve_many makes runs in one process and does not keep them: leave {name} out")
    threads, shown = thread_count(threads), checks.flag("progress", progress)
    given, seeds = _runs(args, seed)
    one = partial(solve, equation, x0, t0, t1, steps, **options)
    calls = [partial(one, args=value, seed=number) for value, number in zip(given, seeds, strict=True)]
    with warnings.catch_warnings(), step_bar(len(calls), shown) as count:
        warnings.filterwarnings("ignore", "(diverged|failed|interrupted)", RuntimeWarning)
        found: list[Solution | str] = [calls[0](threads=threads)]  # which compiles, and refuses what is wrong
        count(1)
        few = found[0].settings["particles"] <= STRETCH * threads  # type: ignore[union-attr]
        found += _side_by_side(calls[1:], threads, count) if few else _in_turn(calls[1:], threads, count, found[0])
    together = _stacked(found, seeds)
    for note in together.notes:
        warnings.warn(note, RuntimeWarning, stacklevel=2)
    return together


def _runs(args: Any, seed: Any) -> tuple[list[Any], list[int]]:
    """Return the parameters and the seed of each run; raises TypeError or ValueError."""
    many_seeds = np.iterable(seed) and not isinstance(seed, str)
    seeds = [checks.seed_number("seed", one) for one in (seed if many_seeds else [seed])]
    if args is None and not many_seeds:
        raise TypeError("solve_many needs several args or several seeds")
    if args is not None and (not np.iterable(args) or isinstance(args, (str, dict, set)) or hasattr(args, "_fields")):
        raise TypeError(f"args must be a list of parameters, one for each run, got {checks.shown(args)}")
    given = [None] if args is None else [as_args(one) for one in args]
    if not given or not seeds:
        raise ValueError("args and seed must not be empty")
    for number, value in enumerate(given):
        if _kind(value) != _kind(given[0]):
            raise ValueError(
                f"args must be of one kind for all runs, got {checks.shown(given[0])}, and for run {number} "
                f"{checks.shown(value)}"
            )
    count = max(len(given), len(seeds))
    for name, values in (("args", given), ("seed", seeds)):
        if len(values) not in (1, count) or (len(values) == 1 < count and name == "args" and args is not None):
            raise ValueError(f"{name} must have one entry for each of {count} runs, got {len(values)}")
    return given * (count // len(given)), seeds * (count // len(seeds))


def _kind(args: Any) -> Any:
    entries = args if isinstance(args, tuple) else (args,)
    return type(args), [np.shape(entry) for entry in entries]


def _attempt(call: Callable[..., Solution], threads: int) -> Solution | str:
    """Return a run, or why it could not begin, so that the others are not lost."""
    try:
        return call(threads=threads)
    except Exception as error:  # whatever a function of the user's raises
        return checks.reason(error)


def _in_turn(
    calls: Sequence[Callable[..., Solution]], threads: int, count: Callable[[int], Any], last: Solution | str
) -> list[Solution | str]:
    found: list[Solution | str] = []
    for call in calls:
        if isinstance(last, Solution) and last.status == "interrupted":
            found.append("KeyboardInterrupt")
            continue
        last = _attempt(call, threads)
        found.append(last)
        count(1)
    return found


def _side_by_side(
    calls: Sequence[Callable[..., Solution]], threads: int, count: Callable[[int], Any]
) -> list[Solution | str]:
    pool = ThreadPoolExecutor(threads)
    futures = [pool.submit(_attempt, call, 1) for call in calls]
    try:
        for future in futures:
            future.result()
            count(1)
    except KeyboardInterrupt:
        pool.shutdown(cancel_futures=True)
    pool.shutdown()
    return ["KeyboardInterrupt" if future.cancelled() else future.result() for future in futures]


def _stacked(found: Sequence[Solution | str], seeds: Sequence[int]) -> Solution:
    """Return one solution of all runs, of which one at least is a solution."""
    runs = [run for run in found if isinstance(run, Solution)]
    longest = max(runs, key=lambda run: len(run.times))
    variables: dict[str, Variable] = {}
    for name in longest.variables:
        item = max((run.variables[name] for run in runs), key=lambda one: one.values.shape[:1])
        item = longest.variables[name] if item.dims[:1] == ("time",) else item
        grid = name == "times" or (name.endswith("_times") and item.dims == (name[:-1],))  # of trajectories, all of it
        if grid or name in item.dims or name.startswith("external_field"):
            variables[name] = item
            continue
        values = [None if isinstance(run, str) else _row(run, name, item, longest.times) for run in found]
        dtype = np.result_type(item.values, np.float64)
        whole = np.full((len(found), *item.values.shape), np.nan, dtype)
        for number, value in enumerate(values):
            if value is not None:
                whole[number] = value
        variables[name] = Variable(("run", *item.dims), whole, item.long_name, item.units)
    variables["seeds"] = Variable(("run",), np.array(seeds, np.int64), "seed of each run")
    statuses = [run.status if isinstance(run, Solution) else _status(run) for run in found]
    status = next(one for one in _WORST if one in statuses)
    notes = [
        f"run {number}: {note}"
        for number, run in enumerate(found)
        for note in ([f"did not begin: {run}"] if isinstance(run, str) else run.notes)
    ]
    settings = longest.settings | {"solver": "solve_many", "runs": len(found), "statuses": statuses}
    timings = {name: sum(run.timings[name] for run in runs) for name in longest.timings}
    return Solution(variables, status, timings, int(seeds[0]), settings, notes, longest.versions)


def _status(why: str) -> str:
    return "interrupted" if why == "KeyboardInterrupt" else "failed"


def _row(run: Solution, name: str, item: Variable, times: Array) -> Array:
    """Return a variable of a run in the shape of that of the longest one; what the run did not reach is NaN."""
    values = run.variables[name].values
    if values.shape == item.values.shape:
        return values
    row = np.full(item.values.shape, np.nan, np.result_type(values, np.float64))
    if item.dims[0] != "time":  # trajectories, at all times of the grid up to the end
        row[: len(values)] = values
        return row
    free = list(range(len(times)))
    for t, value in zip(run.times, values, strict=True):  # a time may have been asked for twice
        place = next(one for one in free if times[one] == t)
        free.remove(place)
        row[place] = value
    return row
