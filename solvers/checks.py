"""Checks of arguments: each error names the argument, the rule, the value received and the remedy."""

from __future__ import annotations

import numbers
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUMBERS = "an array of real numbers"
# Letters of a value that an error shows.
_SHOWN = 120


def positive_integer(name: str, value: Any, smallest: int = 1) -> int:
    """Return `value` as an int from `smallest` to 2**63 - 1; raises TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {shown(value)}")
    number = int(value)
    if number < smallest:
        raise ValueError(f"{name} must be at least {smallest}, got {shown(number)}")
    if number >= 2**63:  # NumPy and compiled code count with 64 bits
        raise ValueError(f"{name} must be below 2**63, got {shown(number)}")
    return number


def seed_number(name: str, value: Any) -> int:
    """Return `value` as a seed, an int from 0 to 2**63 - 1."""
    return positive_integer(name, value, smallest=0)


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
    number = _float(name, value)
    if not np.isfinite(number) or number < 0 or (number == 0 and not zero):
        raise ValueError(f"{name} must be a finite number {'of at least' if zero else 'above'} 0, got {number:g}")
    return number


def tolerance(value: Any) -> float:
    """Return `value` as the relative size, from 0 to below 1, of what may be dropped."""
    number = positive_number("tolerance", value, zero=True)
    if number >= 1:
        raise ValueError(f"tolerance must be below 1, or everything is dropped, got {number:g}")
    return number


def finite_number(name: str, value: Any) -> float:
    """Return `value` as a finite float of any sign."""
    number = _float(name, value)
    if not np.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value}")
    return number


def finite_numbers(**parameters: Any) -> list[float]:
    """Return parameters as finite floats of any sign, in the order given."""
    return [finite_number(name, value) for name, value in parameters.items()]


def _float(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {shown(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} must be a number that a float holds, below 1.8e308, got {shown(value)}") from None


def interval(t0: Any, t1: Any) -> tuple[float, float]:
    """Return the ends of a time interval, finite and distinct, in the order given."""
    ends = finite_number("t0", t0), finite_number("t1", t1)
    if ends[0] == ends[1]:
        raise ValueError(f"t0 and t1 must differ, got {t0} for both")
    if not np.isfinite(ends[1] - ends[0]):
        raise ValueError(f"t1 - t0 must be a number that a float holds, below 1.8e308, got {ends[0]:g} and {ends[1]:g}")
    return ends


def choice(name: str, value: Any, valid: tuple[str, ...]) -> str:
    """Return `value` if it is one of `valid`; the error lists them."""
    if not isinstance(value, str) or value not in valid:
        raise ValueError(f"{name} must be one of {', '.join(valid)}, got {shown(value)}")
    return str(value)


def matrix(name: str, value: Any) -> NDArray[np.float64]:
    """Return `value` as a finite, non-empty (samples, d) float64 array."""
    array = numeric(name, value)
    if array.ndim != 2:
        raise ValueError(f"{name} must have shape (samples, d), got {array.shape}")
    return np.ascontiguousarray(finite(name, array), np.float64)


def finite(name: str, value: Any, rule: str = NUMBERS) -> NDArray[np.generic]:
    """Return `value` as a numeric array that is not empty and has no NaN or infinity."""
    array = numeric(name, value, rule)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        with np.errstate(over="ignore"):  # what a float does not hold becomes infinity, and is refused
            array = array.astype(np.float64)
    if array.size == 0:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}")
    bad = ~np.isfinite(array)
    if bad.any():
        where = f" at index ({', '.join(map(str, np.argwhere(bad)[0]))})" if array.ndim else ""
        raise ValueError(f"{name} must be finite, got {array[bad][0]}{where}; {'remove or ' * bool(where)}replace it")
    return array


def numeric(name: str, value: Any, rule: str = NUMBERS, truth: bool = False) -> NDArray[np.generic]:
    """Return `value` as an array of real numbers, or also of truth values if `truth`.

    Every argument that is an array comes through here. `rule` says in errors what it must be.

    Raises
    ------
    TypeError
        If it holds something else, or numbers that NumPy would not read or would change without a word: masked
        entries, sparse arrays, tensors that require grad, bfloat16.
    ValueError
        If it is not rectangular.
    """
    found = _obstacle(value, truth)
    if found is not None:
        raise TypeError(f"{name} must be {rule}, got {found}")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be a rectangular array of numbers: {error}") from None
    except Exception as error:  # whatever another library's array raises
        raise TypeError(
            f"{name} must be {rule}, got {type(value).__name__} that NumPy cannot read: {' '.join(str(error).split())}"
        ) from None
    if array.dtype.kind == "b" and not truth:
        raise TypeError(f"{name} must be {rule}, got {_TRUTH}")
    if array.dtype == object and array.size:
        raise TypeError(f"{name} must be {rule}, got {_entries(array)}")
    if array.dtype.kind not in "buif":
        raise TypeError(f"{name} must be {rule}, got dtype {array.dtype}")
    return array


_TRUTH = "dtype bool; convert truth values to numbers, such as with numpy.asarray(values, float)"


def _obstacle(value: Any, truth: bool) -> str | None:
    """Say what in a value, or in nested lists, NumPy would change or not read, and what to do about it."""
    if isinstance(value, (bool, np.bool_)):
        return None if truth else _TRUTH.replace("dtype bool", str(value))
    if isinstance(value, (int, float, np.number)):
        return None
    if isinstance(value, (list, tuple)):
        return next((found for entry in value if (found := _obstacle(entry, truth)) is not None), None)
    if np.ma.is_masked(value):
        return "masked entries, which have no value; fill them, such as with numpy.ma.filled(values, 0.0)"
    if isinstance(value, np.ndarray):
        return _TRUTH if value.dtype.kind == "b" and not truth else None
    # tensors are known by their attributes, so that their library need not be imported
    if getattr(value, "requires_grad", False) is True:
        return "a tensor that requires grad; give it without its graph, with .detach()"
    if "sparse" in str(getattr(value, "layout", "")):
        return "a sparse tensor; fill it up, with .to_dense()"
    if hasattr(value, "toarray"):
        return "a sparse array; fill it up, with .toarray()"
    if "bfloat16" in str(getattr(value, "dtype", "")):
        return "numbers in bfloat16, which NumPy does not have; convert them to float32 or float64"
    if callable(value) and not hasattr(value, "__array__"):
        return f"the function {getattr(value, '__name__', shown(value))}; give its values as an array"
    return None


def _entries(array: NDArray[Any]) -> str:
    """Say what an array of objects holds."""
    strange = [entry for entry in array.flat if not isinstance(entry, (int, float, np.integer, np.floating))]
    if not strange:
        huge = [entry for entry in array.flat if isinstance(entry, int) and not -(2**63) <= entry < 2**64]
        if huge:
            return f"{shown(max(huge, key=abs))}, which 64 bits do not hold; write it as a float"
        return "dtype object, though it holds numbers; convert it, such as with numpy.asarray(values, float)"
    return shown(strange[0]) if array.ndim == 0 else f"entries such as {shown(strange[0])}"


def called(where: str, function: Callable[..., Any], *arguments: Any, rule: str = "") -> Any:
    """Return what a user's function gives.

    Whatever it raises, SystemExit as well but not an interrupt, becomes a TypeError of one line that begins with
    `where` and ends with `rule`.
    """
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:
        raise TypeError(f"{where}: {reason(error)}{rule}") from None


def reason(error: BaseException) -> str:
    """The line of an error that says most; Numba's are long, coloured and begin with the name of a stage."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Failed in nopython mode pipeline")]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def shown(value: Any) -> str:
    """Return a value as an error shows it: in one line, and not at length."""
    if isinstance(value, int) and value.bit_length() > 100:
        return f"an integer of {value.bit_length()} bits"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # one's own, or of integers of more digits than Python writes
        return f"{type(value).__name__} that cannot be shown"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def flag(name: str, value: Any) -> bool:
    """Return `value` if it is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)
