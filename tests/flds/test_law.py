"""Lazily sampled networks against dense ones: the same law, fluctuations included."""

from __future__ import annotations

import numpy as np
import pytest

import flds
from tests.conftest import MARGIN, three_samples
from tests.naive import dense_outputs

WIDTH, DEPTH, SEEDS = 64, 5, 2000


def compare(lazy, dense):
    """z-scores of means and variances of all outputs; variances by their fourth moments."""

    def error_of_variance(x):
        centred = (x - x.mean(0)) ** 2
        return centred.var(0) / len(x)

    means = (lazy.mean(0) - dense.mean(0)) / np.sqrt(lazy.var(0) / len(lazy) + dense.var(0) / len(dense))
    variances = (lazy.var(0) - dense.var(0)) / np.sqrt(error_of_variance(lazy) + error_of_variance(dense))
    return means, variances


@pytest.mark.parametrize(
    ("activation", "weights", "batch_size", "operator"),
    [
        ("tanh", "tied", None, "lazy"),
        ("gelu", "independent", 1, "lazy"),
        ("relu", "tied", 2, "lazy"),
        ("tanh", "independent", None, "dense"),
    ],
)
def test_width_64_networks_have_the_law_of_dense_ones(activation, weights, batch_size, operator):
    problem = three_samples(activation, steps=3, batch_size=batch_size)
    dense = np.concatenate([
        dense_outputs(problem, WIDTH, DEPTH, SEEDS // 4, weights, rng_seed=part)[..., 0] for part in range(4)
    ])  # fmt: skip
    lazy = flds.simulate_resnet(
        problem, width=WIDTH, depth=DEPTH, backward_weights=weights, replicates=SEEDS, operator=operator,
        tolerance=0.0, threads=1,
    ).replicate_outputs  # fmt: skip
    means, variances = compare(lazy, dense)
    assert np.abs(means).max() < MARGIN
    assert np.abs(variances).max() < MARGIN


def test_a_missing_projection_would_be_caught():
    """Dense networks with independent backward weights are told apart from tied lazy ones at these sizes."""
    problem = three_samples("tanh", steps=3)
    dense = dense_outputs(problem, WIDTH, DEPTH, 500, "independent")[..., 0]
    lazy = flds.simulate_resnet(
        problem, width=WIDTH, depth=DEPTH, replicates=500, operator="lazy", tolerance=0.0, threads=1
    ).replicate_outputs
    means, _ = compare(lazy, dense)
    assert np.abs(means).max() > 2 * MARGIN


def test_default_tolerance_changes_less_than_the_fluctuations():
    problem = three_samples("tanh", steps=6)
    exact = flds.simulate_resnet(problem, width=2000, depth=6, replicates=3, operator="lazy", tolerance=0.0)
    default = flds.simulate_resnet(problem, width=2000, depth=6, replicates=3, operator="lazy")
    spread = exact.replicate_outputs.std(axis=0, ddof=1).mean()
    assert np.abs(exact.replicate_outputs - default.replicate_outputs).max() < spread
    assert default.rank.sum() < exact.rank.sum()
