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
from solvers import ExternalField
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


CASES = (
    ("means", ORNSTEIN_UHLENBECK, sampler, {"particles": PARTICLES}),
    ("common noise, Heun", PLANAR_SHARED, X.T, {"scheme": "heun"}),
    ("mean-field noise", CORRELATED, X.T, {}),
    ("pairs", PAIRS, X[0], {}),
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
        longer = solvers.resume(equation, run, 1.5, STEPS // 2, save=SAVED, threads=threads)
        read = solvers.load(report(f"{name}, resumed", longer), communicator=world)
        assert np.array_equal(read.final_particles, longer.final_particles)
    for name, solver, rest in UNTRAINED:
        report(name, solver(particles=PARTICLES, depth=STEPS, seed=4, **rest, **shared))


if __name__ == "__main__":
    main()
