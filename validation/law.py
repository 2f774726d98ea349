"""Whether lazily sampled networks have the law of dense ones: joint tests over all steps and samples.

They say what they can see: which fault they would refute.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.optimize import brentq
from scipy.stats import f as fisher
from scipy.stats import ncf, norm

import flds
from flds.training.options import BACKWARD_WEIGHTS as WEIGHTS
from validation.claims import MARGIN, Claim, Scale, Section
from validation.problems import three_samples

Array = NDArray[np.float64]

# Two-sided, of four standard errors; so many permutations that none of them comes up is as rare.
LEVEL = float(2 * norm.sf(MARGIN))
_PERMUTATIONS = 20_000
# How often a fault of the size stated is to be refuted.
_POWER = 0.9
# What a claim has to exclude to be confirmed: a mean off by so many standard deviations, a standard deviation wrong by
# such a factor, of any combination of the outputs.
_SHIFT, _FACTOR = 1.0, 3.0


def law(scale: Scale) -> Section:
    """Lazily sampled networks at the default tolerance against dense ones trained by torch: the joint law of outputs.

    Compared are means and covariances, over all steps and samples at once.
    Every case has seeds of its own. An input between its visits is not remembered by the lazy operator, so with single
    samples the losses of the batches are compared over all steps, and the outputs of the last one.
    """
    width, depth, seeds = scale.pick((256, 6, 240), (256, 12, 500))
    cases = scale.pick(
        (("tanh", None, "tied"), ("relu", 1, "independent")),
        tuple((a, b, w) for a in ("tanh", "gelu", "relu") for b in (None, 1) for w in WEIGHTS),
    )
    for index, (activation, batch_size, weights) in enumerate(cases):
        problem = three_samples(activation, batch_size)
        found = both_kinds(problem, width, depth, weights, range(index * seeds, (index + 1) * seeds))
        outputs, losses = (
            [np.array([getattr(run, name) for run in runs]) for runs in found] for name in ("outputs", "batch_loss")
        )
        name = f"{activation}, {'full batch' if batch_size is None else 'single samples'}, {weights}"
        size = f"width {width}, L = {depth}, {seeds} networks of each kind"
        if batch_size is None:
            yield same_law(f"{name}: f^(0) … f^({problem.steps}) of three samples, {size}", *outputs)
            continue
        yield same_law(f"{name}: losses at k = 0 … {problem.steps}, {size}", *losses)
        yield same_law(f"{name}: f^({problem.steps}) of three samples, {size}", *(f[:, -1] for f in outputs))


def both_kinds(
    problem: flds.TrainingProblem, width: int, depth: int, weights: str, seeds: Iterable[int], **options: Any
) -> tuple[list[flds.Solution], list[flds.Solution]]:
    """Train a lazily sampled network, with these options, and a dense one of torch, for every seed."""
    from validation import networks

    same: dict[str, Any] = {"width": width, "depth": depth, "backward_weights": weights}
    lazy, dense = [], []
    for seed in seeds:
        lazy.append(flds.simulate_resnet(problem, **same, seed=seed, operator="lazy", threads=1, **options))
        dense.append(networks.train(problem, **same, seed=seed))
    return lazy, dense


def law_of(name: str, rest: dict[str, Any], seeds: range, weights: str = "tied") -> Claim:
    """Compare outputs of small networks, lazily sampled at tolerance 0, with those of dense ones of torch.

    Parameters
    ----------
    name : str
        What is trained, for the claim.
    rest : dict
        Arguments of `TrainingProblem`, beside those of three samples.
    seeds : range
    weights : str
        "tied" or "independent".
    """
    problem, width, depth = replace(three_samples("tanh", None), **rest), 64, 4
    found = both_kinds(problem, width, depth, weights, seeds, tolerance=0.0)
    lazy, dense = (np.array([run.outputs for run in runs]) for runs in found)
    size = f"width {width}, L = {depth}, {len(seeds)} networks of each kind"
    return same_law(f"{name}: f^(0) … f^({problem.steps}) of three samples, {size}", lazy, dense)


class MeansTest(NamedTuple):
    """Hotelling's T² of two samples, its degrees of freedom, and the probability of a larger one."""

    statistic: float
    freedom: int
    p: float


class VariancesTest(NamedTuple):
    """Logarithms of the smallest and largest ratio of variances, how extreme they may be, and the probability."""

    lowest: float
    highest: float
    critical: float
    p: float


