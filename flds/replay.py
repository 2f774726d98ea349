"""A run again from its file, its trained network on new inputs, and its training for more steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

import solvers.results.solution
from flds.frozen.family import FrozenFamily
from flds.mean_ode.family import MeanOdeFamily
from flds.results.family import Family, problem_of
from flds.training.family import TrainingFamily
from flds.training.snapshot import steps_done
from solvers import checks
from solvers.results.versions import library_versions

if TYPE_CHECKING:
    from flds.mean_ode.problem import MeanFieldProblem
    from flds.results.solution import Solution
    from flds.training.problem import TrainingProblem


# One for each kind of solution.
FAMILIES: tuple[Family, ...] = (TrainingFamily(), FrozenFamily(), MeanOdeFamily())


def rerun(
    solution: solvers.results.solution.Solution,
    *,
    problem: TrainingProblem | MeanFieldProblem | None = None,
    progress: bool = False,
    **changes: Any,
) -> Solution:
    """Solve again what a solution was computed for.

    Parameters
    ----------
    solution : Solution
        Of `solve_flds`, `simulate_resnet`, `solve_frozen`, `solve_mean_ode` or `solve_tangent_ode`, fresh or from a
        file.
    problem : TrainingProblem or MeanFieldProblem, optional
        The problem itself, where it cannot be read back: with an activation, an optimiser, a branch, a block or an
        initial law of one's own, or with data too large to be kept. It is compared with what the solution says of it;
        steps and learning rates are the solution's.
    progress : bool
        Show a progress bar on standard error, where the solver has one.
    **changes
        Arguments of the solver that are to differ, such as ``threads``.

    Returns
    -------
    Solution
        Equal bit for bit on the same machine with the same versions; `version_changes` says what differs.

    Raises
    ------
    ValueError
        If it is the solution of something else, the problem cannot be read back, or another problem was given.
    TypeError, MemoryError
        As the solver.
    """
    with understood():
        family = _family(solution)
        return cast("Solution", family.again(solution, problem_of(family, solution, problem), progress, changes))


def resume(
    solution: solvers.results.solution.Solution,
    steps: int | None = None,
    *,
    learning_rate: Any = None,
    problem: TrainingProblem | MeanFieldProblem | None = None,
    progress: bool = False,
    **changes: Any,
) -> Solution:
    """Go on training for more steps, from a solution with ``keep_state=True``.

    Parameters
    ----------
    solution : Solution
        As for `rerun`. It is left as it is.
    steps : int, optional
        Further updates; of a run that ended early by default those that it did not come to.
    learning_rate : float, (steps,) array, callable or dict, optional
        Of these updates, for all parameters or by group, in the Mean ODE by parameter; by default those planned, and
        then the last one. A callable is a function of the step, counted from the first of the whole training.
    problem, progress
        As for `rerun`.
    **changes
        threads, where they are to differ; callback, executor, checkpoint and checkpoint_every as for the solver; for a
        `TrainingProblem` rank_budget, by default what memory allows, communicator, by default that over which the state
        is spread, and device, by default that of the solution where it is there.

    Returns
    -------
    Solution
        All records from step 0 to the last, and the state again: bit for bit what one run of all steps gives with the
        same operator, sampling, tolerance and records.

    Raises
    ------
    ValueError
        If there is no state, an argument is not valid, or the problem lists its batches and they would end; also as
        `rerun`.
    TypeError, MemoryError
        As the solver.
    """
    with understood():
        family = _family(solution)
        unknown = sorted(set(changes) - set(family.changes))
        if unknown:
            raise TypeError(f"unknown option {unknown[0]!r}; only {', '.join(family.changes)} can differ")
        _require_state(solution)
        done = steps_done(solution.groups["state_0"])
        if steps is None and done is None:
            raise ValueError("steps must be given: the run made all those that were planned")
        steps = None if steps is None else checks.positive_integer("steps", steps)
        trained = problem_of(family, solution, problem)
        return cast("Solution", family.resume(solution, trained, done, steps, learning_rate, progress, changes))


def predict(
    solution: solvers.results.solution.Solution, inputs: ArrayLike, problem: TrainingProblem | MeanFieldProblem | None
) -> NDArray[np.float64]:
    """Return the outputs of each replicate of the trained network on new inputs; see `Solution.predict`."""
    with understood():
        family = _family(solution)
        _require_state(solution)
        return np.asarray(family.evaluate(solution, problem_of(family, solution, problem), inputs))


@contextmanager
def understood() -> Iterator[None]:
    """Say in one line that a solution lacks something, or holds what no run can have left, as a changed file may."""
    try:
        yield
    except (LookupError, AttributeError, ArithmeticError, AssertionError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"the solution lacks what is needed, or holds what no run can have left ({reason})") from None


def version_changes(solution: solvers.results.solution.Solution) -> list[str]:
    """Return which versions that decide the numbers have changed since a solution was computed, a phrase each."""
    now = library_versions()
    return [
        f"{name} {then} then, {now.get(name, 'none')} now"
        for name, then in solution.versions.items()
        if now.get(name) != then
    ]


def can_rerun(solution: solvers.results.solution.Solution) -> bool:
    """Whether a solution is of a solver that `rerun` knows, and its problem can be read back."""
    try:
        family = _family(solution)
        family.problem(solution)
    except (ValueError, TypeError, LookupError):
        return False
    return True


def _family(solution: solvers.results.solution.Solution) -> Family:
    """Return the family that knows how solutions of this solver came about."""
    if not isinstance(solution, solvers.results.solution.Solution):
        raise TypeError(f"solution must be a Solution, got {type(solution).__name__}")
    solver = solution.settings.get("solver", type(solution).__name__)
    for family in FAMILIES:
        if solver in family.solvers:
            return family
    known = ", ".join(solver for family in FAMILIES for solver in family.solvers)
    again = "; flds.estimate_limit makes an estimate again" if solver == "estimate_limit" else ""
    raise ValueError(f"solution must be of one of {known}, got {solver}{again}")


def _require_state(solution: solvers.results.solution.Solution) -> None:
    if solution.missing:
        raise ValueError(f"the state of the trained network cannot be read: {solution.missing}")
    if not solution.groups:
        if solution.settings.get("solver") in FrozenFamily.solvers:
            raise ValueError("solve_frozen keeps no network to go on with: give it test_inputs, or more steps")
        raise ValueError(
            "the solution has no state of the trained network: solve with keep_state=True; runs that diverged or "
            f"ended in their first step, or in one of several replicates, have none (status {solution.status!r})"
        )
