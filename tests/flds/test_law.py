"""Lazily sampled networks against dense ones: the same law, fluctuations included."""

from __future__ import annotations

import numpy as np
import pytest

import flds
from tests.conftest import MARGIN, three_samples
from tests.naive import dense_outputs

WIDTH, DEPTH = 64, 5
CASES = [
    ("tanh", "tied", None, "lazy"),
    ("gelu", "independent", 1, "lazy"),
    ("relu", "tied", 2, "lazy"),
    ("tanh", "independent", None, "dense"),
]


def compare(lazy, dense):
    """z-scores of means and variances of all outputs; variances by their fourth moments."""

    def error_of_variance(x):
        centred = (x - x.mean(0)) ** 2
        return centred.var(0) / len(x)

    means = (lazy.mean(0) - dense.mean(0)) / np.sqrt(lazy.var(0) / len(lazy) + dense.var(0) / len(dense))
    variances = (lazy.var(0) - dense.var(0)) / np.sqrt(error_of_variance(lazy) + error_of_variance(dense))
    return means, variances


def both(activation, weights, batch_size, operator, seeds, dense_weights=None):
    """Outputs of so many networks of both kinds, (seeds, records, samples) each."""
    problem = three_samples(activation, steps=3, batch_size=batch_size)
    parts = max(1, seeds // 500)  # all networks of a part are held at once
    dense = [
        dense_outputs(problem, WIDTH, DEPTH, seeds // parts, dense_weights or weights, rng_seed=part)[..., 0]
        for part in range(parts)
    ]
    lazy = flds.simulate_resnet(
        problem, width=WIDTH, depth=DEPTH, backward_weights=weights, replicates=seeds, operator=operator,
        tolerance=0.0, threads=1,
    ).replicate_outputs  # fmt: skip
    return lazy, np.concatenate(dense)


@pytest.mark.parametrize("seeds", [100, pytest.param(2000, marks=pytest.mark.slow)], ids=["few seeds", "many seeds"])
@pytest.mark.parametrize(("activation", "weights", "batch_size", "operator"), CASES)
def test_width_64_networks_have_the_law_of_dense_ones(activation, weights, batch_size, operator, seeds):
    means, variances = compare(*both(activation, weights, batch_size, operator, seeds))
    assert np.abs(means).max() < MARGIN
    assert np.abs(variances).max() < MARGIN


def test_a_missing_response_is_caught():
    """Dense networks with independent backward weights are told apart from tied lazy ones by a hundred seeds."""
    means, _ = compare(*both("tanh", "tied", None, "lazy", 100, dense_weights="independent"))
    assert np.abs(means).max() > 1.5 * MARGIN


def test_half_of_the_fluctuations_is_caught():
    """Outputs that scatter half as much about their mean are told apart by the variances of a hundred seeds."""
    lazy, dense = both("tanh", "independent", None, "dense", 100)
    _, variances = compare((lazy + lazy.mean(0)) / 2, dense)
    assert np.abs(variances).max() > MARGIN


def test_the_default_tolerance_drops_far_less_than_the_fluctuations():
    problem = three_samples("tanh", steps=25)
    exact = flds.simulate_resnet(problem, width=500, depth=4, replicates=3, operator="lazy", tolerance=0.0)
    default = flds.simulate_resnet(problem, width=500, depth=4, replicates=3, operator="lazy")
    spread = exact.replicate_outputs.std(axis=0, ddof=1).mean()
    assert np.abs(exact.replicate_outputs - default.replicate_outputs).max() < 0.01 * spread
    assert default.rank.sum() < exact.rank.sum()
    limit = flds.solve_flds(problem, particles=500, depth=4, sampling="matched", operator="lazy")
    assert limit.settings["tolerance"] == pytest.approx(100 * default.settings["tolerance"])
