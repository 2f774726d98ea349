"""Train networks on the ranks of the world and print a digest of what came out; without MPI in this process.

Arguments are the number of threads and a folder for what is kept.
"""

from __future__ import annotations

import sys
from pathlib import Path

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
        test_inputs=INPUTS + 0.1, test_targets=TARGETS, learning_rate=0.1, weight_decay=0.1, gradient_clip=0.5,
        optimizer={"hidden": flds.Muon(), "input": flds.SGD(momentum=0.9), "readout": flds.Adam()},
    ),
    "two layers": flds.TrainingProblem(
        INPUTS, TARGETS, steps=4, batch_size=4, residual="two_layer", hidden_ratio=0.6, normalization="layer_norm",
        gain=True, bias=True, optimizer={"hidden": flds.SGD(momentum=0.5), "gain": flds.Adam(), "bias": flds.Adam()},
        gradient_clip=0.5, test_inputs=INPUTS[:5] + 0.1, test_targets=TARGETS[:5],
    ),
}  # fmt: skip


def states(threads, folder, world, name):
    """Keep a network, use it and train it on; read it back, on these ranks and on the first alone, and do so again."""
    run = flds.solve_flds(
        PROBLEMS[name], particles=PARTICLES, depth=2, keep_state=True, threads=threads, communicator=world
    )
    path = run.save(folder / f"{name}.nc")
    read = flds.load(path, communicator=world)
    expected = run.predict(INPUTS[:3])
    assert np.array_equal(read.predict(INPUTS[:3]), expected)
    longer = flds.resume(run, 2, threads=threads)
    again = flds.resume(read, 2, threads=threads)
    whole = flds.resume(flds.load(path), 2, threads=threads, communicator=world)  # which each rank cuts its part from
    assert digest(longer) == digest(again) == digest(whole)
    if world is None or world.Get_rank() == 0:
        alone = flds.load(path)
        assert np.array_equal(alone.predict(INPUTS[:3]), expected)
        assert digest(flds.resume(alone, 2, threads=threads)) == digest(longer)
    if world is not None:
        world.Barrier()
    tell(world, f"{name}, kept and resumed", digest(run), digest(longer), longer.status)


def main():
    threads, folder, world = int(sys.argv[1]), Path(sys.argv[2]), communicator()
    for name, problem in PROBLEMS.items():
        for weights in ("tied", "independent"):
            for sampling in ("matched", "law"):
                run = flds.solve_flds(
                    problem, particles=PARTICLES, depth=3, backward_weights=weights, sampling=sampling, operator="lazy",
                    threads=threads, record_kernels=True, communicator=world,
                )  # fmt: skip
                tell(world, f"{name}, {weights}, {sampling}", digest(run), run.status)
    for name in ("minibatches", "two layers"):
        states(threads, folder, world, name)
    mpi._LONG = 10  # from here on messages are long enough to be cut up
    wide = flds.simulate_resnet(
        PROBLEMS["minibatches"], width=PARTICLES, depth=2, replicates=2, seed=3, operator="lazy", threads=threads,
        communicator=world,
    )  # fmt: skip
    tell(world, "replicates of a network", digest(wide), wide.status)


if __name__ == "__main__":
    main()
