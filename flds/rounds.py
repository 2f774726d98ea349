"""One round of an estimate of the limit: independent seeds, each at four depths, and what they say together.

Each seed is trained at the depths L/2, L, 2L and 4L on one Brownian path. The scheme has a weak error a/L + b/L² + …,
so R_1 = 2 f_2L − f_L and R_2 = 2 f_4L − f_2L are rid of a and R* = R_2 + (R_2 − R_1)/3 also of b. The estimate is the
mean of R* over the seeds, and the half width of its interval is the sum of

- the statistical error: the standard error of this mean times Student's quantile;
- the depth error, the larger of two: |d| with d = R* − R_2, the error that R_2 was seen to have, and |D|, what R*
  gained on the R* of the depths L/2, L and 2L. If the remainder of R falls like L^-p, the error of R* is
  |4 − 2^p| / (2^p − 1) times |d|: zero for p = 2, as the expansion says, and at most |d| for every p from 1.33
  upward. An activation with a kink has other powers, and makes the interval wider. Where L is too small for any of
  these powers to rule, d can be small by chance when the error is not; D seldom is at the same time, and not in all
  outputs at once, so their sizes over all outputs, up to the same step, are lower bounds of what is allowed for. Where
  the depth error is larger than the statistical one, L is still too small, and the round is not to be trusted much;
- the particle error: N particles have a bias b/N, which an earlier round of the same depth, with at most half as many
  particles, shows enlarged.

The last two are bounds and not random, so they are added linearly. Only what exceeds its own noise counts, because
that noise is a part of the noise of R*, which the first term covers. A bias in N that stays below it is small for
another reason: against the statistical error it is of the order sqrt(replicates / N).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flds.cost import CostEstimate
from flds.dynamics import Network
from flds.problem import TrainingProblem
from flds.recording import Recorder
from flds.settings import Options, Settings, resolve
from flds.solution import mean_and_error
from flds.solve import progress_bar, remarks, train
from solvers import checks
from solvers.memory import available_memory

Array = NDArray[np.float64]

# What is to be run at each depth: settings, cost, and notes on what was decided against the caller's wish.
Plan = list[tuple[Settings, CostEstimate, list[str]]]

# Depths in units of L/2, the deepest first: the longest runs must not be the last to begin.
MULTIPLES = (8, 4, 2, 1)
_CONFIDENCE = 0.95
# What is dropped at the default tolerance is small against the noise of one run, but not against that of the mean of
# many with matched noise; a share of it costs a few directions more.
_TOLERANCE = 0.1


@dataclass(frozen=True)
class Round:
    """What one round gave; arrays are (records, samples and test samples, outputs)."""

    particles: int
    depth: int
    seconds: float
    seeds: list[int]
    settings: Settings  # of the deepest runs
    notes: list[str]
    status: str
    steps: list[int]
    estimate: Array
    standard_error: Array
    quantile: float
    depth_differences: Array  # d and D, mean over the seeds, (2, …)
    depth_noise: Array  # their standard errors
    particle_error: Array

    @property
    def statistical(self) -> Array:
        """The half width of the interval if depth and particles were infinite."""
        return self.quantile * self.standard_error

    @property
    def depth_error(self) -> Array:
        """|d| or |D| of an output, or the root mean square over all outputs of this or an earlier record, if more."""
        own = _beyond(self.depth_differences, self.quantile * self.depth_noise)
        squares = (self.depth_differences**2, self.depth_noise**2)
        pooled, noise = (np.sqrt(part.mean(axis=(2, 3))) for part in squares)
        so_far = np.maximum.accumulate(_beyond(pooled, self.quantile * noise), axis=1)
        return np.asarray(np.maximum(own, so_far[:, :, None, None]).max(axis=0))

    @property
    def half_width(self) -> Array:
        return self.statistical + self.depth_error + self.particle_error

    @property
    def widest(self) -> float:
        return float(self.half_width.max(initial=0.0))


def plan_round(problem: TrainingProblem, particles: int, depth: int, options: Options) -> Plan:
    """Check the arguments, and return what is to be run at every depth, the deepest first."""
    depth = checks.positive_integer("depth", depth, smallest=2)
    if depth % 2:
        raise ValueError(f"depth must be even, since half of it is trained as well, got {depth}")
    fine: Options = {**options, "noise_depth": depth // 2 * MULTIPLES[0]}
    plan = [resolve(problem, particles, depth // 2 * multiple, "matched", fine) for multiple in MULTIPLES]
    return [
        (replace(settings, tolerance=_TOLERANCE * settings.tolerance), cost, notes) for settings, cost, notes in plan
    ]


def run_round(
    problem: TrainingProblem, plan: Plan, seeds: list[int], threads: int, progress: bool, earlier: Sequence[Round]
) -> Round:
    """Train every seed at every depth, and return what they say of the limit.

    Raises KeyboardInterrupt if the user ends it; no run is then left at work.
    """
    start = time.perf_counter()
    settings, depth = plan[0][0], 2 * plan[-1][0].depth
    recorders = _train_all(problem, plan, seeds, threads, progress)
    status, where = _worst(recorders, plan)
    notes = list(dict.fromkeys(note for part in plan for note in part[2]))
    notes += remarks(status, where, settings, [recorder for row in recorders for recorder in row])
    steps, values = _common(recorders, problem)
    quantile = _student(len(seeds) - 1)
    with np.errstate(over="ignore", invalid="ignore"):  # the last records of a diverging run
        coarse, _ = extrapolate(values[:0:-1])
        best, difference = extrapolate(values[-2::-1])
        estimate, error = mean_and_error(best)
        differences, noise = zip(mean_and_error(difference), mean_and_error(best - coarse), strict=True)
        particle_error = _particle_error(earlier, settings.particles, depth, estimate, error, quantile)
    return Round(
        settings.particles, depth, time.perf_counter() - start, seeds, settings, notes, status, steps, estimate,
        error, quantile, np.array(differences), np.array(noise), particle_error,
    )  # fmt: skip


def _particle_error(
    earlier: Sequence[Round], particles: int, depth: int, estimate: Array, error: Array, quantile: float
) -> Array:
    """Return the bias b/N of a round, as far as the first of its depth, with N_1 particles, shows it beyond noise.

    A round of another depth differs by its depth error as well, and one of nearly as many particles says too little.
    """
    first = next((one for one in earlier if one.depth == depth and 2 * one.particles <= particles), None)
    if first is None:
        return np.zeros_like(estimate)
    count = len(estimate)
    share = 1 / (particles / first.particles - 1)  # b/N of the difference b/N_1 − b/N
    noise = quantile * np.hypot(error, first.standard_error[:count])
    return share * _beyond(estimate - first.estimate[:count], noise)


def _train_all(
    problem: TrainingProblem, plan: Plan, seeds: list[int], threads: int, progress: bool
) -> list[list[Recorder]]:
    """Train every seed at every depth, (depths, seeds), as many at a time as threads and memory allow."""
    needed = max(cost.memory for _, cost, _ in plan)
    workers = max(1, min(threads, int(min(available_memory() / needed, threads))))
    total = len(plan) * len(seeds) * (problem.steps + 1)
    futures: list[Future[Recorder]] = []
    with progress_bar(total, progress) as bar, ThreadPoolExecutor(workers) as pool:
        gate = _Gate(bar)
        try:
            for settings, _, _ in plan:
                futures += [pool.submit(_train_one, problem, settings, seed, gate) for seed in seeds]
            done = []
            for future in futures:
                done.append(future.result())
                if done[-1].status == "interrupted":
                    raise KeyboardInterrupt
        except BaseException:
            gate.closed = True  # runs end at their next step, and the pool then joins its threads
            for future in futures:
                future.cancel()
            raise
    return [done[first : first + len(seeds)] for first in range(0, len(done), len(seeds))]


class _Gate:
    """What runs tell of each step: it moves the bar, or ends the run once closed."""

    def __init__(self, bar: Any) -> None:
        self.bar, self.closed, self.lock = bar, False, threading.Lock()

    def update(self) -> None:
        if self.closed:
            raise KeyboardInterrupt
        with self.lock:
            self.bar.update()


def extrapolate(values: Array) -> tuple[Array, Array]:
    """Return R* and R* − R_2 from outputs at depths L, 2L and 4L along the first axis."""
    first, second = 2 * values[1] - values[0], 2 * values[2] - values[1]
    difference = (second - first) / 3
    return second + difference, difference


def _train_one(problem: TrainingProblem, settings: Settings, seed: int, gate: _Gate) -> Recorder:
    return train(Network(problem, settings, seed), gate)


def _worst(recorders: list[list[Recorder]], plan: Plan) -> tuple[str, str]:
    """Return the status of the run that ended first, and where that was."""
    ended = [
        (recorder.completed_steps, recorder.status, f"{recorder.completed_steps} of seed {number} at depth {s.depth}")
        for row, (s, _, _) in zip(recorders, plan, strict=True)
        for number, recorder in enumerate(row, start=1)
        if recorder.status != "completed"
    ]
    _, status, where = min(ended, default=(0, "completed", ""))
    return status, where


def _common(recorders: list[list[Recorder]], problem: TrainingProblem) -> tuple[list[int], Array]:
    """Return the steps that every run recorded, and outputs (depths, seeds, records, points, outputs)."""
    runs = [recorder for row in recorders for recorder in row]
    count = min(len(run.records) for run in runs)
    points = len(runs[0].settings.recorded_samples) + len(problem.test_x)
    values = np.array([[np.concatenate([r.outputs, r.test_outputs]) for r in run.records[:count]] for run in runs])
    values = values.reshape(len(recorders), len(recorders[0]), count, points, problem.outputs)
    finite = np.isfinite(values).all(axis=(0, 1, 3, 4))
    count = count if finite.all() else int(np.argmin(finite))
    return [r.step for r in runs[0].records[:count]], values[:, :, :count]


def _beyond(seen: Array, noise: Array) -> Array:
    """Return by how much |seen| exceeds its noise."""
    return np.maximum(0.0, np.abs(seen) - noise)


def _student(freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + _CONFIDENCE) / 2, freedom))
