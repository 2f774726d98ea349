"""Networks of Gaussian layers beside dense ones that are drawn: the same law, fluctuations included."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

import flds
from flds.nn import GaussianLinear, ResidualMLP, TwoLayerNetwork, dense_linear, gaussian, parameter_groups
from solvers.matrices import reveal
from tests.conftest import MARGIN, three_samples
from tests.flds.test_law import compare
from tests.nn.networks import X, Y

WIDTH, STEPS = 48, 3
NETWORKS = {
    "square": partial(ResidualMLP, 5, 1, WIDTH, 3),
    "wide": partial(TwoLayerNetwork, 5, 1, WIDTH, 2, hidden_ratio=2.5),
    "narrow": partial(TwoLayerNetwork, 5, 1, WIDTH, 2, hidden_ratio=0.5),
}
MANY = pytest.mark.parametrize(
    "seeds", [100, pytest.param(2000, marks=pytest.mark.slow)], ids=["few seeds", "many seeds"]
)


def outputs(make, linear, seeds, first=0, x=X, y=Y):
    """Outputs before every step and after the last of so many trained networks, (seeds, …)."""
    found = []
    for seed in range(first, first + seeds):
        torch.manual_seed(seed)
        model = make(linear=linear).double()
        optimizer = torch.optim.SGD(parameter_groups(model, 0.5, width=WIDTH))
        rows = []
        for step in range(STEPS + 1):
            f = model(x)
            rows.append(f.detach()[:, 0])
            if step < STEPS:
                optimizer.zero_grad()
                ((f - y).square().mean() / 2).backward()
                optimizer.step()
        found.append(torch.cat(rows))
    return torch.stack(found).numpy()


def products(rows):
    """Products of all pairs of outputs less their means, whose means are covariances."""
    centred = rows - rows.mean(0)
    first, second = np.triu_indices(rows.shape[1], 1)
    return centred[:, first] * centred[:, second]


@MANY
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_have_the_law_of_dense_ones(name, seeds):
    lazy = outputs(NETWORKS[name], gaussian(), seeds)
    dense = outputs(NETWORKS[name], lambda one, other: dense_linear(one, other, bias=False), seeds, first=10**6)
    means, variances = compare(lazy, dense)
    covariances, _ = compare(products(lazy), products(dense))
    for scores in (means, variances, covariances):
        assert np.abs(scores).max() < MARGIN


def test_a_missing_response_is_caught(monkeypatch):
    """Images of gradients that do not know what inputs have shown, as of independent weights."""
    monkeypatch.setattr(reveal, "shift", lambda response, overlap: -overlap)
    lazy = outputs(NETWORKS["wide"], gaussian(), 100)
    monkeypatch.undo()
    dense = outputs(NETWORKS["wide"], lambda one, other: dense_linear(one, other, bias=False), 100, first=10**6)
    assert np.abs(compare(lazy, dense)[0]).max() > 1.5 * MARGIN


@MANY
@pytest.mark.parametrize("weights", ["tied", "independent"])
def test_the_network_of_paper_f_is_that_of_the_solver(weights, seeds):
    problem = three_samples(steps=STEPS)
    network = flds.simulate_resnet(
        problem, width=WIDTH, depth=3, replicates=seeds, operator="lazy", tolerance=0.0, threads=1,
        backward_weights=weights,
    )  # fmt: skip
    assert problem.learning_rate == 0.5
    data = {"x": torch.tensor(problem.x), "y": torch.tensor(problem.y).reshape(-1, 1)}
    lazy = outputs(NETWORKS["square"], gaussian(tied=weights == "tied"), seeds, **data)
    solver = network.replicate_outputs.reshape(seeds, -1)
    means, variances = compare(lazy, solver)
    assert np.abs(means).max() < MARGIN
    assert np.abs(variances).max() < MARGIN


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
