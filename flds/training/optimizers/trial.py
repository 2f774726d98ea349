"""What a rule of one's own must be: tried in small cases before any run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flds.training.optimizers.optimizer import Optimizer
from solvers import checks

Array = NDArray[np.float64]

# Rows, columns or particles of the small cases, and the steps.
_ROWS, _COLUMNS, _STEPS = 3, 5, 3
# Relative differences that rounding leaves in such cases, roots of matrices included.
_ROUNDING = 1e-6


def try_rule(name: str, rule: Optimizer, matrix: bool) -> None:
    """Refuse a rule that is not what its class says, for matrices or for vectors.

    Raises
    ------
    TypeError
        If it cannot be called, or gives something else than steps of the gradient's shape.
    ValueError
        If a step of a matrix depends on the bases in which it is written and the rule does not say that it treats
        entries, adds to rows that have had no gradient, or mixes particles.
    """
    label = f"{name}, {type(rule).__name__},"
    generator = np.random.default_rng(0)
    seen = [generator.standard_normal((_ROWS, _COLUMNS)) for _ in range(_STEPS)]
    steps = _steps(label, rule, seen)
    if not matrix:
        parts = [_steps(label, rule, [one[:, part] for one in seen]) for part in (slice(0, 2), slice(2, None))]
        _same(steps, [np.hstack(both) for both in zip(*parts, strict=True)], f"{label} must treat each particle alone")
        return
    if rule.entrywise:
        return
    left, right = (np.linalg.qr(generator.standard_normal((size, size)))[0] for size in (_ROWS, _COLUMNS))
    turned = _steps(label, rule, [left @ one @ right for one in seen])
    remedy = "must not depend on the bases of a matrix; set entrywise = True if it treats entries each for itself"
    _same(turned, [left @ one @ right for one in steps], f"{label} {remedy}")
    wider = [np.pad(one, ((0, 1), (0, 2))) for one in seen]
    padded = [np.pad(one, ((0, 1), (0, 2))) for one in steps]
    _same(_steps(label, rule, wider), padded, f"{label} must add nothing to rows and columns without a gradient")


def steps_of(rule: Optimizer) -> list[float]:
    """Return the steps of a rule in a small case, as numbers that tell it from others."""
    seen = [np.sin(np.arange(6.0) + step).reshape(2, 3) for step in range(_STEPS)]
    return np.array(_steps(type(rule).__name__, rule, seen)).ravel().tolist()


def _steps(label: str, rule: Optimizer, seen: Sequence[Array]) -> list[Array]:
    state = checks.called(f"{label} failed in init", rule.init, np.zeros_like(seen[0]))
    steps = []
    for one in seen:
        step, state = _pair(label, checks.called(f"{label} failed in step", rule.step, one.copy(), state, 0.1))
        if np.shape(step) != one.shape:
            raise TypeError(f"{label} must give steps of the shape of the gradient, {one.shape}, got {np.shape(step)}")
        steps.append(np.asarray(step, np.float64))
    return steps


def _pair(label: str, found: Any) -> tuple[Any, Any]:
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict)):
        raise TypeError(f"{label} must give a step and a dictionary of what it remembers, got {checks.shown(found)}")
    return found


def _same(found: Sequence[Array], expected: Sequence[Array], rule: str) -> None:
    largest = max(float(np.abs(one).max()) for one in expected)
    apart = max(float(np.abs(one - other).max()) for one, other in zip(found, expected, strict=True))
    if not apart <= _ROUNDING * largest:
        raise ValueError(f"{rule}: in a small case steps differ by {apart:.1e} of {largest:.1e}")
