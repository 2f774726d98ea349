"""The validation of optimisers: laws hold, and refute rules with a fault planted in them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from flds.training.optimizers.momentum import Momentum
from flds.training.parameters import Matrix, Vectors
from solvers.matrices.lazy import LazyOperator
from validation import law, optimizers

MOMENTUM, MIXED = "momentum", "Muon (Newton–Schulz), Adam on vectors"
DECAY = "Nesterov, decay, clipping"


pytestmark = pytest.mark.usefixtures("dense_once")


def verdict(name, seeds=range(100)):
    return law.law_of(name, optimizers.RULES[name], seeds).verdict


@pytest.mark.parametrize("name", [MOMENTUM, MIXED, DECAY])
def test_networks_have_the_law_of_dense_ones(name):
    assert verdict(name) != "refuted"


@pytest.mark.slow
@pytest.mark.parametrize("name", optimizers.RULES)
def test_two_thousand_networks_have_the_law_of_dense_ones(name):
    assert verdict(name, range(2000)) == "confirmed"


def averaging(monkeypatch):
    """buf ← μ buf + (1 − μ) G."""
    seen = Momentum.seen
    monkeypatch.setattr(
        Momentum, "seen", lambda self, gradient, state: seen(self, (1 - self.momentum) * gradient, state)
    )


def wide_adam(monkeypatch):
    """Adam's ε in units of the gradient of a width of one."""
    follow = Vectors.follow
    monkeypatch.setattr(Vectors, "follow", lambda self, gradient, rate: follow(
        self, gradient * (1 / self.ensemble.particles), rate))  # fmt: skip


def deep_muon(monkeypatch):
    """Steps of matrices without √τ."""
    add = Matrix.follow

    def wrong(self, gradient, rate):
        inside, self.inside = self.inside, 1.0
        add(self, gradient, rate)
        self.inside = inside

    monkeypatch.setattr(Matrix, "follow", wrong)


def lasting_noise(monkeypatch):
    """Decay that leaves what was sampled as it was."""
    whole = property(lambda self: 1.0, lambda self, value: None)
    monkeypatch.setattr(LazyOperator, "share", whole, raising=False)


@pytest.mark.parametrize(
    ("plant", "name"), [(averaging, MOMENTUM), (wide_adam, MIXED), (deep_muon, MIXED), (lasting_noise, DECAY)]
)
def test_planted_faults_are_refuted(plant, name, monkeypatch):
    plant(monkeypatch)
    assert verdict(name) == "refuted"


def test_units_follow_plain_numpy(monkeypatch):
    assert {claim.verdict for claim in optimizers._mean_ode()} == {"confirmed"}
    averaging(monkeypatch)
    assert [claim.verdict for claim in optimizers._mean_ode()] == ["refuted", "refuted", "confirmed"]


def test_outputs_that_go_on_growing_with_size_are_refuted():
    rng = np.random.default_rng(0)
    same = [1.0 + 0.02 * rng.standard_normal((24, 3)) for _ in range(3)]
    grown = [same[0], 2 * same[1], 4 * same[2]]
    for claim in (
        lambda name, found: optimizers._settled(name, found, 8),
        lambda name, found: optimizers._agree(name, found, (100, 1_000, 10_000)),
    ):
        assert claim("same", same).verdict == "confirmed"
        assert claim("grown", grown).verdict == "refuted"
