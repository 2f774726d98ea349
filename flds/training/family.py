"""Solutions of training problems, run again: the same, for more steps, or at new inputs."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flds.results.descriptions import difference, digest, same_functions
from flds.results.solution import Solution
from flds.training import snapshot
from flds.training.activations import ACTIVATIONS
from flds.training.description import describe, function_values
from flds.training.options import Options, Settings, stored_options, stored_settings
from flds.training.problem import TrainingProblem, checked_rates
from flds.training.solve import run, simulate_resnet, solve_flds
from solvers import checks
from solvers.ensemble.random import replicate_seed
from solvers.results.arrays import together


class TrainingFamily:
    """Solutions of `solve_flds` and `simulate_resnet`; see `flds.results.family.Family`."""

    solvers: tuple[str, ...] = ("solve_flds", "simulate_resnet")
    problem_type: type = TrainingProblem
    changes: tuple[str, ...] = ("threads", "rank_budget", "communicator", "executor", "checkpoint", "checkpoint_every")

    def problem(self, solution: Solution) -> TrainingProblem:
        """Read the problem back from a solution.

        Raises
        ------
        ValueError
            If its activation is not built in, or its data were too large to be kept.
        """
        described = solution.extra["problem"]
        own = f"the activation {described['activation']!r} is not built in: give the problem= itself"
        if described["activation"] not in ACTIVATIONS:
            raise ValueError(own)
        given: dict[str, Any] = {}
        for item in fields(TrainingProblem):
            if not item.init or item.name not in described:
                continue
            value = described[item.name]
            if isinstance(value, dict):
                name = f"problem_{item.name}"
                if name not in solution.variables:
                    raise ValueError(
                        f"the file has only the hash of {item.name}, which were too large to be kept: give the "
                        f"problem= itself, with data of shape {tuple(value['shape'])} and SHA-256 {value['sha256']}"
                    )
                stored = np.asarray(solution.variables[name].values, value["dtype"])
                if digest(stored) != value["sha256"]:
                    raise ValueError(
                        f"{item.name} of the solution do not have the SHA-256 that it states: they were changed"
                    )
                value = stored
            given[item.name] = value
        problem = TrainingProblem(**given)
        if not same_functions(described, function_values(problem)):  # one's own, of the name of another
            raise ValueError(own)
        return problem

    def adapted(self, solution: Solution, problem: TrainingProblem) -> TrainingProblem:
        """Return a problem with the steps and rates of the solution, which may have gone on training."""
        described = solution.extra["problem"]
        rate = described["learning_rate"]
        if isinstance(rate, dict):
            stored = solution.variables.get("problem_learning_rate")
            if stored is None:  # too large to be kept, and to be compared by its hash
                return problem
            rate = stored.values
        listed = not isinstance(problem.batch_order, str)
        return problem if listed else replace(problem, steps=described["steps"], learning_rate=rate)

    def differs(self, solution: Solution, problem: TrainingProblem) -> str | None:
        """Return the first thing in which a problem differs from that of the solution, or None."""
        return difference(solution.extra["problem"], describe(problem)[0])

    def again(self, solution: Solution, problem: TrainingProblem, progress: bool, changes: dict[str, Any]) -> Solution:
        """Run the solver again."""
        options = {"progress": progress} | _options(solution) | changes
        sizes = {name: solution.settings[name] for name in ("particles", "depth", "sampling")}
        if solution.settings["solver"] == "simulate_resnet":
            return simulate_resnet(problem, **{"width": sizes["particles"], "depth": sizes["depth"]} | options)
        return solve_flds(problem, **sizes | options)

    def resume(
        self,
        solution: Solution,
        problem: TrainingProblem,
        done: int | None,
        steps: int | None,
        learning_rate: float | ArrayLike | None,
        progress: bool,
        changes: dict[str, Any],
    ) -> Solution:
        """Run the solver from the state of a solution, for more steps or to the end of those planned."""
        done = problem.steps if done is None else done
        total = problem.steps if steps is None else done + steps
        longer = problem
        if total != problem.steps and not isinstance(problem.batch_order, str):
            raise ValueError(
                'batch_order must be "sequential" or "random" to go on, but the problem lists its batches, '
                f"which end after {problem.steps} steps"
            )
        if total != problem.steps or learning_rate is not None:
            longer = replace(problem, steps=total, learning_rate=_rates(problem, done, total, learning_rate))
        settings = solution.settings
        options = _options(solution)
        options.pop("rank_budget", None)  # one that was outgrown would be outgrown again
        options["communicator"], states = together(solution.states, changes.pop("communicator", None))
        found = run(
            longer,
            settings["particles"],
            settings["depth"],
            settings["sampling"],
            progress,
            Options(**options | changes),  # type: ignore[typeddict-item]
            settings["solver"],
            states=states,
        )
        found.settings["reason"] = settings["reason"]
        found.notes = list(dict.fromkeys(solution.notes + found.notes))
        return found

    def evaluate(self, solution: Solution, problem: TrainingProblem, inputs: ArrayLike) -> NDArray[np.float64]:
        """Return the outputs of every replicate on new inputs, (replicates, samples[, outputs])."""
        x, columns = checks.matrix("inputs", inputs), problem.x.shape[1]
        if x.shape[1] != columns:
            raise ValueError(f"inputs must have as many columns as the training inputs ({columns}), got {x.shape[1]}")
        settings = stored_settings(Settings, solution.settings)
        parts = np.array(
            [
                snapshot.predict(problem, settings, replicate_seed(solution.seed, index), one, x)
                for index, one in enumerate(solution.states)
            ]
        )
        return parts[..., 0] if problem.outputs == 1 else parts


def _options(solution: Solution) -> dict[str, Any]:
    options = stored_options(Options, solution.settings)
    if options["noise_depth"] == solution.settings["depth"]:
        del options["noise_depth"]  # the default, which follows the depth
    if solution.status != "rank_budget":
        del options["rank_budget"]  # what memory allowed has no influence on the numbers
    return options


def _rates(problem: TrainingProblem, done: int, total: int, given: float | ArrayLike | None) -> float | ArrayLike:
    """Return the rates of a run that goes on after so many steps, to so many in all."""
    if given is not None:
        return np.concatenate([problem.rates[:done], checked_rates(given, total - done, "further step")])
    if np.ndim(problem.learning_rate) == 0:
        return problem.learning_rate
    if not problem.steps:
        raise ValueError("learning_rate must be given, since the solution has none to go on with")
    return np.concatenate([problem.rates[:total], np.full(max(0, total - problem.steps), problem.rates[-1])])
