"""Checks of arguments: each error names the argument, the rule, the value received and the remedy."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
from numpy.typing import NDArray


def positive_integer(name: str, value: Any, smallest: int = 1) -> int:
    """Return `value` as an int of at least `smallest`; raises TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < smallest:
        raise ValueError(f"{name} must be at least {smallest}, got {value}")
    return int(value)


def seed_number(name: str, value: Any) -> int:
    """Return `value` as a seed, an int from 0 to 2**63 - 1."""
    seed = positive_integer(name, value, smallest=0)
    if seed >= 2**63:
        raise ValueError(f"{name} must be below 2**63, got {seed}")
    return seed


def noise_grid(fine: Any, coarse: int, names: tuple[str, str] = ("noise_depth", "depth")) -> int:
    """Return the steps of the grid that noise is drawn on: a multiple of `coarse`, which is the default."""
    if fine is None:
        return coarse
    steps = positive_integer(names[0], fine)
    if steps % coarse:
        raise ValueError(f"{names[0]} must be a multiple of {names[1]} ({coarse}), got {fine}")
    return steps


def positive_number(name: str, value: Any, zero: bool = False) -> float:
    """Return `value` as a finite float above zero (or at least zero)."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    number = float(value)
    if not np.isfinite(number) or number < 0 or (number == 0 and not zero):
        raise ValueError(f"{name} must be a finite number {'of at least' if zero else 'above'} 0, got {number:g}")
    return number


def finite_number(name: str, value: Any) -> float:
    """Return `value` as a finite float of any sign."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not np.isfinite(float(value)):
        raise ValueError(f"{name} must be finite, got {value}")
    return float(value)


def interval(t0: Any, t1: Any) -> tuple[float, float]:
    """Return the ends of a time interval, finite and distinct, in the order given."""
    ends = finite_number("t0", t0), finite_number("t1", t1)
    if ends[0] == ends[1]:
        raise ValueError(f"t0 and t1 must differ, got {t0} for both")
    return ends


def choice(name: str, value: Any, valid: tuple[str, ...]) -> str:
    """Return `value` if it is one of `valid`; the error lists them."""
    if value not in valid:
        raise ValueError(f"{name} must be one of {', '.join(valid)}, got {value!r}")
    return str(value)


def matrix(name: str, value: Any) -> NDArray[np.float64]:
    """Return `value` as a finite, non-empty (samples, d) float64 array."""
    array = numeric(name, value)
    if array.ndim != 2:
        raise ValueError(f"{name} must have shape (samples, d), got {array.shape}")
    return np.ascontiguousarray(finite(name, array), np.float64)


def finite(name: str, value: Any) -> NDArray[np.generic]:
    """Return `value` as a numeric array that is not empty and has no NaN or infinity."""
    array = numeric(name, value)
    if array.size == 0:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}")
    bad = ~np.isfinite(array)
    if bad.any():
        where = ", ".join(map(str, np.argwhere(bad)[0]))
        raise ValueError(f"{name} must be finite, got {array[bad][0]} at index ({where}); remove or replace it")
    return array


def numeric(name: str, value: Any) -> NDArray[np.generic]:
    """Return `value` as an array of real numbers."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be a rectangular array of numbers: {error}") from None
    if array.dtype.kind not in "buif":
        raise TypeError(f"{name} must be an array of real numbers, got dtype {array.dtype}")
    return array


def flag(name: str, value: Any) -> bool:
    """Return `value` if it is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)
