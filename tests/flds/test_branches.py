"""Branches: the lazy operator does what the dense one does, for every shape of a layer; and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import flds
from flds.training.method import decide
from flds.training.network import Network
from flds.training.train import train
from solvers.ensemble.random import Address, Stream
from tests.conftest import MARGIN, three_samples
from tests.flds.test_law import compare
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


@pytest.mark.parametrize("seeds", [100, pytest.param(2000, marks=pytest.mark.slow)], ids=["few seeds", "many seeds"])
@pytest.mark.parametrize(
    ("ratio", "weights", "norm"),
    [(0.5, "tied", "rms_norm"), (4, "tied", "rms_norm"), (0.5, "independent", "layer_norm")],
)
def test_width_64_networks_have_the_law_of_dense_ones(ratio, weights, norm, seeds):
    """Means, variances and covariances of outputs of networks sampled lazily and of dense ones of torch."""
    lazy, dense = both(ratio, weights, norm, seeds)
    means, variances = compare(lazy, dense)
    for scores in (means, variances, covariances(lazy, dense)):
        assert np.abs(scores).max() < MARGIN


def both(ratio, weights, norm, seeds, change=lambda problem: problem):
    """Outputs (seeds, records · samples) of both kinds of networks, the lazy ones of a problem that may be changed."""
    networks = pytest.importorskip("validation.networks")
    problem = three_samples(steps=3, residual="two_layer", hidden_ratio=ratio, normalization=norm, bias=True)
    sizes = {"width": 64, "depth": 3, "backward_weights": weights}
    lazy = flds.simulate_resnet(
        change(problem), replicates=seeds, operator="lazy", tolerance=0.0, threads=1, **sizes
    ).replicate_outputs
    with networks.threads_for(True):
        dense = np.array([networks.train(problem, seed=seed, **sizes).outputs for seed in range(seeds)])
    return lazy.reshape(seeds, -1), dense.reshape(seeds, -1)


def covariances(lazy, dense):
    """z-scores of the covariances of all pairs of outputs, with errors from the fourth moments."""
    found = []
    for outputs in (lazy, dense):
        centred = outputs - outputs.mean(0)
        pairs = centred[:, :, None] * centred[:, None]
        found.append((pairs.mean(0), pairs.var(0) / len(outputs)))
    (one, error), (other, larger) = found
    return (one - other) / np.sqrt(error + larger)


def test_a_branch_of_another_scale_is_caught():
    """A hundred seeds tell outer matrices a quarter too large."""
    lazy, dense = both(0.5, "tied", "rms_norm", 100, lambda one: replace(one, standard_deviations={"outer": 1.25}))
    means, _ = compare(lazy, dense)
    assert np.abs(means).max() > MARGIN


@pytest.mark.parametrize("operator", ["lazy", "dense"])
def test_matrices_of_a_layer_are_independent(operator):
    problem = three_samples(steps=0, residual="two_layer")
    settings = decide(problem, 80, 2, "law", {"operator": operator, "dtype": "float64"}).settings
    network = Network(problem, settings, 0)
    network.initialise()
    network.forward(problem.x, Address(Stream.FORWARD, 0, (0, 1, 2)))
    if operator == "dense":
        weights = [one.weights.ravel() for one in network.operators]
    else:
        weights = [one.features.images.ravel() for one in network.operators]
    correlation = np.corrcoef(weights) - np.eye(4)
    assert np.abs(correlation).max() < MARGIN / np.sqrt(weights[0].size)


def test_matched_noise_scatters_less():
    """Outputs over 32 seeds: a quarter of the deviations by law, which ratio has a standard error of a tenth of itself.

    With noise by law inside the branches it would be 0.42.
    """
    problem = three_samples(steps=1, residual="two_layer", hidden_ratio=0.5, normalization="rms_norm")
    spread = {}
    for sampling in ("law", "matched"):
        run = flds.solve_flds(problem, particles=500, depth=8, sampling=sampling, replicates=32, operator="lazy")
        assert not run.notes
        spread[sampling] = run.replicate_outputs.std(axis=0, ddof=1)[1].mean()
    assert spread["matched"] < 0.35 * spread["law"]


def test_groups_of_matrices_take_their_own_value_before_that_of_all():
    values = {"hidden": 0.1, "outer": 0.3}
    problem = three_samples(
        residual="two_layer", learning_rate=values, weight_decay=values, standard_deviations=values, steps=2,
        optimizer={"hidden": flds.Muon(), "outer": flds.SGD(momentum=0.5)},
    )  # fmt: skip
    inner, outer = problem.groups["inner"], problem.groups["outer"]
    assert (inner.rates.tolist(), outer.rates.tolist()) == ([0.1, 0.1], [0.3, 0.3])
    assert (inner.weight_decay, outer.weight_decay) == (0.1, 0.3)
    assert (inner.standard_deviation, outer.standard_deviation) == (0.1, 0.3)
    assert (inner.optimizer, outer.optimizer) == (flds.Muon(), flds.SGD(momentum=0.5))
