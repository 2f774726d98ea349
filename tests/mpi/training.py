"""Train networks on the ranks of the world and print a digest of what came out; without MPI in this process."""

from __future__ import annotations

import sys

import numpy as np

import flds
from solvers.ensemble import mpi
from tests.mpi.digest import communicator, digest, tell

PARTICLES = 5000
RNG = np.random.default_rng(0)
INPUTS, TARGETS = RNG.standard_normal((32, 5)), RNG.standard_normal(32)
PROBLEMS = {
    "one sample": flds.TrainingProblem(INPUTS[:1], TARGETS[:1], steps=5, learning_rate=0.5),
    "minibatches": flds.TrainingProblem(
        INPUTS, TARGETS, steps=6, batch_size=4, batch_order="random", activation="relu",
        test_inputs=INPUTS + 0.1, test_targets=TARGETS,
    ),
}  # fmt: skip


def main():
    threads, world = int(sys.argv[1]), communicator()
    for name, problem in PROBLEMS.items():
        for weights in ("tied", "independent"):
            for sampling in ("matched", "law"):
                run = flds.solve_flds(
                    problem, particles=PARTICLES, depth=3, backward_weights=weights, sampling=sampling, operator="lazy",
                    threads=threads, record_kernels=True, communicator=world,
                )  # fmt: skip
                tell(world, f"{name}, {weights}, {sampling}", digest(run), run.status)
    mpi._LONG = 10  # from here on messages are long enough to be cut up
    wide = flds.simulate_resnet(
        PROBLEMS["minibatches"], width=PARTICLES, depth=2, replicates=2, seed=3, operator="lazy", threads=threads,
        communicator=world,
    )  # fmt: skip
    tell(world, "replicates of a network", digest(wide), wide.status)


if __name__ == "__main__":
    main()
