"""Means over the law of a mean-field equation by multilevel Monte Carlo, in time steps and in particles."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from solvers import checks
from solvers.processors import thread_count
from solvers.sde.equation import McKeanVlasov
from solvers.sde.events import Events
from solvers.sde.multilevel.levels import MOST, Level, Problem, Systems
from solvers.sde.parameters import as_args
from solvers.sde.schemes import get_scheme
from solvers.sde.schemes.scheme import Scheme

# Of the target, the part that statistical errors and what finer grids would change may take.
_SHARE = 0.5
# Two-sided, of 95 %.
_NORMAL = 1.959964
# Systems of each level that are looked at first, levels at first, and levels that tell what is left.
_PILOT, _FIRST, _LAST = 30, 3, 3


@dataclass(frozen=True)
class MultilevelEstimate:
    """What `mlmc` returns; printed, it is a table.

    Attributes
    ----------
    value : float
        The mean of the payoff.
    standard_error : float
        Of the value, from the variances of all levels.
    bias : float
        How far the limit of ever more steps and particles may be from the last level.
    levels : tuple of Level
    target_error : float
    plain_cost : float
        What independent systems of the last level's size would cost for the same error, in the units of `Level.cost`.
    seconds : float
        Of all.
    """

    value: float
    standard_error: float
    bias: float
    levels: tuple[Level, ...]
    target_error: float
    plain_cost: float
    seconds: float

    @property
    def interval(self) -> tuple[float, float]:
        """The value less, and with, 1.96 standard errors and the bias: 95 % of such intervals and more hold."""
        half = _NORMAL * self.standard_error + self.bias
        return self.value - half, self.value + half

    @property
    def cost(self) -> float:
        """What all samples cost, in the units of `Level.cost`."""
        return sum(level.samples * level.cost for level in self.levels)

    def __str__(self) -> str:
        lines = [f"{self.value:.6g} ± {self.standard_error:.2g}, bias at most {self.bias:.2g}, {self.seconds:.3g} s"]
        lines.append("steps  particles  samples  mean of differences  variance")
        for one in self.levels:
            lines.append(f"{one.steps:5}  {one.particles:9}  {one.samples:7}  {one.mean:+19.3e}  {one.variance:8.2e}")
        return "\n".join(lines)


def mlmc(
    equation: McKeanVlasov,
    payoff: Callable[..., Any],
    x0: Any,
    t0: float,
    t1: float,
    *,
    target_error: float,
    budget_seconds: float | None = None,
    steps: int = 8,
    particles: int = 512,
    scheme: str | Scheme = "euler_maruyama",
    args: Any = None,
    field: Any = None,
    boundary: Any = None,
    jumps: Any = None,
    reset: Any = None,
    seed: int = 0,
    threads: int | None = None,
) -> MultilevelEstimate:
    """Return E φ(X_t1) of the limit of ever more particles and steps, to an error that is asked for.

    Many systems are small and few are large. Level ℓ has 2^ℓ times the steps and, where particles depend on each other,
    2^ℓ times the particles of the first; a sample is a system less the mean of two systems of its first and of its
    second half of particles, with their noise and half the steps. How many samples a level has follows from their
    variances and costs, and levels are added until what is left to the limit is small.

    Parameters
    ----------
    equation : McKeanVlasov
        The coefficients.
    payoff : callable
        φ(x), a number: of one particle where it is compiled with numba.njit, else of arrays, (n,) or (D, n) → (n,).
    x0 : number, (D,) array or callable
        Where all particles start, or a sampler as of `solve`.
    t0, t1 : float
        The times between which the equation is solved.
    target_error : float
        Not exceeded in 95 of 100 runs.
    budget_seconds : float, optional
        If it will take longer, the run ends at once and says how long.
    steps, particles : int
        Of the first level.
    scheme, args, boundary, jumps
        As for `solve`. Parameters must not depend on the length of a step, which levels change.
    reset
        Refused, since m then holds the share of particles that were reset in a step.
    field : float, (F,) array or ExternalField, optional
        As for `solve`, but none that differs between particles.
    seed : int
        Of all samples.
    threads : int, optional
        By default all available CPUs. The result does not depend on it.

    Returns
    -------
    MultilevelEstimate
        `value`, `standard_error`, `bias`, `interval`, and the `levels`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not valid, the payoff is not finite or is the same for all particles, a level diverges, or
        the budget does not suffice.
    RuntimeError
        If the error is not reached with the finest level.

    References
    ----------
    M. B. Giles, "Multilevel Monte Carlo methods", Acta Numerica 24 (2015). A.-L. Haji-Ali, R. Tempone, "Multilevel and
    multi-index Monte Carlo methods for the McKean–Vlasov equation", Stat. Comput. 28 (2018), for halves of particles.

    Examples
    --------
    >>> import solvers
    >>> equation = solvers.equations.ornstein_uhlenbeck()
    >>> found = solvers.mlmc(equation, lambda x: x**2, 1.0, 0.0, 1.0, target_error=0.02)
    >>> bool(abs(found.value - 0.8002) < 0.02)
    True
    """
    if not isinstance(equation, McKeanVlasov):
        raise TypeError(f"equation must be a solvers.McKeanVlasov, got {type(equation).__name__}")
    target = checks.positive_number("target_error", target_error)
    budget = math.inf if budget_seconds is None else checks.positive_number("budget_seconds", budget_seconds)
    first = checks.positive_integer("steps", steps), checks.positive_integer("particles", particles, smallest=2)
    if getattr(field, "per_particle", False):
        raise ValueError("field must be one for all particles, since levels have different numbers of them")
    if reset is not None:
        raise ValueError("mlmc has no resets: the share of them in m is that of a step, which levels change")
    seed = checks.seed_number("seed", seed)
    given = {"scheme": get_scheme(scheme), "args": as_args(args), "field": field}
    events = Events.checked(boundary, jumps, None, None)
    problem = Problem(equation, payoff, _start(x0, seed), (t0, t1), given, events, thread_count(threads), first, seed)
    return _run(problem, target, budget)


def _run(problem: Problem, target: float, budget: float) -> MultilevelEstimate:
    begin = time.perf_counter()
    levels = [problem.level(number) for number in range(_FIRST)]
    for one in levels:
        one.add(_PILOT)
    if levels[0].variance == 0.0:
        raise ValueError(
            f"payoff has no variance: it was the same in all of {_PILOT} systems; if it differs rarely, take more "
            "particles="
        )
    while True:
        wanted = _samples(levels, target)
        _require_budget(problem, levels, wanted, target, budget, time.perf_counter() - begin)
        for one, count in zip(levels, wanted, strict=True):
            one.add(count)
        again = _samples(levels, target)
        if any(count > 1.1 * len(one.values) for one, count in zip(levels, again, strict=True)):
            continue
        if _left(levels, problem.order) <= _SHARE * target:
            return _estimate(problem, levels, target, time.perf_counter() - begin)
        if len(levels) == MOST:
            raise RuntimeError(
                f"what finer levels would change is {_left(levels, problem.order):.2g} at {MOST} levels, above "
                f"{_SHARE * target:.2g}: ask for less, or begin with more steps="
            )
        levels.append(problem.level(len(levels)))
        levels[-1].add(_PILOT)


def _samples(levels: Sequence[Systems], target: float) -> list[int]:
    """Return how many samples of each level make the statistical error small at the least cost."""
    allowed = ((1.0 - _SHARE) * target / _NORMAL) ** 2
    weights = [math.sqrt(one.variance * one.cost) for one in levels]
    return [
        max(len(one.values), math.ceil(sum(weights) * math.sqrt(one.variance / one.cost) / allowed)) for one in levels
    ]


def _left(levels: Sequence[Systems], order: float) -> float:
    """Return what finer levels would change, if differences go on to fall in this order."""
    last = levels[max(1, len(levels) - _LAST) :]
    ratio = 2.0**order
    here = max(abs(one.mean) / ratio ** (len(last) - 1 - place) for place, one in enumerate(last))
    return here / (ratio - 1.0)


def _require_budget(
    problem: Problem, levels: Sequence[Systems], wanted: Sequence[int], target: float, budget: float, spent: float
) -> None:
    """Raise ValueError if the levels that there are, and those that will be needed, take longer than the budget."""
    if math.isinf(budget):
        return
    each = [one.each for one in levels]
    rest = sum((count - len(one.values)) * cost for one, count, cost in zip(levels, wanted, each, strict=True))
    missing = max(0, math.ceil(math.log2(max(_left(levels, problem.order) / (_SHARE * target), 1.0)) / problem.order))
    growth = 4.0 if problem.coupled else 2.0
    rest += sum(_PILOT * each[-1] * growth ** (1 + more) for more in range(missing))
    if spent + rest > budget:
        raise ValueError(
            f"target_error={target:g} needs about {spent + rest:.2g} seconds, more than budget_seconds={budget:g}: "
            "raise one of them"
        )


def _estimate(problem: Problem, levels: Sequence[Systems], target: float, seconds: float) -> MultilevelEstimate:
    value = sum(one.mean for one in levels)
    error = math.sqrt(sum(one.variance / len(one.values) for one in levels))
    last = levels[-1]
    alone = last.cost * (1.0 if not last.parts else 1.0 / 1.5)
    plain = float(np.var(last.fine, ddof=1)) / ((1.0 - _SHARE) * target / _NORMAL) ** 2 * alone
    return MultilevelEstimate(
        value, error, _left(levels, problem.order), tuple(one.level() for one in levels), target, plain, seconds
    )


def _start(x0: Any, seed: int) -> Callable[[np.random.Generator, int], Any]:
    """Return a sampler; raises TypeError or ValueError if x0 is none and no position."""
    if callable(x0):
        found: Callable[[np.random.Generator, int], Any] = x0
        return found
    place = np.asarray(checks.finite("x0", x0), np.float64)
    if place.ndim > 1:
        raise ValueError(
            f"x0 must be where all particles start, a number or (D,), or a sampler, got shape {place.shape}"
        )
    return lambda generator, count: np.broadcast_to(place, (count, *place.shape))
