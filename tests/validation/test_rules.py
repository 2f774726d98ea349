"""Our networks with matrices held whole, and torch networks of the same weights, under every rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import flds
from flds.training.method import decide
from flds.training.network import Network
from flds.training.options import RecordSteps
from flds.training.train import train
from tests.conftest import three_samples
from tests.flds.test_optimizers import RULES
from tests.shampoo import Shampoo
from validation import networks
from validation.rules import Rules

WIDTH, DEPTH = 40, 3
EVERYWHERE = {
    "adam": {"optimizer": flds.Adam(betas=(0.8, 0.95), epsilon=1e-2), "learning_rate": 0.1},
    "adam, momentum elsewhere": {"optimizer": {"hidden": flds.Adam(epsilon=1e-2), "readout": flds.SGD(momentum=0.5)}},
}
OURS = {name: rest for name, rest in RULES.items() if name != "shampoo"} | EVERYWHERE


def both(problem, weights="tied"):
    """Outputs of our network, and of the torch network that begins with its weights."""
    options = {"operator": "dense", "dtype": "float64", "threads": 1, "backward_weights": weights}
    settings = decide(problem, WIDTH, DEPTH, "law", options).settings
    network = Network(problem, settings, 5)
    network.initialise()
    theirs = networks.ResNet(
        5, 1, WIDTH, DEPTH, problem.phi.name, problem.horizon, weights == "independent", "pre",
        torch.Generator().manual_seed(0), torch.float64,
    )  # fmt: skip
    with torch.no_grad():
        theirs.input_weights.copy_(torch.tensor(network.input_weights.T))
        theirs.readout.copy_(torch.tensor(network.readout))
        for layer, operator in enumerate(network.operators):
            theirs.weights[layer].copy_(torch.tensor(WIDTH**0.5 * operator.weights))
            if weights == "independent":
                theirs.backward_weights[layer].copy_(torch.tensor(WIDTH**0.5 * operator.backward_weights))
    records, _, status = networks._train(problem, theirs, RecordSteps(problem.steps, 1))
    recorder = train(Network(problem, settings, 5))
    assert (status, recorder.status) == ("completed", "completed")
    return np.array([one.outputs for one in recorder.records]), np.array([one.outputs for one in records])


@pytest.mark.parametrize("horizon", [1.0, 2.0])
@pytest.mark.parametrize("weights", ["tied", "independent"])
@pytest.mark.parametrize("rule", OURS)
def test_the_torch_network_of_the_same_weights_does_the_same(rule, weights, horizon):
    """Eight steps; what is left is the rounding of two orders of summation, which Newton–Schulz enlarges most."""
    ours, theirs = both(three_samples(steps=8, horizon=horizon, **OURS[rule]), weights)
    assert np.abs(theirs - theirs[0]).max() > 0.05
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


def test_the_initial_weights_have_the_deviations_that_are_asked_for():
    problem = three_samples(standard_deviations={"input": 0.5, "hidden": 2.0, "readout": 0.1})
    network = networks.ResNet(5, 1, 200, 2, "tanh", 1.0, True, "pre", torch.Generator().manual_seed(0), torch.float64)
    network.scale({name: group.standard_deviation for name, group in problem.groups.items()})
    for weight, expected in ((network.input_weights, 0.5), (network.weights[1], 2.0), (network.backward_weights[0], 2),
                             (network.readout, 0.1)):  # fmt: skip
        # 4 standard errors of a standard deviation of so many numbers
        assert abs(weight.std().item() / expected - 1) < 4 / (2 * weight.numel()) ** 0.5


def test_a_rule_of_ones_own_is_refused():
    problem = three_samples(optimizer={"hidden": Shampoo()})
    weights = [torch.zeros(4, 4)]
    with pytest.raises(ValueError, match="dense networks are trained by SGD, Adam and Muon, got Shampoo"):
        Rules(problem, {"input": torch.zeros(4, 5), "readout": torch.zeros(1, 4)}, weights)
