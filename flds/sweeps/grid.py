"""The runs of a sweep: what is solved at each point of its grid, checked before any work, and what tells them apart."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from flds.mean_ode.options import MeanOptions
from flds.mean_ode.problem import MeanFieldProblem
from flds.mean_ode.solve import solve_mean_ode, solve_tangent_ode
from flds.results.loss_names import current_name, former_name
from flds.training.inside import OPTIONS
from flds.training.options import Options
from flds.training.problem import TrainingProblem
from flds.training.solve import simulate_resnet, solve_flds
from solvers import checks
from solvers.results.checkpoint import Checkpoint

# For each kind of problem the options of its solvers, and the solvers by name.
_SOLVERS: dict[type, tuple[Any, dict[str, Callable[..., Any]]]] = {
    TrainingProblem: (Options, {"solve_flds": solve_flds, "simulate_resnet": simulate_resnet}),
    MeanFieldProblem: (MeanOptions, {"solve_mean_ode": solve_mean_ode, "solve_tangent_ode": solve_tangent_ode}),
}
# Fields of problems that older sweeps did not know; at their defaults they mean what was meant then.
_LATER = {
    TrainingProblem: (
        "divergence_factor", "optimizer", "weight_decay", "gradient_clip", "standard_deviations", "residual",
        "branch_exponent", *OPTIONS,
    ),
    MeanFieldProblem: (
        "divergence_factor", "optimizer", "weight_decay", "batch_size", "batch_order", "batch_seed"
    ),
}  # fmt: skip
# Options that a sweep decides for its runs, and those that decide no numbers.
_OWN, _FREE = {"callback", "checkpoint", "communicator", "executor"}, {"threads", "checkpoint_every"}
# What a value is called in a file's name where it is not a word or a number; its place in the list follows.
ITEM = "item"
# What the name of a run's checkpoint ends with, beside its file.
CHECKPOINT = ".checkpoint"


@dataclass(frozen=True)
class Task:
    """One run: what is solved, how, and where it is written."""

    solver: str
    problem: Any
    options: dict[str, Any]
    path: Path
    point: dict[str, Any]
    fingerprint: str

    def solve(self, checkpoint: Checkpoint) -> Any:
        """Return the solution; the run is kept in a checkpoint while it goes on."""
        named = next(named for _, named in _SOLVERS.values() if self.solver in named)
        return named[self.solver](self.problem, **self.options | {"checkpoint": checkpoint})

    @property
    def checkpoint(self) -> Path:
        return self.path.with_name(f"{self.path.name}{CHECKPOINT}")

    @property
    def failure(self) -> Path:
        return self.path.with_suffix(".error.json")


class Grid:
    """A problem, its solver, and the values by name that a sweep goes through, all of it checked.

    Raises
    ------
    ValueError, TypeError
        If something is not valid; the message names it.
    """

    def __init__(
        self, problem: Any, grid: Mapping[str, Sequence[Any]], solver: str | None, options: dict[str, Any]
    ) -> None:
        kind = next((kind for kind in _SOLVERS if isinstance(problem, kind)), None)
        if kind is None:
            raise TypeError(
                f"problem must be a flds.TrainingProblem or flds.MeanFieldProblem, got {type(problem).__name__}"
            )
        if not isinstance(grid, Mapping) or not grid:
            raise ValueError(f"grid must be a dictionary of lists of values by name, got {checks.shown(grid)}")
        known, named = _SOLVERS[kind]
        default = list(named)[1 if kind is TrainingProblem and "width" in {*grid, *options} else 0]
        self.problem, self.options = problem, options
        self.solver = checks.choice("solver", solver or default, tuple(named))
        self.described = {item.name for item in fields(problem) if item.init}
        settable = _arguments(named[self.solver]) | set(known.__annotations__) - _OWN
        for name in options:
            if name not in settable:
                raise TypeError(f"{self.solver} takes no {name!r}; it takes {', '.join(sorted(settable))}")
        self.values = {name: _checked_values(name, given, self.described | settable) for name, given in grid.items()}

    def tasks(self, folder: Path) -> list[Task]:
        """Return the runs, in the order of the grid."""
        found: dict[str, Task] = {}
        for chosen in itertools.product(*self.values.values()):
            point = dict(zip(self.values, chosen, strict=True))
            problem, options = self._at(point)
            label = ",".join(f"{name}={_label(value, self.values[name])}" for name, value in point.items())
            if label in found:
                raise ValueError(f"grid must not repeat values, got {label} twice")
            mark = _fingerprint(self.solver, _deciding(problem, options))
            found[label] = Task(self.solver, problem, options, folder / f"{label}.nc", point, mark)
        return list(found.values())

    def fingerprint(self, point: dict[str, Any]) -> str:
        """Return what marks the run of this sweep at a point, which need not be one of its own and may be older."""
        if "loss" in point and isinstance(self.problem, MeanFieldProblem):
            point = point | {"loss": current_name(point["loss"])}
        return _fingerprint(self.solver, _deciding(*self._at(point)))

    @cached_property
    def fixed(self) -> dict[str, str]:
        """Return what is the same in all runs and decides their numbers: values as text, or a hash, by name."""
        return {
            name.removeprefix(_OPTION): repr(value) if _is_plain(value) else f"sha256 {_hash(name, value)}"
            for name, value in _deciding(self.problem, self.options).items()
            if name.removeprefix(_OPTION) not in self.values
        }

    def _at(self, point: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return the problem and the options at a point."""
        changed = {name: value for name, value in point.items() if name in self.described}
        settings = {name: value for name, value in point.items() if name not in self.described}
        return replace(self.problem, **changed), self.options | settings


