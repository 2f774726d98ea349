"""What varies is an object: other homes of particles, optimisers and branches run the same training."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from flds.training.branches import BranchPull, SingleMatrix
from flds.training.method import decide
from flds.training.network import Network
from flds.training.optimizers import SGD, Gradient
from flds.training.train import train
from tests.conftest import three_samples
from tests.plain_particles import GuardedParticles, PlainParticles


def settings_of(problem, sampling="law", **options):
    return decide(problem, 150, 3, sampling, {"threads": 1, "keep_state": True, **options}).settings


@pytest.mark.parametrize("weights", ["tied", "independent"])
@pytest.mark.parametrize(("operator", "sampling"), [("lazy", "law"), ("lazy", "matched"), ("dense", "law")])
def test_a_plain_home_of_particles_trains_the_same_network(operator, sampling, weights):
    problem = three_samples(steps=4, batch_size=2, test_inputs=np.eye(5)[:2], test_targets=[0.0, 1.0])
    settings = settings_of(problem, sampling, operator=operator, backward_weights=weights, dtype="float64")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        threaded, plain = (
            train(Network(problem, settings, 3, ensemble=home)) for home in (None, PlainParticles(settings.particles))
        )
    for one, other in zip(threaded.records, plain.records, strict=True):
        # sums in another order: rounding, which directions divide by what they leave of a vector (1e-2 and more here)
        np.testing.assert_allclose(other.outputs, one.outputs, rtol=0, atol=1e-9)
        np.testing.assert_allclose(other.test_outputs, one.test_outputs, rtol=0, atol=1e-9)
        np.testing.assert_allclose(other.gradient_variance, one.gradient_variance, rtol=1e-9)
    assert plain.state.keys() == threaded.state.keys()


@pytest.mark.parametrize(("operator", "sampling"), [("lazy", "law"), ("lazy", "matched"), ("dense", "law")])
def test_nothing_looks_into_particles_outside_their_home(operator, sampling, classes):
    settings = settings_of(classes, sampling, operator=operator, record_kernels=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        network = Network(classes, settings, 3, ensemble=GuardedParticles(settings.particles))
        recorder = train(network)
        plain = train(Network(classes, settings, 3, ensemble=PlainParticles(settings.particles)))
    assert recorder.status == "completed"
    np.testing.assert_array_equal(recorder.records[-1].outputs, plain.records[-1].outputs)
    with pytest.raises(AssertionError, match="outside their home"):
        _ = network.readout[:, :10]
    with pytest.raises(AssertionError, match="outside their home"):
        _ = network.readout + 1


class Halved(SGD):
    """A rule of one's own: half of each step."""

    def step(self, gradient, state, rate):
        return super().step(gradient, state, 0.5 * rate)


@pytest.mark.parametrize("operator", ["lazy", "dense"])
def test_a_rule_of_ones_own_moves_all_parameters(operator):
    problem = three_samples(steps=3)
    settings = settings_of(problem, operator=operator, keep_state=False)
    halved = train(Network(replace(problem, optimizer=Halved()), settings, 0))
    slow = train(Network(replace(problem, learning_rate=0.25), settings, 0))
    for one, other in zip(halved.records, slow.records, strict=True):
        # rules of one's own see whole arrays, which are summed in another order
        np.testing.assert_allclose(one.outputs, other.outputs, rtol=0, atol=1e-12)


class Slower(SGD):
    """A rule that remembers: the k-th step of each parameter has the k-th part of the rate."""

    def init(self, parameter):
        return {"steps": np.array(0)}

    def step(self, gradient, state, rate):
        return super().step(gradient, {}, rate / (state["steps"] + 1))[0], {"steps": state["steps"] + 1}


@pytest.mark.parametrize("operator", ["lazy", "dense"])
def test_what_a_rule_remembers_comes_back_at_the_next_step(operator):
    problem = three_samples(steps=3)
    settings = settings_of(problem, operator=operator, keep_state=False)
    slower = train(Network(replace(problem, optimizer=Slower()), settings, 0))
    rates = train(Network(replace(problem, learning_rate=[0.5, 0.5 / 2, 0.5 / 3]), settings, 0))
    for one, other in zip(slower.records, rates.records, strict=True):
        np.testing.assert_allclose(one.outputs, other.outputs, rtol=0, atol=1e-12)


def test_gradients_are_multiplied_like_arrays():
    gradient = Gradient(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([0.5]), batch=2)
    whole = gradient.coefficients.T @ gradient.right
    for found, factor in ((2.0 * gradient, 2.0), (gradient * 3.0, 3.0), (-gradient, -1.0), (gradient / 4.0, 0.25)):
        np.testing.assert_allclose(found.coefficients.T @ found.right, factor * whole, rtol=1e-15)


class Doubled(SingleMatrix):
    """A branch of one's own: twice W φ(h)."""

    def forward(self, h, layer):
        image, tape = super().forward(h, layer)
        return 2 * image, tape

    def backward(self, g, h, tape, layer):
        pull = super().backward(g, h, tape, layer)
        return BranchPull(2 * pull.image, {"hidden": 2 * pull.gradients["hidden"]}, pull.slope)


@pytest.mark.parametrize("operator", ["lazy", "dense"])
def test_a_branch_of_ones_own_is_trained(operator):
    """Twice the branch is that of four times the horizon."""
    problem = three_samples(steps=3, horizon=0.5)
    settings = settings_of(problem, operator=operator)
    doubled = train(Network(replace(problem, residual=Doubled()), settings, 0))
    longer = train(Network(replace(problem, horizon=2.0), settings, 0))
    for one, other in zip(doubled.records, longer.records, strict=True):
        np.testing.assert_allclose(one.outputs, other.outputs, rtol=1e-12)
