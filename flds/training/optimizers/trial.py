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
        If it cannot be called, gives something else than steps of the gradient's shape, or remembers something else
        than arrays, under other names than `init` has, of another shape or less precisely than it computes them.
    ValueError
        If it writes into its arguments, gives other steps when called again, or a step of a matrix depends on the bases
        in which it is written and the rule does not say that it treats entries, adds to rows that have had no gradient,
        or mixes particles.
    """
    label = f"{name}, {type(rule).__name__},"
    checks.positive_number(f"{label} work", rule.work, zero=True)
    generator = np.random.default_rng(0)
    seen = [generator.standard_normal((_ROWS, _COLUMNS)) for _ in range(_STEPS)]
    steps = _steps(label, rule, seen, matrix)
    if not all(np.isfinite(one).all() for one in steps):
        raise ValueError(f"{label} must give finite steps, but in a small case does not")
    again = _steps(label, rule, seen, matrix)
    if not all(np.array_equal(one, other) for one, other in zip(steps, again, strict=True)):
        raise ValueError(f"{label} must give the same for the same arguments; what it remembers belongs into its state")
    if not matrix:
        halves = (slice(0, 2), slice(2, None))
        parts = [_steps(label, rule, [one[:, part] for one in seen], matrix) for part in halves]
        _same(steps, [np.hstack(both) for both in zip(*parts, strict=True)], f"{label} must treat each particle alone")
        return
    if rule.entrywise:
        return
    left, right = (np.linalg.qr(generator.standard_normal((size, size)))[0] for size in (_ROWS, _COLUMNS))
    turned = _steps(label, rule, [left @ one @ right for one in seen], matrix)
    remedy = "must not depend on the bases of a matrix; set entrywise = True if it treats entries each for itself"
    _same(turned, [left @ one @ right for one in steps], f"{label} {remedy}")
    wider = [np.pad(one, ((0, 1), (0, 2))) for one in seen]
    padded = [np.pad(one, ((0, 1), (0, 2))) for one in steps]
    wider_steps = _steps(label, rule, wider, matrix)
    _same(wider_steps, padded, f"{label} must add nothing to rows and columns without a gradient")


def steps_of(rule: Optimizer) -> list[float]:
    """Return the steps of a rule in a small case, as numbers that tell it from others."""
    seen = [np.sin(np.arange(6.0) + step).reshape(2, 3) for step in range(_STEPS)]
    return np.array(_steps(type(rule).__name__, rule, seen, matrix=True)).ravel().tolist()


def _steps(label: str, rule: Optimizer, seen: Sequence[Array], matrix: bool) -> list[Array]:
    first = checks.called(f"{label} failed in init", rule.init, np.zeros_like(seen[0]))
    _check_state(label, first, None if matrix else seen[0].shape)
    state, steps = first, []
    for one in seen:
        gradient, before = one.copy(), {key: np.array(value) for key, value in state.items()}
        step, after = _pair(label, checks.called(f"{label} failed in step", rule.step, gradient, dict(state), 0.1))
        kept = all(np.array_equal(state[key], value, equal_nan=True) for key, value in before.items())
        if not (kept and np.array_equal(gradient, one)):
            raise ValueError(f"{label} must not write into its gradient and state (m += g); return new arrays (m + g)")
        if not isinstance(step, np.ndarray) or step.dtype.kind != "f" or step.shape != one.shape:
            got = f"{step.dtype} of shape {step.shape}" if isinstance(step, np.ndarray) else checks.shown(step)
            raise TypeError(f"{label} must give steps of the shape of the gradient, {one.shape}, got {got}")
        _check_next(label, first, after)
        state = after
        steps.append(np.array(step, np.float64))
    return steps


def _check_state(label: str, state: Any, shape: tuple[int, ...] | None) -> None:
    """Refuse what is no dictionary of arrays, of vectors that have this shape or are numbers."""
    if not isinstance(state, dict):
        raise TypeError(f"init of {label} must return a dictionary of arrays by name, got {checks.shown(state)}")
    for key, value in state.items():
        whole = isinstance(value, (np.ndarray, np.generic, int, float)) and np.asarray(value).dtype.kind in "fiub"
        if not (isinstance(key, str) and whole):
            raise TypeError(f"init of {label} must return arrays by name, got {key!r}: {checks.shown(value)}")
        if shape is not None and np.ndim(value) and np.shape(value) != shape:
            raise TypeError(
                f"init of {label} must return, for vectors, numbers and arrays of the parameter's shape, {shape}, "
                f"got {key!r} of shape {np.shape(value)}"
            )


def _check_next(label: str, first: dict[str, Any], after: dict[str, Any]) -> None:
    """Refuse what is remembered if it is not what `init` returned first, in names, shapes and kinds of numbers."""
    if set(after) != set(first):
        raise TypeError(
            f"{label} must remember what init returns, {', '.join(sorted(first)) or 'nothing'}, "
            f"got {', '.join(map(str, sorted(after))) or 'nothing'}"
        )
    for key, value in after.items():
        was = np.asarray(first[key])
        now = np.asarray(value) if isinstance(value, (np.ndarray, np.generic, int, float)) else np.array(None)
        if now.shape != was.shape or not np.can_cast(now.dtype, was.dtype, "same_kind"):
            raise TypeError(
                f"{label} must remember {key!r} as init returns it, {was.dtype} of shape {was.shape}, "
                f"got {now.dtype} of shape {now.shape}"
            )


def _pair(label: str, found: Any) -> tuple[Any, Any]:
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict)):
        raise TypeError(f"{label} must give a step and a dictionary of what it remembers, got {checks.shown(found)}")
    return found


def _same(found: Sequence[Array], expected: Sequence[Array], rule: str) -> None:
    largest = max(float(np.abs(one).max()) for one in expected)
    apart = max(float(np.abs(one - other).max()) for one, other in zip(found, expected, strict=True))
    if not apart <= _ROUNDING * largest:
        raise ValueError(f"{rule}: in a small case steps differ by {apart:.1e} of {largest:.1e}")