def same_law(name: str, a: Array, b: Array) -> Claim:
    """Claim that two samples of vectors, (seeds, …) each, have the same means and covariances.

    The means are compared by Hotelling's T², the covariances by the largest |logarithm| of the ratio of variances over
    all linear combinations. The measurement says which fault either would refute nine times in ten.
    """
    one, other = (x.reshape(len(x), -1) for x in (a, b))
    means, variances = compare_means(one, other), compare_variances(one, other)
    shift = smallest_shift(len(one), len(other), means.freedom)
    factor = smallest_factor(len(one), len(other), variances.critical)
    least = f"< {1 / _PERMUTATIONS:.0e}" if variances.p == 0 else f"= {variances.p:.2g}"
    measured = (
        f"T² = {means.statistic:.0f} on {means.freedom} degrees of freedom (p = {means.p:.2g}), logarithms of ratios "
        f"of variances {variances.lowest:.2f} to {variances.highest:.2f} (p {least}); nine times in ten a "
        f"mean off by {shift:.2g} standard deviations is refuted, and a standard deviation off by a factor "
        f"{factor:.2g}, of any combination"
    )
    needed, verdict = "", "confirmed"
    if min(means.p, variances.p) < LEVEL:
        verdict = "refuted"
    elif shift > _SHIFT or factor > _FACTOR:
        verdict, needed = "undecided", "more networks of both kinds would decide it"
    return Claim(name, measured, f"p above {LEVEL:.0e} for both", verdict, needed=needed)


def compare_means(a: Array, b: Array) -> MeansTest:
    """Hotelling's test that two samples, (seeds, m) each, have the same mean.

    References
    ----------
    T. W. Anderson, "An Introduction to Multivariate Statistical Analysis", 3rd ed. 2003, section 5.3.
    """
    (first, second), size = (len(a), len(b)), a.shape[1]
    rest = first + second - 2
    away = a.mean(0) - b.mean(0)
    pooled = ((first - 1) * _covariance(a) + (second - 1) * _covariance(b)) / rest
    statistic = first * second / (first + second) * float(away @ np.linalg.solve(pooled, away))
    freedom = rest - size + 1
    return MeansTest(statistic, size, float(fisher.sf(statistic * freedom / (rest * size), size, freedom)))


def compare_variances(a: Array, b: Array, seed: int = 0) -> VariancesTest:
    """Test that two samples, (seeds, m) each, have the same covariance, by permutation of what is left of the means.

    The statistic is the largest |log| of the generalised eigenvalues of the two covariances, which are the extreme
    ratios of variances over all combinations. Where no permutation reaches it, p is below one over their number.

    References
    ----------
    P. Good, "Permutation, Parametric, and Bootstrap Tests of Hypotheses", 3rd ed. 2005, chapter 3.
    """
    rows = np.concatenate([a - a.mean(0), b - b.mean(0)])
    whiten = np.linalg.inv(np.linalg.cholesky(_covariance(rows)))
    rows = rows @ whiten.T  # so that covariances of permutations are close to the identity
    count = len(a)
    found = _ratios(rows, count)
    generator, extremes = np.random.default_rng(seed), np.empty(_PERMUTATIONS)
    for index in range(_PERMUTATIONS):
        extremes[index] = np.abs(_ratios(rows[generator.permutation(len(rows))], count)).max()
    observed = np.abs(found).max()
    p = float(np.mean(extremes >= observed))
    return VariancesTest(float(found.min()), float(found.max()), float(np.quantile(extremes, 1 - LEVEL)), p)


def smallest_shift(first: int, second: int, size: int) -> float:
    """Return how many standard deviations the mean of a combination must be off to be refuted nine times in ten."""
    freedom = first + second - size - 1
    critical = fisher.isf(LEVEL, size, freedom)

    def missing(shift: float) -> float:
        centre = shift**2 * first * second / (first + second)
        return float(ncf.sf(critical, size, freedom, centre)) - _POWER

    return float(brentq(missing, 1e-3, 1e3 / np.sqrt(min(first, second)), xtol=1e-4))


def smallest_factor(first: int, second: int, critical: float) -> float:
    """Return by which factor the standard deviation of a combination must be off to be refuted nine times in ten.

    The logarithm of a ratio of variances of normal samples has variance 2/(n − 1) of each.
    """
    noise = np.sqrt(2 / (first - 1) + 2 / (second - 1))
    return float(np.exp((critical + norm.isf(1 - _POWER) * noise) / 2))


def _covariance(x: Array) -> Array:
    return np.atleast_2d(np.cov(x.T))


def _ratios(rows: Array, count: int) -> Array:
    """Logarithms of the generalised eigenvalues of the covariances of the first rows and of the others, ascending."""
    one, other = rows[:count], rows[count:]
    return np.asarray(np.log(eigh(one.T @ one / count, other.T @ other / (len(rows) - count), eigvals_only=True)))
