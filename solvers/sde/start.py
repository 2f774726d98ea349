"""The particles that a solve starts with, from an array or a sampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers import checks
from solvers.memory import INTERPRETER_BYTES, require_memory
from solvers.partition import STRETCH
from solvers.results.solution import Solution
from solvers.sde.events import Events

Array = NDArray[np.float64]
Sampler = Callable[[np.random.Generator, int], Any]

# Keeps the sampler's generators apart from those that a user makes of the same seed.
_SAMPLER = 0x7830
# Arrays as large as the particles that a solve holds: where they are, where they go, and what a statistic or the copy
# that is returned takes.
HELD = 3


def initial_particles(x0: Any, particles: int | None, seed: int) -> Array:
    """Return all particles at t0, (N,) or (N, D), from an array or a sampler; raises as `Start` does."""
    start = Start.checked(x0, particles, seed)
    start.require_memory(start.count)
    return start.part(slice(0, start.count))


@dataclass(frozen=True)
class Start:
    """Checked particles at t0: an array or a sampler, with its seed and its first values."""

    given: Any
    count: int
    shape: tuple[int, ...]  # of one particle
    seed: int
    first: Array
    held: bool = False  # what is given is the part of this rank
    carried: tuple[Array, ...] | None = None  # what each particle carries for events, where another run ended

    @classmethod
    def of_end(cls, run: Solution, carries: tuple[str, ...]) -> Start:
        """Return the particles where another run ended, with what they carry; a rank may hold its own only."""
        end = run.variables["final_particles"]
        x, spread = end.values, end.spread
        carried = tuple(run.variables[name].values for name in carries)
        return cls(x, len(x) if spread is None else spread.total, x.shape[1:], 0, x, spread is not None, carried)

    @classmethod
    def checked(cls, x0: Any, particles: int | None, seed: int) -> Start:
        """Return the particles at t0.

        Raises
        ------
        TypeError, ValueError
            If they are not finite numbers of this shape, or `particles` is missing or does not fit.
        """
        if callable(x0):
            if particles is None:
                raise TypeError("x0 is a sampler, so the number of particles is needed: pass particles=")
            count = checks.positive_integer("particles", particles)
            first = _sample(x0, seed, 0)
            return cls(x0, count, first.shape[1:], seed, first)
        x = np.asarray(checks.finite("x0", x0), np.float64)
        if x.ndim not in (1, 2):
            raise ValueError(f"x0 must have shape (N,) for numbers or (N, D) for vectors, got {x.shape}")
        if particles is not None and checks.positive_integer("particles", particles) != len(x):
            raise ValueError(f"x0 holds {len(x)} particles, but particles={particles}; leave it out")
        return cls(x, len(x), x.shape[1:], seed, x)

    @property
    def bytes_each(self) -> int:
        """Bytes of one particle."""
        return 8 * int(np.prod(self.shape))

    def require_memory(self, count: int, available: float | None = None) -> None:
        """Raise MemoryError if so many of the particles do not fit in memory."""
        require_memory(INTERPRETER_BYTES + HELD * count * self.bytes_each, "use fewer particles", available)

    def part(self, held: slice) -> Array:
        """Return some of the particles, in new memory if they are drawn."""
        if not callable(self.given):
            return self.first if self.held else self.first[held]
        x = np.empty((held.stop - held.start, *self.shape))
        for number in range(held.start // STRETCH, -(-held.stop // STRETCH)):
            drawn = self.first if number == 0 else _sample(self.given, self.seed, number)
            if drawn.shape != self.first.shape:
                raise ValueError("x0 must return the same shape whenever it is called")
            low, high = max(held.start, number * STRETCH), min(held.stop, (number + 1) * STRETCH)
            x[low - held.start : high - held.start] = drawn[low - number * STRETCH : high - number * STRETCH]
        return x


def placed(start: Start, here: slice, events: Events, t: float) -> Array:
    """Return the state of some particles at t0, (D + numbers carried, n); raises ValueError if one is out of place."""
    x = np.atleast_2d(start.part(here).T)
    if start.carried is not None:
        rows = start.carried if start.held else tuple(row[here] for row in start.carried)
        return np.concatenate([x, *(row[None] for row in rows)])
    events.check(x, here.start)
    return np.concatenate([x, events.initial(x, t)])


def _sample(sampler: Sampler, seed: int, number: int) -> Array:
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SAMPLER, number)))
    part = checks.called("x0 failed as a function of (generator, n)", sampler, generator, STRETCH)
    x = np.asarray(checks.finite("a value of x0", part), np.float64)
    if x.ndim not in (1, 2) or len(x) != STRETCH:
        raise ValueError(f"x0(generator, n) must return shape (n,) or (n, D), got {x.shape} for n = {STRETCH}")
    return x
