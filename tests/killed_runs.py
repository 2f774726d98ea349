"""A run with a checkpoint, to be killed: prints a digest of what came out, and the step it went on from.

Arguments are what is run, a folder, and how it dies: "never", or the number of a call of the system that writes, at
which it ends itself as SIGKILL would, before the call with an even sign and after it with an odd one.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np

import flds
import solvers
from solvers.results import arrays, checkpoint
from tests.mpi.digest import communicator, digest, tell

RNG = np.random.default_rng(0)
INPUTS, TARGETS = RNG.standard_normal((32, 5)), RNG.standard_normal(32)
RULES = {"hidden": flds.Muon(), "input": flds.SGD(momentum=0.9, nesterov=True), "readout": flds.Adam()}
TRAINED = flds.TrainingProblem(
    INPUTS, TARGETS, steps=24, batch_size=4, batch_order="random", test_inputs=INPUTS + 0.1, test_targets=TARGETS,
    optimizer=RULES, learning_rate=0.1, weight_decay=0.1, gradient_clip=0.5,
)  # fmt: skip
SINE = flds.MeanFieldProblem(
    INPUTS, np.sin(INPUTS), steps=40, optimizer=flds.SGD(momentum=0.8), batch_size=16, weight_decay=0.01
)


def walk(t, x, m):
    return -(x - 0.5 * m)


EQUATION = solvers.McKeanVlasov(
    drift=walk, diffusion=lambda t, x, m: 1.0 + 0 * x, moments=lambda t, x: x, common=lambda t, x, m: 0.3 + 0 * x,
    vectorized=True,
)  # fmt: skip


def training(**kept):
    return flds.solve_flds(TRAINED, particles=2000, depth=3, threads=1, replicates=2, operator="lazy", **kept)


def mean_ode(**kept):
    return flds.solve_mean_ode(SINE, units=512, depth=4, threads=1, depth_error=True, **kept)


def equation(**kept):
    x0 = np.linspace(-1.0, 1.0, 4000)
    return solvers.solve(EQUATION, x0, 0.0, 1.0, 600, scheme="heun", save=("mean", "quantiles"), threads=1, **kept)


RUNS = {"training": training, "mean_ode": mean_ode, "equation": equation}


def held(path):
    """Return how many runs a checkpoint holds, and the step of the last of them; or None where there is none."""
    if not path.exists():
        return None
    states = [state for name, state in arrays.read_arrays(path).items() if name != "checkpoint"]
    if "ended_status" in states[-1]:
        return len(states), "ended"
    return len(states), int((states[-1]["next_step"] if "next_step" in states[-1] else states[-1]["step"]).values)


def die_at(count):
    """End this process at so many calls of what writes, before or after one of them."""
    calls = [0]
    for name in ("fsync", "replace", "unlink"):
        plain = getattr(os, name)

        def dying(*arguments, plain=plain, **rest):
            calls[0] += 1
            if calls[0] == count // 2 and count % 2 == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            plain(*arguments, **rest)
            if calls[0] == count // 2:
                os.kill(os.getpid(), signal.SIGKILL)

        setattr(os, name, dying)


def main():
    name, folder, when = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    world = communicator()
    if when != "never":
        die_at(int(when))
    shared = {} if world is None else {"communicator": world}
    checkpoint._SHARE = 0.0  # one after the other
    print("begins", flush=True)
    run = RUNS[name](checkpoint=folder / "run.checkpoint", checkpoint_every=0, **shared)
    found = digest(run, leave_out=("final_particles",))
    tell(world, "done", found, run.status, str(run.settings.get("continued_from_step")))


if __name__ == "__main__":
    main()
