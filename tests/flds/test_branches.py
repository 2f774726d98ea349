"""Branches: the lazy operator does what the dense one does, for every shape of a layer; and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import flds
from flds.training.method import decide
from flds.training.network import Network
from flds.training.train import train
from tests.conftest import three_samples
from tests.flds.test_optimizers import RULES
from tests.held import HeldNetwork

BRANCHES = {
    "two layers": {},
    "half": {"hidden_ratio": 0.5},
    "four": {"hidden_ratio": 4, "bias": True},
    "rms_norm": {"normalization": "rms_norm", "gain": True},
    "layer_norm": {"normalization": "layer_norm", "bias": True, "hidden_ratio": 0.5},
    "all": {"normalization": "layer_norm", "gain": True, "bias": True, "hidden_ratio": 0.5},
}
OWN = {
    "every group": {
        "optimizer": {
            "inner": flds.Muon(), "outer": flds.SGD(momentum=0.5), "gain": flds.Adam(epsilon=1e-3),
            "bias": flds.SGD(momentum=0.9, nesterov=True), "input": flds.Adam(epsilon=1e-3),
        },
        "learning_rate": {"hidden": 0.4, "inner": 0.2, "bias": 0.3, "gain": lambda k: 0.1 * k},
        "weight_decay": {"outer": 0.2, "bias": 0.1, "gain": 0.3},
        "standard_deviations": {"hidden": 1.3, "outer": 0.7},
        "gradient_clip": 0.3,
    }
}  # fmt: skip


def outputs(kind, problem, particles=100, sampling="law", **options):
    given = {"threads": 1, "tolerance": 0.0, "dtype": "float64", **options}
    recorder = train(kind(problem, decide(problem, particles, 3, sampling, given).settings, 3))
    assert recorder.status == "completed"
    return np.array([record.outputs for record in recorder.records])


def agree(weights, **problem):
    problem = three_samples(steps=8, residual="two_layer", **problem)
    lazy = outputs(HeldNetwork, problem, operator="lazy", backward_weights=weights)
    dense = outputs(Network, problem, operator="dense", backward_weights=weights)
    assert np.abs(dense - dense[0]).max() > 0.05
    np.testing.assert_allclose(lazy, dense, rtol=0, atol=1e-11)


@pytest.mark.parametrize("exponent", [0.5, 1])
@pytest.mark.parametrize("horizon", [1.0, 2.0])
@pytest.mark.parametrize("weights", ["tied", "independent"])
@pytest.mark.parametrize("branch", BRANCHES)
def test_lazy_and_dense_networks_of_the_same_weights_agree(branch, weights, horizon, exponent):
    """Eight steps from the same W_0 and V_0; what is left is rounding, that of bases of some 25 directions."""
    agree(weights, horizon=horizon, branch_exponent=exponent, **BRANCHES[branch])


@pytest.mark.parametrize("weights", ["tied", "independent"])
@pytest.mark.parametrize("rule", RULES | OWN)
def test_they_agree_under_every_rule(rule, weights):
    agree(weights, horizon=2.0, **(RULES | OWN)[rule], **BRANCHES["all"])
