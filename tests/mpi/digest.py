"""What programs on several ranks tell: the bits of a solution, which are to be the same on every rank."""

from __future__ import annotations

import hashlib
import os

import numpy as np


def communicator():
    """Return the world of ranks, or None in a process that mpiexec did not start."""
    if "PMI_RANK" not in os.environ:
        return None
    from mpi4py import MPI

    return MPI.COMM_WORLD


def digest(run, leave_out=()):
    """Return a digest of all numbers of a solution."""
    found = hashlib.sha256()
    for name, item in sorted(run.variables.items()):
        if name not in leave_out:
            found.update(name.encode() + np.ascontiguousarray(item.values).tobytes())
    return found.hexdigest()[:16]


def tell(world, *words):
    """Print a line once; all ranks must say the same."""
    line = " | ".join(words)
    if world is not None:
        lines = world.allgather(line)
        assert len(set(lines)) == 1, lines
        if world.Get_rank() > 0:
            return
    print(line, flush=True)
