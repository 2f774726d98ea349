"""The rounds of an estimate of the limit, and the decision how large the next one is."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import numpy as np

from flds.limit.extrapolation import Plan, Round, plan_round, run_round
from flds.limit.kept import Past, keep, past
from flds.limit.populations import Population, Sizes, aim
from flds.training.options import Options
from flds.training.problem import TrainingProblem
from solvers.ensemble.random import replicate_seed
from solvers.ensemble.threads import compile_kernels
from solvers.memory import require_memory
from solvers.results.checkpoint import Checkpoint

# A round that is this much larger than the last one is worth its time; one much larger is not well predicted, which
# matters where there is a budget.
_LEAST_GROWTH, _MOST_GROWTH, _MOST_FREE_GROWTH = 1.5, 8.0, 100.0
# Share of the time left that the next round is planned to take, and how many times longer than the last one. The cost
# model was found right to 30 % in the ratio of two rounds of one kind, but short by 1.8 from matrices that are held to
# bases, or to larger ones; the round after knows better.
_PLANNED, _MOST_SLOWER = 0.8, 4.0
# The number of particles that fits in it is found to 8^(1/2^5), 7 %.
_HALVINGS = 5
# Powers of the model's ratio that are believed. Fixed costs, and noise in short times, make smaller ones.
_LEAST_POWER, _MOST_POWER = 1.0, 1.5
# The depth error, which falls like 1/L², and the statistical one, like sqrt(L) at equal time, have the smallest sum
# where the first is this share of the second.
_DEPTH_SHARE = 0.25
# A depth error above this share of the outputs was not extrapolated from an expansion that holds there.
_TRUSTED = 0.05
# Times that a half width is thought to be narrowed at most.
_FARTHEST = 1e9
# Nothing is left to narrow.
_ROUNDING = {"float64": 1e-12, "float32": 1e-6}
# Times the depth of the last round that the next one may have.
_DEEPER = (1, 2, 4, 8)


@dataclass
class Search:
    """Rounds, and the decision how large the next one is."""

    problem: TrainingProblem
    options: Options
    population: Population
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

    def run(self, sizes: Sizes, checkpoint: Checkpoint | None = None) -> None:
        """Run rounds, the first of these sizes, until one is good enough or the next one would be too large."""
        checkpoint = checkpoint or Checkpoint()
        earlier = past(checkpoint)
        plan: Plan | None = self._plan(sizes)
        assert plan is not None
        first = plan.whole[0][0]
        self.timings["compile"] = 0.0 if first.device else compile_kernels(first.numpy_dtype)
        start = time.perf_counter()
        if earlier is not None:
            self.rounds, _, self.modelled, self.expected, seconds = earlier
            self.continued, start = len(self.rounds), start - seconds
            self.timings["solve"] = seconds
            # without sizes it had ended, perhaps by a smaller budget
            plan = self._next_plan() if earlier.sizes is None else self._plan(Sizes(*earlier.sizes))
        try:
            while plan is not None:
                self.rounds.append(self._run_round(plan))
                self.timings["solve"] = time.perf_counter() - start
                plan = self._next_plan()
                after = None if plan is None else tuple(plan.sizes)
                keep(checkpoint, Past(self.rounds, after, self.modelled, self.expected, self.timings["solve"]))
        except (MemoryError, ValueError) as error:  # a round that does not fit, or that noise takes days to draw for
            if not self.rounds:
                raise
            self.notes.append(f"stopped after round {len(self.rounds)}: {error}")
        except KeyboardInterrupt:
            if not self.rounds:
                raise
            self.status = "interrupted"
            self.warned.append(f"interrupted in round {len(self.rounds) + 1}; round {len(self.rounds)} is reported")
        self.timings["solve"] = time.perf_counter() - start
        self._conclude(", with which the same call goes on from its checkpoint" if checkpoint.path else "")

    @property
    def missed(self) -> bool:
        """Whether all rounds have ended well, and short of the target."""
        return self.target is not None and self.status == "completed" and self.reported.widest > self.target

    @property
    def reported(self) -> Round:
        """The last round; but one that ran out of rank says less than the one before it."""
        last = self.rounds[-1]
        return self.rounds[-2] if last.status == "rank_budget" and len(self.rounds) > 1 else last

    def _run_round(self, plan: Plan) -> Round:
        require_memory(plan.memory(self.problem), "lower replicates, or take fewer steps or records")
        self.modelled.append(plan.seconds(self.threads))
        first = sum(len(one.seeds) for one in self.rounds)  # fresh seeds, or the choice of sizes would bias the result
        seeds = [replicate_seed(plan.whole[0][0].seed, first + replicate) for replicate in range(plan.replicates)]
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
        chosen = self._enough(last, self.target) if self.target is not None else None
        if chosen is None or (self.budget is not None and self._expected(chosen) > self._left):
            chosen = self._best_affordable(last)
        if chosen is None:
            self.notes.append(f"stopped after round {len(self.rounds)}: a larger one would exceed budget_seconds")
            return None
        plan = self._plan(chosen)
        self.expected = self._seconds(plan)
        return plan

    def _enough(self, last: Round, target: float) -> Sizes | None:
        """Return the sizes that should meet the target in the least time, or a part of them, if they are many."""
        candidates = []
        for deeper in _DEEPER:
            off = last.depth_doubt / deeper**2
            if off > target / 2 and deeper < _DEEPER[-1]:
                continue
            left = max(target - off, target / 2)
            for sizes in self.population.enough(last.spread, left):
                candidates.append(sizes._replace(depth=deeper * last.depth))
        if not candidates:  # the bias of so few particles is far above the target
            return self.population.grown(last.spread, _MOST_GROWTH)
        best = min(candidates, key=self._expected)
        most = _MOST_FREE_GROWTH * last.sizes.work
        if best.work <= most:
            return best
        more = max(1.0, most / last.sizes.work / (best.depth / last.depth))
        return self.population.grown(last.spread, more)._replace(depth=best.depth)

    def _best_affordable(self, last: Round) -> Sizes | None:
        """Return the sizes that narrow the intervals most in the time that is left, or None if none are worth it."""
        # over all outputs, noise taken off: the largest of many would be noise
        squares = np.mean(last.depth_differences**2 - last.depth_noise**2, axis=(1, 2, 3))
        bias = math.sqrt(max(0.0, float(squares.max())))
        spread = math.sqrt(float(np.mean(last.statistical**2)))
        chosen = None
        for deeper in _DEEPER[:-1]:
            more = self._affordable(deeper)
            if more is None:
                break
            chosen = self._grown(more, deeper)
            if bias / deeper**2 <= _DEPTH_SHARE * spread / math.sqrt(more):
                break
        return chosen

    def _grown(self, more: float, deeper: int) -> Sizes:
        last = self.rounds[-1]
        return self.population.grown(last.spread, max(1.0, more))._replace(depth=deeper * last.depth)

    def _affordable(self, deeper: int) -> float | None:
        """Return how many times larger the next round can be, at a depth so many times larger.

        None if it would end too late when it is as large as it needs to be worth its time.
        """
        least, most = max(1.0, _LEAST_GROWTH / deeper), _MOST_GROWTH / deeper
        if self.budget is None:
            return most
        if self._expected(self._grown(least, deeper)) > self._left:
            return None
        for _ in range(_HALVINGS):
            middle = math.sqrt(least * most)
            fits = self._expected(self._grown(middle, deeper)) <= self._left
            least, most = (middle, most) if fits else (least, middle)
        return least

    @property
    def _left(self) -> float:
        """Seconds that the next round may be planned to take."""
        assert self.budget is not None
        return min(_PLANNED * (self.budget - self.timings["solve"]), _MOST_SLOWER * self.rounds[-1].seconds)

    def _plan(self, sizes: Sizes) -> Plan:
        return plan_round(self.problem, sizes, self.options, self.population)

    def _expected(self, sizes: Sizes) -> float:
        """Return the seconds that a round of these sizes will take, without end if it cannot be made."""
        try:
            return self._seconds(self._plan(sizes))
        except (MemoryError, ValueError):
            return math.inf

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

    def _conclude(self, goes_on: str) -> None:
        """Settle the status, and what a user should be told or warned of."""
        last = self.rounds[-1]
        if self.status == "completed":
            self.status = last.status
        self.warned += last.notes
        if self.budget is not None and self.status != "interrupted" and self.timings["solve"] > self.budget:
            self.warned.append(self._overrun())
        widest = self.reported.widest
        if self.missed:
            assert self.target is not None
            narrower = min(widest / (aim(len(self.reported.seeds)) * self.target), _FARTHEST)
            seconds = self.timings["solve"] + self.reported.seconds * narrower**2
            self.warned.append(
                f"the largest half width is {widest:.2g}, above target_error {self.target:g}; "
                f"budget_seconds of about {seconds:.1g} would do{goes_on}"
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
        if reported.particles < self.population.least:
            self.warned.append(
                f"{reported.particles} {self.population.members} are too few for the intervals to be relied upon: take "
                f"{self.population.least} or more"
            )
        self.notes += self.warned

    def _judge_particles(self, reported: Round) -> None:
        """Note where the error of finitely many particles was not taken off, or makes most of the half width."""
        if not reported.coupled:
            self.notes.append(
                f"what {reported.particles} {self.population.members} are off by could not be told from chance here, "
                "so it is not taken off: the intervals are wider by particle_error instead"
            )
        off = float(reported.particle_error.max(initial=0.0))
        if off > float(reported.statistical.max(initial=0.0)):
            self.notes.append(
                f"the particle error {off:.2g} exceeds the statistical one: {reported.particles} "
                f"{self.population.members} are few for {len(reported.seeds)} replicates, and more would narrow the "
                "intervals most"
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
