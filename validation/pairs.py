"""Random batches: the sums they stand for, and the law they make of them."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

import solvers
from validation.claims import Scale, Section, against

Array = NDArray[np.float64]


@njit
def _pull(x, y):  # type: ignore[no-untyped-def]
    return y - x


@njit
def _skewed(x, y):  # type: ignore[no-untyped-def]
    return np.exp(y - 2.0 * x)


def random_batches(scale: Scale) -> Section:
    """Random batches of pairs: unbiased in a step, and an error of the law of first order in it."""
    draws = scale.pick(2_000, 20_000)
    x0 = np.random.default_rng(0).random(33)
    exact = float(np.exp(x0[None] - 2.0 * x0[:, None]).mean())
    for size in (2, 5, 16):
        equation = solvers.McKeanVlasov(interaction=solvers.Pairs(_skewed, random_batch=size))
        runs = solvers.solve_many(equation, x0, 0.0, 1.0, 1, seed=range(draws), save=())
        # the first particle, whose partners are not exchangeable with it
        own = float(np.exp(x0 - 2.0 * x0[0]).mean())
        found = runs.final_particles[:, 0] - x0[0]
        yield against(f"random batches of {size}: a sum over 33 particles, the mean of {draws} draws", found, own)
        whole = (runs.final_particles - x0).mean(axis=1)
        yield against(f"random batches of {size}: all sums", whole, exact)
    seeds, particles = scale.pick((12, 10_000), (48, 40_000))
    for size in (2, 5):
        for steps in (5, 10, 20):
            shares, exact = variance_shares(size, steps, seeds, particles), decay(size, steps)
            change = exact - (1 - 1 / steps) ** (2 * steps)
            name = f"random batches of {size}: variance after {steps} steps to t = 1, {change:.4f} more than without"
            yield against(name, shares, exact, change / 2)


def variance_shares(size: int, steps: int, seeds: int, particles: int) -> Array:
    """Variance at t = 1 over that at 0 of dX_i = (mean of a batch − X_i) dt, for each seed."""
    equation = solvers.McKeanVlasov(interaction=solvers.Pairs(_pull, random_batch=size))
    found = []
    for seed in range(seeds):
        x0 = np.random.default_rng(seed).standard_normal(particles)
        found.append(solvers.solve(equation, x0, 0.0, 1.0, steps, seed=seed).variance[-1] / x0.var())
    return np.array(found)


def decay(size: int, steps: int) -> float:
    """The same in the limit: partners are independent, so each step adds the variance of their mean."""
    dt = 1 / steps
    return float(((1 - dt) ** 2 + dt**2 / (size - 1)) ** steps)
