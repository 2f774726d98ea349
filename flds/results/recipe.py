"""How something was trained, in a line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from flds.results.descriptions import RULE, array_name, is_array, of_each
from solvers.results.solution import Variable

# Rules that, given for all parameters, move matrices only.
MATRICES_ONLY = {"Muon"}
_PLAIN = {RULE: "SGD"}


def recipe(problem: Mapping[str, Any], rates: Any, variables: Mapping[str, Variable], kept: str) -> str:
    """Return rules, learning rates, decay and clipping in words, from the description of a problem.

    Parameters
    ----------
    problem : dict
        The description; older ones say nothing of rules.
    rates : number or dict
        The learning rates in it, for all parameters or by name; those that change are described by a hash.
    variables : dict
        Where these are, under names that begin with `kept`.
    """
    rule = problem.get("optimizer", _PLAIN)
    parts = [_in_words(rule, lambda _, one: _rule(one))]
    if rule.get(RULE) in MATRICES_ONLY:
        parts[0] += " on hidden matrices, SGD elsewhere"

    def rate(name: str, value: Any) -> str:
        if not is_array(value):
            return f"{value:g}"
        item = variables.get(array_name(kept, name))
        if item is None or not len(item.values):
            return "changing"
        first, last = item.values[0], item.values[-1]
        return f"{first:g}" if np.all(item.values == first) else f"{first:g} to {last:g}"

    parts.append(f"learning rate {_in_words(rates, rate)}")
    decay = problem.get("weight_decay", 0.0)
    if any(decay.values()) if isinstance(decay, Mapping) else decay:
        parts.append(f"weight decay {_in_words(decay, lambda _, one: f'{one:g}')}")
    if problem.get("gradient_clip") is not None:
        parts.append(f"gradient clipped at {problem['gradient_clip']:g}")
    parts += _branch(problem)
    deviations = problem.get("standard_deviations", 1.0)
    if deviations != 1.0:
        parts.append(f"standard deviations {_in_words(deviations, lambda _, one: f'{one:g}')}")
    return "; ".join(parts)


def _branch(problem: Mapping[str, Any]) -> list[str]:
    """Return what residual branches are, where they are not those of one matrix and exponent ½."""
    given, exponent = problem.get("residual", "single_matrix"), problem.get("branch_exponent", 0.5)
    parts = []
    if isinstance(given, Mapping):
        parts.append(f"branches {_rule(given)}")
    elif given == "two_layer":
        words = [f"hidden ratio {problem['hidden_ratio']:g}", problem["normalization"]]
        words += [name for name in ("gain", "bias") if problem[name]]
        parts.append(f"branches of two layers ({', '.join(word for word in words if word)})")
    return parts + ([f"branch exponent {exponent:g}"] if exponent != 0.5 else [])


def _in_words(described: Any, text: Callable[[str, Any], str]) -> str:
    """Return one description in words, or those of all names."""
    found = of_each(described, text)
    return ", ".join(f"{name} {one}" for name, one in found.items()) if isinstance(found, dict) else found


def _rule(described: Mapping[str, Any]) -> str:
    settings = [
        name if value is True else str(value) if isinstance(value, str) else f"{name} {_number(value)}"
        for name, value in described.items()
        if name != RULE and value not in (False, 0.0)
    ]
    return f"{described[RULE]}" + (f" ({', '.join(settings)})" if settings else "")


def _number(value: Any) -> str:
    return "/".join(f"{one:g}" for one in value) if isinstance(value, (list, tuple)) else f"{value:g}"
