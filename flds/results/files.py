"""Reading results back."""

from __future__ import annotations

import os
from typing import Any

import solvers.results.solution
from flds.results import limit, mean_ode, solution, sweep

# Importing them makes their files known.
SOLUTIONS = (solution.Solution, limit.LimitEstimate, mean_ode.MeanFieldSolution, sweep.Sweep)


def load(
    path: str | os.PathLike[str], groups: bool = True, communicator: Any = None
) -> solvers.results.solution.Solution:
    """Return the solution in a file that `save` wrote.

    Parameters
    ----------
    path : path
        The file.
    groups : bool
        Whether to read the states of trained networks as well, which may be large.
    communicator : mpi4py.MPI.Comm, optional
        Ranks that share the particles: all call this together, and of states each reads the particles that it holds.

    Returns
    -------
    Solution
        A `flds.Solution`, that of another solver, or a `flds.Sweep`, with all arrays in memory.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a results file of this library, or is damaged.
    """
    return solvers.results.solution.load(path, groups, communicator)
