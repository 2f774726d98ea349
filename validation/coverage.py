"""How often the intervals of `flds.estimate_limit` contain the exact limit, for φ = identity."""

from __future__ import annotations

import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

import flds
from solvers.blocks import available_threads
from validation.closed_forms import IdentityDynamics

Array = NDArray[np.float64]

# Depths that the exact dynamics are extrapolated from.
_DEPTHS = (4, 8, 16, 32, 64)
# Starting the processes takes as long as a few runs.
_WORTH_PROCESSES = 40


@dataclass(frozen=True)
class Coverage:
    """How many intervals contained the exact limit.

    Attributes
    ----------
    runs : int
        Number of estimates, each with a seed of its own.
    contained : (runs, steps, samples) bool
        Whether the interval contained the limit, for k = 1 … K.
    half_width : (steps, samples) float64
        Median half width.
    exact, exact_error : (steps, samples) float64
        The limit, and how much the last step of its extrapolation changed it.
    """

    runs: int
    contained: NDArray[np.bool_]
    half_width: Array
    exact: Array
    exact_error: Array

    @property
    def inside(self) -> NDArray[np.int64]:
        """Number of runs whose interval contained the limit, (steps, samples)."""
        return np.asarray(self.contained.sum(axis=0))


def exact_limit(problem: flds.TrainingProblem, backward_weights: str = "tied") -> tuple[Array, Array]:
    """Return f^(k) of the limit N → ∞, L → ∞ for φ = identity, and its error.

    The exact dynamics at five depths are extrapolated in powers of 1/L, as Romberg does; the error is how much the
    last level changed.

    Parameters
    ----------
    problem : TrainingProblem
        Full batch, one output, the activation "identity" and the loss "squared".
    backward_weights : str
        "tied" or "independent".

    Returns
    -------
    limit, error : (steps + 1, samples) float64

    Raises
    ------
    ValueError
        If the problem has another activation or loss, or the backward weights are neither.
    """
    level = [IdentityDynamics(problem, depth, backward_weights).outputs()[:, :, 0] for depth in _DEPTHS]
    for order in range(1, len(_DEPTHS)):
        last = level[-1]
        level = [fine + (fine - coarse) / (2**order - 1) for coarse, fine in pairwise(level)]
    return level[0], np.abs(level[0] - last)


def coverage(
    runs: int, problem: flds.TrainingProblem, backward_weights: str = "tied", *, seed: int = 0, **options: Any
) -> Coverage:
    """Estimate the limit in independent runs, and count the intervals that contain the exact answer.

    Parameters
    ----------
    runs : int
        Number of estimates.
    problem : TrainingProblem
        Full batch, one output, the activation "identity" and the loss "squared".
    backward_weights : str
        "tied" or "independent".
    seed : int
        The seeds of the runs are independent and follow from it.
    **options
        `target_error`, `budget_seconds` and the rest of `flds.estimate_limit`.

    Returns
    -------
    Coverage
        Which intervals contained the answer.

    Raises
    ------
    ValueError, TypeError
        If the problem has no exact answer, or an option is not valid.
    """
    exact, error = (part[1:] for part in exact_limit(problem, backward_weights))
    seeds = np.random.SeedSequence(seed).generate_state(runs, np.uint64) >> np.uint64(1)
    each = partial(_estimate, problem, {"backward_weights": backward_weights, "threads": 1, **options})
    if runs < _WORTH_PROCESSES:
        found = [each(int(one)) for one in seeds]
    else:  # small runs are bound by Python, which one process runs on one core
        with ProcessPoolExecutor(available_threads(), mp_context=get_context("spawn")) as pool:
            found = list(pool.map(each, map(int, seeds)))
    estimates, half = np.array(found).transpose(1, 0, 2, 3)
    return Coverage(runs, np.abs(estimates - exact) <= half, np.median(half, axis=0), exact, error)


def _estimate(problem: flds.TrainingProblem, options: dict[str, Any], seed: int) -> tuple[Array, Array]:
    """Return outputs and half widths of one estimate at k = 1 … K, (K, samples) each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # an interval that misses its target has to be right too
        found = flds.estimate_limit(problem, seed=seed, **options)
    return found.outputs[1:], found.outputs_half_width[1:]
