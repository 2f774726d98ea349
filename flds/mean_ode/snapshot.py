"""The state of trained units: what it takes to evaluate them on new inputs, and to go on with their training.

After a complete run the units are those before the update that the last step calls for. Training that goes on repeats
the passes of that step, with the same numbers because only the initial draws are random, and then moves the units.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flds.mean_ode.blocks import Parameters
from flds.mean_ode.network import Dynamics
from flds.mean_ode.problem import MeanFieldProblem
from flds.mean_ode.records import Record
from flds.mean_ode.update import Update
from flds.training.snapshot import steps_done
from solvers.results.solution import Variable


def snapshot(
    problem: MeanFieldProblem, units: list[Parameters], records: list[Record], next_step: int | None = None
) -> dict[str, Variable]:
    """Return the units of every block and the records, as arrays by name.

    A run that ended early gives `next_step`, the step whose passes were broken off; its units are those before it.
    """
    tokens = ("token",) if problem.x.ndim == 3 else ()
    variables = (
        {} if next_step is None else {"next_step": Variable((), np.array(next_step), "step whose passes come next")}
    )
    for block, z in enumerate(units):
        for name, values in z.items():
            shape = tuple(f"{name}_{axis}_of_block_{block}" for axis in range(values.ndim - 2))
            dims = ("node", *shape, "unit")
            variables[f"block_{block}_{name}"] = Variable(dims, values, f"trained {name} of block {block + 1}")
    kinds = {
        "step": (),
        "outputs": ("sample", *tokens, "output"),
        "test_outputs": ("test_sample", *tokens, "output"),
        "states": ("node", "sample", *tokens, "dimension"),
        "covectors": ("node", "sample", *tokens, "dimension"),
    }
    for name, dims in kinds.items():
        values = np.array([getattr(record, name) for record in records])
        if values.size:
            variables[f"recorded_{name}"] = Variable(("record", *dims), values, f"recorded {name.replace('_', ' ')}")
    for name in problem.rates:
        values = np.array([record.travel[name] for record in records])
        variables[f"recorded_travel_{name}"] = Variable(("record", "node"), values, f"recorded travel of {name}")
    return variables


def remembered(update: Update) -> dict[str, Variable]:
    """Return what a rule remembers of the units, for a state."""
    found = {}
    for name, values in update.state().items():
        axes = [f"{name}_{axis}" for axis in range(1, values.ndim - 1)]
        dims = ("node", *axes, "unit") if values.ndim else ()
        found[name] = Variable(dims, values, name.replace("_", " "))
    return found


def restore(dynamics: Dynamics, state: dict[str, Variable]) -> list[Record]:
    """Move the units to where they were, and return the records."""
    for block, z in enumerate(dynamics.moved):
        for name, values in z.items():
            values[...] = state[f"block_{block}_{name}"].values
    return recorded(dynamics.problem, state)


def recorded(problem: MeanFieldProblem, state: Mapping[str, Variable]) -> list[Record]:
    """Return the records of a state."""
    stored = {name.removeprefix("recorded_"): item.values for name, item in state.items()}
    tests = stored.get("test_outputs")
    untested = problem.read(problem.test_x)  # of no samples
    return [
        Record(
            int(step),
            stored["outputs"][index],
            untested if tests is None else tests[index],
            {name: stored[f"travel_{name}"][index] for name in problem.rates},
            *(stored[name][index] if name in stored else np.empty(0) for name in ("states", "covectors")),
        )
        for index, step in enumerate(stored.get("step", ()))
    ]


def first_step(state: dict[str, Variable]) -> int:
    """Return the step that comes next: the last one recorded, whose update is to come, unless the run ended early."""
    done = steps_done(state)
    return int(state["recorded_step"].values[-1]) if done is None else done
