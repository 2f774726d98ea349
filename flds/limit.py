"""The limit N → ∞, L → ∞ itself: outputs with confidence intervals, from rounds of growing N and L.

A round trains `replicates` independent seeds, each at the depths L, 2L and 4L on one Brownian path. The scheme has a
weak error a/L + b/L² + …, so for each seed R_1 = 2 f_2L − f_L and R_2 = 2 f_4L − f_2L are rid of a and
R* = R_2 + (R_2 − R_1)/3 also of b. What is reported is the mean of R* over the seeds, and its interval adds:

- the statistical error: the standard error of this mean times Student's quantile;
- the depth error: d = R* − R_2 is the error that R_2 was seen to have, so R* is not better than |d| in any way that
  we could know. If the remainder of R falls like L^-p, that of R* is |4 − 2^p| / |2^p − 1| times |d|: zero for p = 2,
  as the expansion says, and at most |d| for every p from 1.33 upward. An activation with a kink, whose expansion has
  other powers, therefore makes the interval wider and not wrong;
- the particle error: N particles have a bias b/N, which the first round, with fewer particles, shows enlarged.

The last two are bounds and not random, so they are added linearly; of either only what exceeds its own noise counts,
since the noise of R*, in which it is contained, is counted already. While it is not seen, the bias in N stays small
against the statistical error for another reason: their ratio is of the order sqrt(replicates / N).
"""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flds.cost import CostEstimate
from flds.dynamics import Network
from flds.problem import TrainingProblem
from flds.recording import Recorder
from flds.settings import Options, Settings, resolve
from flds.solution import LimitEstimate, describe, output_fields
from flds.solve import progress_bar, remarks, train
from solvers import checks
from solvers.blocks import available_threads, compile_kernels
from solvers.memory import available_memory
from solvers.random import replicate_seed
from solvers.solution import library_versions

Array = NDArray[np.float64]

# What is to be run at each depth: settings, cost, and notes on what was decided against the caller's wish.
_Plan = list[tuple[Settings, CostEstimate, list[str]]]

# Multiples of L, the deepest first: the longest runs must not be the last to begin.
_MULTIPLES = (4, 2, 1)
_CONFIDENCE = 0.95
# Sizes of the first round. Fewer particles would take as long, since each pass costs a fixed time.
_PARTICLES, _DEPTH = 2_000, 8
_BUDGET_SECONDS = 60.0
# A round that is this much larger than the last one is worth its time; one much larger is not well predicted.
_LEAST_GROWTH, _MOST_GROWTH = 1.5, 16.0
# Share of the time left that the next round is planned to take.
_PLANNED = 0.9
# Half widths are known to 1/sqrt(2 replicates), 18 % of 16; a round that aims this low seldom has to be repeated,
# and so is seldom accepted for a half width that came out small by chance.
_AIM = 0.8
# The depth error, which falls like 1/L², and the statistical one, like sqrt(L) at equal time, have the smallest sum
# where the first is this share of the second.
_DEPTH_SHARE = 0.25


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
    depth_difference: Array  # d, mean over the seeds
    depth_noise: Array  # its standard error
    particle_error: Array

    @property
    def statistical(self) -> Array:
        """The half width of the interval if depth and particles were infinite."""
        return self.quantile * self.standard_error

    @property
    def depth_error(self) -> Array:
        return _beyond(self.depth_difference, self.quantile * self.depth_noise)

    @property
    def half_width(self) -> Array:
        return self.statistical + self.depth_error + self.particle_error

    @property
    def widest(self) -> float:
        return float(self.half_width.max(initial=0.0))


