"""The particles that a solve starts with, from an array or a sampler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers import checks
from solvers.ensemble.particles import partition
from solvers.ensemble.random import STRETCH
from solvers.memory import INTERPRETER_BYTES, require_memory

Array = NDArray[np.float64]
Sampler = Callable[[np.random.Generator, int], Any]

# Keeps the sampler's generators apart from those that a user makes of the same seed.
_SAMPLER = 0x7830
# Arrays as large as the particles that a solve holds: where they are, where they go, and what a statistic or the copy
# that is returned takes.
HELD = 3


def initial_particles(x0: Any, particles: int | None, seed: int) -> Array:
    """Return the particles at t0, (N,) or (N, D), from an array or a sampler.

    Raises
    ------
    TypeError, ValueError
        If they are not finite numbers of this shape, or `particles` is missing or does not fit.
    MemoryError
        If so many particles do not fit in memory.
    """
    if callable(x0):
        if particles is None:
            raise TypeError("x0 is a sampler, so the number of particles is needed: pass particles=")
        count = checks.positive_integer("particles", particles)
        first = _sample(x0, seed, 0)
        require_memory(INTERPRETER_BYTES + HELD * count * first[0].nbytes, "use fewer particles")
        x = np.empty((count, *first.shape[1:]))
        for number, places in enumerate(partition(count, STRETCH)):
            part = first if number == 0 else _sample(x0, seed, number)
            if part.shape != first.shape:
                raise ValueError("x0 must return the same shape whenever it is called")
            x[places] = part[: places.stop - places.start]
    else:
        x = np.asarray(checks.finite("x0", x0), np.float64)
        if x.ndim not in (1, 2):
            raise ValueError(f"x0 must have shape (N,) for numbers or (N, D) for vectors, got {x.shape}")
        if particles is not None and checks.positive_integer("particles", particles) != len(x):
            raise ValueError(f"x0 holds {len(x)} particles, but particles={particles}; leave it out")
    return x


def _sample(sampler: Sampler, seed: int, number: int) -> Array:
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SAMPLER, number)))
    part = checks.called("x0 failed as a function of (generator, n)", sampler, generator, STRETCH)
    x = np.asarray(checks.finite("a value of x0", part), np.float64)
    if x.ndim not in (1, 2) or len(x) != STRETCH:
        raise ValueError(f"x0(generator, n) must return shape (n,) or (n, D), got {x.shape} for n = {STRETCH}")
    return x
