"""Narrow dense networks: their passes against those of any network, orthonormal U and v, signs and halves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import flds
from flds.training.method import decide
from flds.training.narrow import NarrowPasses
from flds.training.network import Network
from solvers.ensemble.random import Address, Stream
from tests.conftest import three_samples

DENSE = {"operator": "dense", "threads": 1}


def network_of(problem, width=40, sampling="matched", seed=3, first=0, sign=1.0, **options):
    settings = decide(problem, width, 3, sampling, {**DENSE, **options}).settings
    return Network(problem, settings, seed, first, sign)


@pytest.mark.parametrize("weights", ["tied", "independent"])
@pytest.mark.parametrize(("loss", "activation", "batch"), [
    ("squared", "tanh", None), ("squared", "relu", 2), ("cross_entropy", "gelu", 3),
])  # fmt: skip
def test_passes_are_those_of_any_network(weights, loss, activation, batch, monkeypatch):
    """To rounding: products are the same sums, in another order."""
    rng = np.random.default_rng(0)
    problem = flds.TrainingProblem(
        rng.standard_normal((5, 4)),
        rng.standard_normal((5, 1)) if loss == "squared" else np.array([0, 1, 2, 1, 0]),
        activation=activation,
        loss=loss,
        learning_rate=0.5,
        steps=4,
        batch_size=batch,
        test_inputs=rng.standard_normal((2, 4)),
        test_targets=np.zeros((2, 1)) if loss == "squared" else np.array([0, 2]),
    )
    options = {"depth": 3, "dtype": "float64", "backward_weights": weights, "record_kernels": True, **DENSE}
    narrow = flds.simulate_resnet(problem, width=40, **options)
    used = []
    monkeypatch.setattr(NarrowPasses, "of", lambda *network: used.append(network))
    plain = flds.simulate_resnet(problem, width=40, **options)
    assert used
    for name, item in plain.variables.items():
        np.testing.assert_allclose(narrow.variables[name].values, item.values, rtol=1e-10, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("slopes", [[0.0, 1.0, -2.0], [0.0, 0.0, 0.0]])
def test_samples_without_a_slope_have_no_gradient(slopes):
    """L' is 0 for a sample that is met exactly, and then there may be no sample at all."""
    problem, after = three_samples(), []
    for narrow in (True, False):
        network = network_of(problem, dtype="float64")
        network.initialise()
        assert network.narrow is not None
        if not narrow:
            network.narrow = None
        address = Address(Stream.FORWARD, 0, (0, 1, 2))
        forward = network.forward(problem.x, address)
        backward = network.backward(forward, np.array(slopes)[:, None], 0)
        assert len(backward.active) == np.count_nonzero(slopes)
        network.update(problem.x, np.array(slopes)[:, None], forward, backward, 0)
        after.append(network.forward(problem.x, address).outputs)
    np.testing.assert_allclose(after[0], after[1], rtol=1e-12)
    assert np.allclose(after[0], forward.outputs) == (not any(slopes))


def test_input_weights_and_readouts_are_orthonormal():
    network = network_of(three_samples(), dtype="float64")
    network.initialise()
    both = np.concatenate([network.readout, network.input_weights])
    np.testing.assert_allclose(both @ both.T / 40, np.eye(len(both)), atol=1e-12)
    law = network_of(three_samples(), sampling="law", dtype="float64")
    law.initialise()
    assert not np.allclose(law.readout, network.readout)
    # without room for it they are drawn as those of a network
    assert decide(three_samples(), 11, 3, "matched", {**DENSE}).settings.sampling == "law"


def test_the_other_sign_is_of_the_matrices_alone():
    one, other = (network_of(three_samples(), sign=sign, dtype="float64") for sign in (1.0, -1.0))
    for network in (one, other):
        network.initialise()
    np.testing.assert_array_equal(one.readout, other.readout)
    np.testing.assert_array_equal(one.input_weights, other.input_weights)
    for mine, theirs in zip(one.operators, other.operators, strict=True):
        np.testing.assert_array_equal(mine.weights, -theirs.weights)


def test_halves_of_a_matrix_are_squares_on_its_diagonal():
    whole = network_of(three_samples(), sampling="law", dtype="float64")
    settings = replace(whole.settings, particles=20)
    whole.initialise()
    for first in (0, 20):
        half = Network(three_samples(), settings, 3, first)
        half.initialise()
        part = slice(first, first + 20)
        np.testing.assert_array_equal(half.readout, whole.readout[:, part])
        for mine, theirs in zip(half.operators, whole.operators, strict=True):
            np.testing.assert_allclose(mine.weights, np.sqrt(2) * theirs.weights[part, part], rtol=1e-14)


def test_wide_networks_share_their_products_among_threads():
    problem = three_samples(steps=1)
    runs = [flds.simulate_resnet(problem, width=520, depth=2, operator="dense", threads=n) for n in (1, 2)]
    np.testing.assert_array_equal(runs[0].outputs, runs[1].outputs)
    assert network_of(problem, width=520, sampling="law").ensemble.particles == 520
    network = network_of(problem, width=520, sampling="law")
    network.initialise()
    assert network.narrow is None
