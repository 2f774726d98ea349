"""How many numbers functions of later moments and kernels of pairs return, and what they see when they are tried."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.checks import reason
from solvers.ensemble.threads import ThreadParticles
from solvers.partition import STRETCH
from solvers.sde.equation import Form
from solvers.sde.moments.stages import Stage, entries_after, moment_stage
from solvers.sde.parameters import kind_of, passed

Values = NDArray[np.float64]
Counts = tuple[tuple[int, bool], ...]


def later_means(trial: Any, psi: Any) -> tuple[Any, tuple[Counts, ...]]:
    """Return m with all later moments, after `psi`, and what their functions return; sets the m that each sees."""
    equation, kind = trial.equation, kind_of(trial.args)
    found: list[Counts] = []
    entries = np.atleast_1d(psi) if equation.plain_moments is not None else np.zeros(0)
    before = len(entries), np.ndim(psi) == 0
    form = Form(trial.scalar, len(trial.x), 0, True, 0, (), "none", False, kind)
    for place, moment in enumerate(equation.later_moments):
        names = [equation.name_of(name, place) for name in moment.functions()]
        trial.before |= dict.fromkeys(names, _as_seen(entries, before[1]))
        counts = tuple(_counted(trial, name, "a particle") for name in names)
        moment.check(counts)
        stage = moment_stage(equation, form, place, counts, before)
        more = _found(trial, stage, entries)
        if not np.isfinite(more).all():
            raise ValueError(f"moments must be finite at the start, but {type(moment).__name__} is not{moment.hint}")
        entries = np.append(entries, more)
        before = entries_after(before, moment, counts)
        found.append(counts)
    return _as_seen(entries, before[1]), tuple(found)


def pair_counts(trial: Any) -> tuple[int, bool]:
    """Return how many numbers a kernel of pairs returns, and whether it is one; sets the sums that functions see."""
    if trial.equation.pairs is None:
        return 0, False
    count, number = _counted(trial, "interaction", "a pair")
    found = trial.value("interaction")
    trial.s = np.atleast_1d(found)[:, None] if trial.equation.vectorized else float(found) if number else found
    if trial.equation.vectorized and number:
        trial.s = trial.s[0]
    return count, number


def _as_seen(entries: Values, number: bool) -> Any:
    """Return entries of m as functions take them."""
    return entries if not number else float(entries[0]) if len(entries) else 0.0


def _counted(trial: Any, name: str, whose: str) -> tuple[int, bool]:
    found = trial.value(name)
    if found.ndim > 1 or not found.size:
        raise ValueError(f"{name} must return a number or several for {whose}, got shape {found.shape}")
    return found.size, found.ndim == 0


def _found(trial: Any, stage: Stage, entries: Values) -> Values:
    """Return what a later moment finds in all particles."""
    try:
        with np.errstate(all="ignore"):
            if trial.later is not None:
                return trial.later(stage, entries)
            x, args = np.ascontiguousarray(trial.x, np.float64), passed(trial.args, trial.equation.vectorized)
            return stage.found(ThreadParticles(x.shape[1]), x, trial.t, entries, args, STRETCH, x.size)
    except Exception as error:  # whatever a user's function raises
        raise TypeError(f"moments failed on some of the particles: {reason(error)}") from None
