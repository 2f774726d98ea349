"""Train on the ranks of the world until one of them fails as it is told to, or all are interrupted."""

from __future__ import annotations

import os
import sys
import time

import numpy as np
from mpi4py import MPI

import flds
import solvers
from tests.solvers.equations import ORNSTEIN_UHLENBECK as EQUATION

WORLD = MPI.COMM_WORLD
HOW, WHO = sys.argv[1], int(sys.argv[2])


def value(h):
    """φ = tanh, which fails on one rank when it is called for the twentieth time."""
    value.calls += 1
    if value.calls == 20 and WORLD.Get_rank() == WHO:
        if HOW == "raise":
            raise ArithmeticError("a number that I do not like")
        if HOW == "memory":
            raise MemoryError("no room")
    if HOW == "wait":
        if value.calls == 20:
            os.write(1, f"at work {os.getpid()}\n".encode())  # whole lines, whatever else is written
        time.sleep(0.001)
    return np.tanh(h)


value.calls = 0
problem = flds.TrainingProblem(
    [[1.0, 2.0]], [1.0], steps=100_000 if HOW == "wait" else 50, learning_rate=0.1,
    activation=flds.Activation(value=value, derivative=lambda h: 1 - np.tanh(h) ** 2),
)  # fmt: skip
if HOW == "differ":
    calls = (
        ("training", flds.solve_flds, (problem,)),
        ("equation", solvers.solve, (EQUATION, np.ones(5000), 0.0, 1.0, 2)),
        ("forward", flds.solve_forward, ()),
    )
    for name, solve, given in calls:
        try:
            solve(*given, seed=WORLD.Get_rank(), threads=1, communicator=WORLD)
        except ValueError as error:
            said = WORLD.allgather(str(error))
            if WORLD.Get_rank() == 0:
                print(name, *set(said), flush=True)
    raise SystemExit


class Field(solvers.ExternalField):
    """One that a rank cannot have at later times."""

    def at(self, t):
        if t > 0.5 and WORLD.Get_rank() == WHO:
            raise ValueError("no field here")
        return super().at(t)


if HOW == "field":
    carried = solvers.McKeanVlasov(drift=lambda t, x, m, f: f - x, vectorized=True)
    solvers.solve(carried, np.ones(5000), 0.0, 1.0, 10, field=Field(1.0), threads=1, communicator=WORLD)
    raise SystemExit
run = flds.solve_flds(problem, particles=5000, depth=2, threads=1, communicator=WORLD)
lines = WORLD.allgather(f"{run.status} at {len(run.batch_loss)}")
if WORLD.Get_rank() == 0:
    print("\n".join(lines), flush=True)
