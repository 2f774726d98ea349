"""Pairs with a cutoff and in random batches beside loops that one writes with NumPy and a k-d tree; multilevel runs.

python -m pytest tests/benchmarks/bench_pairs.py --benchmark-only
"""

from __future__ import annotations

import math
import statistics

import numpy as np
from numba import njit
from scipy.spatial import cKDTree

import solvers
from tests.benchmarks import machine
from tests.benchmarks.report import table

SIZES = (20_000, 50_000, 100_000, 200_000)
NEIGHBOURS, BATCH, STEPS = 10, 10, 10
# Particles that the loop over all pairs is run with, since its time grows like their square.
FEW = 5_000


@njit
def pull(x, y):
    first, second = y[0] - x[0], y[1] - x[1]
    weight = math.exp(-(first * first + second * second))
    return weight * first, weight * second


def cutoff_of(count):
    """The distance within which there are so many neighbours on average, in the unit square."""
    return math.sqrt(NEIGHBOURS / (math.pi * count))


def places(count):
    return np.random.default_rng(0).random((count, 2))


def ours(x0, **pairs):
    """Seconds of a step: of runs of many and of one, so that what comes before and after drops out."""
    equation = solvers.McKeanVlasov(interaction=solvers.Pairs(pull, **pairs))

    def run(steps):
        return machine.seconds(lambda: solvers.solve(equation, x0, 0.0, 1e-6, steps, save=()))

    run(1)
    return statistics.median((run(STEPS + 1) - run(1)) / STEPS for _ in range(machine.ROUNDS))


def by_tree(x0):
    """Seconds of a step by a k-d tree."""

    def step(_):
        found = cKDTree(x0).query_pairs(cutoff_of(len(x0)), output_type="ndarray")
        i, j = found.T
        apart = x0[j] - x0[i]
        forces = apart * np.exp(-np.square(apart).sum(1))[:, None]
        total = np.empty_like(x0)
        for axis in range(2):
            total[:, axis] = np.bincount(i, forces[:, axis], len(x0)) - np.bincount(j, forces[:, axis], len(x0))
        return x0 + 1e-7 * total / len(x0)

    return machine.median_seconds(step)


def by_numpy(x0):
    """Seconds of a step over all pairs, some rows at a time."""

    def step(_):
        total = np.empty_like(x0)
        for low in range(0, len(x0), 200):
            apart = x0[None] - x0[low : low + 200, None]
            squares = np.square(apart).sum(2)
            near = np.where(squares < cutoff_of(len(x0)) ** 2, np.exp(-squares), 0.0)
            total[low : low + 200] = (near[:, :, None] * apart).sum(1)
        return x0 + 1e-7 * total / len(x0)

    return machine.median_seconds(step, 2)


def test_pairs(benchmark):
    """Time of a step against the number of particles, at equal numbers of neighbours."""
    runs = {
        f"`Pairs(cutoff=…)`, {NEIGHBOURS} neighbours": [ours(places(n), cutoff=cutoff_of(n)) for n in SIZES],
        "the same by a k-d tree": [by_tree(places(n)) for n in SIZES],
        f"`Pairs(random_batch={BATCH})`": [ours(places(n), random_batch=BATCH) for n in SIZES],
    }
    rows = []
    for name, times in runs.items():
        last, whole = machine.exponent(SIZES, times)
        shown = ", ".join(f"{1e3 * one:.1f}" for one in times)
        rows.append([name, ", ".join(f"{one:,}" for one in SIZES), shown, f"{whole:.2f}", f"{last:.2f}"])
    few = places(FEW)
    whole, loop = ours(few), by_numpy(few)
    rows.append(["`Pairs`, all", f"{FEW:,}", f"{1e3 * whole:.1f}", "", ""])
    rows.append(["the same by NumPy", f"{FEW:,}", f"{1e3 * loop:.1f}", "", ""])
    text = """
    Milliseconds of a step in the plane, and the exponent of time in the number of particles, over all and between the
    last two; `Pairs` on all threads, the others as SciPy and NumPy have them."""
    columns = ["", "particles", "ms", "exponent", "last"]
    table(benchmark, "Pairs", text, columns, rows)
    benchmark.pedantic(lambda: None, rounds=1)


def test_multilevel(benchmark):
    """Errors for the money beside plain Monte Carlo with systems as large as the last level's."""
    from validation.multilevel import LINEAR

    rows = []
    solvers.mlmc(LINEAR, njit(lambda x: x * x), 1.0, 0.0, 1.0, target_error=0.02)  # which compiles
    for target in (0.004, 0.002, 0.001):
        found = solvers.mlmc(LINEAR, njit(lambda x: x * x), 1.0, 0.0, 1.0, target_error=target)
        last = found.levels[-1]
        plain = found.plain_cost / last.cost * last.seconds
        rows.append(
            [f"{target:g}", f"{found.seconds:.2f}", f"{plain:.2f}", f"{plain / found.seconds:.1f}",
             f"{last.particles:,} × {last.steps}"]
        )  # fmt: skip
    text = """
    E X² of a linear equation with additive noise to a target error by `solvers.mlmc`, beside what independent systems
    as large as its last level's would take for the same error."""
    columns = ["target", "seconds", "plain", "times", "last level, particles × steps"]
    table(benchmark, "Multilevel Monte Carlo", text, columns, rows)
    benchmark.pedantic(lambda: None, rounds=1)
