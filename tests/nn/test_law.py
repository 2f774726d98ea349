"""Networks of Gaussian layers beside dense ones that are drawn: the same law, fluctuations included."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flds.nn import GaussianLinear
from solvers.matrices import reveal
from tests.conftest import MARGIN
from tests.flds.test_law import compare
from validation import gaussian_layers
from validation.claims import Scale
from validation.gaussian_layers import NETWORKS, dense_linear, outputs, sampled_linear

MANY = pytest.mark.parametrize(
    "seeds", [100, pytest.param(2000, marks=pytest.mark.slow)], ids=["few seeds", "many seeds"]
)
WIDE = "hidden ratio 2.5, RMSNorm"


def products(rows):
    """Products of all pairs of outputs less their means, whose means are covariances."""
    centred = rows - rows.mean(0)
    first, second = np.triu_indices(rows.shape[1], 1)
    return centred[:, first] * centred[:, second]


def scores(one, other):
    """z-scores of the means of outputs, of their variances, and of their covariances."""
    one, other = (found.reshape(len(found), -1) for found in (one, other))
    return *compare(one, other), compare(products(one), products(other))[0]


@MANY
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_have_the_law_of_dense_ones(name, seeds):
    sampled = outputs(name, sampled_linear(), range(seeds))
    dense = outputs(name, dense_linear, range(10**6, 10**6 + seeds))
    assert max(np.abs(one).max() for one in scores(sampled, dense)) < MARGIN


@MANY
@pytest.mark.parametrize("weights", ["tied", "independent"])
def test_the_network_of_paper_f_is_that_of_the_solver(weights, seeds):
    means, variances, _ = scores(*gaussian_layers.both(weights, seeds))
    assert max(np.abs(means).max(), np.abs(variances).max()) < MARGIN


def without_response(monkeypatch):
    """Images of gradients that do not know what inputs have shown, as of independent weights."""
    monkeypatch.setattr(reveal, "shift", lambda response, overlap: -overlap)


def test_a_missing_response_is_caught_and_refuted(monkeypatch):
    dense = outputs(WIDE, dense_linear, range(10**6, 10**6 + 100))
    without_response(monkeypatch)
    sampled = outputs(WIDE, sampled_linear(), range(100))
    assert np.abs(scores(sampled, dense)[0]).max() > 1.5 * MARGIN
    monkeypatch.setattr(gaussian_layers, "NETWORKS", {WIDE: NETWORKS[WIDE]})
    monkeypatch.setattr(gaussian_layers, "WEIGHTS", ())
    (claim,) = gaussian_layers.gaussian_layers(Scale("quick"))
    assert claim.verdict == "refuted"


def test_entries_of_the_weights_are_normal():
    """Of layers of any shape: all entries, revealed row by row, have variance 1/N; and those of tied layers agree."""
    found = []
    for seed in range(400):
        layer = GaussianLinear(4, 6, bias=False, rank=(4, 6), dtype=torch.float64, seed=seed)
        x = torch.eye(4, dtype=torch.float64, requires_grad=True)
        y = layer(x)
        (gradients,) = torch.autograd.grad(y, x, torch.ones_like(y))
        torch.testing.assert_close(gradients[0], y.sum(1))  # 𝒲ᵀ1, from either side
        found.append(y.detach().numpy().T)
    entries = np.array(found).reshape(400, -1)
    assert np.abs(entries.mean(0)).max() < MARGIN * (1 / 4 / 400) ** 0.5
    assert np.abs(entries.var(0) - 1 / 4).max() < MARGIN * 1 / 4 * (2 / 400) ** 0.5
    correlations = np.corrcoef(entries.T)[np.triu_indices(24, 1)]
    assert np.abs(correlations).max() < (MARGIN + 1) * 400**-0.5  # of 276
