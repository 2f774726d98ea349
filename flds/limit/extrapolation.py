"""One round of an estimate of the limit: independent seeds, each at four depths, and what they say together.

Each seed is trained at the depths L/2, L, 2L and 4L on one Brownian path; a seed of an ensemble is the mean of two
networks. The scheme has a weak error a/L + b/L² + …, so R_1 = 2 f_2L − f_L and R_2 = 2 f_4L − f_2L are rid of a and
R* = R_2 + (R_2 − R_1)/3 also of b. The estimate is the mean of R* over the seeds, and the half width of its interval is
the sum of

- the statistical error: the standard error of this mean times Student's quantile;
- the depth error, the larger of two: |d| with d = R* − R_2, the error that R_2 was seen to have, and |D|, what R*
  gained on the R* of the depths L/2, L and 2L. If the remainder of R falls like L^-p, the error of R* is
  |4 − 2^p| / (2^p − 1) times |d|: zero for p = 2, as the expansion says, and at most |d| for every p from 1.33
  upward. An activation with a kink has other powers, and makes the interval wider. Where L is too small for any of
  these powers to rule, d can be small by chance when the error is not; D seldom is at the same time, and not in all
  outputs at once, so their sizes over all outputs, up to the same step, are lower bounds of what is allowed for. Where
  the depth error is larger than the statistical one, L is still too small, and the round is not to be trusted much;
- the particle error: N particles have a bias b/N, which is measured and taken off. The noise of each seed also drives,
  at depth 2L, two systems of N/2 particles (rounded down), one with the noise of the first half of the particles and
  one with that of the second. E is the mean of their outputs, less those of all N, so its expectation is b/N. What they
  have in common cancels: E has a standard deviation of order 1/N, a tenth to a half of that of the outputs at N = 500.
  R* − E takes the place of R* in each seed, so the statistical error covers the noise of E. As much as was taken
  off, |E|, is allowed for, since b depends on the depth, and E differs from b/N by terms of order N^-2: of relu and
  gelu with N = 500 up to 0.9 |E| was left. Where the halves do not follow the whole (weights held as matrices, or noise
  that leaves half as many particles no room to be matched), nothing is taken off, and what of E is not its noise is
  allowed for.

The last two are bounds and not random, so they are added linearly. Of the depth error only what exceeds its own noise
counts, because that noise is a part of the noise of R*, which the first term covers.

References
----------
M. B. Giles, L. Szpruch, "Antithetic multilevel Monte Carlo estimation for multi-dimensional SDEs without Lévy area
simulation", Ann. Appl. Probab. 24 (2014), for differences of a whole and its halves.
"""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flds.limit.intervals import Array, allowance, bias_allowance, student
from flds.limit.populations import MatchedParticles, Population, Sizes, Spread
from flds.results.replicates import mean_and_error
from flds.training.cost import CostEstimate
from flds.training.footprint import record_bytes
from flds.training.method import decide
from flds.training.network import Network
from flds.training.notes import on_end
from flds.training.options import Options, Settings
from flds.training.problem import TrainingProblem
from flds.training.records import Recorder
from flds.training.train import train
from flds.training.workload import Workload
from solvers import checks
from solvers.accelerate import compiler_time
from solvers.memory import available_memory
from solvers.progress import progress_bar

# Depths in units of L/2, the deepest first: the longest runs must not be the last to begin.
MULTIPLES = (8, 4, 2, 1)
# The one at which half as many particles are trained as well. At L the bias may be small by chance (gelu, L = 4).
_HALVED = 4
# Python's objects of one run, in bytes, and how often its outputs are held when they are put together.
_RUN, _COPIES = 4_000, 3


