"""Whether `flds.estimate_limit` meets the target that it is given, on problems of every kind."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import flds
from solvers.processors import available_threads
from validation.claims import MARGIN, Claim, Scale, Section
from validation.problems import three_samples

Array = NDArray[np.float64]

# What the reference may be off by, in targets, without the runs being judged by it.
_FINE = 0.15


class Case(NamedTuple):
    """A problem, the target of its estimates, and one round of another kind or size for the reference."""

    problem: flds.TrainingProblem
    target: float
    reference: dict[str, Any]
    records: dict[str, Any] = {}  # noqa: RUF012  (a tuple's default, which nothing changes)


def batches(samples: int, batch: int, steps: int) -> flds.TrainingProblem:
    """Random inputs in 16 dimensions with a sign that is no linear function, in random batches; four test inputs."""
    rng = np.random.default_rng(1)
    x, tests = rng.standard_normal((samples, 16)), rng.standard_normal((4, 16))
    return flds.TrainingProblem(
        x,
        np.sign(x[:, 0] + 0.5 * x[:, 1] * x[:, 2]),
        activation="tanh",
        learning_rate=0.5,
        steps=steps,
        batch_size=batch,
        batch_order="random",
        test_inputs=tests,
        test_targets=np.ones(4),
    )


def three(activation: str, **options: Any) -> flds.TrainingProblem:
    """The three samples of other claims, trained otherwise."""
    base = three_samples(activation)
    return flds.TrainingProblem(base.x, base.y[:, 0], activation=activation, **options)


CASES: dict[str, Callable[[], Case]] = {
    "tanh": lambda: Case(three_samples("tanh"), 0.01, {"particles": 8_000, "depth": 8}),
    "relu": lambda: Case(three_samples("relu"), 0.02, {"particles": 16_000, "depth": 16}),
    "momentum": lambda: Case(
        three("tanh", learning_rate=0.2, steps=8, optimizer=flds.SGD(momentum=0.8)),
        0.02,
        {"particles": 8_000, "depth": 8},
    ),
    "two-layer branches": lambda: Case(
        three("relu", learning_rate=0.3, steps=6, residual="two_layer"), 0.02, {"particles": 8_000, "depth": 8}
    ),
    "batches of 8 of 64": lambda: Case(
        batches(64, 8, 12), 0.05, {"particles": 4_000, "depth": 8}, {"record_every": 12, "recorded_samples": 8}
    ),
    "batches of 16 of 512": lambda: Case(
        batches(512, 16, 24),
        0.05,
        {"particles": 2_500, "depth": 8, "operator": "lazy"},
        {"record_every": 24, "recorded_samples": 8},
    ),
}


def targets(scale: Scale) -> Section:
    """Estimates with a target: how often the largest error of all outputs and records is within it."""
    runs = scale.pick(4, 100)
    for name, case in list(CASES.items())[: scale.pick(1, len(CASES))]:
        yield met(name, case(), runs)


def met(name: str, case: Case, runs: int, seed: int = 0) -> Claim:
    """The share of runs whose largest error is within the target, and what they took."""
    from scipy.stats import binom, norm

    exact, doubt, _ = _estimate(case.problem, {"budget_seconds": 1e-3, **case.reference, **case.records}, 2**62)
    seeds = np.random.SeedSequence(seed).generate_state(runs, np.uint64) >> np.uint64(1)
    each = partial(_estimate, case.problem, {"target_error": case.target, "threads": 1, **case.records})
    with ProcessPoolExecutor(available_threads(), mp_context=get_context("spawn")) as pool:
        found = list(pool.map(each, map(int, seeds)))
    worst = np.array([np.abs(estimate - exact).max() for estimate, _, _ in found])
    wide = np.array([half.max() for _, half, _ in found])
    inside, claimed = int((worst <= case.target).sum()), int((wide <= case.target).sum())
    seconds = float(np.median([took for _, _, took in found]))
    fine = float(doubt.max()) / 1.96 <= _FINE * case.target
    measured = (
        f"{inside} of {runs} runs, {claimed} say so; median of the largest error {np.median(worst):.2g}, "
        f"of seconds on one thread {seconds:.2g}"
    )
    needed = ""
    if binom.cdf(inside, runs, 0.95) < norm.sf(MARGIN):
        verdict = "refuted"
    elif runs >= 100 and inside >= 0.95 * runs and fine:
        verdict = "confirmed"
    else:
        verdict, needed = "undecided", "100 runs or more would decide it" if fine else "the reference is too coarse"
    title = f"estimate_limit, {name}, target_error {case.target:g}: largest error of all outputs and records"
    return Claim(title, measured, "95 % of runs or more", verdict, estimate=inside / runs, needed=needed)


def _estimate(problem: flds.TrainingProblem, options: dict[str, Any], seed: int) -> tuple[Array, Array, float]:
    """Return outputs and half widths of one estimate, on training samples and test inputs, and its seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = flds.estimate_limit(problem, seed=seed, **options)

    def flat(name: str) -> Array:
        parts = [getattr(found, prefix + name) for prefix in ("", "test_") if prefix + name in found.variables]
        return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)

    return flat("outputs"), flat("outputs_half_width"), found.timings["solve"]
