"""The particles of a McKean–Vlasov equation, followed from one end of a grid of times to the other."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from solvers.ensemble.threads import ThreadParticles
from solvers.sde.course import Course, Ensemble
from solvers.sde.walk import walk

Array = NDArray[np.floating]


def integrate(
    course: Course,
    ensemble: ThreadParticles,
    states: Array,
    stops: Iterable[int],
    between: Mapping[int, Sequence[float]] | None = None,
) -> Iterator[Ensemble]:
    """Yield the particles at the first time and at every stop, and at some times in between, until one is lost.

    If a step fails, the particles that it started from are yielded before its error is raised.

    Parameters
    ----------
    course : Course
        What is solved.
    ensemble : ThreadParticles
        The partition of the particles, running.
    states : (S, D + numbers carried, N) array
        The particles at the first time, and room for those of later times, as in `solvers.sde.walk.Walk`.
    stops : iterable of int
        Steps in ascending order, all after the first.
    between : mapping from int to sequence of float, optional
        For some of the stops, or the first time, shares of the step from there on, after which particles are wanted
        too; they are yielded after those of the stop.
    """
    way, wanted = walk(course, ensemble, states), between or {}
    yield way.start()
    for stop in (course.first, *stops):
        while way.now.step < stop:
            yield way.go(stop)
            if not way.now.finite:
                return
        for share in wanted.get(stop, ()):
            yield way.aside(share)


def compile_kernels(course: Course, ensemble: ThreadParticles, states: Array) -> float:
    """Compile the equation, or load it from the cache, without calling it; return the seconds it took."""
    start = time.perf_counter()
    walk(course, ensemble, states).compile()
    return time.perf_counter() - start
