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
from tests.flds.test_optimizers import ADAM, RULES
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
    generator = torch.Generator().manual_seed(0)
    theirs = networks.ResNet(problem, WIDTH, DEPTH, independent=weights == "independent", generator=generator)
    with torch.no_grad():
        theirs.input_weights.copy_(torch.tensor(network.input_weights.T))
        theirs.readout.copy_(torch.tensor(network.readout))
        for matrix, operator in zip(theirs.matrices, network.operators, strict=True):
            root = operator.inputs.particles**0.5
            matrix.weight.copy_(torch.tensor(root * operator.weights))
            if weights == "independent":
                matrix.copy.copy_(torch.tensor(root * operator.backward_weights))
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
    network = networks.ResNet(problem, 200, 2, independent=True, generator=torch.Generator().manual_seed(0))
    network.scale(problem)
    for weight, expected in ((network.input_weights, 0.5), (network.matrices[1].weight, 2.0),
                             (network.matrices[0].copy, 2), (network.readout, 0.1)):  # fmt: skip
        # 4 standard errors of a standard deviation of so many numbers
        assert abs(weight.std().item() / expected - 1) < 4 / (2 * weight.numel()) ** 0.5


def test_a_rule_of_ones_own_is_refused():
    problem = three_samples(optimizer={"hidden": Shampoo()})
    network = networks.ResNet(problem, 4, 1, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="dense networks are trained by SGD, Adam and Muon, got Shampoo"):
        Rules(problem, network.input_weights, network.readout, network.blocks)


BRANCHES = {
    "plain": {},
    "ratio": {"hidden_ratio": 0.5, "bias": True},
    "rms_norm": {"normalization": "rms_norm", "gain": True, "hidden_ratio": 2},
    "layer_norm": {"normalization": "layer_norm", "gain": True, "bias": True, "hidden_ratio": 0.5},
}
GROUPS = {
    "sgd": {},
    "momentum, decay, clip": {
        "optimizer": flds.SGD(momentum=0.7), "gradient_clip": 0.2,
        "weight_decay": {"hidden": 0.2, "bias": 0.1, "gain": 0.3},
    },
    "muon, adam": {
        "optimizer": {"hidden": flds.Muon(), "bias": ADAM, "gain": ADAM, "input": ADAM},
        "standard_deviations": {"inner": 1.5, "outer": 0.5},
    },
    "adam": {"optimizer": flds.Adam(epsilon=1e-2), "learning_rate": {"inner": 0.1, "outer": 0.2, "bias": 0.3}},
}  # fmt: skip


@pytest.mark.parametrize("exponent", [0.5, 1])
@pytest.mark.parametrize("weights", ["tied", "independent"])
@pytest.mark.parametrize("rule", GROUPS)
@pytest.mark.parametrize("branch", BRANCHES)
def test_torch_networks_of_two_layers_do_the_same(branch, rule, weights, exponent):
    """Four steps; H and n in every factor of rates, gradients, entries and norms."""
    given = {name: dict(one) if isinstance(one, dict) else one for name, one in GROUPS[rule].items()}
    for one in given.values():
        for name in ("bias", "gain"):
            if isinstance(one, dict) and not BRANCHES[branch].get(name):
                one.pop(name, None)
    problem = three_samples(
        steps=4, horizon=2.0, residual="two_layer", branch_exponent=exponent, **given, **BRANCHES[branch]
    )
    ours, theirs = both(problem, weights)
    assert np.abs(theirs - theirs[0]).max() > 0.02
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)
