"""Networks and rules that tests of Gaussian layers share."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

import flds.nn
from flds.nn import GaussianLinear, gaussian

WIDTH = 60
X = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([[1.0], [-1.0], [0.5]], dtype=torch.float64)
TOKENS = torch.randint(0, 7, (2, 6), generator=torch.Generator().manual_seed(2))


def dense(in_features, out_features):
    return flds.nn.dense_linear(in_features, out_features, bias=False)


def squares(model):
    """Return outputs on three samples, and half the mean square of their errors."""
    outputs = model(X.to(model.readout.dtype))
    return outputs, functional.mse_loss(outputs, Y.to(outputs.dtype)) / 2


def next_tokens(model):
    """Return logits of a sequence of tokens, and the cross-entropy of the tokens that follow."""
    outputs = model(TOKENS[:, :-1])
    return outputs, functional.cross_entropy(outputs.flatten(0, 1), TOKENS[:, 1:].flatten())


class OneMatrix(nn.Module):
    """One matrix in every layer."""

    def __init__(self, linear):
        super().__init__()
        self.embedding, self.readout = nn.Parameter(torch.randn(WIDTH, 5)), nn.Parameter(torch.randn(1, WIDTH))
        self.matrix = linear(WIDTH, WIDTH)

    def forward(self, x):
        h = x @ self.embedding.T / 5**0.5
        for _ in range(4):
            h = h + 0.5 * self.matrix(torch.tanh(h))
        return h @ self.readout.T / WIDTH


class Biased(nn.Module):
    """Rectangular layers with biases, as one would write them."""

    def __init__(self, linear):
        super().__init__()
        with_bias = GaussianLinear if linear is not dense else flds.nn.dense_linear
        rest = {"rank": 400} if linear is not dense else {}
        self.embedding, self.readout = nn.Parameter(torch.randn(40, 5)), nn.Parameter(torch.randn(1, WIDTH))
        self.layers = nn.Sequential(
            with_bias(40, 90, **rest), nn.GELU(), with_bias(90, 70, **rest), nn.GELU(), with_bias(70, WIDTH, **rest)
        )

    def forward(self, x):
        return self.layers(x @ self.embedding.T / 5**0.5) @ self.readout.T / WIDTH


def two_layers(ratio):
    return lambda linear: flds.nn.TwoLayerNetwork(5, 1, WIDTH, 3, linear=linear, hidden_ratio=ratio)


# What makes a network of matrices that are made so, and its loss.
NETWORKS = {
    "perceptrons": (lambda linear: flds.nn.ResidualMLP(5, 1, WIDTH, 3, linear=linear), squares),
    "two layers, ratio 0.5": (two_layers(0.5), squares),
    "two layers, ratio 1": (two_layers(1.0), squares),
    "two layers, ratio 2.5": (two_layers(2.5), squares),
    "transformer": (lambda linear: flds.nn.Transformer(7, 6, 64, 2, linear=linear), next_tokens),
    "one matrix": (OneMatrix, squares),
    "biases": (Biased, squares),
}


def matrices(model):
    """Return the Gaussian layers of a network, or the weights of a dense one."""
    gaussian_ones = [one for one in model.modules() if isinstance(one, GaussianLinear)]
    return gaussian_ones or [one.weight for one in model.modules() if isinstance(one, nn.Linear)]


def sgd(**rest):
    return lambda model: torch.optim.SGD(flds.nn.parameter_groups(model, 0.2, width=WIDTH), **rest)


def muon(**rest):
    return lambda model: flds.nn.Muon(matrices(model), lr=0.05, **rest)


def torch_muon(model):
    found = [one.learned if isinstance(one, GaussianLinear) else one for one in matrices(model)]
    return torch.optim.Muon(found, lr=0.05, weight_decay=0.0)


# What makes an optimiser for a network, and the norm that gradients are clipped to.
RULES = {
    "SGD": (sgd(), None),
    "momentum": (sgd(momentum=0.9), None),
    "Nesterov": (sgd(momentum=0.8, nesterov=True), None),
    "clipping": (sgd(), 0.05),
    "Newton–Schulz": (muon(), None),
    "polar": (muon(orthogonalization="polar"), None),
    "Muon with decay and factor": (muon(weight_decay=0.1, scale="torch"), None),
}


def train(model, rule, loss, steps=8):
    """Train, and return the outputs before every step and after the last, (steps + 1, …)."""
    make, clip = RULES[rule] if isinstance(rule, str) else (rule, None)
    optimizer, outputs = make(model), []
    for _ in range(steps):
        optimizer.zero_grad()
        found, value = loss(model)
        value.backward()
        outputs.append(found.detach().clone())
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return torch.stack([*outputs, loss(model)[0].detach()])


def pair(name, seed=0, **rest):
    """Return a dense network and a Gaussian one with the same vectors, of this name, in float64."""
    make, loss = NETWORKS[name]
    networks = []
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        for linear in (dense, gaussian(**{"rank": 400} | rest)):
            torch.manual_seed(seed)
            networks.append(make(linear))
    finally:
        torch.set_default_dtype(before)
    return *networks, loss
