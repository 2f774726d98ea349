"""Memory of a rank and messages between ranks; prints them as JSON, without MPI memory alone.

Arguments are the number of particles and of steps.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np

import flds
from solvers.ensemble.mpi import MPIParticles
from tests.mpi.digest import communicator

DEPTH, BATCH = 2, 4
RNG = np.random.default_rng(0)
INPUTS, TARGETS = RNG.standard_normal((400, 20)), RNG.standard_normal(400)


class Counting:
    """A communicator that counts calls, and the bytes that a rank receives."""

    def __init__(self, communicator):
        self.communicator, self.messages, self.bytes = communicator, 0, 0

    def __getattr__(self, name):
        method = getattr(self.communicator, name)
        if name not in ("Allgatherv", "Alltoallv"):
            return method

        def counted(sent, received):
            self.messages += 1
            self.bytes += received[0].nbytes
            return method(sent, received)

        return counted


def train(particles, steps, world):
    """Let ranks grow by the batch at each step, by new samples; return the sum of both sides, mean over depth."""
    problem = flds.TrainingProblem(INPUTS, TARGETS, steps=steps, batch_size=BATCH, learning_rate=0.5)
    run = flds.solve_flds(
        problem, particles=particles, depth=DEPTH, sampling="law", operator="lazy", dtype="float32", threads=1,
        recorded_samples=[0], record_every=steps, communicator=world,
    )  # fmt: skip
    return run.rank.sum(axis=1).mean()


def main():
    particles, steps = int(sys.argv[1]), int(sys.argv[2])
    world = communicator()
    counting = None if world is None else Counting(world)
    rank = train(particles, steps, counting)
    peak = 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
    found = {"peak": peak, "rank": rank}
    if world is None:
        print(json.dumps([found]))
        return
    found |= {"messages": counting.messages, "bytes": counting.bytes}
    found["groups"] = len(MPIParticles(particles, 1, world).groups)
    everyone = world.allgather(found)
    if world.Get_rank() == 0:
        print(json.dumps(everyone))


if __name__ == "__main__":
    main()
