"""A run again from its file: the same numbers bit for bit on the same machine with the same versions."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

import solvers.solution
from flds.activations import ACTIVATIONS
from flds.problem import TrainingProblem
from flds.solution import Solution
from solvers.solution import library_versions

SOLVERS = ("solve_flds", "simulate_resnet")
# Decided by the solver, or without influence on the numbers.
_NOT_OPTIONS = {"particles", "depth", "solver", "reason", "replicates_completed", "threads", "rank_budget", "sampling"}


def problem_of(solution: solvers.solution.Solution) -> TrainingProblem:
    """Return the training problem that a solution was computed for.

    Parameters
    ----------
    solution : Solution
        Of `solve_flds` or `simulate_resnet`, fresh or from a file.

    Returns
    -------
    TrainingProblem

    Raises
    ------
    ValueError
        If it is the solution of something else, its activation is not built in, or its data were too large to be kept.
    """
    solver = solution.settings.get("solver", type(solution).__name__)
    if not isinstance(solution, Solution) or solver not in SOLVERS:
        raise ValueError(f"solution must be of {' or '.join(SOLVERS)} to be run again, got {solver}")
    described = solution.extra["problem"]
    if described["activation"] not in ACTIVATIONS:
        raise ValueError(f"the activation {described['activation']!r} is not built in: solve again from Python")
    given: dict[str, Any] = {}
    for item in fields(TrainingProblem):
        if not item.init or item.name not in described:
            continue
        value = described[item.name]
        if isinstance(value, dict):
            name = f"problem_{item.name}"
            if name not in solution.fields:
                raise ValueError(
                    f"the file has only the hash of {item.name}, which were too large to be kept: solve again from "
                    f"Python with data of shape {tuple(value['shape'])} and SHA-256 {value['sha256']}"
                )
            value = np.asarray(solution.fields[name].values, value["dtype"])
        given[item.name] = value
    return TrainingProblem(**given)


def rerun(solution: solvers.solution.Solution, **changes: Any) -> Solution:
    """Solve again what a solution was computed for.

    Parameters
    ----------
    solution : Solution
        Of `solve_flds` or `simulate_resnet`, fresh or from a file.
    **changes
        Arguments of the solver that are to differ, such as ``threads`` or ``progress``.

    Returns
    -------
    Solution
        Equal bit for bit on the same machine with the same versions; `version_changes` says what differs.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `problem_of` and the solver.
    """
    from flds.solve import simulate_resnet, solve_flds

    problem, settings = problem_of(solution), solution.settings
    options = {name: value for name, value in settings.items() if name not in _NOT_OPTIONS}
    if solution.status == "rank_budget":
        options["rank_budget"] = settings["rank_budget"]
    if settings["solver"] == "simulate_resnet":
        return simulate_resnet(
            problem, **{"width": settings["particles"], "depth": settings["depth"]} | options | changes
        )
    base = {name: settings[name] for name in ("particles", "depth", "sampling")}
    return solve_flds(problem, **base | options | changes)


def version_changes(solution: solvers.solution.Solution) -> list[str]:
    """Return which versions that decide the numbers have changed since a solution was computed, a phrase each."""
    now = library_versions()
    return [f"{name} {then} then, {now.get(name, 'none')} now" for name, then in solution.versions.items()
            if now.get(name) != then]  # fmt: skip
