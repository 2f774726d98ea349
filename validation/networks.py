"""Dense networks of finite width in torch, trained by torch.optim.SGD: the networks the theory is about."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flds.problem import TrainingProblem
from solvers import checks
from solvers.solution import Field, Solution, library_versions

_ACTIVATIONS = {
    "identity": lambda x: x,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
    "erf": torch.erf,
    "softplus": torch.nn.functional.softplus,
    "silu": torch.nn.functional.silu,
    "sin": torch.sin,
}


class _IndependentLinear(torch.autograd.Function):
    """x Wᵀ whose gradient with respect to x uses W̃ instead of W; the gradient with respect to W is the usual one."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, backward_weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, backward_weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        (gradient,) = gradients
        x, backward_weight = ctx.saved_tensors
        return gradient @ backward_weight, gradient.T @ x, None


class ResNet(torch.nn.Module):
    """The depth-scaled ResNet of F-(1), all entries of U, W_ℓ and v drawn from N(0, 1).

    Parameters
    ----------
    inputs, outputs, width, depth : int
        d, number of outputs, n, L.
    activation : str
        φ.
    horizon : float
        T.
    independent : bool
        Whether backpropagation uses copies W̃_ℓ of the weights instead of W_ℓᵀ.
    generator : torch.Generator
        Source of the initial weights.
    """

    def __init__(self, inputs: int, outputs: int, width: int, depth: int, activation: str, horizon: float,
                 independent: bool, generator: torch.Generator, dtype: torch.dtype) -> None:  # fmt: skip
        super().__init__()

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=dtype)

        self.input_weights = torch.nn.Parameter(normal(width, inputs))
        self.weights = torch.nn.ParameterList([normal(width, width) for _ in range(depth)])
        self.readout = torch.nn.Parameter(normal(outputs, width))
        self.backward_weights = [normal(width, width) for _ in range(depth)] if independent else []
        self.phi = _ACTIVATIONS[activation]
        self.scale = math.sqrt(horizon / (depth * width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x @ self.input_weights.T / math.sqrt(x.shape[1])
        for layer, weight in enumerate(self.weights):
            features = self.phi(h)
            if self.backward_weights:
                image = _IndependentLinear.apply(features, weight, self.backward_weights[layer])
            else:
                image = features @ weight.T
            h = h + self.scale * image
        return h @ self.readout.T / self.readout.shape[1]


def train(
    problem: TrainingProblem,
    *,
    width: int = 512,
    depth: int = 64,
    backward_weights: str = "tied",
    seed: int = 0,
    dtype: str = "float64",
) -> Solution:
    """Train a dense network by torch autograd and torch.optim.SGD with rate η_c n.

    Parameters
    ----------
    problem : TrainingProblem
        With a built-in activation.
    width, depth : int
        n and L.
    backward_weights : str
        "tied" for ordinary backpropagation, "independent" for copies W̃_ℓ that receive the same updates.
    seed : int
        Seed of the initial weights.
    dtype : str
        "float64" or "float32".

    Returns
    -------
    Solution
        `outputs` (steps + 1, samples[, outputs]) on all training samples, f^(k) before update k.

    Raises
    ------
    ValueError
        If the activation is not built in, or another argument is not valid.
    """
    checks.choice("activation", problem.phi.name, tuple(_ACTIVATIONS))
    checks.choice("backward_weights", backward_weights, ("tied", "independent"))
    checks.choice("dtype", dtype, ("float64", "float32"))
    real = torch.float64 if dtype == "float64" else torch.float32
    generator = torch.Generator().manual_seed(seed)
    start = time.perf_counter()
    network = ResNet(
        problem.x.shape[1], problem.outputs, width, depth, problem.phi.name, problem.horizon,
        backward_weights == "independent", generator, real,
    )  # fmt: skip
    x, y = torch.tensor(problem.x, dtype=real), torch.tensor(problem.y, dtype=real)
    drawn = time.perf_counter()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    outputs: list[NDArray[np.float64]] = []
    for step, batch in enumerate(problem.batches):
        training = step < problem.steps
        with torch.set_grad_enabled(training and problem.full_batch):
            f = network(x)
        outputs.append(f.detach().numpy().astype(np.float64))
        if training:
            if not problem.full_batch:
                f = network(x[batch])
            optimizer.param_groups[0]["lr"] = width * float(problem.rates[step])
            _update(network, optimizer, _loss(problem, f, y[batch]))
    stack = np.array(outputs)
    dims: tuple[str, ...] = ("record", "sample", "output")
    stack, dims = (stack[..., 0], dims[:2]) if problem.outputs == 1 else (stack, dims)
    fields = {
        "steps": Field(("record",), np.arange(problem.steps + 1), "training step"),
        "outputs": Field(dims, stack, "network outputs on training samples"),
    }
    status = "completed" if np.all(np.isfinite(stack)) else "diverged"
    settings = {"width": width, "depth": depth, "backward_weights": backward_weights, "dtype": dtype}
    timings = {"draw": drawn - start, "solve": time.perf_counter() - drawn}
    return Solution(fields, status, timings, seed, settings, versions=library_versions())


def _update(network: ResNet, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """One step of SGD; copies for the backward pass receive the same update as the weights."""
    optimizer.zero_grad()
    loss.backward()
    before = [weight.detach().clone() for weight in network.weights] if network.backward_weights else []
    optimizer.step()
    with torch.no_grad():
        for copy, weight, old in zip(network.backward_weights, network.weights, before, strict=False):
            copy += weight - old


def _loss(problem: TrainingProblem, f: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The batch mean of the loss, by torch's own functions."""
    functional = torch.nn.functional
    if problem.loss == "squared":
        return 0.5 * ((f - y) ** 2).sum(dim=1).mean()
    if problem.loss == "logistic":
        return functional.softplus(-y * f).mean()
    return functional.cross_entropy(f, y.argmax(dim=1))
