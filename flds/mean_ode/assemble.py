"""How the records of a Mean ODE become a solution."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from flds.mean_ode.blocks import Array
from flds.mean_ode.description import constants, describe
from flds.mean_ode.options import MeanSettings
from flds.mean_ode.problem import MeanFieldProblem
from flds.mean_ode.records import Run
from flds.results.mean_ode import MeanFieldSolution
from flds.results.replicates import all_states, average_replicates
from solvers.results.solution import Variable
from solvers.results.versions import library_versions

_NOT_AVERAGED = ("steps", "depth_grid")


def assemble(
    problem: MeanFieldProblem,
    settings: MeanSettings,
    solver: str,
    runs: list[Run],
    depth_error: Array | None,
    status: str,
    timings: dict[str, float],
    notes: list[str],
) -> MeanFieldSolution:
    """Turn the records of complete runs, or of one that is not, into a Solution; replicates become means and errors."""
    count = min(len(run.records) for run in runs)
    parts = [_variables(problem, run, count) for run in runs]
    averaged = tuple(name for name in parts[0] if name not in _NOT_AVERAGED)
    variables = average_replicates(parts, averaged)
    variables |= constants(problem)
    if depth_error is not None:
        dims = variables["outputs"].dims
        shown = problem.squeezed(depth_error)
        variables["outputs_depth_error"] = Variable(dims, shown, "estimated error of finite depth of outputs")
    completed = sum(run.status == "completed" for run in runs)
    saved = {"solver": solver} | asdict(settings) | {"replicates_completed": completed}
    return MeanFieldSolution(
        variables=variables,
        status=status,
        timings=timings,
        seed=settings.seed,
        settings=saved,
        notes=notes,
        versions=library_versions(),
        extra={"problem": describe(problem)},
        groups=all_states([run.state for run in runs], settings.replicates),
    )


def _variables(problem: MeanFieldProblem, run: Run, count: int) -> dict[str, Variable]:
    records = run.records[:count]
    tokens = ("token",) if problem.x.ndim == 3 else ()
    nodes = np.linspace(0.0, 1.0, len(next(iter(records[0].travel.values()))) if records else 0)

    def stacked(name: str) -> Array:
        return np.asarray(run.rows[name].array[:count], np.float64)

    variables = {
        "steps": Variable(("step",), np.array([record.step for record in records], np.int64), "training step"),
        "depth_grid": Variable(("s",), nodes, "depth s"),
    }
    groups = (("", "sample", problem.y, "training"), ("test_", "test_sample", problem.test_y, "test"))
    for prefix, dim, targets, label in groups:
        if not len(targets):
            continue
        shape = (0, *targets.shape[: 1 + len(tokens)], problem.outputs)
        outputs: Array = stacked(f"{prefix}outputs") if records else np.empty(shape)
        shown = problem.squeezed(outputs)
        dims = ("step", dim, *tokens, "output")[: shown.ndim]
        variables[f"{prefix}outputs"] = Variable(dims, shown, f"network outputs on {label} samples")
        loss = np.array([problem.losses(one, targets).mean() for one in outputs])
        variables[f"{prefix}loss"] = Variable(("step",), loss, f"{label} loss")
        if problem.loss_function.classifies:
            hits = np.array([problem.loss_function.accuracy(one, targets) for one in outputs])
            variables[f"{prefix}accuracy"] = Variable(("step",), hits, f"{label} accuracy")
    for name in problem.rates:
        travel = np.array([record.travel[name] for record in records]).reshape(len(records), len(nodes))
        variables[f"travel_{name}"] = Variable(("step", "s"), travel, f"root mean square displacement of {name}")
    if records and records[0].states.size:
        dims = ("step", "s", "sample", *tokens, "dimension")
        variables["features"] = Variable(dims, stacked("states"), "states h")
        variables["covectors"] = Variable(dims, stacked("covectors"), "covectors b of the loss")
    return variables
