"""The limit N → ∞, L → ∞ itself: outputs with confidence intervals, from rounds of growing N and L."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from flds.limit.assemble import assemble
from flds.limit.extrapolation import Plan, Round, plan_round, run_round
from flds.limit.kept import Past, described, keep, past
from flds.results.limit import LimitEstimate
from flds.training.options import Options
from flds.training.problem import TrainingProblem
from solvers import checks
from solvers.ensemble.homes import check_device
from solvers.ensemble.random import replicate_seed
from solvers.ensemble.threads import compile_kernels
from solvers.memory import require_memory
from solvers.processors import thread_count
from solvers.results.checkpoint import Checkpoint

# Sizes of the first round. Fewer particles would take as long, since each pass costs a fixed time.
_PARTICLES, _DEPTH = 2_000, 8
_BUDGET_SECONDS = 60.0
# A round that is this much larger than the last one is worth its time; one much larger is not well predicted.
_LEAST_GROWTH, _MOST_GROWTH = 1.5, 8.0
# Share of the time left that the next round is planned to take, and how many times longer than the last one. The cost
# model was found right to 30 % in the ratio of two rounds of one kind, but short by 1.8 from matrices that are held to
# bases, or to larger ones; the round after knows better.
_PLANNED, _MOST_SLOWER = 0.8, 4.0
# The number of particles that fits in it is found to 8^(1/2^5), 7 %.
_HALVINGS = 5
# Powers of the model's ratio that are believed. Fixed costs, and noise in short times, make smaller ones.
_LEAST_POWER, _MOST_POWER = 1.0, 1.5
# Half widths are known to 1/sqrt(2 replicates), 18 % of 16; a round that aims this low seldom has to be repeated,
# and so is seldom accepted for a half width that came out small by chance.
_AIM = 0.8
# The depth error, which falls like 1/L², and the statistical one, like sqrt(L) at equal time, have the smallest sum
# where the first is this share of the second.
_DEPTH_SHARE = 0.25
# A depth error above this share of the outputs was not extrapolated from an expansion that holds there.
_TRUSTED = 0.05
# Nothing is left to narrow.
_ROUNDING = {"float64": 1e-12, "float32": 1e-6}


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
    recorded_samples: int | Sequence[int] | None = None,
    threads: int | None = None,
    device: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
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
        that is expected to end later than this, but for the first. What is expected follows from the time of the
        rounds before.
    backward_weights : str
        "tied" or "independent", as for `solve_flds`.
    seed : int
        Seed of all noise, 0 to 2**63 - 1. Every round draws fresh noise.
    particles, depth : int, optional
        N and L of the first round; by default 2,000 and 8. A round trains N particles, at least 2, at the depths L/2,
        L, 2L and 4L, so L is even, and twice N/2, rounded down, at 2L, which shows the bias of order 1/N.
    replicates : int
        Independent seeds in a round, at least 2. Accuracy comes from more particles, not from more replicates.
    record_every, recorded_samples : int, int or sequence of int, optional
        As in `flds.Options`.
    threads : int, optional
        Runs at a time, up to 4,096; by default all available CPUs. For given sizes the results do not depend on it.
    device : str, optional
        "cuda", "cuda:1" or "cpu", as in `flds.Options`: runs go on that device of torch, one after the other.
    checkpoint : path, optional
        A file in which finished rounds are kept. The same call again, should the process end before it, goes on with
        the next one, and ``settings["continued_from_round"]`` says after which. The file is removed at the end.
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
        If the target was not met, the rounds took longer than the budget, depth or particles are too few for their
        error to be relied upon, or training ended early or could not be done as asked.

    References
    ----------
    L. F. Richardson, "The deferred approach to the limit", Phil. Trans. R. Soc. A 226 (1927).
    D. Talay, L. Tubaro, "Expansion of the global error for numerical schemes solving stochastic differential
    equations", Stoch. Anal. Appl. 8 (1990).
    """
    device = check_device(device, threads=threads)
    if target_error is not None:
        target_error = checks.positive_number("target_error", target_error)
    if budget_seconds is not None:
        budget_seconds = checks.positive_number("budget_seconds", budget_seconds)
    elif target_error is None:
        budget_seconds = _BUDGET_SECONDS
    options: Options = {
        "backward_weights": backward_weights,
        "seed": seed,
        **({"threads": 1} if device is None else {"device": device}),
        "record_every": record_every,
        "recorded_samples": recorded_samples,
    }
    search = _Search(
        problem,
        options,
        checks.positive_integer("replicates", replicates, smallest=2),
        1 if device else thread_count(threads),
        target_error,
        budget_seconds,
        progress,
    )
    sizes = _PARTICLES if particles is None else particles, _DEPTH if depth is None else depth
    asked = {name: value for name, value in options.items() if name not in ("threads", "device", "recorded_samples")}
    asked |= {"recorded_samples": np.array(recorded_samples).tolist(), "sizes": list(sizes)}
    asked |= {"replicates": search.replicates, "target_error": target_error, "budget_seconds": budget_seconds}
    kept = Checkpoint(checkpoint)
    with kept.opened(partial(described, problem, **asked)):
        search.run(*sizes, kept)
        if search.status != "interrupted":
            kept.remove()
    for note in search.warned:
        warnings.warn(note, RuntimeWarning, stacklevel=2)
    found: dict[str, Any] = {"continued_from_round": search.continued} if search.continued else {}
    found |= {"target_error": target_error, "budget_seconds": budget_seconds}
    found |= {"replicates": search.replicates, "threads": search.threads}
    return assemble(problem, search.reported, search.rounds, found, search.status, search.timings, search.notes)


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
    modelled: list[float] = field(default_factory=list)  # seconds of each round, as the cost model has them
    expected: float = math.inf  # seconds of the last round, as those before it had let expect
    timings: dict[str, float] = field(default_factory=dict)
    continued: int = 0  # rounds of an earlier process

    def run(self, particles: int, depth: int, checkpoint: Checkpoint | None = None) -> None:
        """Run rounds until one of them is good enough or the next one would be too large."""
        checkpoint = checkpoint or Checkpoint()
        earlier = past(checkpoint)
        plan: Plan | None = plan_round(self.problem, particles, depth, self.options)
        assert plan is not None
        first = plan.whole[0][0]
        self.timings["compile"] = 0.0 if first.device else compile_kernels(first.numpy_dtype)
        start = time.perf_counter()
        if earlier is not None:
            self.rounds, _, self.modelled, self.expected, seconds = earlier
            self.continued, start = len(self.rounds), start - seconds
            plan = None if earlier.sizes is None else plan_round(self.problem, *earlier.sizes, self.options)
        try:
            while plan is not None:
                self.rounds.append(self._run_round(plan))
                self.timings["solve"] = time.perf_counter() - start
                plan = self._next_plan()
                sizes = None if plan is None else (plan.whole[0][0].particles, 2 * plan.whole[-1][0].depth)
                keep(checkpoint, Past(self.rounds, sizes, self.modelled, self.expected, self.timings["solve"]))
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

    def _run_round(self, plan: Plan) -> Round:
        require_memory(plan.memory(self.problem, self.replicates), "lower replicates, or take fewer steps or records")
        self.modelled.append(plan.seconds(self.threads))
        first = len(self.rounds) * self.replicates  # fresh seeds, or the choice of sizes would bias the result
        seeds = [replicate_seed(plan.whole[0][0].seed, first + replicate) for replicate in range(self.replicates)]
        return run_round(self.problem, plan, seeds, self.threads, self.progress)

    def _next_plan(self) -> Plan | None:
        """Return what the next round is to run, or None if there is to be none."""
        last = self.rounds[-1]
        if last.status != "completed" or not last.estimate.size:
            return None
        if self.target is not None and last.widest <= self.target:
            return None
        if last.widest <= _ROUNDING[last.settings.dtype] * max(1.0, float(np.abs(last.estimate).max())):
            return None
        # over all outputs, noise taken off: the largest of many would be noise
        squares = np.mean(last.depth_differences**2 - last.depth_noise**2, axis=(1, 2, 3))
        bias = math.sqrt(max(0.0, float(squares.max())))
        spread = math.sqrt(float(np.mean(last.statistical**2)))
        chosen = None
        for deeper in (1, 2, 4):
            more = self._affordable(deeper)
            if more is None:
                break
            if self.target is not None:
                more = min(more, self._needed(last, deeper))
            chosen = self._sizes(more, deeper)
            if bias / deeper**2 <= _DEPTH_SHARE * spread / math.sqrt(more):
                break
        if chosen is None:
            self.notes.append(f"stopped after round {len(self.rounds)}: a larger one would exceed budget_seconds")
            return None
        plan = plan_round(self.problem, *chosen, self.options)
        self.expected = self._seconds(plan)
        return plan

    def _sizes(self, more: float, deeper: int) -> tuple[int, int]:
        """Return N and L for so many times more particles, and layers."""
        return math.ceil(self.rounds[-1].particles * max(1.0, more)), self.rounds[-1].depth * deeper

    def _affordable(self, deeper: int) -> float | None:
        """Return how many times more particles the next round can have, at a depth so many times larger.

        None if it would end too late with as many as it needs to be worth its time.
        """
        least, most = max(1.0, _LEAST_GROWTH / deeper), _MOST_GROWTH / deeper
        if self.budget is None:
            return most
        left = min(_PLANNED * (self.budget - self.timings["solve"]), _MOST_SLOWER * self.rounds[-1].seconds)

        def fits(more: float) -> bool:
            return self._seconds(plan_round(self.problem, *self._sizes(more, deeper), self.options)) <= left

        if not fits(least):
            return None
        for _ in range(_HALVINGS):
            middle = math.sqrt(least * most)
            least, most = (middle, most) if fits(middle) else (least, middle)
        return least

    def _needed(self, last: Round, deeper: int) -> float:
        """Return how many times more particles bring the half width to the target, at a depth so many times larger.

        The statistical error falls like the root of it, and the particle error like itself.
        """
        assert self.target is not None
        left = max(_AIM * self.target - float(last.depth_error.max()) / deeper**2, _AIM * self.target / 2)
        noise, bias = float(last.statistical.max()), float(last.particle_error.max())
        return ((noise + math.sqrt(noise**2 + 4 * bias * left)) / (2 * left)) ** 2

    def _seconds(self, plan: Plan) -> float:
        """Return the seconds that a round will take: those of the last, times the ratio that the cost model gives.

        What the model missed between the last two rounds, as a power of its own ratio, it is expected to miss again.
        """
        modelled = [*self.modelled, plan.seconds(self.threads)]
        ratio, power = modelled[-1] / modelled[-2], 1.0
        if len(self.rounds) > 1 and modelled[-2] > modelled[-3]:
            seen = self.rounds[-1].seconds / self.rounds[-2].seconds
            power = math.log(seen) / math.log(modelled[-2] / modelled[-3])
        return self.rounds[-1].seconds * ratio ** min(max(power, _LEAST_POWER), _MOST_POWER)

    def _conclude(self) -> None:
        """Settle the status, and what a user should be told or warned of."""
        last = self.rounds[-1]
        if self.status == "completed":
            self.status = last.status
        self.warned += last.notes
        if self.budget is not None and self.status != "interrupted" and self.timings["solve"] > self.budget:
            self.warned.append(self._overrun())
        widest = self.reported.widest
        if self.target is not None and self.status == "completed" and widest > self.target:
            seconds = self.timings["solve"] + self.reported.seconds * (widest / (_AIM * self.target)) ** 2
            self.warned.append(
                f"the largest half width is {widest:.2g}, above target_error {self.target:g}; "
                f"budget_seconds of about {seconds:.1g} would do"
            )
        reported = self.reported
        self._judge_particles(reported)
        off = float(reported.depth_error.max(initial=0.0))
        scale = float(np.abs(reported.estimate).max(initial=0.0))
        if off > max(_TRUSTED * scale, float(reported.statistical.max(initial=0.0))):
            self.warned.append(
                f"the depth error {off:.2g} is not small against outputs of {scale:.2g}: depth {reported.depth} is too "
                "small for the intervals to be relied upon; raise depth or budget_seconds"
            )
        self.notes += self.warned

    def _judge_particles(self, reported: Round) -> None:
        """Note where the error of finitely many particles was not taken off, or makes most of the half width."""
        if not reported.coupled:
            self.notes.append(
                f"what {reported.particles} particles are off by could not be told from chance here, so it is not "
                "taken off: the intervals are wider by particle_error instead"
            )
        off = float(reported.particle_error.max(initial=0.0))
        if off > float(reported.statistical.max(initial=0.0)):
            self.notes.append(
                f"the particle error {off:.2g} exceeds the statistical one: {reported.particles} particles are few for "
                f"{self.replicates} replicates, and more would narrow the intervals most"
            )

    def _overrun(self) -> str:
        """Say by how much the budget was exceeded, and by which round."""
        seconds, total, count = self.rounds[-1].seconds, self.timings["solve"], len(self.rounds)
        if count == 1:
            return (
                f"the first round took {seconds:.2g} s, longer than budget_seconds {self.budget:g}; "
                "give it more, or lower particles or depth"
            )
        return (
            f"round {count} took {seconds:.3g} s where {self.expected:.3g} s were expected, so all {count} took "
            f"{total:.3g} s, longer than budget_seconds {self.budget:g}"
        )
