"""The joint tests of a law: calibrated, as powerful as they say, and able to refute faults planted in the engine."""

from __future__ import annotations

import numpy as np
import pytest

import flds
from solvers.matrices import reveal
from tests.conftest import MARGIN
from validation import law, networks
from validation.problems import three_samples

torch = pytest.importorskip("torch")

WIDTH, DEPTH, SEEDS = 384, 6, 100


def samples(seeds, runs, size=5):
    rng = np.random.default_rng(seeds)
    mix = rng.standard_normal((size, size))  # far from independent
    return rng.standard_normal((runs, 2, seeds, size)) @ mix


def test_probabilities_are_uniform(monkeypatch):
    monkeypatch.setattr(law, "_PERMUTATIONS", 200)
    runs = 100
    found = np.array([
        (law.compare_means(a, b).p, law.compare_variances(a, b).p) for a, b in samples(40, runs)
    ])  # fmt: skip
    # of numbers that are uniform on (0, 1) the mean is ½, and a tenth are below 0.1
    assert np.all(np.abs(found.mean(0) - 0.5) < MARGIN * np.sqrt(1 / 12 / runs))
    assert np.all(np.abs((found < 0.1).mean(0) - 0.1) < MARGIN * np.sqrt(0.09 / runs))


def test_shifts_and_factors_stated_are_refuted_nine_times_in_ten(monkeypatch):
    monkeypatch.setattr(law, "_PERMUTATIONS", 200)
    monkeypatch.setattr(law, "LEVEL", 0.02)  # which so few permutations can reach
    seeds, runs = 100, 80
    shift = law.smallest_shift(seeds, seeds, 5)
    direction = np.linalg.qr(np.random.default_rng(0).standard_normal((5, 5)))[0][0]
    means, variances = [], []
    for a, b in samples(seeds, runs):
        root = np.linalg.cholesky(np.cov(np.concatenate([a, b]).T))
        means.append(law.compare_means(a + shift * root @ direction, b).p < 0.02)
        critical = law.compare_variances(a, b).critical
        factor = law.smallest_factor(seeds, seeds, critical)
        wider = np.eye(5) + (factor - 1) * np.outer(direction, direction)
        white = np.linalg.solve(root, a.T).T @ wider @ root.T
        variances.append(law.compare_variances(white, b).p < 0.02)
    error = np.sqrt(0.09 / runs)
    assert abs(np.mean(means) - 0.9) < MARGIN * error
    assert np.mean(variances) > 0.9 - MARGIN * error  # the largest of all ratios exceeds that of one direction


@pytest.fixture(scope="module")
def dense():
    """Outputs of dense networks at all steps, (seeds, steps · samples)."""
    return np.array(
        [networks.train(three_samples("tanh"), width=WIDTH, depth=DEPTH, seed=seed).outputs for seed in range(SEEDS)]
    )


def lazy(**options):
    problem = three_samples("tanh")
    return flds.simulate_resnet(
        problem, width=WIDTH, depth=DEPTH, replicates=SEEDS, operator="lazy", threads=1, **options
    ).replicate_outputs


def weak_response(response, overlap):
    """Nine tenths of the response."""
    return 0.9 * response - overlap


def test_the_law_is_that_of_dense_networks(dense):
    claim = law.same_law("x", lazy(), dense)
    assert claim.verdict != "refuted"
    assert "nine times in ten" in claim.measured


def test_a_response_wrong_by_a_tenth_is_refuted(dense, monkeypatch):
    monkeypatch.setattr(reveal, "shift", weak_response)
    assert law.same_law("x", lazy(), dense).verdict == "refuted"


def test_the_tolerance_of_the_limit_is_refuted(dense):
    assert law.same_law("x", lazy(tolerance=0.05 / np.sqrt(WIDTH)), dense).verdict == "refuted"


def test_few_networks_decide_nothing():
    rng = np.random.default_rng(1)
    claim = law.same_law("x", *rng.standard_normal((2, 20, 5)))
    assert claim.verdict == "undecided"
    assert claim.needed
