"""The validation of residual branches: claims hold, and refute branches with a fault planted in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

import flds
from flds.training.network import Network
from validation import law, residual_branches
from validation.claims import Scale
from validation.problems import three_samples

QUICK = Scale("quick")
WIDE, COMPLETE = "two layers, RMSNorm, bias, hidden ratio 4", "one matrix, exponent 1"


pytestmark = pytest.mark.usefixtures("dense_once")


def verdict(name, seeds=range(100)):
    rest, weights = residual_branches.BRANCHES[name]
    return law.law_of(name, rest, seeds, weights).verdict


@pytest.mark.parametrize("name", [WIDE, COMPLETE])
def test_networks_have_the_law_of_dense_ones(name):
    assert verdict(name) != "refuted"


@pytest.mark.slow
@pytest.mark.parametrize("name", residual_branches.BRANCHES)
def test_two_thousand_networks_have_the_law_of_dense_ones(name):
    assert verdict(name, range(2000)) == "confirmed"


def square_matrices(monkeypatch):
    """Gradients of matrices of any shape, as if they were square."""
    monkeypatch.setattr(Network, "shape", lambda self, matrix: 1.0)


def deep_rates(monkeypatch):
    """Rates of exponent 1 that do not grow with the depth."""
    make = Network.__init__

    def wrong(self, problem, settings, *rest, **named):
        make(self, problem, settings, *rest, **named)
        self.inside = (problem.horizon / settings.depth) ** 0.5

    monkeypatch.setattr(Network, "__init__", wrong)


@pytest.mark.parametrize(("plant", "name"), [(square_matrices, WIDE), (deep_rates, COMPLETE)])
def test_planted_faults_are_refuted(plant, name, monkeypatch):
    plant(monkeypatch)
    assert verdict(name) == "refuted"


def test_the_exponent_1_has_its_closed_forms(monkeypatch):
    assert {claim.verdict for claim in residual_branches._closed_forms(QUICK)} == {"confirmed"}
    deep_rates(monkeypatch)
    assert {claim.verdict for claim in residual_branches._closed_forms(QUICK)} == {"refuted"}


def test_two_layers_with_exponent_1_are_the_mean_ode():
    """Sixteen dimensions, whose outputs are off by 0.005 at most, as is the depth; other weights are 0.1 away."""
    rates = {"input": 0.0, "readout": 0.0, "inner": 0.5, "outer": 0.5}
    problem = replace(
        three_samples("tanh", steps=4), residual="two_layer", hidden_ratio=4.0, branch_exponent=1.0, learning_rate=rates
    )
    ends = np.array([residual_branches._mean_ode_outputs(problem, 16, 256, seed) for seed in range(8)])
    limit, other = (
        flds.solve_flds(problem, particles=1000, depth=32, replicates=2, backward_weights=w).outputs[-1]
        for w in ("tied", "independent")
    )
    error = 4 * ends.std(axis=0, ddof=1).max() / 8**0.5
    assert error < 0.02
    assert np.abs(ends.mean(axis=0) - limit).max() < 0.01 + error
    assert np.abs(ends.mean(axis=0) - other).max() > 0.1
