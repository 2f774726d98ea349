"""What a result says of its training problem."""

from __future__ import annotations

from dataclasses import fields as dataclass_fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flds.results.descriptions import digest
from flds.training.problem import TrainingProblem
from solvers.results.solution import Variable

# Data up to this size travel with the result; larger data are named by their hash.
EMBEDDED_BYTES = 64 * 2**20


def function_values(problem: TrainingProblem) -> list[float]:
    """Return what φ and φ' give at some points."""
    points = np.linspace(-3.0, 3.0, 7)
    return [*problem.phi.value(points).tolist(), *problem.phi.derivative(points).tolist()]


def describe(problem: TrainingProblem) -> tuple[dict[str, Any], dict[str, Variable]]:
    """Return the problem as JSON, with what its functions give at some points, and arrays that are not too large."""
    description: dict[str, Any] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for item in dataclass_fields(problem):
        if not item.init:
            continue
        value = getattr(problem, item.name)  # arrays are the problem's own copies
        if item.name == "activation":
            description["activation"] = problem.phi.name
            description["check"] = function_values(problem)
        elif value is None or isinstance(value, (str, int, float)):
            description[item.name] = value
        else:
            arrays[item.name] = np.asarray(value)
    embedded = sum(array.nbytes for array in arrays.values()) <= EMBEDDED_BYTES
    variables = {}
    for name, array in arrays.items():
        description[name] = {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest(array)}
        if embedded:
            dims = tuple(f"{name}_{axis}" for axis in range(array.ndim))
            variables[f"problem_{name}"] = Variable(dims, array, f"{name} of the problem")
    return description, variables
