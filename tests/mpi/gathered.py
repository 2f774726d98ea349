"""The home over the ranks of the world, whose arrays come to the host whole, so that tests of any home hold for it."""

from __future__ import annotations

from solvers.ensemble.mpi import MPIParticles
from tests.mpi.digest import communicator


class GatheredParticles(MPIParticles):
    """N particles over all ranks, as all of them see them."""

    def __init__(self, particles):
        super().__init__(particles, 1, communicator())

    def to_host(self, vectors):
        return self.gather(vectors)

    def put(self, out, values):
        super().put(out, values[:, self.first : self.first + self.held])
