"""Solutions of Mean ODE problems, run again: the same, for more steps, or at new inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flds.mean_ode import solve
from flds.mean_ode.description import constants, describe, function_values
from flds.mean_ode.options import MeanOptions, MeanSettings, resolve_mean
from flds.mean_ode.problem import BLOCK_TYPES, MeanFieldProblem
from flds.mean_ode.snapshot import restore
from flds.results.descriptions import difference, is_array, same_functions
from flds.results.loss_names import current_name
from flds.results.mean_ode import MeanFieldSolution
from flds.training.activations import ACTIVATIONS
from flds.training.description import described_object, rule_of
from flds.training.groups import checked_rates, continued_rates
from flds.training.optimizers import PLAIN
from flds.training.options import stored_options, stored_settings

# Arguments of the problem that are kept as they are; older files lack some.
_PLAIN = (
    "alpha", "loss", "deviations", "steps", "divergence_factor", "weight_decay", "batch_size", "batch_order",
    "batch_seed",
)  # fmt: skip
# What solutions say that were made before there was a choice.
_FORMERLY = {
    "optimizer": described_object(PLAIN),
    "batch_size": None,
    "batch_order": "sequential",
    "batch_seed": 0,
}


class MeanOdeFamily:
    """Solutions of `solve_mean_ode` and `solve_tangent_ode`; see `flds.results.family.Family`."""

    solvers: tuple[str, ...] = ("solve_mean_ode", "solve_tangent_ode")
    problem_type: type = MeanFieldProblem
    changes: tuple[str, ...] = ("threads", "executor", "checkpoint", "checkpoint_every", "callback")

    def problem(self, solution: MeanFieldSolution) -> MeanFieldProblem:
        """Read the problem back from a solution.

        Raises
        ------
        ValueError
            If a block, its activation or an initial law is not built in.
        """
        described = solution.extra["problem"]
        if "types" not in described:
            raise ValueError("the file does not say which blocks it is of: give the problem= itself")
        own = [f"the initial law of {name}" for name in described["initial_laws"]]
        own += [f"the block {name!r}" for name in described["types"] if name not in BLOCK_TYPES]
        own += [
            f"the activation {block['activation']!r}"
            for block in described["blocks"]
            if block.get("activation", "tanh") not in ACTIVATIONS
        ]
        if own:
            raise ValueError(f"{own[0]} is not built in: give the problem= itself")
        stored = {name: item.values for name, item in solution.variables.items()}
        embedded = "embedding" in stored
        arrays = {name: stored.get(name) for name in ("targets", "embedding", "unembedding", "test_targets")}
        for name in ("inputs", "test_inputs"):
            arrays[name] = stored.get(f"raw_{name}" if embedded else name)
        blocks = tuple(
            BLOCK_TYPES[name](**{key: value for key, value in block.items() if key != "name"})
            for name, block in zip(described["types"], described["blocks"], strict=True)
        )
        same = {name: described[name] for name in _PLAIN if name in described}
        same["loss"] = current_name(same["loss"])
        same["learning_rates"] = _rates_of(solution)
        if "batch_order" in stored:
            same["batch_order"] = stored["batch_order"]
        same["optimizer"] = rule_of(described.get("optimizer", _FORMERLY["optimizer"]))
        problem = MeanFieldProblem(**arrays, block=blocks, **same)  # type: ignore[arg-type]
        if not same_functions(described, function_values(problem)):  # one's own, of the name of another
            raise ValueError("an activation or block is not built in, though its name is: give the problem= itself")
        return problem

    def adapted(self, solution: MeanFieldSolution, problem: MeanFieldProblem) -> MeanFieldProblem:
        """Return a problem with the steps and rates of the solution, which may have gone on training."""
        if problem.batches.listed:
            return problem
        described = solution.extra["problem"]
        return replace(problem, steps=described["steps"], learning_rates=_rates_of(solution))

    def differs(self, solution: MeanFieldSolution, problem: MeanFieldProblem) -> str | None:
        """Return the first thing in which a problem differs from that of the solution, or None."""
        described = solution.extra["problem"]
        formerly = _FORMERLY | {"weight_decay": dict.fromkeys(described["learning_rates"], 0.0)}
        found = difference(formerly | described | {"loss": current_name(described["loss"])}, describe(problem))
        if found:
            return found
        for name, item in constants(problem).items():
            if name not in solution.variables or not _same(solution.variables[name].values, item.values):
                return name
        return None

    def again(
        self, solution: MeanFieldSolution, problem: MeanFieldProblem, progress: bool, changes: dict[str, Any]
    ) -> MeanFieldSolution:
        """Run the solver again."""
        solver = getattr(solve, solution.settings["solver"])
        sizes = {name: solution.settings[name] for name in ("units", "depth")}
        return solver(
            problem, **sizes | {"progress": progress} | stored_options(MeanOptions, solution.settings) | changes
        )

    def resume(
        self,
        solution: MeanFieldSolution,
        problem: MeanFieldProblem,
        done: int | None,
        steps: int | None,
        learning_rate: Any,
        progress: bool,
        changes: dict[str, Any],
    ) -> MeanFieldSolution:
        """Run the solver from the state of a solution, for more steps or to the end of those planned."""
        done = problem.steps if done is None else done
        total = problem.steps if steps is None else done + steps
        problem.batches.require_steps(total)
        longer = replace(problem, steps=total, learning_rates=_rates(problem, done, total, learning_rate))
        options = MeanOptions(**stored_options(MeanOptions, solution.settings) | changes)  # type: ignore[typeddict-item]
        settings = resolve_mean(longer, solution.settings["units"], solution.settings["depth"], options)
        return solve.run(solution.settings["solver"], longer, settings, progress, solution.states, options)

    def evaluate(
        self, solution: MeanFieldSolution, problem: MeanFieldProblem, inputs: ArrayLike
    ) -> NDArray[np.float64]:
        """Return the outputs of every replicate on new inputs, (replicates, samples[, tokens][, outputs])."""
        x = problem.embed("inputs", inputs)
        if x.shape[1:] != problem.x.shape[1:]:
            raise ValueError(
                f"inputs must have the shape of the training inputs past the first, {problem.x.shape[1:]}, "
                f"got {x.shape[1:]}"
            )
        settings = stored_settings(MeanSettings, solution.settings)
        kind = solve.KINDS[solution.settings["solver"]]
        parts = []
        for index, state in enumerate(solution.states):
            dynamics = solve.prepare(kind, problem, settings, index)
            restore(dynamics, state)
            with dynamics.ensemble.running():
                parts.append(problem.squeezed(problem.read(dynamics.forward(x.astype(settings.dtype)))))
        return np.array(parts, np.float64)


def _rates_of(solution: MeanFieldSolution) -> dict[str, Any]:
    """Return the learning rates of a solution by parameter name."""
    described = solution.extra["problem"]["learning_rates"]
    return {
        name: solution.variables[f"rate_{name}"].values if is_array(rate) else float(rate)
        for name, rate in described.items()
    }


def _rates(problem: MeanFieldProblem, done: int, total: int, given: Any) -> dict[str, Any]:
    """Return the rates of a run that goes on after so many steps, to so many in all."""
    named = given if isinstance(given, Mapping) else dict.fromkeys(problem.rates, given)
    for name in named:
        if name not in problem.rates:
            raise ValueError(f"learning_rate must name parameters ({', '.join(problem.rates)}), got {name!r}")
    rates: dict[str, Any] = {}
    for name, planned in problem.rates.items():
        further = named.get(name)
        if further is not None:
            further = checked_rates("learning_rate", further, total - done, "further step", done)
        rates[name] = continued_rates(planned, problem.steps, done, total, further)
    return rates


def _same(stored: NDArray[Any], values: NDArray[Any]) -> bool:
    """Whether arrays are equal; older files have an axis for one output."""
    return np.array_equal(stored[..., 0] if stored.shape == (*values.shape, 1) else stored, values)
