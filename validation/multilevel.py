"""Multilevel Monte Carlo: rates of the variances, the error that was asked for, and what it costs beside plain runs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

import solvers
from solvers.sde.events import NOTHING
from solvers.sde.multilevel.levels import Problem, Systems
from solvers.sde.schemes import get_scheme
from validation.claims import Scale, Section, Table, check, equal

Array = NDArray[np.float64]

_square = njit(lambda x: x * x)
LINEAR = solvers.McKeanVlasov(
    drift=njit(lambda t, x, m: -(x - 0.5 * m)),
    diffusion=njit(lambda t, x, m: 1.0),
    moments=njit(lambda t, x: x),
    noise="additive",
)
# Drifts that are not linear, so that the variance in particles is not zero.
CUBIC = solvers.McKeanVlasov(
    drift=njit(lambda t, x, m: x - x**3 + m),
    diffusion=njit(lambda t, x, m: 0.7),
    moments=njit(lambda t, x: x),
    noise="additive",
)
MULTIPLICATIVE = solvers.McKeanVlasov(
    drift=njit(lambda t, x, m: 0.5 * (m - x)), diffusion=njit(lambda t, x, m: 0.4 * x), moments=njit(lambda t, x: x)
)


def multilevel(scale: Scale) -> Section:
    """`solvers.mlmc`: rates in particles and in steps, errors of a hundred runs, and costs."""
    for name, equation, in_time, expected in (
        ("particles, halves", CUBIC, False, 2.0),
        ("steps, additive noise", LINEAR, True, 2.0),
        ("steps, multiplicative noise", MULTIPLICATIVE, True, 1.0),
    ):
        rate, error = variance_rate(equation, in_time, scale.pick(1_500, 12_000))
        yield equal(
            f"mlmc: exponent of variance in {name}", rate, error, expected, 0.5, 0.25, "for the coarsest levels"
        )
    runs = scale.pick(40, 100)
    exact = linear_square()
    target = 0.01
    found = [solvers.mlmc(LINEAR, _square, 1.0, 0.0, 1.0, target_error=target, seed=seed) for seed in range(runs)]
    met = sum(abs(one.value - exact) <= target for one in found)
    held = sum(one.interval[0] <= exact <= one.interval[1] for one in found)
    yield check(f"mlmc: runs of {runs} whose error is at most the target", f"{met}", "95 % of them", met >= 0.95 * runs)
    yield check(f"mlmc: runs of {runs} whose interval holds the value", f"{held}", "95 %", held >= 0.95 * runs)
    yield from _costs(scale)


def linear_square() -> float:
    """E X² at t = 1 of `LINEAR` from 1, in the limit."""
    return math.exp(-1.0) + (1.0 - math.exp(-2.0)) / 2.0


def variance_rate(equation: solvers.McKeanVlasov, in_time: bool, samples: int) -> tuple[float, float]:
    """Fit variances of differences to (number)^−rate, of particles at equal steps, or of steps at equal particles.

    The logarithm of a variance of n samples with kurtosis κ has the variance (κ − 1)/n.
    """
    logs, errors = [], []
    numbers = (1, 2, 3, 4)
    for number in numbers:
        values = differences(equation, number, in_time, samples)
        centred = values - values.mean()
        logs.append(math.log2(float(centred.var(ddof=1))))
        errors.append(math.sqrt((float((centred**4).mean() / centred.var() ** 2) - 1.0) / samples) / math.log(2))
    x = np.array(numbers) - np.mean(numbers)
    slope = float(x @ logs / (x @ x))
    return -slope, float(np.sqrt((x**2) @ np.square(errors)) / (x @ x))


def differences(equation: solvers.McKeanVlasov, number: int, in_time: bool, samples: int) -> Array:
    """Return samples of a level: of twice as many particles for each number, or of twice as many steps."""
    given: dict[str, Any] = {"scheme": get_scheme("euler_maruyama"), "args": None, "field": None}
    steps, particles = (8, 64) if in_time else (16, 8)
    first = (steps << number, particles) if in_time else (steps, particles << number)
    problem = Problem(equation, _square, _at_one, (0.0, 1.0), given, NOTHING, 1, first, 7)
    course = problem.level(0).course
    level = Systems(problem, number, course, first[1], 1 if in_time else 2, 2 if in_time else 1)
    level.add(samples)
    return np.array(level.values)


def _at_one(generator: np.random.Generator, count: int) -> Array:
    return np.full(count, 1.0)


def _costs(scale: Scale) -> Section:
    targets = scale.pick((0.02, 0.01, 0.005), (0.01, 0.004, 0.002))
    lines = [
        "| target | value | steps of the last level | cost over that of plain runs | seconds |",
        "|---|---|---|---|---|",
    ]
    shares = []
    for target in targets:
        found = solvers.mlmc(LINEAR, _square, 1.0, 0.0, 1.0, target_error=target)
        shares.append(found.cost / found.plain_cost)
        lines.append(
            f"| {target:g} | {found.value:.5f} | {found.levels[-1].steps} | {shares[-1]:.2f} | {found.seconds:.2f} |"
        )
    yield Table(lines)
    yield check(
        f"mlmc: cost over that of plain runs at targets {', '.join(f'{one:g}' for one in targets)}",
        ", ".join(f"{one:.2f}" for one in shares), "falls with the target", shares[0] > shares[1] > shares[2],
    )  # fmt: skip
