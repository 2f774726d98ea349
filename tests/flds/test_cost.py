"""The cost model: which operator, and estimates of the right size."""

from __future__ import annotations

import numpy as np
import pytest

import flds
from flds.training.footprint import lazy_footprint
from flds.training.options import checked
from flds.training.workload import Workload
from solvers.memory import available_memory
from tests.conftest import one_sample, three_samples


def test_auto_takes_the_lazy_operator_at_small_rank_and_the_dense_one_at_large():
    few = flds.estimate_cost(one_sample(steps=50), particles=5000, depth=8)
    assert few.operator == "lazy"
    many = flds.TrainingProblem(
        np.random.default_rng(0).standard_normal((500, 4)), np.ones(500), steps=100, batch_size=10
    )
    law = flds.estimate_cost(many, particles=600, depth=8, sampling="law")
    assert law.operator == "dense"
    assert "expected rank 600" in law.reason
    assert flds.estimate_cost(many, particles=600, depth=8, sampling="law", operator="lazy").operator == "lazy"


def test_costs_grow_with_the_work(steady_speed):
    def cost(**rest):
        return flds.estimate_cost(three_samples(steps=20), **({"particles": 4000, "depth": 8} | rest))

    for bigger in ({"particles": 16_000}, {"depth": 32}, {"replicates": 4}):
        assert cost(**bigger).seconds > 1.5 * cost().seconds
    assert cost(noise_depth=8 * 4000).seconds > 10 * cost().seconds
    assert cost(sampling="matched_all").seconds > cost(sampling="law").seconds
    dense = {"operator": "dense", "sampling": "law"}
    assert cost(record_kernels=True, **dense).memory > cost(**dense).memory
    assert cost(particles=16_000).memory > cost().memory
    assert cost(dtype="float64").memory > cost().memory
    assert "lazy operator" in str(cost())


def test_a_width_asks_for_the_cost_of_a_finite_network():
    options = {"depth": 4, "threads": 1}
    law = flds.estimate_cost(three_samples(), particles=4000, sampling="law", **options)
    network = flds.estimate_cost(three_samples(), width=4000, **options)
    assert (network.operator, network.rank, network.memory) == (law.operator, law.rank, law.memory)
    assert flds.estimate_cost(three_samples(), width=4000, sampling="law", **options).memory == law.memory


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"particles": 5, "width": 5}, "give particles for solve_flds or width for simulate_resnet, not both"),
        ({"width": 5, "sampling": "matched"}, "sampling must be \"law\" with a width, got 'matched'; leave it out"),
        ({"width": 0}, "width must be at least 1, got 0"),
    ],
)
def test_a_cost_is_of_one_solver(arguments, message):
    with pytest.raises(ValueError, match=message):
        flds.estimate_cost(three_samples(), **arguments)


def test_memory_formula_counts_the_bases():
    problem = one_sample(steps=9)
    load = Workload.of(problem, checked(problem, 10**6, 10, "law", {}))
    # four bases and images of rank 5 in ten layers, eight bytes each
    assert lazy_footprint(load, (5, 5)).host - lazy_footprint(load, (0, 0)).host >= 20 * 10 * 10**6 * 8
    assert load.visits == 10


def test_available_memory_is_positive():
    assert available_memory() > 0
