"""The intervals of `flds.estimate_limit`: how often they contain the limit, and how wide they are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

import flds
from validation.claims import MARGIN, Claim, Scale, Section, above, margin_of
from validation.coverage import Coverage, coverage, reference_limit
from validation.problems import one_sample, three_samples

Array = NDArray[np.float64]


def intervals(scale: Scale) -> Section:
    """The 95 % intervals of `flds.estimate_limit` contain the limit, and are not wider than they need to be.

    For the identity the limit is exact, for one round of given size and for a target with which rounds grow. For other
    activations it is an estimate with many more particles and other seeds, and each run is one round. Half widths are
    held against those that the spread of the estimates over runs would give.
    """
    runs = scale.pick(5, 100)
    one_round = {"budget_seconds": 1e-3} | scale.pick(
        {"particles": 500, "depth": 4, "replicates": 8}, {"particles": 1000, "depth": 8, "replicates": 16}
    )
    target = {"target_error": 0.01, "particles": 500, "depth": 8, "replicates": 8}
    three = three_samples("identity", steps=3)
    cases: tuple[tuple[str, flds.TrainingProblem, str, dict[str, Any]], ...] = (
        ("three samples, independent, one round", three, "independent", one_round),
        ("three samples, tied, half width 0.01", three, "tied", target),
    )
    for label, problem, weights, options in cases[: scale.pick(1, 2)]:
        found = coverage(runs, problem, weights, **options)
        yield _covered(f"identity, {label}: intervals that contain the limit, k = 1, 2, 3", found)
        yield _not_too_wide(f"identity, {label}", found)
    yield from _nonlinear_intervals(scale)


# One case of each activation, which is run twice as often.
_ONE_EACH = ("relu, one sample", "gelu, one sample", "sin, one sample", "tanh, three samples")


def interval_cases() -> dict[str, tuple[flds.TrainingProblem, dict[str, Any], dict[str, Any]]]:
    """Problems without an exact limit, the sizes of one round, and those of the estimate it is held against.

    Of relu and gelu with one sample the bias b/N is largest against the noise; relu is at the default sizes as well.
    """
    one: dict[str, Any] = {"particles": 32_000, "depth": 8, "replicates": 24}
    three: dict[str, Any] = {"particles": 16_000, "depth": 8}
    small = {"particles": 500, "depth": 4, "replicates": 8}
    relu = one_sample("relu", rate=0.4, steps=4)
    return {
        "relu, one sample": (relu, {**small, "replicates": 32}, one),
        "relu, default sizes": (relu, {"particles": 2000, "depth": 8, "replicates": 16}, one),
        "gelu, one sample": (one_sample("gelu", rate=0.4, steps=4), small, one),
        "sin, one sample": (one_sample("sin", rate=0.4, steps=4), small, one),
        "tanh, three samples": (three_samples("tanh"), small, three),
        "relu, batches of two": (three_samples("relu", batch_size=2), small, three),
        "tanh, 40 steps": (
            three_samples("tanh", steps=40),
            {"particles": 1000, "depth": 4, "replicates": 4},
            {"particles": 8000, "depth": 8},
        ),
    }


def _nonlinear_intervals(scale: Scale) -> Section:
    """Intervals of other activations; a quick look is at the first case alone, in few small rounds."""
    count = scale.pick(1, 7)
    quick: dict[str, Any] = scale.pick({"replicates": 8}, {})
    references: dict[int, tuple[Array, Array]] = {}
    for label, (problem, sizes, larger) in list(interval_cases().items())[:count]:
        larger, sizes = larger | quick | scale.pick({"particles": 8000}, {}), sizes | quick
        if id(problem) not in references:
            references[id(problem)] = reference_limit(problem, **larger)
        reference = references[id(problem)]
        runs = scale.pick(3, 200 if label in _ONE_EACH else 100)
        found = coverage(runs, problem, reference=reference, budget_seconds=1e-3, **sizes)
        size = "N = {particles}, L = {depth}, {replicates} replicates".format(**sizes)
        yield _covered(f"{label}, {size}: intervals that contain the limit, k ≥ 1", found, nominal=True)
        yield _not_too_wide(f"{label}, {size}", found)


def _covered(name: str, found: Coverage, nominal: bool = False) -> Claim:
    """Compare the shares of intervals that contain the limit with 90 %, or for single outputs with the nominal 95 %.

    The worst output must not be below the lower number beyond chance; the mean over outputs, which must not be below
    90 %, decides if there are 100 runs.
    """
    from scipy.stats import binom, norm

    least = 0.95 if nominal else 0.9
    share, worst = float(found.contained.mean()), int(found.inside.min())
    error = 100 * math.sqrt(share * (1 - share) / found.runs)  # outputs of one run are not independent
    measured = f"{100 * share:.1f} ± {error:.1f} % of {found.runs} runs"
    measured += f"; single outputs {worst} to {int(found.inside.max())} runs"
    blunt = bool(np.any(found.exact_error > 0.2 * found.half_width))
    chance = binom.cdf(worst, found.runs, least) * found.inside.size  # of so few, at the lower number, in any output
    needed = ""
    if chance < norm.sf(MARGIN):
        verdict = "refuted"
    elif found.runs >= 100 and share >= 0.9 and not blunt:
        verdict = "confirmed"
    else:
        verdict, needed = "undecided", "the limit is too coarse" if blunt else "100 runs or more would decide it"
    expected = f"90 % or more on average, and no single output below {100 * least:.0f} % beyond chance"
    return Claim(name, measured, expected, verdict, estimate=share, needed=needed)


# Intervals allow for depth and particles as well, and may be so many times as wide as chance alone would have them.
_WIDE = 4.0


def _not_too_wide(name: str, found: Coverage) -> Claim:
    """Half widths are below four times 1.96 standard deviations of the estimates over runs, mean over outputs."""
    ratio = float(np.mean(found.half_width / (1.96 * found.spread)))
    error = ratio / math.sqrt(2 * (found.runs - 1))  # of a standard deviation; outputs of a run go together
    below = above("", -math.log(ratio), error / ratio, -math.log(_WIDE), margin_of(found.runs))
    measured = f"{ratio:.2f} ± {error:.2f} times 1.96 standard deviations over {found.runs} runs"
    return Claim(f"{name}: half widths", measured, f"below {_WIDE:g} times", below.verdict, estimate=ratio, error=error,
                 needed=below.needed)  # fmt: skip
