"""Solutions of training problems, run again: the same, for more steps, or at new inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flds.results.descriptions import RULE, array_name, difference, digest, is_array, of_each, same_functions
from flds.results.solution import Solution
from flds.training import snapshot
from flds.training.activations import ACTIVATIONS
from flds.training.description import branch_of_description, describe, described_object, function_values, rule_of
from flds.training.groups import RATE, by_group, checked_rates, continued_rates, of_group
from flds.training.inside import OPTIONS, require_features
from flds.training.optimizers import PLAIN
from flds.training.options import Options, Settings, stored_options, stored_settings
from flds.training.problem import Rate, TrainingProblem
from flds.training.solve import run, simulate_resnet, solve_flds
from solvers import checks
from solvers.ensemble.random import replicate_seed
from solvers.results.arrays import together

# What solutions say that were made before there was a choice.
_FORMERLY = {
    "optimizer": described_object(PLAIN),
    "weight_decay": 0.0,
    "gradient_clip": None,
    "standard_deviations": 1.0,
    "residual": "single_matrix",
    "branch_exponent": 0.5,
    **OPTIONS,
}


class TrainingFamily:
    """Solutions of `solve_flds` and `simulate_resnet`; see `flds.results.family.Family`."""

    solvers: tuple[str, ...] = ("solve_flds", "simulate_resnet")
    problem_type: type = TrainingProblem
    changes: tuple[str, ...] = (
        "threads", "device", "rank_budget", "communicator", "executor", "checkpoint", "checkpoint_every", "callback"
    )  # fmt: skip

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
            if item.name == "residual":
                given[item.name] = branch_of_description(described[item.name])
                continue
            restored = partial(_restored, solution, item.name)
            given[item.name] = of_each(described[item.name], restored)
        problem = TrainingProblem(**given)
        if not same_functions(described, function_values(problem)):  # one's own, of the name of another
            raise ValueError(own)
        return problem

    def adapted(self, solution: Solution, problem: TrainingProblem) -> TrainingProblem:
        """Return a problem with the steps and rates of the solution, which may have gone on training."""
        described = solution.extra["problem"]
        rates = _rates_of(solution, described["learning_rate"])
        if rates is None or not isinstance(problem.batch_order, str):  # to be compared by their hash
            return problem
        return replace(problem, steps=described["steps"], learning_rate=rates)

    def differs(self, solution: Solution, problem: TrainingProblem) -> str | None:
        """Return the first thing in which a problem differs from that of the solution, or None."""
        return difference(_FORMERLY | solution.extra["problem"], describe(problem)[0])

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
        learning_rate: Rate | Mapping[str, Rate] | None,
        progress: bool,
        changes: dict[str, Any],
    ) -> Solution:
        """Run the solver from the state of a solution, for more steps or to the end of those planned."""
        done = problem.steps if done is None else done
        total = problem.steps if steps is None else done + steps
        longer = problem
        problem.batching.require_steps(total)
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
        require_features(problem, "inputs", x)
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


def _restored(solution: Solution, item: str, group: str, value: Any) -> Any:
    """Return what was described of a group, or of all, from the variables of a solution where it is an array."""
    name = array_name(item, group)
    if isinstance(value, dict) and RULE in value:
        return rule_of(value)
    if not is_array(value):
        return value
    stored = solution.variables.get(f"problem_{name}")
    if stored is None:
        raise ValueError(
            f"the file has only the hash of {name}, which were too large to be kept: give the "
            f"problem= itself, with data of shape {tuple(value['shape'])} and SHA-256 {value['sha256']}"
        )
    values = np.asarray(stored.values, value["dtype"])
    if digest(values) != value["sha256"]:
        raise ValueError(f"{name} of the solution do not have the SHA-256 that it states: they were changed")
    return values


def _rates_of(solution: Solution, described: Any) -> Any:
    """Return the learning rates of a solution, or None where they were too large to be kept."""

    def rates(group: str, value: Any) -> Any:
        return solution.variables[array_name("problem_learning_rate", group)].values if is_array(value) else value

    try:
        return of_each(described, rates)
    except KeyError:
        return None


def _rates(problem: TrainingProblem, done: int, total: int, given: Any) -> Any:
    """Return the rates of a run that goes on after so many steps, to so many in all."""

    def further(name: str, value: Any) -> Any:
        return checked_rates(name, value, total - done, "further step", done)

    new = {} if given is None else by_group("learning_rate", given, further, problem.branch)
    rates: dict[str, Any] = {}
    for name, group in problem.groups.items():
        planned, after = (
            of_group(one, name, default, group.matrix) for one, default in ((problem.learning_rate, RATE), (new, None))
        )
        rates[name] = continued_rates(planned, problem.steps, done, total, after)
    grouped = isinstance(problem.learning_rate, dict) or isinstance(given, dict)
    return rates if grouped else next(iter(rates.values()))
