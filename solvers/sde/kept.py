"""What a checkpoint keeps of a solve: the particles at a time of the grid, and what was saved by then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.ensemble.threads import ThreadParticles
from solvers.fingerprint import fingerprint
from solvers.results.checkpoint import Checkpoint
from solvers.results.files import Variable
from solvers.sde.course import Course, Ensemble
from solvers.sde.field import ExternalField
from solvers.sde.parameters import plain
from solvers.sde.saved import Saved

Array = NDArray[np.floating]

_RUN = "run"
_SAVED = "saved_"


def described(
    settings: dict[str, Any], course: Course, ensemble: ThreadParticles, x: Array, saved: Saved, wanted: Sequence[float]
) -> dict[str, Any]:
    """Return what a checkpoint is known by: grid, scheme, functions, where particles start, and what is saved."""
    equation, field, scheme = course.equation, course.field.field, course.scheme
    saves = {name: {"sha256": fingerprint(statistic.function)} for name, statistic in saved.statistics.items()}
    return {
        **settings,
        "seed": course.brownian.seed,
        "vectorized": equation.vectorized,
        "stages": {"sha256": fingerprint(type(scheme), scheme)},
        "x0": {"sha256": _of_particles(x, ensemble)},
        "field": None if field is None else {"sha256": _field(field, ensemble)},
        "args": {"sha256": fingerprint(plain(course.args))},
        "events": {name: {"sha256": fingerprint(one)} for name, (one, *_) in course.events.functions.items()},
        "condition": {"stop": {"sha256": fingerprint(course.events.stop)}},
        "functions": {name: {"sha256": fingerprint(getattr(equation, name))} for name in equation.given},
        "save": saves,
        "save_at": {"sha256": fingerprint(list(wanted))},
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
        "particles": Variable(("component", "particle"), now.state, "particles", spread=ensemble.spread(1)),
    }
    for name, (rows, spread) in saved.rows().items():
        dims = ("record", *(f"{name}_{axis}" for axis in range(rows.ndim - 1)))
        if spread:
            dims = ("record", "particle", *dims[2:])
        item = Variable(dims, rows, name, spread=ensemble.spread(1) if spread else None)
        state[f"{_SAVED}{name}"] = item
    checkpoint.keep(_RUN, state, lambda name: name.startswith(_SAVED))


def _of_particles(x: Array, ensemble: ThreadParticles) -> str:
    """Return the bits of sums over particles, which are the same for any number of ranks."""
    places = (ensemble.first + np.arange(x.shape[1])) / ensemble.particles

    def summed(part: slice) -> Array:
        own = x[:, part]
        return np.stack([own.sum(axis=1), (own**2).sum(axis=1), own @ places[part]])

    return ensemble.average(summed, (3, len(x)), 5 * x.size).tobytes().hex()


def _field(field: ExternalField, ensemble: ThreadParticles) -> str:
    """Return what a field is known by: all its values, which ranks may hold parts of."""
    if type(field) is not ExternalField:
        return fingerprint(type(field), field)
    values, times = field.values, field.times
    if field.per_particle and values.shape[times is not None] != ensemble.particles:  # of a rank
        rows = np.moveaxis(values, int(times is not None), -1)
        return fingerprint(times, _of_particles(rows.reshape(-1, rows.shape[-1]), ensemble))
    return fingerprint(times, field.per_particle, values)
