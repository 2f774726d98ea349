"""How something was trained, in a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from solvers.results.solution import Variable

_PLAIN = {"rule": "SGD"}


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
    parts = [_of_all(problem.get("optimizer", _PLAIN), _rule, "rule" in problem.get("optimizer", _PLAIN))]
    by_name = isinstance(rates, Mapping) and "sha256" not in rates

    def rate(value: Any, name: str = "") -> str:
        if not isinstance(value, Mapping):
            return f"{value:g}"
        item = variables.get("_".join(filter(None, (kept, name))))
        if item is None or not len(item.values):
            return "changing"
        return f"{item.values[0]:g} to {item.values[-1]:g}"

    shown = ", ".join(f"{name} {rate(value, name)}" for name, value in rates.items()) if by_name else rate(rates)
    parts.append(f"learning rate {shown}")
    decay = problem.get("weight_decay", 0.0)
    if any(decay.values()) if isinstance(decay, Mapping) else decay:
        parts.append(f"weight decay {_of_all(decay, '{:g}'.format, not isinstance(decay, Mapping))}")
    if problem.get("gradient_clip") is not None:
        parts.append(f"gradient clipped at {problem['gradient_clip']:g}")
    deviations = problem.get("standard_deviations", 1.0)
    if deviations != 1.0:
        shown = _of_all(deviations, "{:g}".format, not isinstance(deviations, Mapping))
        parts.append(f"standard deviations {shown}")
    return "; ".join(parts)


def _of_all(value: Any, text: Any, alone: bool) -> str:
    """Return a value in words, or those of all names."""
    if alone:
        return str(text(value))
    return ", ".join(f"{name} {text(one)}" for name, one in value.items())


def _rule(described: Mapping[str, Any]) -> str:
    settings = [
        name if value is True else str(value) if isinstance(value, str) else f"{name} {_number(value)}"
        for name, value in described.items()
        if name != "rule" and value not in (False, 0.0)
    ]
    return f"{described['rule']}" + (f" ({', '.join(settings)})" if settings else "")


def _number(value: Any) -> str:
    return "/".join(f"{one:g}" for one in value) if isinstance(value, (list, tuple)) else f"{value:g}"
