"""Groups of parameters, each with a rule, learning rates, weight decay and a standard deviation of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flds.training.branches import ResidualBranch
from flds.training.optimizers import PLAIN, SGD, Adam, Muon, Optimizer, checked_own
from solvers import checks

Array = NDArray[np.float64]

# What says for all matrices of the branches what their own groups do not.
ALL_MATRICES = "hidden"
# Rules with their defaults.
SHORT_NAMES = {"sgd": SGD, "muon": Muon, "adam": Adam}
# η_c of groups that are not named.
RATE = 0.5


@dataclass(frozen=True)
class Group:
    """How the parameters of one group are drawn and moved.

    Attributes
    ----------
    optimizer : Optimizer
        The rule.
    rates : (steps,) float64
        η_c.
    weight_decay : float
        λ: before each step the parameters are multiplied by 1 − η_c λ.
    standard_deviation : float
        σ of their initial entries, over that of the paper's.
    matrix : bool
        Whether they are weight matrices of branches, and not vectors of particles.
    """

    optimizer: Optimizer
    rates: Array
    weight_decay: float
    standard_deviation: float
    matrix: bool


def group_names(branch: ResidualBranch) -> tuple[str, ...]:
    """Return the groups of parameters of a network with this branch: U, those of the branch, v."""
    return ("input", *branch.groups, "readout")


def by_group(name: str, given: Any, check: Callable[[str, Any], Any], branch: ResidualBranch) -> Any:
    """Check one value for all groups, or a dictionary of values by group, and return it so.

    Raises
    ------
    ValueError, TypeError
        If the dictionary is empty or names another group; and what `check`, of a name and a value, raises.
    """
    if not isinstance(given, Mapping):
        return check(name, given)
    valid = list(dict.fromkeys(("input", ALL_MATRICES, *branch.groups, "readout")))
    if not given:
        raise ValueError(f"{name} by group must name one of {', '.join(valid)}, got an empty dictionary")
    for group in given:
        if group not in valid:
            raise ValueError(f"{name} must name groups of parameters ({', '.join(valid)}), got {checks.shown(group)}")
        if name == "standard_deviations" and not branch.groups.get(group, True):
            raise ValueError(f"{name} does not reach {group!r}, whose parameters start at a number; leave it out")
    return {group: check(f"{name}[{group!r}]", value) for group, value in given.items()}


def of_group(value: Any, group: str, default: Any, matrix: bool = False) -> Any:
    """Return what a value, for all groups or by group, is for one of them; "hidden" speaks for groups of matrices."""
    if not isinstance(value, Mapping):
        return value
    return value.get(group, value.get(ALL_MATRICES, default) if matrix else default)


def groups_of(
    branch: ResidualBranch, learning_rate: Any, optimizer: Any, weight_decay: Any, deviations: Any, steps: int
) -> dict[str, Group]:
    """Return all groups of a network with this branch, from values that `by_group` has checked.

    Raises
    ------
    ValueError
        If a rule for matrices is given for vectors, or decay would turn a parameter over.
    """
    found: dict[str, Group] = {}
    for name in group_names(branch):
        matrix = branch.groups.get(name, False)
        rule, rates = of_group(optimizer, name, PLAIN, matrix), of_group(learning_rate, name, RATE, matrix)
        decay = of_group(weight_decay, name, 0.0, matrix)
        rates = np.broadcast_to(np.asarray(rates, np.float64), (steps,))
        if not matrix and rule.matrices_only:
            if isinstance(optimizer, Mapping):
                matrices = ", ".join(group for group, is_matrix in branch.groups.items() if is_matrix)
                raise ValueError(
                    f"optimizer[{name!r}] must be a rule for vectors, got {rule!r}, which is for matrices ({matrices})"
                )
            rule = PLAIN
        checked_own(f"optimizer of {name}", rule, matrix)
        require_shrinking(name, rates, decay)
        found[name] = Group(rule, rates, decay, of_group(deviations, name, 1.0, matrix), matrix)
    return found


def require_shrinking(name: str, rates: Array, decay: float) -> None:
    """Raise ValueError if weight decay would turn a parameter over in some step."""
    if rates.size and rates.max() * decay >= 1:
        raise ValueError(
            f"weight_decay times the learning rate must be below 1, got {rates.max() * decay:g} for {name} at step "
            f"{rates.argmax()}"
        )


def checked_rule(name: str, given: Any, rest: str = ", or a dictionary of them by group") -> Optimizer:
    """Return a rule, which may be given by a short name; raises TypeError or ValueError, with the rules there are.

    `rest` is what else may be given, for the message.
    """
    if isinstance(given, str):
        return SHORT_NAMES[checks.choice(name, given, tuple(SHORT_NAMES))]()
    if not isinstance(given, Optimizer):
        raise TypeError(
            f"{name} must be flds.SGD(...), flds.Adam(...), flds.Muon(...) or an object of a subclass of "
            f"flds.Optimizer{rest}, got {checks.shown(given)}"
        )
    return given


def checked_number(name: str, given: Any) -> float:
    """Return a weight decay or a standard deviation; raises ValueError or TypeError if it is none."""
    return checks.positive_number(name, given, zero=True)


def checked_rates(name: str, given: Any, steps: int, each: str = "step", first: int = 0) -> float | Array:
    """Return learning rates: a number, or (steps,) from an array or a function of the step, counted from `first`.

    Raises
    ------
    ValueError, TypeError
        If they are something else, negative or not finite.
    """
    if callable(given) and not hasattr(given, "__array__"):
        return np.array([_at(name, given, first + step) for step in range(steps)])
    rule = f"a number, one per {each} ({steps}) or a function of the step"
    if steps == 0 and np.shape(checks.numeric(name, given, rule)) == (0,):
        return np.empty(0)
    if isinstance(given, int) and not isinstance(given, bool):
        given = checks.finite_number(name, given)
    rates = np.asarray(checks.finite(name, given, rule), np.float64)
    if rates.ndim > 1 or (rates.ndim == 1 and len(rates) != steps):
        raise ValueError(f"{name} must be {rule}, got shape {rates.shape}")
    if np.any(rates < 0):
        raise ValueError(f"{name} must not be negative, got {rates.min():g}")
    return float(rates) if rates.ndim == 0 else rates.copy()


def continued_rates(planned: float | Array, steps: int, done: int, total: int, further: Any = None) -> float | Array:
    """Return the rates of a run of `steps` that goes on after `done` of them, to `total` in all.

    `further` are those of the steps to come, a number or an array; by default those planned, and then the last one.
    """
    before = np.broadcast_to(planned, steps)
    if further is not None:
        return np.concatenate([before[:done], np.broadcast_to(further, total - done)])
    if isinstance(planned, float):
        return planned
    if not steps:
        raise ValueError("learning_rate must be given, since the solution has none to go on with")
    return np.concatenate([before[:total], np.full(max(0, total - steps), before[-1])])


def _at(name: str, schedule: Callable[[int], Any], step: int) -> float:
    label = f"{name}({step})"
    value = checks.numeric(label, checks.called(label, schedule, step), "a number")
    if value.size != 1:
        raise ValueError(f"{label} must be a number, got shape {value.shape}")
    return checks.positive_number(label, float(value.reshape(())), zero=True)
