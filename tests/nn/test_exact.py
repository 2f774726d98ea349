"""Networks of Gaussian layers beside dense ones whose weights they reveal: equal to rounding under every rule."""

from __future__ import annotations

import math

import pytest
import torch

from tests.nn.held import hold
from tests.nn.networks import NETWORKS, RULES, matrices, pair, torch_muon, train


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_trained_as_dense_ones(name, rule):
    """Over eight steps; outputs are of order 1, and polar factors divide by singular values down to 1e-4."""
    dense, gaussian, loss = pair(name)
    hold(gaussian, dense)
    expected, found = train(dense, rule, loss), train(gaussian, rule, loss)
    assert (expected[-1] - expected[0]).abs().max() > 0.05
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11 if rule == "polar" else 1e-12)


@pytest.mark.parametrize("name", ["perceptrons", "two layers, ratio 1", "transformer"])
def test_torch_muon_moves_square_matrices_to_its_rounding(name):
    """Five products in bfloat16, of relative rounding 2^-8, in steps that move outputs by order 1."""
    dense, gaussian, loss = pair(name)
    hold(gaussian, dense)
    expected, found = train(dense, torch_muon, loss), train(gaussian, torch_muon, loss)
    assert 0 < (found - expected).abs().max() < 5e-3


class Independent(torch.autograd.Function):
    """W x, whose gradient by x is that of another matrix plus what W has learned: Definition 1 of paper F."""

    @staticmethod
    def forward(ctx, x, weight, first, other):
        ctx.save_for_backward(x, weight, first, other)
        return x @ weight.T

    @staticmethod
    def backward(ctx, gradients):
        x, weight, first, other = ctx.saved_tensors
        flat = gradients.flatten(0, -2).T @ x.flatten(0, -2)
        return gradients @ (other + weight - first), flat, None, None


@pytest.mark.parametrize("rule", ["SGD", "Nesterov", "Newton–Schulz"])
@pytest.mark.parametrize("name", ["perceptrons", "two layers, ratio 0.5", "transformer"])
def test_independent_weights_are_those_of_their_definition(name, rule):
    dense, gaussian, loss = pair(name, tied=False)
    copies = hold(gaussian, dense)
    for layer, other in copies.items():
        one = dense.get_submodule(layer)
        first = one.weight.detach().clone()
        one.forward = lambda x, one=one, first=first, other=other: Independent.apply(x, one.weight, first, other)
    torch.testing.assert_close(train(gaussian, rule, loss), train(dense, rule, loss), rtol=0, atol=1e-12)


def test_weights_are_decayed_as_a_whole():
    """A decay of A alone is another one."""
    dense, gaussian, loss = pair("two layers, ratio 2.5")
    hold(gaussian, dense)

    def decayed(model):
        for one in matrices(model):
            with torch.no_grad():
                one.decay_weights(0.9) if hasattr(one, "decay_weights") else one.mul_(0.9)
        return loss(model)

    torch.testing.assert_close(train(gaussian, "SGD", decayed, 4), train(dense, "SGD", decayed, 4), rtol=0, atol=1e-12)
    assert matrices(gaussian)[0].weight_share == pytest.approx(0.9**5)


def test_gradients_of_a_layer():
    """Those of x and A, where every direction was revealed first."""
    from flds.nn import GaussianLinear

    layer = GaussianLinear(7, 5, dtype=torch.float64, rank=(7, 5), seed=3)
    x = torch.randn(9, 7, dtype=torch.float64, requires_grad=True)
    layer(x).backward(torch.randn(9, 5, dtype=torch.float64))
    assert layer.used == (7, 5)
    with torch.no_grad():
        layer.learned.normal_()

    def product(x, learned, bias):
        return torch.func.functional_call(layer, {"learned": learned, "bias": bias}, (x,))

    inputs = x, layer.learned, layer.bias
    assert torch.autograd.gradcheck(product, inputs, atol=1e-7)  # of differences of 1e-6
    with torch.no_grad():
        weights = layer(torch.eye(7, dtype=torch.float64)).T - layer.bias[:, None]
    root = math.sqrt(7 * 5)
    bases = [side.directions for side in (layer.matrix.operator.gradients, layer.matrix.operator.features)]
    learned = bases[0].T @ layer.learned @ bases[1] / root
    by_weights = torch.randn(5, 7, dtype=torch.float64)
    layer.zero_grad()
    (layer(torch.eye(7, dtype=torch.float64)).T * by_weights).sum().backward()
    torch.testing.assert_close(layer.learned.grad, bases[0] @ by_weights @ bases[1].T / root)
    torch.testing.assert_close(torch.linalg.norm(learned), torch.linalg.norm(layer.learned))  # an isometry
    assert torch.linalg.norm(weights) > torch.linalg.norm(learned) / 2
