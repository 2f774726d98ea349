"""Follow equations on the ranks of the world and print a digest of what came out; without MPI in this process."""

from __future__ import annotations

import hashlib
import sys

import numpy as np

from solvers import ExternalField
from solvers.ensemble.brownian import BrownianMotion
from solvers.ensemble.homes import home
from solvers.ensemble.random import Stream
from solvers.sde.field import FieldOnGrid
from solvers.sde.integrate import compile_kernels, integrate
from solvers.sde.schemes import get_scheme
from solvers.sde.trial import Trial
from solvers.sde.walk import Course
from tests.mpi.digest import communicator, tell
from tests.solvers.equations import CARRIED, ORNSTEIN_UHLENBECK, PLANAR_SHARED
from tests.solvers.test_march import CORRELATED, PAIRS

PARTICLES, STEPS = 6000, 8
X = np.random.default_rng(2).standard_normal((2, PARTICLES))
OWN = ExternalField(X[0], per_particle=True)
CASES = (
    ("means", ORNSTEIN_UHLENBECK, 1, "euler_maruyama", None),
    ("common noise, Heun", PLANAR_SHARED, 2, "heun", None),
    ("mean-field noise", CORRELATED, 2, "euler_maruyama", None),
    ("pairs", PAIRS, 1, "euler_maruyama", None),
    ("a field of each particle, Heun", CARRIED, 1, "heun", OWN),
)


def main():
    threads, world = int(sys.argv[1]), communicator()
    for name, equation, dimension, scheme, field in CASES:
        ensemble = home(PARTICLES, threads, world)
        here = slice(ensemble.first, ensemble.first + ensemble.held)
        times = BrownianMotion(0.0, 1.0, STEPS).times
        known = (field.at(0.0), field.kind, field.per_particle) if field else ()
        form = Trial(equation, 0.0, X[:dimension].copy(), dimension == 1, *known).form()
        grid = {"t0": 0.0, "t1": 1.0, "steps": STEPS, "seed": 4}
        common = BrownianMotion(**grid, motions=form.common[-1], stream=Stream.COMMON) if form.common else None
        course = Course(
            equation, form, get_scheme(scheme), BrownianMotion(**grid, motions=form.motions),
            FieldOnGrid(field, times, here), common,
        )  # fmt: skip
        states = np.empty((2, dimension, ensemble.held))
        states[0] = X[:dimension, here]
        with ensemble.running():
            compile_kernels(course, ensemble, states)
            *_, last = integrate(course, ensemble, states, [STEPS])
            end = ensemble.gather(last.x)
        found = hashlib.sha256(np.ascontiguousarray(end).tobytes() + last.m.tobytes()).hexdigest()[:16]
        tell(world, name, found, str(last.finite))


if __name__ == "__main__":
    main()
