"""Solve equations on the ranks of the world and print a digest of what came out; without MPI in this process.

Arguments are the number of threads and a folder. Each solution is saved and read again, whole on the first rank, and
each run goes on from where it ended.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import flds
import solvers
from solvers import (
    Absorbing,
    ExternalField,
    GroupMeans,
    Jumps,
    Largest,
    McKeanVlasov,
    Pairs,
    Periodic,
    Reflecting,
    Reset,
    WeightedMean,
)
from tests.mpi.digest import communicator, digest, tell
from tests.solvers.equations import CARRIED, ORNSTEIN_UHLENBECK, PLANAR_SHARED
from tests.solvers.test_march import CORRELATED, PAIRS

PARTICLES, STEPS = 6000, 8
X = np.random.default_rng(2).standard_normal((2, PARTICLES))
OWN = ExternalField(X[0], per_particle=True)
SAVED = {
    "mean": "mean", "variance": "variance", "covariance": "covariance", "quantiles": "quantiles",
    "everyone": "particles", "some": solvers.particles([0, 2999, 5999]), "own": lambda t, x: np.sum(x[:100] ** 2),
}  # fmt: skip


def sampler(rng, n):
    return rng.standard_normal(n)


# every event, with parameters; functions of arrays, so that nothing is compiled for them
SPREAD_AS_IT_IS = McKeanVlasov(
    lambda t, x, m, k: -k * x + m, lambda t, x, m, k: 1.0 + 0.1 * np.cos(x), lambda t, x, k: k * x, vectorized=True
)
SPREAD = McKeanVlasov(
    lambda t, x, m, k: -k * x + m[0], lambda t, x, m, k: 1.0 + 0.1 * np.cos(x), lambda t, x, k: k * x, vectorized=True
)
JUMPS = Jumps(lambda t, x, m, k: k + 0 * x, lambda t, x, m, z, k: 0.2 * z, 3.0, marks="normal")
ABSORBED = {"boundary": Absorbing(-1.0, 1.5), "jumps": JUMPS, "args": 1.3}
FIRING = {"boundary": Reflecting(-2.0, np.inf), "reset": Reset(1.0, -0.5), "jumps": JUMPS, "args": 0.7}
INSIDE = np.clip(X[0], -0.9, 0.9)
NEAR = McKeanVlasov(interaction=Pairs(lambda x, y: y - x, cutoff=0.01), vectorized=True)
MET = McKeanVlasov(
    interaction=Pairs(lambda x, y, f, g: g * y - f * x, random_batch=7, partner="field"), vectorized=True
)
LATER = McKeanVlasov(
    lambda t, x, m: m[0] - x + 0.1 * (m[2] + m[3] + m[5] - m[6]),
    lambda t, x, m: m[1],
    (
        lambda t, x: x,
        lambda t, x, m: abs(x - m),
        Largest(lambda t, x, m: x),
        WeightedMean(lambda t, x, m: -50.0 * x**2, lambda t, x, m: x),
        GroupMeans(lambda t, x, m: x, lambda t, x, m: 1.0 * (x > 0), 2),
    ),
    vectorized=True,
)
CASES = (
    ("absorption, jumps", SPREAD_AS_IT_IS, INSIDE, ABSORBED),
    ("resets, reflection, jumps, implicit", SPREAD, INSIDE, {"scheme": "drift_implicit_euler", **FIRING}),
    (
        "between times, trapezoidal",
        SPREAD_AS_IT_IS,
        X[0],
        {"scheme": "trapezoidal", "args": 2.0, "save_at": [0.3, 0.5]},
    ),
    ("means", ORNSTEIN_UHLENBECK, sampler, {"particles": PARTICLES}),
    ("common noise, Heun", PLANAR_SHARED, X.T, {"scheme": "heun"}),
    ("mean-field noise", CORRELATED, X.T, {}),
    ("pairs", PAIRS, X[0], {}),
    ("pairs nearby in a box, Heun", NEAR, INSIDE, {"scheme": "heun", "boundary": Periodic(-1.0, 1.0)}),
    ("random batches with a field", MET, X[0], {"field": OWN}),
    ("later moments", LATER, X[0], {"scheme": "heun"}),
    ("a field of each particle, Heun", CARRIED, X[0], {"scheme": "heun", "field": OWN}),
)
UNTRAINED = (
    ("forward", flds.solve_forward, {}),
    ("backward", flds.solve_backward, {}),
    ("forward, three inputs, float32", flds.solve_forward, {"inputs": np.eye(3, 2), "dtype": "float32"}),
    ("backward, three inputs", flds.solve_backward, {"inputs": np.eye(3, 2)}),
)


def main():
    threads, folder, world = int(sys.argv[1]), Path(sys.argv[2]), communicator()
    first = world is None or world.Get_rank() == 0
    shared = {"threads": threads, "communicator": world}

    def report(name, run):
        path = run.save(folder / "run.nc")
        found = digest(solvers.load(path)) if first else ""
        found = found if world is None else world.bcast(found)
        mine = [item.spread is None for item in run.variables.values()]
        assert world is None or 0 < sum(mine) < len(mine)
        tell(world, name, found, run.status)
        return path

    for name, equation, x0, rest in CASES:
        run = solvers.solve(equation, x0, 0.0, 1.0, STEPS, seed=4, save=SAVED, **rest, **shared)
        report(name, run)
        again = {key: value for key, value in rest.items() if key in ("boundary", "jumps", "reset")}
        longer = solvers.resume(equation, run, 1.5, STEPS // 2, save=SAVED, threads=threads, **again)
        read = solvers.load(report(f"{name}, resumed", longer), communicator=world)
        assert np.array_equal(read.final_particles, longer.final_particles)
    for name, solver, rest in UNTRAINED:
        report(name, solver(particles=PARTICLES, depth=STEPS, seed=4, **rest, **shared))


if __name__ == "__main__":
    main()
