"""The levels of a multilevel estimate: systems of one size, less smaller ones with the same noise."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers import checks
from solvers.ensemble.brownian import BrownianMotion
from solvers.ensemble.random import replicate_seed
from solvers.ensemble.threads import ThreadParticles
from solvers.sde.adapted import point_of, room_of
from solvers.sde.course import Course
from solvers.sde.equation import McKeanVlasov
from solvers.sde.events import Events
from solvers.sde.field import FieldOnGrid
from solvers.sde.integrate import integrate
from solvers.sde.run import MeanFieldRun
from solvers.sde.start import Start

Array = NDArray[np.floating]

# More levels than this have seeds of others.
MOST = 16
# What a system costs beside its particles and steps, in these.
_CALL = 10_000.0


@dataclass(frozen=True)
class Level:
    """Systems of one size, less the mean of two of half as many particles and half as many steps; the first alone.

    Attributes
    ----------
    steps, particles : int
        K and N of a system.
    samples : int
        Independent systems, n.
    mean, variance : float
        Of the payoff of a system, averaged over its particles, or of what is left of it beside the two smaller ones.
    cost : float
        Particles times steps of one sample (times particles where all meet), with what it takes to begin.
    seconds : float
        Measured for one sample.
    """

    steps: int
    particles: int
    samples: int
    mean: float
    variance: float
    cost: float
    seconds: float


@dataclass(frozen=True)
class Problem:
    """What is averaged, and how the first level is made."""

    equation: McKeanVlasov
    payoff: Callable[..., Any]
    x0: Callable[[np.random.Generator, int], Any]
    interval: tuple[float, float]
    given: dict[str, Any]
    events: Events
    threads: int
    first: tuple[int, int]
    seed: int

    @property
    def coupled(self) -> bool:
        """Whether particles depend on each other."""
        equation = self.equation
        return equation.moments is not None or equation.interaction is not None or self.events.plan.share >= 0

    @property
    def order(self) -> float:
        """The order in which what is left falls from level to level."""
        orders = [self.given["scheme"].weak_order(self.equation), *(one.orders()[1] for one in self.events)]
        known = [one for one in orders if one is not None]
        return min([*known, 1.0] if self.coupled or not known else known)

    def level(self, number: int) -> Systems:
        """Return the systems of a level."""
        steps, particles = self.first[0] << number, self.first[1] << (number if self.coupled else 0)
        grid = {"t0": self.interval[0], "t1": self.interval[1], "steps": steps, "seed": self.seed, "noise_steps": None}
        run = MeanFieldRun.checked(
            self.equation, self.x0, grid, self.given["scheme"], particles, self.given["field"], self.threads,
            args=self.given["args"], events=self.events,
        )  # fmt: skip
        parts = 0 if number == 0 else 2 if self.coupled else 1
        return Systems(self, number, run.course, particles, parts)


class Systems:
    """Samples of a level, and what they have shown so far.

    Each is less the mean of so many `parts` of its particles, with steps so many times as `long`.
    """

    def __init__(
        self, problem: Problem, number: int, course: Course, particles: int, parts: int, long: int = 2
    ) -> None:
        self.problem, self.number, self.course = problem, number, course
        self.particles, self.parts, self.long = particles, parts, long
        self.values: list[float] = []
        self.fine: list[float] = []
        self.seconds = 0.0
        self.home = ThreadParticles(particles, problem.threads)
        self.part = self.home.beside(particles // max(parts, 1))
        self.payoff = _averaged(problem.payoff, course.form.scalar, course.form.dimension)

    @property
    def cost(self) -> float:
        """Of one sample."""
        steps, count = self.course.brownian.steps, self.particles
        partners = count if self.problem.equation.interaction is not None and self.problem.equation.pairs is None else 1
        whole = steps * count * partners + _CALL
        if not self.parts:
            return float(whole)
        return float(whole + self.parts * (steps // 2 * (count // self.parts) * (partners // self.parts or 1) + _CALL))

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def variance(self) -> float:
        return float(np.var(self.values, ddof=1))

    def add(self, samples: int) -> None:
        """Make samples until there are so many."""
        with self.home.running():
            if not self.values:
                self._more()  # which compiles
            begin = time.perf_counter()
            while len(self.values) < samples:
                self._more()
        self.seconds += time.perf_counter() - begin

    @property
    def each(self) -> float:
        """Seconds of a sample."""
        return self.seconds / max(1, len(self.values) - 1)

    def _more(self) -> None:
        seed = replicate_seed(self.problem.seed, 1 + len(self.values) * MOST + self.number)
        fine, rest = self._sample(seed)
        self.fine.append(fine)
        self.values.append(fine - rest)

    def level(self) -> Level:
        steps, count = self.course.brownian.steps, len(self.values)
        return Level(steps, self.particles, count, self.mean, self.variance, self.cost, self.each)

    def _sample(self, seed: int) -> tuple[float, float]:
        """Return the payoff of a system, and the mean of that of the smaller ones."""
        brownian = replace(self.course.brownian, seed=seed)
        x = np.atleast_2d(Start.checked(self.problem.x0, self.particles, seed).part(slice(0, self.particles)).T)
        fine = self._solved(self.home, brownian, x, 0)
        if not self.parts:
            return fine, 0.0
        coarse = replace(brownian, steps=brownian.steps // self.long, noise_steps=brownian.steps)
        size = self.particles // self.parts
        lows = range(0, self.parts * size, size)
        parts = [self._solved(self.part, coarse, x[:, low : low + size], low) for low in lows]
        return fine, float(np.mean(parts))

    def _solved(self, home: ThreadParticles, brownian: BrownianMotion, x: Array, offset: int) -> float:
        """Return the mean payoff of particles that start at x, (D, n), and have the noise from `offset` on."""
        course, events = self.course, self.course.events
        common = (
            None
            if course.common is None
            else replace(brownian, motions=course.common.motions, stream=course.common.stream)
        )
        field = FieldOnGrid(course.field.field, brownian.times)
        course = replace(course, brownian=brownian, common=common, field=field, offset=offset)
        t0 = float(brownian.times[0])
        events.check(x, 0)
        states = np.empty((2, len(x) + len(events.carries), x.shape[1]))
        states[0] = np.concatenate([x, events.initial(x, t0)])
        *_, last = integrate(course, home, states, [brownian.steps])
        if not last.finite:
            raise ValueError(f"level {self.number}, with {brownian.steps} steps, diverges: begin with more steps=")
        found = self.payoff(last.x)
        if not math.isfinite(found):
            raise ValueError(f"payoff must be finite, got {found} at level {self.number}")
        return found


def _averaged(payoff: Any, scalar: bool, dimension: int) -> Callable[[Array], float]:
    """Return the mean of a payoff over particles x, (D, n)."""
    if not callable(payoff):
        raise TypeError(f"payoff must be a function of x, got {checks.shown(payoff)}")
    if hasattr(payoff, "py_func"):
        values = _compiled(payoff, scalar, dimension)
    else:
        values = lambda x: payoff(x[0] if scalar else x)  # noqa: E731

    def mean(x: Array) -> float:
        found = np.asarray(checks.called("payoff failed", values, x))
        if found.dtype.kind not in "biuf":
            raise TypeError(f"payoff must return real numbers, got {found.dtype}")
        if found.shape != (x.shape[1],):
            raise ValueError(f"payoff must return a number for each particle, {(x.shape[1],)}, got {found.shape}")
        return float(found.mean())

    return mean


def _compiled(payoff: Any, scalar: bool, dimension: int) -> Callable[[Array], Array]:
    point, room = point_of(scalar), room_of(scalar, dimension)

    @njit
    def values(x):  # type: ignore[no-untyped-def]
        out, here = np.empty(x.shape[1]), room()
        for p in range(x.shape[1]):
            out[p] = payoff(point(x, p, here))
        return out

    found: Callable[[Array], Array] = values
    return found