def estimate_limit(
    problem: TrainingProblem,
    *,
    target_error: float | None = None,
    budget_seconds: float | None = None,
    backward_weights: str = "tied",
    seed: int = 0,
    particles: int | None = None,
    depth: int | None = None,
    replicates: int = 16,
    record_every: int | None = None,
    recorded_samples: Sequence[int] | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> LimitEstimate:
    """Estimate the outputs of the limit N → ∞, L → ∞, with 95 % confidence intervals.

    Rounds of independent runs grow in particles or depth, whichever narrows the intervals more, until the target is
    met or the budget is spent. The last round alone is reported.

    Parameters
    ----------
    problem : TrainingProblem
        What is trained.
    target_error : float, optional
        The largest half width wanted of any interval, in the units of the outputs.
    budget_seconds : float, optional
        Time for all rounds; 60 if there is no target either. A round that has begun is finished, and no round begins
        that is expected to end later than this, but for the first.
    backward_weights : str
        "tied" or "independent", as for `solve_flds`.
    seed : int
        Seed of all noise, 0 to 2**63 - 1. Every round draws fresh noise.
    particles, depth : int, optional
        N and L of the first round, which trains at depths L, 2L and 4L; by default 2,000 and 8.
    replicates : int
        Independent seeds in a round, at least 2. Accuracy comes from more particles, not from more replicates.
    record_every, recorded_samples : int, sequence of int, optional
        As in `flds.Options`.
    threads : int, optional
        Runs at a time; by default all available CPUs. For given sizes the results do not depend on it.
    progress : bool
        Show a progress bar for each round on standard error.

    Returns
    -------
    LimitEstimate
        `outputs` and `outputs_half_width`, what they are made of, and the losses of these outputs.

    Raises
    ------
    ValueError, TypeError
        If an argument is not valid.
    MemoryError
        If the first round would not fit in memory.
    KeyboardInterrupt
        If the first round is interrupted; a later one ends with the status "interrupted" and the round before.

    Warns
    -----
    RuntimeWarning
        If the target was not met, the first round took longer than the budget, or training ended early or could
        not be done as asked.

    References
    ----------
    L. F. Richardson, "The deferred approach to the limit", Phil. Trans. R. Soc. A 226 (1927).
    D. Talay, L. Tubaro, "Expansion of the global error for numerical schemes solving stochastic differential
    equations", Stoch. Anal. Appl. 8 (1990).
    """
    if target_error is not None:
        target_error = checks.positive_number("target_error", target_error)
    if budget_seconds is not None:
        budget_seconds = checks.positive_number("budget_seconds", budget_seconds)
    elif target_error is None:
        budget_seconds = _BUDGET_SECONDS
    options: Options = {
        "backward_weights": backward_weights, "seed": seed, "threads": 1, "record_every": record_every,
        "recorded_samples": recorded_samples,
    }  # fmt: skip
    search = _Search(
        problem, options, checks.positive_integer("replicates", replicates, smallest=2),
        available_threads() if threads is None else checks.positive_integer("threads", threads),
        target_error, budget_seconds, progress,
    )  # fmt: skip
    search.run(_PARTICLES if particles is None else particles, _DEPTH if depth is None else depth)
    for note in search.warned:
        warnings.warn(note, RuntimeWarning, stacklevel=2)
    return _assemble(search)


@dataclass
class _Search:
    """Rounds, and the decision how large the next one is."""

    problem: TrainingProblem
    options: Options
    replicates: int
    threads: int
    target: float | None
    budget: float | None
    progress: bool
    status: str = "completed"
    rounds: list[Round] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)  # notes that are warnings as well
    timings: dict[str, float] = field(default_factory=dict)

    def run(self, particles: int, depth: int) -> None:
        """Run rounds until one of them is good enough or the next one would be too large."""
        plan = _resolve(self.problem, particles, depth, self.options)
        self.timings["compile"] = compile_kernels(plan[0][0].numpy_dtype)
        start = time.perf_counter()
        try:
            while True:
                self.rounds.append(self._round(plan))
                self.timings["solve"] = time.perf_counter() - start
                sizes = self._next_sizes()
                if sizes is None:
                    break
                plan = _resolve(self.problem, *sizes, self.options)
        except MemoryError as error:
            if not self.rounds:
                raise
            self.notes.append(f"stopped after round {len(self.rounds)}: {error}")
        except KeyboardInterrupt:
            if not self.rounds:
                raise
            self.status = "interrupted"
            self.warned.append(f"interrupted in round {len(self.rounds) + 1}; round {len(self.rounds)} is reported")
        self.timings["solve"] = time.perf_counter() - start
        self._conclude()

    @property
    def reported(self) -> Round:
        """The last round; but one that ran out of rank says less than the one before it."""
        last = self.rounds[-1]
        return self.rounds[-2] if last.status == "rank_budget" and len(self.rounds) > 1 else last

    def _round(self, plan: _Plan) -> Round:
        start = time.perf_counter()
        settings, depth = plan[0][0], plan[-1][0].depth
        first = len(self.rounds) * self.replicates  # fresh seeds, or the choice of sizes would bias the result
        seeds = [replicate_seed(settings.seed, first + replicate) for replicate in range(self.replicates)]
        recorders = self._train_all(plan, seeds)
        status, where = _worst(recorders, plan)
        notes = list(dict.fromkeys(note for part in plan for note in part[2]))
        notes += remarks(status, where, settings, [recorder for row in recorders for recorder in row])
        steps, values = _common(recorders, self.problem)
        quantile = _student(self.replicates - 1)
        with np.errstate(over="ignore", invalid="ignore"):  # the last records of a diverging run
            best, difference = extrapolate(values[::-1])
            estimate, error = _mean(best)
            d, noise = _mean(difference)
            particle_error = self._particle_error(settings.particles, estimate, error, quantile)
        return Round(
            settings.particles, depth, time.perf_counter() - start, seeds, settings, notes, status, steps, estimate,
            error, quantile, d, noise, particle_error,
        )  # fmt: skip

    def _particle_error(self, particles: int, estimate: Array, error: Array, quantile: float) -> Array:
        """Return the bias b/N of a round, as far as the first round, with N_1 particles, shows it beyond noise."""
        if not self.rounds or particles <= self.rounds[0].particles:
            return np.zeros_like(estimate)
        first, count = self.rounds[0], len(estimate)
        share = 1 / (particles / first.particles - 1)  # b/N of the difference b/N_1 − b/N
        noise = quantile * np.hypot(error, first.standard_error[:count])
        return share * _beyond(estimate - first.estimate[:count], noise)

    def _train_all(self, plan: _Plan, seeds: list[int]) -> list[list[Recorder]]:
        """Train every seed at every depth, (depths, seeds), as many at a time as threads and memory allow."""
        needed = max(cost.memory for _, cost, _ in plan)
        workers = max(1, min(self.threads, int(min(available_memory() / needed, self.threads))))
        total = len(plan) * len(seeds) * (self.problem.steps + 1)
        futures: list[Future[Recorder]] = []
        with progress_bar(total, self.progress) as bar, ThreadPoolExecutor(workers) as pool:
            gate = _Gate(bar)
            try:
                for settings, _, _ in plan:
                    futures += [pool.submit(_train_one, self.problem, settings, seed, gate) for seed in seeds]
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

    def _next_sizes(self) -> tuple[int, int] | None:
        """Return N and L of the next round, or None if there is to be none."""
        last = self.rounds[-1]
        if last.status != "completed" or not last.estimate.size:
            return None
        if self.target is not None and last.widest <= self.target:
            return None
        growth = _MOST_GROWTH
        if self.budget is not None:
            growth = min(growth, _PLANNED * (self.budget - self.timings["solve"]) / last.seconds)
            if growth < _LEAST_GROWTH:
                self.notes.append(f"stopped after round {len(self.rounds)}: a larger one would exceed budget_seconds")
                return None
        # over all outputs, noise taken off: the largest of many would be noise
        bias = math.sqrt(max(0.0, float(np.mean(last.depth_difference**2 - last.depth_noise**2))))
        spread = math.sqrt(float(np.mean(last.statistical**2)))
        for deeper in (1, 2, 4):
            if deeper > 1 and deeper > growth:
                break
            more, by = growth / deeper, deeper
            if self.target is not None:
                left = _AIM * self.target - float(last.depth_error.max()) / deeper**2
                more = min(more, (float(last.statistical.max()) / max(left, _AIM * self.target / 2)) ** 2)
            if bias / deeper**2 <= _DEPTH_SHARE * spread / math.sqrt(more):
                break
        return math.ceil(last.particles * max(1.0, more)), last.depth * by

    def _conclude(self) -> None:
        """Settle the status, and what a user should be told or warned of."""
        last = self.rounds[-1]
        if self.status == "completed":
            self.status = last.status
        self.warned += last.notes
        if self.budget is not None and self.rounds[0].seconds > self.budget:
            self.warned.append(
                f"the first round took {self.rounds[0].seconds:.2g} s, longer than budget_seconds {self.budget:g}; "
                "give it more, or lower particles or depth"
            )
        widest = self.reported.widest
        if self.target is not None and widest > self.target:
            seconds = self.timings["solve"] + self.reported.seconds * (widest / (_AIM * self.target)) ** 2
            self.warned.append(
                f"the largest half width is {widest:.2g}, above target_error {self.target:g}; "
                f"budget_seconds of about {seconds:.1g} would do"
            )
        self.notes += self.warned


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


