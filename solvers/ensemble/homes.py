"""Where particles live: in this process, or over the ranks of a communicator."""

from __future__ import annotations

from typing import Any

from solvers import checks
from solvers.ensemble.threads import ThreadParticles
from solvers.memory import available_memory
from solvers.processors import available_threads, thread_count

# What is asked of a communicator; mpi4py has more.
_ASKED = ("Get_rank", "Get_size", "Allgatherv", "Alltoallv", "allgather", "Abort")


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


def check_communicator(given: Any) -> Any:
    """Return a communicator or None; raise TypeError if it is something else."""
    if given is not None and not all(hasattr(given, name) for name in _ASKED):
        raise TypeError(f"communicator must be an mpi4py.MPI.Comm, such as MPI.COMM_WORLD, got {checks.shown(given)}")
    return given


def threads_of_rank(given: Any, communicator: Any = None) -> int:
    """Return the number of threads that was given, or by default a rank's share of the CPUs available here."""
    if given is not None or communicator is None:
        return thread_count(given)
    from solvers.ensemble.mpi import neighbours

    return max(1, min(available_threads() // neighbours(communicator), thread_count(None)))


def memory_of_rank(communicator: Any = None) -> float:
    """Return the bytes that this process may hold, with ranks what each of them may.

    Ranks of one machine share its memory, and all go by the one that has least.
    """
    if communicator is None:
        return available_memory()
    from solvers.ensemble.mpi import neighbours

    return float(min(communicator.allgather(available_memory() / neighbours(communicator))))