@dataclass(frozen=True)
class Plan:
    """What each seed of a round is to run."""

    whole: list[tuple[Settings, CostEstimate]]  # N particles at the depths 4L … L/2
    half: tuple[Settings, CostEstimate]  # half as many at depth 2L, to be run twice
    notes: list[str]  # what could not be done as asked
    replicates: int
    signs: tuple[float, ...] = (1.0,)  # of the networks that each seed is

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.whole[0][0].particles, 2 * self.whole[-1][0].depth, self.replicates)

    @property
    def runs(self) -> list[tuple[Settings, int]]:
        """Settings of every run, and the particle of the whole whose noise its first particle takes."""
        half = self.half[0]
        return [*((settings, 0) for settings, _ in self.whole), (half, 0), (half, half.particles)]

    @property
    def coupled(self) -> bool:
        """Whether the halves are made to use the noise as the whole does."""
        return self.half[0].operator == "lazy" and self.half[0].sampling == self.whole[0][0].sampling

    def workers(self, threads: int) -> int:
        """Return how many runs go at a time, as far as threads and memory allow; on a device, which one fills, one."""
        if self.half[0].device is not None:
            return 1
        needed = max(cost.memory for _, cost in self.whole)
        return max(1, min(threads, int(min(available_memory() / needed, threads))))

    def memory(self, problem: TrainingProblem) -> float:
        """Return the bytes that a round holds at its peak, if its runs go one after the other."""
        loads = [Workload.of(problem, settings) for settings, _ in self.runs]
        kept = sum(
            _RUN + record_bytes(load) + _COPIES * 8.0 * load.records * load.recorded * load.outputs for load in loads
        )
        return max(cost.memory for _, cost in self.whole) + len(self.signs) * self.replicates * kept

    def seconds(self, threads: int) -> float:
        """Return the time that the cost model expects."""
        costs = [cost.seconds for _, cost in (*self.whole, self.half, self.half)]
        return len(self.signs) * self.replicates * sum(costs) / self.workers(threads)


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
    coupled: bool  # whether the particles' bias was taken off

    @property
    def statistical(self) -> Array:
        """The half width of the interval if depth and particles were infinite."""
        return self.quantile * self.standard_error

    @property
    def depth_error(self) -> Array:
        """|d| or |D| of an output, or the root mean square over all outputs of this or an earlier record, if more."""
        return np.asarray(allowance(self.depth_differences, self.depth_noise, self.quantile).max(axis=0))

    @property
    def depth_doubt(self) -> float:
        """How large the depth error may be: the largest that was seen, and the noise in which more would not be."""
        noise = np.sqrt(np.mean(self.depth_noise**2, axis=(2, 3)))
        return float(self.depth_error.max(initial=0.0) + noise.max(initial=0.0))

    @property
    def half_width(self) -> Array:
        return self.statistical + self.depth_error + self.particle_error

    @property
    def widest(self) -> float:
        return float(self.half_width.max(initial=0.0))

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.particles, self.depth, len(self.seeds))

    @property
    def spread(self) -> Spread:
        return Spread(self.sizes, float(self.statistical.max(initial=0.0)), float(self.particle_error.max(initial=0.0)))


