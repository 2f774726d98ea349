"""What a result says of its training problem."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from dataclasses import fields as dataclass_fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flds.results.descriptions import RULE, digest
from flds.training.branches import SHORT_NAMES, ResidualBranch, try_branch
from flds.training.inside import is_own_branch
from flds.training.optimizers import BUILT_IN, Optimizer, is_own
from flds.training.optimizers.trial import steps_of
from flds.training.problem import TrainingProblem
from solvers.results.solution import Variable

# Data up to this size travel with the result; larger data are named by their hash.
EMBEDDED_BYTES = 64 * 2**20


def function_values(problem: TrainingProblem) -> list[float]:
    """Return what φ and φ' give at some points, and rules and branches of one's own in a small case."""
    points = np.linspace(-3.0, 3.0, 7)
    values = [*problem.phi.value(points).tolist(), *problem.phi.derivative(points).tolist()]
    for rule in own_rules(problem):
        values += steps_of(rule)
    return values + (try_branch(problem.branch, problem.phi) if is_own_branch(problem.branch) else [])


def own_rules(problem: TrainingProblem) -> list[Optimizer]:
    """Return the rules that are not built in, once for each group that takes one."""
    rules = (group.optimizer for group in problem.groups.values())
    return [rule for rule in rules if is_own(rule)]


def described_object(given: Any) -> dict[str, Any]:
    """Return a rule or a branch as JSON: its class and its settings, of one's own what are numbers, words or tuples."""
    settings = asdict(given) if is_dataclass(given) and not isinstance(given, type) else getattr(given, "__dict__", {})
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    return {RULE: type(given).__name__} | {name: value for name, value in plain.items() if _simple(value)}


def _simple(value: Any) -> bool:
    several = value if isinstance(value, list) else [value]
    return all(one is None or isinstance(one, (bool, int, float, str)) for one in several)


def rule_of(described: Mapping[str, Any]) -> Optimizer:
    """Return the rule that was described; raises ValueError if it is not built in."""
    settings = dict(described)
    kind = BUILT_IN.get(settings.pop(RULE))
    if kind is None:
        raise ValueError(f"the optimizer {described[RULE]} is not built in: give the problem= itself")
    return kind(**settings)


def branch_of_description(described: Any) -> Any:
    """Return the name or the branch that was described; raises ValueError if it is not built in."""
    if isinstance(described, str):
        return described
    settings = dict(described)
    kind = {one.__name__: one for one in SHORT_NAMES.values()}.get(settings.pop(RULE))
    if kind is None:
        raise ValueError(f"the branch {described[RULE]} is not built in: give the problem= itself")
    return kind(**settings)


def describe(problem: TrainingProblem) -> tuple[dict[str, Any], dict[str, Variable]]:
    """Return the problem as JSON, with what its functions give at some points, and arrays that are not too large."""
    description: dict[str, Any] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for name, value in _given(problem):
        if isinstance(value, Mapping):
            description[name] = {group: _described(f"{name}_{group}", one, arrays) for group, one in value.items()}
        else:
            description[name] = _described(name, value, arrays)
    description["activation"], description["check"] = problem.phi.name, function_values(problem)
    embedded = sum(array.nbytes for array in arrays.values()) <= EMBEDDED_BYTES
    variables = {}
    for name, array in arrays.items() if embedded else ():
        dims = tuple(f"{name}_{axis}" for axis in range(array.ndim))
        variables[f"problem_{name}"] = Variable(dims, array, f"{name} of the problem")
    return description, variables


def _given(problem: TrainingProblem) -> Iterator[tuple[str, Any]]:
    for item in dataclass_fields(problem):
        if item.init and item.name != "activation":
            yield item.name, getattr(problem, item.name)  # arrays are the problem's own copies


def _described(name: str, value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (Optimizer, ResidualBranch)):
        return described_object(value)
    array = arrays[name] = np.asarray(value)
    return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest(array)}
