"""What a checkpoint keeps of a solve: the particles at a time of the grid, and what was saved by then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher
from numpy.typing import NDArray

from solvers.ensemble.threads import ThreadParticles
from solvers.identity import identity
from solvers.results.checkpoint import Checkpoint
from solvers.results.files import Variable
from solvers.sde.field import ExternalField
from solvers.sde.statistics import Saved
from solvers.sde.walk import Course, Ensemble

Array = NDArray[np.floating]

_RUN = "run"
_SAVED = "saved_"


def described(
    settings: dict[str, Any], course: Course, ensemble: ThreadParticles, x: Array, saved: Saved, wanted: Sequence[int]
) -> dict[str, Any]:
    """Return what a checkpoint is known by: grid, scheme, functions, where particles start, and what is saved."""
    equation, field = course.equation, course.field.field
    functions = {name: _known(getattr(equation, name)) for name in equation.given}
    return {
        **settings,
        "seed": course.brownian.seed,
        "x0": {"sha256": _fingerprint(x, ensemble)},
        "field": None if field is None else _field(field, course, ensemble),
        "functions": {name: {"sha256": mark} for name, mark in functions.items()},
        "save": {name: {"sha256": _known(statistic.function)} for name, statistic in saved.statistics.items()},
        "save_at": {"sha256": repr(list(wanted))},
    }


def stored(checkpoint: Checkpoint, course: Course, states: Array, saved: Saved) -> tuple[Course, dict[str, int]]:
    """Take over what an earlier process left; return the course that is left, and where it begins as a setting."""
    state = checkpoint.stored.pop(_RUN, None)
    if state is None:
        return course, {}
    step = int(state["step"].values)
    states[0] = state["particles"].values
    saved.restore({name.removeprefix(_SAVED): item.values for name, item in state.items() if name.startswith(_SAVED)})
    return replace(course, first=step), {"continued_from_step": step}


def keep(checkpoint: Checkpoint, now: Ensemble, saved: Saved, ensemble: ThreadParticles) -> None:
    """Keep the particles of a time, and what was saved by then."""
    state = {
        "step": Variable((), np.array(now.step), "step of the grid"),
        "particles": Variable(("component", "particle"), now.x, "particles", spread=ensemble.spread(1)),
    }
    for name, (rows, spread) in saved.rows().items():
        dims = ("record", *(f"{name}_{axis}" for axis in range(rows.ndim - 1)))
        if spread:
            dims = ("record", "particle", *dims[2:])
        item = Variable(dims, rows, name, spread=ensemble.spread(1) if spread else None)
        state[f"{_SAVED}{name}"] = item
    checkpoint.keep(_RUN, state, lambda name: name.startswith(_SAVED))


def _known(function: Any) -> str:
    """Return what a function is known by: its code and what that refers to, or its name where that cannot be told."""
    plain = function.py_func if isinstance(function, Dispatcher) else function
    return (identity(plain) if callable(plain) else None) or str(getattr(plain, "__qualname__", "?"))


def _fingerprint(x: Array, ensemble: ThreadParticles) -> str:
    """Return the bits of sums over particles, which are the same for any number of ranks."""
    places = (ensemble.first + np.arange(x.shape[1])) / ensemble.particles

    def summed(part: slice) -> Array:
        own = x[:, part]
        return np.stack([own.sum(axis=1), (own**2).sum(axis=1), own @ places[part]])

    return ensemble.average(summed, (3, len(x)), 5 * x.size).tobytes().hex()


def _field(field: ExternalField, course: Course, ensemble: ThreadParticles) -> dict[str, str]:
    """Return what a field is known by, at the first and the last time."""
    kind = type(field).__qualname__
    ends = [course.field.at(step) for step in (course.first, course.brownian.steps)]
    if field.per_particle:
        return {"sha256": kind + "".join(_fingerprint(one.T, ensemble) for one in ends)}
    return {"sha256": kind + "".join(one.tobytes().hex() for one in ends)}
