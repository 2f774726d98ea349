"""How often the intervals of `flds.estimate_limit` contain the limit.

The limit is exact for φ = identity. For other activations it is an estimate by the same function, with many more
particles, larger depth and other seeds.
"""

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
from solvers.processors import available_threads
from validation.closed_forms import IdentityDynamics

Array = NDArray[np.float64]

# Depths that the exact dynamics are extrapolated from.
_DEPTHS = (4, 8, 16, 32, 64)
# What a limit may be off by, in half widths of the intervals tested, without being added to them.
_SMALL = 0.1
# Starting the processes takes as long as a few runs.
_WORTH_PROCESSES = 40


@dataclass(frozen=True)
class Coverage:
    """How many intervals contained the limit.

    Outputs are those on training samples, one after the other where a sample has several.

    Attributes
    ----------
    runs : int
        Number of estimates, each with a seed of its own.
    contained : (runs, steps, outputs) bool
        Whether the interval contained the limit, for k = 1 … K. An error of the limit above a tenth of the half width
        is added to the half width.
    half_width : (steps, outputs) float64
        Median half width.
    spread : (steps, outputs) float64
        Standard deviation of the estimates over the runs.
    exact, exact_error : (steps, outputs) float64
        The limit and its error.
    """

    runs: int
    contained: NDArray[np.bool_]
    half_width: Array
    spread: Array
    exact: Array
    exact_error: Array

    @property
    def inside(self) -> NDArray[np.int64]:
        """Number of runs whose interval contained the limit, (steps, outputs)."""
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


def reference_limit(
    problem: flds.TrainingProblem, backward_weights: str = "tied", *, seed: int = 2**62, **options: Any
) -> tuple[Array, Array]:
    """Return f^(k) of the limit N → ∞, L → ∞ and its standard error, from one round of `flds.estimate_limit`.

    Parameters
    ----------
    problem : TrainingProblem
        Any, recorded at every step.
    backward_weights : str
        "tied" or "independent".
    seed : int
        Not one of those that `coverage` makes.
    **options
        `particles`, `depth` and `replicates` of the round, and `threads`.

    Returns
    -------
    limit, error : (steps + 1, outputs) float64
        The error is the half width of the 95 % interval, which allows for depth and particles, over 1.96.

    Raises
    ------
    ValueError, TypeError
        If an option is not valid.
    """
    limit, half = _estimate(problem, {"backward_weights": backward_weights, "budget_seconds": 1e-3, **options}, seed)
    return limit, half / 1.96


def coverage(
    runs: int,
    problem: flds.TrainingProblem,
    backward_weights: str = "tied",
    *,
    reference: tuple[Array, Array] | None = None,
    seed: int = 0,
    **options: Any,
) -> Coverage:
    """Estimate the limit in independent runs, and count the intervals that contain it.

    Parameters
    ----------
    runs : int
        Number of estimates.
    problem : TrainingProblem
        Recorded at every step; without a reference full batch, one output, the activation "identity" and the loss
        "squared".
    backward_weights : str
        "tied" or "independent".
    reference : (limit, error), optional
        As `reference_limit` returns it; by default the exact limit.
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
        If the problem has no exact answer and no reference, or an option is not valid.
    """
    exact, error = (part[1:] for part in reference or exact_limit(problem, backward_weights))
    seeds = np.random.SeedSequence(seed).generate_state(runs, np.uint64) >> np.uint64(1)
    each = partial(_estimate, problem, {"backward_weights": backward_weights, "threads": 1, **options})
    if runs < _WORTH_PROCESSES:
        found = [each(int(one)) for one in seeds]
    else:  # small runs are bound by Python, which one process runs on one core
        with ProcessPoolExecutor(available_threads(), mp_context=get_context("spawn")) as pool:
            found = list(pool.map(each, map(int, seeds)))
    estimates, half = np.array(found)[:, :, 1:].transpose(1, 0, 2, 3)
    allowed = half + np.where(error > _SMALL * half, error, 0.0)
    spread = estimates.std(axis=0, ddof=1)
    return Coverage(runs, np.abs(estimates - exact) <= allowed, np.median(half, axis=0), spread, exact, error)


def _estimate(problem: flds.TrainingProblem, options: dict[str, Any], seed: int) -> tuple[Array, Array]:
    """Return outputs and half widths of one estimate, (K + 1, outputs) each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # an interval that misses its target has to be right too
        found = flds.estimate_limit(problem, seed=seed, **options)
    outputs, half = (values.reshape(len(values), -1) for values in (found.outputs, found.outputs_half_width))
    return outputs, half