def plain(point: dict[str, Any]) -> dict[str, Any]:
    """Return a point as JSON has it."""
    return {name: value if isinstance(value, (int, float, str)) else repr(value) for name, value in point.items()}


def _arguments(solver: Callable[..., Any]) -> set[str]:
    """Names of the keyword arguments that a solver has besides its options."""
    return set(inspect.signature(solver).parameters) - {"problem", "options", "progress"}


def _checked_values(name: str, values: Any, known: set[str]) -> list[Any]:
    if name not in known:
        raise ValueError(
            f"grid must name fields of the problem or arguments of the solver, got {name!r}; "
            f"valid are {', '.join(sorted(known))}"
        )
    if isinstance(values, (str, bytes)) or not hasattr(values, "__len__") or not len(values):
        raise ValueError(f"grid[{name!r}] must be a list of values, got {checks.shown(values)}")
    return [value.item() if isinstance(value, np.generic) else value for value in values]


def _label(value: Any, values: list[Any]) -> str:
    """A value as a part of a file's name; its place in the list where it is not a word or a number."""
    if isinstance(value, (int, float, str)) and len(str(value)) <= 40:
        return re.sub(r"[^\w.+-]", "-", str(value))
    return f"{ITEM}{next(i for i, other in enumerate(values) if other is value)}"


_OPTION = "option "


def _deciding(problem: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Everything that decides the numbers of a run but its solver, by name."""
    later = next(names for kind, names in _LATER.items() if isinstance(problem, kind))
    parts = {
        item.name: getattr(problem, item.name)
        for item in fields(problem)
        if item.init and not (item.name in later and getattr(problem, item.name) == item.default)
    }
    if isinstance(problem, MeanFieldProblem):
        parts["loss"] = former_name(problem.loss)  # a new name of the same loss leaves folders what they were
    return parts | {f"{_OPTION}{name}": value for name, value in options.items() if name not in _FREE}


def _fingerprint(solver: str, parts: dict[str, Any]) -> str:
    """A hash of everything that decides the numbers."""
    digest = hashlib.sha256(solver.encode())
    for name, value in sorted(parts.items()):
        digest.update(name.encode())
        for piece in _bytes(name, value):
            digest.update(piece)
    return digest.hexdigest()


def _hash(name: str, value: Any) -> str:
    return hashlib.sha256(b"".join(_bytes(name, value))).hexdigest()[:16]


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _bytes(name: str, value: Any) -> tuple[bytes, ...]:
    """What a value is made of, for a hash."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}".encode(), np.ascontiguousarray(value).tobytes()
    try:
        return (repr(value).encode() if _is_plain(value) else pickle.dumps(value, protocol=5),)
    except (pickle.PicklingError, AttributeError, TypeError):
        raise TypeError(
            f"{name} must be something that can be sent to another process, such as a function of a module; "
            f"got {checks.shown(value)}"
        ) from None
