"""What a problem says of its residual branches."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from flds.training.branches import SHORT_NAMES, ResidualBranch, TwoLayer, check_branch
from solvers import checks

EXPONENTS = (0.5, 1.0)
# Arguments of a problem that are those of branches with two layers, and what they are by default.
OPTIONS = {item.name: item.default for item in fields(TwoLayer)}


def branch_of(problem: Any) -> ResidualBranch:
    """Return the branch that a problem asks for.

    Raises
    ------
    TypeError, ValueError
        If there is no such branch, if options are given that it has not.
    """
    given, options = problem.residual, {name: getattr(problem, name) for name in OPTIONS}
    if isinstance(given, str):
        name = checks.choice("residual", given, tuple(SHORT_NAMES))
        if SHORT_NAMES[name] is TwoLayer:
            return TwoLayer(**options)
        what = f'residual="{name}" has one matrix a layer'
    else:
        what = f"residual {type(given).__name__} says so itself"
    for option, value in options.items():
        if not _same(value, OPTIONS[option]):
            raise ValueError(f'{option} is of residual="two_layer", got {checks.shown(value)}: {what}; leave it out')
    return SHORT_NAMES[given]() if isinstance(given, str) else check_branch(given)


def is_own_branch(branch: ResidualBranch) -> bool:
    """Whether a branch is not built in."""
    return type(branch) not in SHORT_NAMES.values()


def _same(one: Any, other: Any) -> bool:
    return bool(type(one) is type(other) and one == other) or (other == 1.0 and type(one) is int and one == 1)


def require_states(problem: Any) -> None:
    """Raise ValueError if a branch would normalise states that are zero at depth 0."""
    for name, rows in (("inputs", problem.x), ("test_inputs", problem.test_x)):
        require_features(problem, name, rows)
    if _normalizes(problem) and problem.groups["input"].standard_deviation == 0:
        raise ValueError(
            "standard_deviations of input must not be 0 in a normalized network, whose features would be zero"
        )


def _normalizes(problem: Any) -> bool:
    return isinstance(problem.branch, TwoLayer) and problem.branch.normalization is not None


def require_features(problem: Any, name: str, inputs: Any) -> None:
    """Raise ValueError if there are inputs, (samples, d), with which a branch would normalise zeros."""
    zero = np.flatnonzero(~inputs.any(axis=1)) if _normalizes(problem) else np.empty(0, np.intp)
    if len(zero):
        raise ValueError(
            f"{name} must not be zero in a normalized network, whose features would be zero, got row {zero[0]}"
        )


def checked_exponent(given: Any) -> float:
    """Return ½ or 1; raises ValueError or TypeError for others."""
    exponent = checks.positive_number("branch_exponent", given)
    if exponent not in EXPONENTS:
        raise ValueError(f"branch_exponent must be one of 0.5 and 1, got {exponent:g}")
    return exponent
