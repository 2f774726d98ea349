"""Parameters of an equation that a solve gives its coefficients, as `args`."""

from __future__ import annotations

from collections import namedtuple
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers import checks
from solvers.results.solution import Solution, Variable

# A float, a float64 array, a named tuple of these, or None.
Args = Any

# What variables of a solution are called, alone or before the name of an entry.
_NAME = "args"


def as_args(given: Any) -> Args:
    """Return parameters as coefficients take them: a float, a float64 array, or a named tuple of these; or None.

    Raises
    ------
    TypeError, ValueError
        If they are something else, or not finite.
    """
    if given is None:
        return None
    if isinstance(given, dict) or (isinstance(given, tuple) and not hasattr(given, "_fields")):
        raise TypeError(
            f"args must be a number, an array or a named tuple of these, got {checks.shown(given)}; make a "
            "collections.namedtuple for several"
        )
    if isinstance(given, tuple):
        names = _fields(given)
        if not names:
            raise ValueError(f"args must not be empty, got {checks.shown(given)}")
        entries = [_entry(f"args.{name}", value) for name, value in zip(names, given, strict=True)]
        return type(given)(*entries)  # type: ignore[arg-type]
    return _entry(_NAME, given)


def _entry(name: str, value: Any) -> float | NDArray[np.float64]:
    found = np.array(checks.finite(name, value), np.float64, order="C")  # which the user may change later
    return found if found.ndim else float(found)


def _fields(args: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(getattr(args, "_fields"))  # noqa: B009


def kind_of(args: Args) -> type | None:
    """Return what a `Form` says of parameters."""
    return None if args is None else type(args)


def plain(args: Args) -> Any:
    """Return parameters as kernels take them: a named tuple as a tuple, and () where there are none."""
    return () if args is None else tuple(args) if isinstance(args, tuple) else args


def passed(args: Args, vectorized: bool) -> Any:
    """Return parameters as passes take them: coefficients of arrays as they are, kernels as `plain` ones."""
    return args if vectorized and args is not None else plain(args)


def args_variables(args: Args) -> dict[str, Variable]:
    """Return parameters as variables of a solution."""
    if args is None:
        return {}
    if not isinstance(args, tuple):
        return {_NAME: _variable(_NAME, args)}
    names = _fields(args)
    return {f"{_NAME}_{name}": _variable(f"{_NAME}_{name}", value) for name, value in zip(names, args, strict=True)}


def _variable(name: str, value: Any) -> Variable:
    array = np.asarray(value)
    return Variable(tuple(f"{name}_{axis}" for axis in range(array.ndim)), array, "parameters of the equation")


def kept_args(run: Solution) -> Args:
    """Return the parameters that were kept with a solution, or None."""
    if _NAME in run.variables:
        return _entry(_NAME, run.variables[_NAME].values)
    if _NAME not in run.settings:
        return None
    fields = run.settings[_NAME].split(", ")
    entries = [_entry(_NAME, run.variables[f"{_NAME}_{name}"].values) for name in fields]
    return _class_of(tuple(fields))(*entries)


def args_settings(args: Args) -> dict[str, str]:
    """Return what a solution says of parameters: the names of a named tuple, or what they are; nothing for none."""
    if args is None:
        return {}
    return {_NAME: ", ".join(_fields(args)) if isinstance(args, tuple) else f"shape {np.shape(args)}"}


@cache
def _class_of(fields: tuple[str, ...]) -> Any:
    """Return one class for the same names, so that functions are compiled once for it."""
    return namedtuple("Args", fields)