def _resolve(problem: TrainingProblem, particles: int, depth: int, options: Options) -> _Plan:
    """Check the arguments, and return what is to be run at every depth, the deepest first."""
    depth = checks.positive_integer("depth", depth)
    fine: Options = {**options, "noise_depth": depth * _MULTIPLES[0]}
    return [resolve(problem, particles, depth * multiple, "matched", fine) for multiple in _MULTIPLES]


def _train_one(problem: TrainingProblem, settings: Settings, seed: int, gate: _Gate) -> Recorder:
    return train(Network(problem, settings, seed), gate)


def _worst(recorders: list[list[Recorder]], plan: _Plan) -> tuple[str, str]:
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


def _mean(samples: Array) -> tuple[Array, Array]:
    """Return the mean over the seeds, axis 0, and its standard error."""
    return samples.mean(axis=0), samples.std(axis=0, ddof=1) / math.sqrt(len(samples))


def _beyond(seen: Array, noise: Array) -> Array:
    """Return by how much |seen| exceeds its noise."""
    return np.maximum(0.0, np.abs(seen) - noise)


def _student(freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + _CONFIDENCE) / 2, freedom))


def _assemble(search: _Search) -> LimitEstimate:
    problem, last = search.problem, search.reported
    settings = last.settings
    recorded = list(settings.recorded_samples)
    cut = len(recorded)
    fields = output_fields(problem, last.steps, recorded, last.estimate[:, :cut], last.estimate[:, cut:])
    errors = (
        ("outputs_half_width", last.half_width, "half width of the 95 % interval of"),
        ("statistical_error", last.standard_error, "standard error of"),
        ("depth_error", last.depth_error, "allowance for finite depth of"),
        ("particle_error", last.particle_error, "allowance for finitely many particles of"),
    )
    for name, values, label in errors:
        for prefix, part in (("", slice(0, cut)), ("test_", slice(cut, None))):
            if f"{prefix}outputs" in fields:
                like = fields[f"{prefix}outputs"]
                fields[f"{prefix}{name}"] = like._replace(
                    values=values[:, part].reshape(like.values.shape), long_name=f"{label} {like.long_name}"
                )
    description, arrays = describe(problem)
    saved: dict[str, Any] = {
        "solver": "estimate_limit", "target_error": search.target, "budget_seconds": search.budget,
        "particles": last.particles, "depth": last.depth, "replicates": search.replicates,
        "depths": [last.depth * multiple for multiple in reversed(_MULTIPLES)], "seeds": last.seeds,
        "backward_weights": settings.backward_weights, "operator": settings.operator, "sampling": settings.sampling,
        "tolerance": settings.tolerance, "record_every": settings.record_every, "dtype": settings.dtype,
        "threads": search.threads,
        "rounds": [
            {"particles": r.particles, "depth": r.depth, "half_width": r.widest, "seconds": r.seconds}
            for r in search.rounds
        ],
    }  # fmt: skip
    return LimitEstimate(
        fields=fields | arrays, status=search.status, timings=search.timings, seed=settings.seed, settings=saved,
        notes=search.notes, versions=library_versions(), extra={"problem": description},
    )  # fmt: skip