def plan_round(
    problem: TrainingProblem, sizes: tuple[int, int, int], options: Options, population: Population | None = None
) -> Plan:
    """Check the arguments, and return what is to be run."""
    population = population or MatchedParticles()
    particles, depth, replicates = sizes
    particles = checks.positive_integer("particles", particles, smallest=2)
    depth = checks.positive_integer("depth", depth, smallest=2)
    if depth % 2:
        raise ValueError(f"depth must be even, since half of it is trained as well, got {depth}")
    fine: Options = {**options, "noise_depth": depth // 2 * MULTIPLES[0], "operator": population.operator}
    whole, noted = [], []
    for multiple in MULTIPLES:
        settings, cost, notes = decide(problem, particles, depth // 2 * multiple, "matched", fine)
        whole.append((replace(settings, tolerance=settings.tolerance / math.sqrt(replicates)), cost))
        noted += [] if population.operator == "dense" else notes
    alike = whole[MULTIPLES.index(_HALVED)][0]
    fine |= {"operator": alike.operator, "tolerance": alike.tolerance}
    half, cost, _ = decide(problem, particles // 2, alike.depth, "matched", fine)
    return Plan(whole, (half, cost), list(dict.fromkeys(noted)), replicates, population.signs)


def run_round(problem: TrainingProblem, plan: Plan, seeds: list[int], threads: int, progress: bool) -> Round:
    """Run the plan with every seed, and return what the runs say of the limit.

    Raises KeyboardInterrupt if the user ends it; no run is then left at work.
    """
    start, settings, count = time.perf_counter(), plan.whole[0][0], len(plan.whole)
    with compiler_time() as compiler:  # which later rounds need not wait for
        recorders = _train_all(problem, plan, seeds, threads, progress)
    status, where = _worst(recorders, plan)
    notes = plan.notes + on_end(status, where, settings, (one.unmatched for row in recorders[:count] for one in row))
    lacking = settings.sampling != "law" and any(one.unmatched for row in recorders[count:] for one in row)
    coupled = plan.coupled and not lacking
    steps, values = _common(recorders, problem, len(seeds))
    quantile = student(len(seeds) - 1)
    with np.errstate(over="ignore", invalid="ignore"):  # the last records of a diverging run
        coarse, _ = extrapolate(values[count - 1 : 0 : -1])
        best, difference = extrapolate(values[count - 2 :: -1])
        differences, noise = zip(mean_and_error(difference), mean_and_error(best - coarse), strict=True)
        times = settings.particles / plan.half[0].particles
        bias = (values[count:].mean(axis=0) - values[MULTIPLES.index(_HALVED)]) / (times - 1)
        estimate, error = mean_and_error(best - bias if coupled else best)
        seen, blur = mean_and_error(bias)
        particle_error = np.abs(seen) if coupled else bias_allowance(seen, blur, quantile)
    return Round(
        settings.particles,
        2 * plan.whole[-1][0].depth,
        time.perf_counter() - start - compiler.seconds,
        seeds,
        settings,
        notes,
        status,
        steps,
        estimate,
        error,
        quantile,
        np.array(differences),
        np.array(noise),
        particle_error,
        coupled,
    )


def _train_all(
    problem: TrainingProblem, plan: Plan, seeds: list[int], threads: int, progress: bool
) -> list[list[Recorder]]:
    """Make every run with every seed, (runs, seeds and signs), as many at a time as threads and memory allow."""
    runs = [(seed, sign) for seed in seeds for sign in plan.signs]
    total = len(plan.runs) * len(runs) * (problem.steps + 1)
    futures: list[Future[Recorder]] = []
    with progress_bar(total, progress) as bar, ThreadPoolExecutor(plan.workers(threads)) as pool:
        gate = _Gate(bar)
        try:
            for settings, first in plan.runs:
                for seed, sign in runs:
                    futures.append(_submit(pool, threads, problem, settings, seed, first, sign, gate))
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
    return [done[first : first + len(runs)] for first in range(0, len(done), len(runs))]


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


def _submit(pool: ThreadPoolExecutor, threads: int, *run: Any) -> Future[Recorder]:
    try:
        return pool.submit(_train_one, *run)
    except RuntimeError as error:  # of the system, which starts no more threads
        raise ValueError(f"threads must be fewer than the system starts, got {threads}: {error}") from None


def _train_one(
    problem: TrainingProblem, settings: Settings, seed: int, first: int, sign: float, gate: _Gate
) -> Recorder:
    return train(Network(problem, settings, seed, first, sign), gate)


def _worst(recorders: list[list[Recorder]], plan: Plan) -> tuple[str, str]:
    """Return the status of the run that ended first, and where that was."""
    ended = [
        (recorder.completed_steps, recorder.status, f"{recorder.completed_steps} of seed {number} at depth {s.depth}")
        for row, (s, _) in zip(recorders, plan.runs, strict=True)
        for number, recorder in ((1 + index // len(plan.signs), one) for index, one in enumerate(row))
        if recorder.status != "completed"
    ]
    _, status, where = min(ended, default=(0, "completed", ""))
    return status, where


def _common(recorders: list[list[Recorder]], problem: TrainingProblem, seeds: int) -> tuple[list[int], Array]:
    """Return the steps that every run recorded, and outputs (runs, seeds, records, points, outputs)."""
    runs = [recorder for row in recorders for recorder in row]
    count = min(len(run.records) for run in runs)
    points = len(runs[0].settings.recorded_samples) + len(problem.test_x)
    values = np.array([[np.concatenate([r.outputs, r.test_outputs]) for r in run.records[:count]] for run in runs])
    with np.errstate(over="ignore", invalid="ignore"):
        values = values.reshape(len(recorders), seeds, -1, count, points, problem.outputs).mean(axis=2)
    finite = np.isfinite(values).all(axis=(0, 1, 3, 4))
    count = count if finite.all() else int(np.argmin(finite))
    return [r.step for r in runs[0].records[:count]], values[:, :, :count]
