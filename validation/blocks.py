"""Residual branches of dense torch networks, one layer each, differentiated by autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from flds.training.branches import SingleMatrix, TwoLayer
from flds.training.branches.normalization import EPSILON
from flds.training.problem import TrainingProblem

Tensor = torch.Tensor
Draw = Callable[..., Tensor]

ACTIVATIONS = {
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
    def forward(ctx: Any, x: Tensor, weight: Tensor, backward_weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, backward_weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = gradients
        x, backward_weight = ctx.saved_tensors
        return gradient @ backward_weight, gradient.T @ x, None


class Matrix(torch.nn.Module):
    """x Wᵀ over the root of the inputs, W (outputs, inputs) with entries N(0, 1), and perhaps a copy for the way back.

    Parameters
    ----------
    draw : callable
        Gives normals of a shape.
    outputs, inputs : int
    """

    def __init__(self, draw: Draw, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(draw(outputs, inputs))
        self.copy: torch.nn.Parameter | None = None

    def separate(self, draw: Draw) -> None:
        """Draw an independent copy W̃ for backpropagation."""
        self.copy = torch.nn.Parameter(draw(*self.weight.shape), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the images of x, (samples, outputs)."""
        apart: Any = _IndependentLinear
        image = x @ self.weight.T if self.copy is None else apart.apply(x, self.weight, self.copy)
        return image / math.sqrt(self.weight.shape[1])


class Block(torch.nn.Module):
    """A branch: its matrices and vectors by the names of flds, and what it adds to a state."""

    def __init__(self, matrices: dict[str, Matrix], vectors: dict[str, torch.nn.Parameter]) -> None:
        super().__init__()
        self.matrices, self.vectors = matrices, vectors
        for name, matrix in matrices.items():
            self.add_module(name, matrix)
        for name, vector in vectors.items():
            self.register_parameter(name, vector)


class OneMatrix(Block):
    """W φ(h)/√n, or with `post` φ(W h/√n)."""

    def __init__(self, draw: Draw, width: int, phi: Callable[[Tensor], Tensor], post: bool) -> None:
        super().__init__({"hidden": Matrix(draw, width, width)}, {})
        self.phi, self.post = phi, post

    def forward(self, h: Tensor) -> Tensor:
        """Return what is added to h, over s."""
        image = self.matrices["hidden"]
        return self.phi(image(h)) if self.post else image(self.phi(h))


class TwoMatrices(Block):
    """V φ(W ν(h)/√n + b)/√H, with torch's own layers for ν."""

    def __init__(self, draw: Draw, width: int, phi: Callable[[Tensor], Tensor], branch: TwoLayer) -> None:
        hidden = branch.hidden(width)
        matrices = {"inner": Matrix(draw, hidden, width), "outer": Matrix(draw, width, hidden)}
        sizes, dtype = {"residual": width, "hidden": hidden}, matrices["inner"].weight.dtype
        vectors = {
            name: torch.nn.Parameter(torch.full((sizes[vector.space],), vector.initial, dtype=dtype))
            for name, vector in branch.vectors.items()
        }
        super().__init__(matrices, vectors)
        self.phi, self.normalization = phi, branch.normalization

    def forward(self, h: Tensor) -> Tensor:
        """Return what is added to h, over s."""
        functional, shape = torch.nn.functional, h.shape[-1:]
        gain = self.vectors.get("gain")
        if self.normalization == "rms_norm":
            h = functional.rms_norm(h, shape, gain, EPSILON)
        elif self.normalization == "layer_norm":
            h = functional.layer_norm(h, shape, gain, eps=EPSILON)
        a = self.matrices["inner"](h)
        if "bias" in self.vectors:
            a = a + self.vectors["bias"]
        return self.matrices["outer"](self.phi(a))


def block(problem: TrainingProblem, draw: Draw, width: int, post: bool) -> Block:
    """Return the branch of a problem for one layer.

    Raises
    ------
    ValueError
        If it is neither of one matrix nor of two layers, or of two in a post-activation network.
    """
    phi, branch = ACTIVATIONS[problem.phi.name], problem.branch
    if type(branch) is SingleMatrix:
        return OneMatrix(draw, width, phi, post)
    if post:
        raise ValueError('residual="post" is a network of one matrix a layer')
    if type(branch) is TwoLayer:
        return TwoMatrices(draw, width, phi, branch)
    raise ValueError(f"dense networks have branches of one matrix or two layers, got {type(branch).__name__}")
