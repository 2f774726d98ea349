"""A command on the ranks of an MPI job: rank 0 alone speaks and writes."""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from typing import Any

from flds.cli import console

# One of these is set for a process that mpiexec, srun or the like has started.
_STARTED = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID", "MPI_LOCALRANKID")
# And one of these, which says how many.
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
# Seconds that other ranks leave to the first to say what ended them.
_PATIENCE = 1.0


def communicator_if(mpi: bool) -> Any:
    """Return the communicator of all ranks if they are to share the work, else None; `world` has the errors.

    Where each of several does the whole run, which is meant if they write to files of their own, a line says so.
    """
    if mpi:
        return world()
    several = next((os.environ[name] for name in _SIZES if name in os.environ), "1")
    if several != "1":
        console.note(f"warning: this is one of {several} ranks that each do the whole run; --mpi shares it among them")
    return None


def world() -> Any:
    """Return the communicator of all ranks; from now on those but the first print nothing, unless they end all.

    Raises
    ------
    ValueError
        If mpi4py is not there, or this process was not started as one of several.
    """
    from solvers import ranks

    try:
        communicator = ranks.world()
    except ImportError as error:
        raise ValueError(f"--mpi needs mpi4py and an MPI: pip install 'flds[mpi]' ({error})") from None
    if communicator.Get_size() == 1 and not any(name in os.environ for name in _STARTED):
        raise ValueError("--mpi runs under mpiexec: mpiexec -n 4 flds … --mpi")
    console.end_all = partial(_end_all, communicator)
    if communicator.Get_rank() > 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # until the process ends
    return communicator


def _end_all(communicator: Any, status: int, said: str) -> None:
    """End all ranks of an interrupted job; the first one says so, if it comes to that."""
    if communicator.Get_rank() > 0:
        time.sleep(_PATIENCE)
    console.note(said)
    communicator.Abort(status)


def speaks(communicator: Any) -> bool:
    """Return whether this process prints and writes."""
    return communicator is None or communicator.Get_rank() == 0
