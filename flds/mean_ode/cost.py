"""The memory that a Mean ODE solve needs, estimated before it starts."""

from __future__ import annotations

import math

import numpy as np

from flds.mean_ode.network import MOST_GROUPS, SHORTEST, temporaries
from flds.mean_ode.options import MeanSettings
from flds.mean_ode.problem import MeanFieldProblem
from flds.training.options import RecordSteps
from solvers.memory import INTERPRETER_BYTES, require_memory

# Python's objects of one record.
_RECORD = 2000
# Runs that estimate the error of depth, of all and of half the nodes.
_DEPTH_RUNS = 1.5
_REMEDY = "take fewer steps, lower units or depth, raise record_every, or leave out record_features"


def require_room(problem: MeanFieldProblem, settings: MeanSettings) -> None:
    """Raise MemoryError, with the bytes that are needed and what to lower, if a run would not fit in memory."""
    require_memory(peak_memory(problem, settings), _REMEDY)


def peak_memory(problem: MeanFieldProblem, settings: MeanSettings) -> float:
    """Return the bytes a process holds at the peak of a solve: as units are drawn, trained, or records put together.

    Parameters
    ----------
    problem : MeanFieldProblem
        What is trained.
    settings : MeanSettings
        How.

    Returns
    -------
    float
        Bytes, the interpreter and the data included.
    """
    item, replicates = np.dtype(settings.dtype).itemsize, settings.replicates
    data = 2 * sum(a.nbytes for a in (problem.x, problem.y, problem.test_x, problem.test_y))  # the caller's and ours
    numbers = [math.prod(shape) for shapes in problem.shapes for shape in shapes.values()]
    count = settings.units * (settings.depth + 1)
    units = item * count * sum(numbers)
    # drawing: uniforms, the parameters made of them, and one parameter's values before they are scaled;
    # training: Z_0, Z, what a rule remembers, and the squares of how far one parameter has moved
    drawing, training = (size * count * (2 * sum(numbers) + max(numbers)) for size in (8, item))
    remembered = sum(np.ndim(array) > 0 for array in problem.rule.init(np.zeros((1, 1))).values())
    training += remembered * units
    state = (1 + remembered) * units
    kept = replicates * state if settings.keep_state else 0.0
    records, fields = _records(problem, settings)
    run = max(0.0, kept - state) + max(drawing, training + _passes(problem, settings))
    return INTERPRETER_BYTES + data + records + max(run, kept + fields)


def _passes(problem: MeanFieldProblem, settings: MeanSettings) -> float:
    """Bytes of the states and covectors at all nodes, of partial sums, and of stretches of units."""
    rows = max(problem.x.size, problem.test_x.size)
    held_by_a_unit = max(
        temporaries(block, problem.x.shape) * problem.numbers(block) / problem.dimension for block in problem.blocks
    )
    stretch = SHORTEST * min(settings.threads, MOST_GROUPS) * held_by_a_unit
    held = 2 * (settings.depth + 1) * problem.x.size + 2 * MOST_GROUPS * rows
    return np.dtype(settings.dtype).itemsize * (held + 6 * stretch)


def _records(problem: MeanFieldProblem, settings: MeanSettings) -> tuple[float, float]:
    """Bytes of the records of all runs, and of what is made of them in the end."""
    item, replicates = np.dtype(settings.dtype).itemsize, settings.replicates
    count = RecordSteps(problem.steps, settings.record_every).count
    nodes = settings.depth + 1
    outputs = (problem.x.size + problem.test_x.size) // problem.dimension * problem.outputs + nodes * len(problem.rates)
    features = 2 * nodes * problem.x.size if settings.record_features else 0
    copies = replicates if settings.keep_state else 0  # in the states
    runs = replicates + copies + (_DEPTH_RUNS if settings.depth_error else 0.0)
    records = count * (runs * item * (outputs + features) + replicates * _RECORD)
    fields = 0.0 if item == 8 else 8 * replicates * (outputs + features)  # fields are float64
    if replicates > 1:  # what is stacked, its differences from the mean, means and errors, and all outputs
        largest = max(outputs, features / 2)
        fields += 8 * ((2 * replicates + 1) * largest + 2 * (outputs + features) + replicates * outputs)
    return records, count * fields
