"""The times at which a solve saves, as places on its grid: whole numbers of steps, and shares of one in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from solvers import checks
from solvers.ensemble.brownian import BrownianMotion
from solvers.sde.course import Course

# Records that are kept by default, evenly over the grid, beside the first.
_RECORDS = 100
# A time of the grid computed in another order of operations differs by rounding, not by more of a step.
_FUZZ = 1e-6


def places(save_at: Any, course: Course, first: int) -> list[float]:
    """Return where to save from step `first` on, in the order of the records.

    Raises
    ------
    TypeError, ValueError
        If they are not times of the run, or between those of the grid where that makes no sense.
    """
    brownian = course.brownian
    steps = brownian.steps
    if save_at is None:
        return sorted({float(first + round(i * (steps - first) / _RECORDS)) for i in range(_RECORDS + 1)})
    return _asked(save_at, brownian, first, lambda: _obstacle(course))


def grid_steps(save_at: Any, brownian: BrownianMotion, obstacle: str) -> list[int]:
    """Return where to save, in the order of the records, of what knows times of the grid only; raises as `places`."""
    return [round(one) for one in _asked(save_at, brownian, 0, lambda: obstacle)]


def _asked(save_at: Any, brownian: BrownianMotion, first: int, obstacle: Callable[[], str | None]) -> list[float]:
    steps, t0, t1 = brownian.steps, brownian.t0, brownian.t1
    times = np.atleast_1d(np.asarray(checks.finite("save_at", save_at), np.float64))
    if times.ndim > 1:
        raise ValueError(f"save_at must be a list of times, got shape {times.shape}")
    found = (times - t0) / (t1 - t0) * steps
    nearest = np.rint(found)
    outside = (found < first - _FUZZ) | (found > steps + _FUZZ)
    if outside.any():
        start = float(brownian.times[first])
        raise ValueError(f"save_at must lie between t0 = {start:g} and t1 = {t1:g}, got {times[outside][0]:g}")
    off = np.abs(found - nearest) > _FUZZ
    why = obstacle() if off.any() else None
    if why:
        near = t0 + (t1 - t0) * nearest[off][0] / steps
        raise ValueError(
            f"save_at must hold times of the grid of {steps} steps with {why}, got {times[off][0]:g}; the nearest is "
            f"{near:g}"
        )
    return [float(one) for one in np.where(off, found, nearest)]


def _obstacle(course: Course) -> str | None:
    """Say what has no place between the times of the grid."""
    for event in course.events:
        if event.on_grid:
            return type(event).__name__
    if any(stage.motions == "integrals" for stage in course.scheme.stages):
        return f'scheme="{course.scheme.name}"'
    return None


def between(due: Iterable[float]) -> dict[int, list[float]]:
    """Return for steps of the grid the shares of the next one after which to save."""
    found: dict[int, list[float]] = {}
    for place in sorted(due):
        if place != int(place):
            found.setdefault(int(place), []).append(place - int(place))
    return found
