"""How far one step moves the features of two-layer branches: limit and dense networks, and growth with depth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.conftest import MARGIN

pytest.importorskip("torch")
from validation import two_layer
from validation.networks import threads_for
from validation.two_layer import LARGER, SCALINGS, dense_movement, limit_movement, movement_problem


@pytest.mark.parametrize("weights", ["tied", "independent"])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_networks_sampled_lazily_move_as_dense_ones(scaling, weights):
    """Twenty seeds of each kind at width 200, in single precision for the dense ones."""
    problem = movement_problem(scaling, 4)
    with threads_for(True):
        lazy = np.array([limit_movement(problem, 200, 4, weights, seed, "law") for seed in range(20)])
        dense = np.array([dense_movement(problem, 200, 4, weights, seed) for seed in range(20)])
    error = np.hypot(lazy.std(ddof=1), dense.std(ddof=1)) / 20**0.5
    assert abs(lazy.mean() - dense.mean()) < MARGIN * error


def test_a_larger_inner_rate_has_a_limit_with_independent_weights_alone():
    """From 4 to 64 layers features move twice as far with ordinary backpropagation, and as far with copies."""
    grown = {}
    for weights in ("tied", "independent"):
        few, many = (
            np.mean([limit_movement(movement_problem(LARGER, depth), 1000, depth, weights, s) for s in range(4)])
            for depth in (4, 64)
        )
        grown[weights] = math.sqrt(many / few)
    # 4 seeds leave 2 % in each: measured 2.16 and 1.05
    assert 1.9 < grown["tied"] < 2.4
    assert 0.9 < grown["independent"] < 1.2


def movements_of(shape, seeds=12, noise=0.01):
    """Squares of changes with this dependence on depth, and the depths."""
    depths = np.array([4, 16, 64, 128, 256, 512])
    chance = 1 + noise * np.random.default_rng(0).standard_normal((seeds, len(depths)))
    return tuple(depths), shape(depths) * chance


def test_a_growth_in_the_root_of_the_depth_is_told_from_others():
    some = np.array([16.0, 64, 256, 512])
    fit = two_layer.affine_in_root(some, 2 + 3 * np.sqrt(some)[None] + 0.5 * some, 2)
    np.testing.assert_allclose(fit, [[0.5], [1.0]], rtol=1e-9)
    depths, squares = movements_of(lambda depth: 0.2 + 0.09 * depth**0.5 + 0.012 * depth, noise=0.003)
    assert [claim.verdict for claim in two_layer._grows(squares, depths)] == ["confirmed"] * 3
    depths, squares = movements_of(lambda depth: 0.2 + 0.02 * depth, noise=0.003)
    assert [claim.verdict for claim in two_layer._grows(squares, depths)] != ["confirmed"] * 3
    for shape in (lambda depth: depth**1.5, lambda depth: depth**0.5 + np.sin(depth)):
        depths, squares = movements_of(shape, noise=0.003)
        assert "refuted" in [claim.verdict for claim in two_layer._grows(squares, depths)]


def test_a_change_that_goes_on_growing_is_refuted():
    depths, still = movements_of(lambda depth: np.full(len(depth), 0.2))
    _, growing = movements_of(lambda depth: 0.1 * depth**0.5)
    scaling = "s = √τ"
    assert [claim.verdict for claim in two_layer._settles(scaling, "tied", still, depths)] == ["confirmed"]
    assert [claim.verdict for claim in two_layer._settles(scaling, "tied", growing, depths)] == ["refuted"]
    verdicts = [claim.verdict for claim in two_layer._settles(LARGER, "tied", growing, depths)]
    assert verdicts == ["refuted", "confirmed"]  # the paper's and ours
    verdicts = [claim.verdict for claim in two_layer._settles(LARGER, "tied", still, depths)]
    assert verdicts == ["confirmed", "refuted"]


def test_dense_networks_that_move_otherwise_are_refuted():
    _, squares = movements_of(lambda depth: np.full(len(depth), 0.2))
    few = (4, 16)
    for factor, verdict in ((1.0, "confirmed"), (2.0, "refuted")):
        (claim,) = two_layer._agrees("x", squares[:, :2], factor * squares[::-1, 2:4], few, 1024)
        assert claim.verdict == verdict
