"""How units of the Mean ODE are moved: learning rates, weight decay and rule, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flds.training.groups import checked_number, checked_rates, checked_rule, require_shrinking
from flds.training.optimizers import SGD, Optimizer, checked_own
from solvers import checks

Rates = float | NDArray[np.float64]


def rates_of(given: Any, defaults: Mapping[str, float], rule: Optimizer, steps: int) -> dict[str, Rates]:
    """Return the learning rates of all parameters, numbers or (steps,) arrays by name.

    Raises
    ------
    ValueError, TypeError
        If they are no rates, name another parameter, or are left to defaults that suit SGD only.
    """
    if given is None:
        if not isinstance(rule, SGD):
            raise ValueError(f"learning_rates must be given with {type(rule).__name__}: the default ones are for SGD")
        return dict(defaults)
    if isinstance(given, (tuple, list)):
        if len(given) != 2 or set(defaults) != {"u", "v"}:
            raise ValueError(
                "learning_rates must be a pair (η_u, η_v) only for perceptrons, got "
                f"{checks.shown(given)}; give a number or a dictionary by parameter name"
            )
        given = {"u": given[0], "v": given[1]}
    elif np.shape(given) == (2,) and steps == 2 and set(defaults) == {"u", "v"}:
        raise ValueError(
            "learning_rates as an array of two may mean (η_u, η_v) or one for each of 2 steps: give the pair as a "
            "tuple, or rates per step in a dictionary by parameter name"
        )
    elif not isinstance(given, Mapping):
        given = dict.fromkeys(defaults, given)
    return dict(defaults) | {
        name: checked_rates(f"learning_rates[{name!r}]", value, steps) for name, value in given.items()
    }


def unit_rule(given: Any) -> Optimizer:
    """Return a rule that moves each unit for itself.

    Raises
    ------
    TypeError, ValueError
        If it is no rule, or one for matrices.
    """
    rule = checked_rule("optimizer", given, rest=" that moves each unit for itself")
    if rule.matrices_only:
        raise ValueError(
            f"optimizer must be a rule for units, such as flds.SGD or flds.Adam, got {rule!r}, for matrices"
        )
    checked_own("optimizer", rule, matrix=False)
    return rule


def decays_of(given: Any, rates: Mapping[str, Rates]) -> dict[str, float]:
    """Return the weight decay of all parameters by name.

    Raises
    ------
    ValueError, TypeError
        If it is none, or would turn a parameter over.
    """
    if not isinstance(given, Mapping):
        given = dict.fromkeys(rates, checked_number("weight_decay", given))
    decays = dict.fromkeys(rates, 0.0)
    for name, value in given.items():
        decays[name] = checked_number(f"weight_decay[{name!r}]", value)
        require_shrinking(name, np.asarray(rates[name]), decays[name])
    return decays
