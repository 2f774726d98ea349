"""The validation of paper H's solvers: it holds, and refutes solvers with a fault planted in them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

import flds
from flds.mean_ode import depth
from flds.mean_ode.network import MeanDynamics
from flds.mean_ode.update import Update
from validation import mean_ode
from validation.claims import Scale


def verdicts(section, scale="quick"):
    return {claim.name: claim.verdict for claim in section(Scale(scale))}


def test_exact_answers_hold():
    found = verdicts(mean_ode.mean_ode)
    assert len(found) >= 16
    assert set(found.values()) == {"confirmed"}


def test_theorems_are_not_refuted_at_small_sizes():
    found = [*mean_ode._theorem_2("Lipschitz", Scale("quick")), *mean_ode._theorem_3(Scale("quick"))]
    assert {claim.verdict for claim in found} == {"confirmed"}
    assert len(found) >= 12


def input_rate_without_dimension(monkeypatch):
    """η_u = min(1, α^-2) without D."""
    begin = Update.begin

    def wrong(self, step):
        begin(self, step)
        self.steps["u"] /= self.problem.dimension

    monkeypatch.setattr(Update, "begin", wrong)


def test_the_first_travel_is_known_exactly(monkeypatch):
    input_rate_without_dimension(monkeypatch)
    assert any(claim.verdict == "refuted" for claim in mean_ode._theorem_3(Scale("quick")))


def backward_sign(monkeypatch):
    descend = flds.TwoLayerPerceptron.descend

    def wrong(self, h, b, z, steps):
        return -descend(self, h, b, z, steps)

    monkeypatch.setattr(flds.TwoLayerPerceptron, "descend", wrong)


def missing_alpha(monkeypatch):
    monkeypatch.setattr(MeanDynamics, "factor", 1.0)


def one_layer_late(monkeypatch):
    """The backward equation meets the units of the node before."""
    total = MeanDynamics._total

    def wrong(self, work, node, h, *rest):
        return total(self, work, max(0, node - len(rest)), h, *rest)

    monkeypatch.setattr(MeanDynamics, "_total", wrong)


def wrong_weights(monkeypatch):
    monkeypatch.setattr(depth, "_CORRECT", {2: (1 / 2, 1 / 2), 3: (5 / 12, 6 / 12, -1 / 12)})


@pytest.mark.parametrize("plant", [backward_sign, missing_alpha, one_layer_late, wrong_weights])
def test_planted_faults_are_refuted(monkeypatch, plant):
    plant(monkeypatch)
    assert any(claim.verdict == "refuted" for claim in mean_ode.mean_ode(Scale("quick")))


def test_the_power_of_a_known_bias_is_found():
    generator, depths = np.random.default_rng(0), np.array([4, 8, 16, 32])
    away = generator.normal(scale=0.05, size=(4, 200, 3)) + 0.5 / depths[:, None, None]
    slope, error = mean_ode._bias_exponent(away, depths)
    assert 0.005 < error < 0.2
    assert abs(slope - 1) < 4 * error
    assert mean_ode._bias_exponent(away * 0 + generator.normal(size=away.shape), depths)[1] > 0.3
