"""How the sections on limits decide, on planted data."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")

from tests.conftest import MARGIN
from validation.coverage import Coverage, coverage, reference_limit
from validation.intervals import _covered, _not_too_wide
from validation.limits import _plateau, _towards
from validation.problems import one_sample
from validation.rates import CoupledErrors

DEPTHS, WIDTHS = (8, 16, 32, 64), (128, 256, 512)


def planted(constant, slope=2.0, particles=8.0, seeds=60, seed=0):
    """Outputs away from a limit by c + a/L + a²/L² + b/n, and noise of variance 3/n; (seeds, L, n, outputs)."""
    rng = np.random.default_rng(seed)
    x, y = 1 / np.array(DEPTHS)[:, None, None], 1 / np.array(WIDTHS)[None, :, None]
    mean = np.asarray(constant) + slope * x + slope**2 * x**2 + particles * y
    return mean + np.sqrt(3 * y) * rng.standard_normal((seeds, *np.broadcast_shapes(mean.shape)))


@pytest.mark.parametrize("constant", [[0.0, 0.0, 0.0], [0.2, -0.3, 0.1]])
def test_plateau_is_the_square_of_the_constants(constant):
    found = np.array([_plateau(planted(constant, seed=seed), np.array(DEPTHS), np.array(WIDTHS)) for seed in range(40)])
    exact = np.mean(np.square(constant))
    estimates, errors = found.T
    assert abs(estimates.mean() - exact) < MARGIN * estimates.std(ddof=1) / np.sqrt(40)
    # its standard error is known to 1/sqrt(2 · 40) from the spread, and changes with the sample
    assert 0.6 < np.mean(errors) / estimates.std(ddof=1) < 1.6


def verdicts(weights, limit, constant):
    gap = float(np.mean(np.square([0.5, -0.6, 0.4])))
    return [
        claim.verdict
        for claim in _towards(weights, limit, 1, planted(constant, seeds=200), DEPTHS, WIDTHS, gap, blur=0.0)
    ]


def test_pairs_of_networks_and_limits():
    same, apart = [0.0, 0.0, 0.0], [0.5, -0.6, 0.4]
    assert verdicts("tied", "tied", same) == ["confirmed"]
    assert verdicts("tied", "tied", apart) == ["refuted"]
    # of a mixed pair paper F claims that nothing is left, and this library that the gap is
    assert verdicts("tied", "independent", apart) == ["refuted", "confirmed"]
    assert verdicts("independent", "tied", apart) == ["confirmed"]
    assert verdicts("independent", "tied", same) == ["refuted"]


def covered(shares, runs=100, **options):
    rng = np.random.default_rng(0)
    contained = rng.random((runs, 1, len(shares))) < np.array(shares)
    ones = np.ones((1, len(shares)))
    return _covered("x", Coverage(runs, contained, ones, ones, ones, 0.01 * ones), **options).verdict


@pytest.mark.parametrize(
    ("runs", "half_width", "verdict"),
    [
        (100, 2.0, "confirmed"), (100, 8.0, "undecided"), (100, 20.0, "refuted"),
        (8, 2.0, "undecided"), (8, 1000.0, "refuted"),
    ],
)  # fmt: skip
def test_intervals_that_are_too_wide_are_refuted(runs, half_width, verdict):
    contained, ones = np.ones((runs, 1, 3), bool), np.ones((1, 3))
    assert _not_too_wide("x", Coverage(runs, contained, half_width * ones, ones, ones, ones)).verdict == verdict


def test_coverage_is_judged_by_the_worst_output():
    assert covered([0.95, 0.96, 0.97]) == "confirmed"
    assert covered([1.0, 1.0, 0.4]) == "refuted"
    assert covered([1.0, 1.0, 1.0]) == "confirmed"  # too wide, if anything, which another claim looks for
    assert covered([0.95, 0.96, 0.97], runs=16) == "undecided"
    assert covered([0.1, 0.9, 0.9], runs=16) == "refuted"


def test_nominal_coverage_may_be_exceeded_but_not_missed():
    assert covered([0.95, 1.0, 1.0], nominal=True) == covered([1.0, 1.0, 1.0], nominal=True) == "confirmed"
    assert covered([1.0, 1.0, 0.7], nominal=True) == "refuted"
    assert covered([0.95, 1.0, 1.0], runs=16, nominal=True) == "undecided"


@pytest.mark.parametrize("fault", [False, True])
def test_estimates_that_leave_the_particles_bias_are_refuted(fault, monkeypatch):
    """Outputs 1 + b/N + noise, as those of relu: the fault is that what halves of the particles show is not looked at.

    The noise of N particles is the mean of that of its halves.
    """
    particles, bias, spread = 500, -10.0, 0.8

    def train(problem, settings, seed, first, sign, gate):
        count = particles if fault else settings.particles
        noise = np.random.default_rng(seed).standard_normal(particles)
        noise = noise if fault else noise[first : first + count]
        outputs = np.full((1, 1), 1.0 + bias / count + spread * noise.mean())
        records = [SimpleNamespace(step=k, outputs=outputs, test_outputs=np.empty((0, 1))) for k in (0, 1)]
        return SimpleNamespace(settings=settings, records=records, status="completed", unmatched=False)

    monkeypatch.setattr("flds.limit.extrapolation._train_one", train)
    monkeypatch.setattr("validation.coverage._WORTH_PROCESSES", 1000)  # other processes would not see the plant
    reference = np.ones((2, 1)), np.full((2, 1), 1e-4)
    found = coverage(
        100, one_sample("relu"), reference=reference, budget_seconds=1e-3, particles=particles, depth=4, replicates=32
    )
    assert _covered("x", found, nominal=True).verdict == ("refuted" if fault else "confirmed")


def test_an_error_of_the_reference_is_added_unless_small():
    options = {"budget_seconds": 1e-3, "particles": 100, "depth": 2, "replicates": 2}
    problem = one_sample("identity")
    limit, error = reference_limit(problem, **options, seed=1)
    assert limit.shape == error.shape == (2, 1)
    far = coverage(4, problem, reference=(limit + 10.0, np.full_like(error, 1e-9)), **options)
    near = coverage(4, problem, reference=(limit + 10.0, np.full_like(error, 20.0)), **options)
    assert far.inside.max() == 0
    assert near.inside.min() == 4


def test_errors_in_depth_are_extrapolated_in_width():
    """An error A(L) + B(L)/n of networks of width n and N has the value A at infinite width."""
    depths, replicates = np.array([8, 16]), 3
    a, b = np.array([4.0, 1.0]), np.array([100.0, 50.0])
    in_depth = np.stack([a + b / n for n in (64, 256)], axis=-1)[None, None].repeat(replicates, axis=0)
    empty = {"h": np.ones((replicates, 1, 2, 1))}
    errors = CoupledErrors(depths, np.array([64]), (256, 32), np.array([0]), empty, {"h": in_depth}, empty)
    np.testing.assert_allclose(errors.depth_errors("h", 0), np.tile(a, (3, 1)))
    np.testing.assert_allclose(errors.depth_errors("h", 0, 64), np.tile(a + b / 64, (3, 1)))
