"""Ensembles of dense float32 networks in torch, as fast as we can write them: what one would train to see the limit.

Products of several networks at a time, backpropagation by hand, updates in place. `validation.networks` is the same
network by autograd.
"""

from __future__ import annotations

import math

import torch

SLOPES = {"tanh": lambda h, phi: 1 - phi * phi, "relu": lambda h, phi: (h > 0).to(h.dtype)}
ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu}


def _slopes(problem, f, y):
    """L' of the loss, (networks, batch, outputs)."""
    if problem.loss == "squared":
        return f - y
    return torch.softmax(f, dim=-1) - y


@torch.no_grad()
def train_ensemble(problem, width, depth, networks, seed):
    """Outputs of the trained networks on the test inputs, or the training ones if there are none.

    Returns (networks, inputs, outputs) float64.
    """
    generator = torch.Generator().manual_seed(seed)
    x, y, asked = (torch.tensor(a, dtype=torch.float32) for a in (problem.x, problem.y, problem.test_x))
    asked = asked if len(asked) else x
    inputs, outputs, n = x.shape[1], y.shape[1], width
    draw = lambda *shape: torch.randn(networks, *shape, generator=generator)  # noqa: E731
    u, v, weights = draw(inputs, n), draw(n, outputs), [draw(n, n) for _ in range(depth)]
    phi, slope = ACTIVATIONS[problem.phi.name], SLOPES[problem.phi.name]
    scale, rate = math.sqrt(problem.horizon / (depth * n)), problem.learning_rate * n

    def forward(x, keep):
        h = (x / math.sqrt(inputs)).expand(networks, -1, -1) @ u
        tapes = []
        for weight in weights:
            active = phi(h)
            if keep:
                tapes.append((active, slope(h, active)))
            h = torch.baddbmm(h, active, weight, alpha=scale)
        return h, tapes, h @ v / n

    for step, batch in enumerate(problem.batches):
        if step == problem.steps:
            break
        batch = torch.as_tensor(batch)
        h, tapes, f = forward(x[batch], True)
        back = _slopes(problem, f, y[batch]) / len(batch)
        g = back @ v.mT / n
        v.baddbmm_(h.mT, back, alpha=-rate / n)
        for weight, (active, slopes) in zip(reversed(weights), reversed(tapes), strict=True):
            pulled = torch.baddbmm(g, g, weight.mT, beta=0, alpha=scale).mul_(slopes)
            weight.baddbmm_(active.mT, g, alpha=-rate * scale)
            g = g + pulled
        u.baddbmm_((x[batch] / math.sqrt(inputs)).mT.expand(networks, -1, -1), g, alpha=-rate)
    return forward(asked, False)[2].double().numpy()
