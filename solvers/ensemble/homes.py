"""Where particles live: in this process, or over the ranks of a communicator."""

from __future__ import annotations

from typing import Any

from solvers.ensemble.threads import ThreadParticles


def home(particles: int, threads: int, communicator: Any = None) -> ThreadParticles:
    """Return the home of so many particles: the ranks of a communicator, or without one this process.

    Raises
    ------
    ValueError
        If there are more ranks than groups of particles.
    """
    if communicator is None:
        return ThreadParticles(particles, threads)
    from solvers.ensemble.mpi import MPIParticles

    return MPIParticles(particles, threads, communicator)
