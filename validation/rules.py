"""The optimisers of dense torch networks: torch.optim where torch has the rule, Muon from its formula."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from flds.training.groups import Group
from flds.training.optimizers import SGD, Adam, Muon
from flds.training.problem import TrainingProblem
from validation.blocks import Block

Tensor = torch.Tensor


class Units(NamedTuple):
    """What numbers of a parameter mean in a network of width n, whose branches carry s = τ^e.

    Attributes
    ----------
    rate : float
        A learning rate of 1 for SGD, on ∂f/∂parameter.
    gradient : float
        Times ∂f/∂parameter it is what rules see.
    entry : float
        A step of 1 of Muon or Adam, in the parameter.
    square : float
        Times the squares of ∂f/∂parameter it is what counts in the norm that is clipped.
    """

    rate: float
    gradient: float
    entry: float
    square: float


class Rules:
    """Steps of all parameters of a dense network.

    Parameters
    ----------
    problem : TrainingProblem
        Supplies the rules, rates, decay and the largest norm.
    inputs, readout : tensors
        U and v.
    blocks : sequence of Block
        The branches, whose matrices have entries of order 1 and act over the root of their inputs.

    Raises
    ------
    ValueError
        If a rule is none of flds.SGD, flds.Adam and flds.Muon.
    """

    def __init__(self, problem: TrainingProblem, inputs: Tensor, readout: Tensor, blocks: Iterable[Block]) -> None:
        self.problem, self.width = problem, readout.shape[1]
        layers, n, branch = list(blocks), self.width, problem.branch
        tau = problem.horizon / len(layers)
        scale, inside = tau**problem.branch_exponent, tau ** (1 - problem.branch_exponent)
        outside = Units(rate=n, gradient=n, entry=1.0, square=n)
        vector = Units(rate=n * inside / scale, gradient=n / scale, entry=inside, square=n)
        self.items = [(problem.groups["input"], inputs, outside), (problem.groups["readout"], readout, outside)]
        for one in layers:
            for name, matrix in one.matrices.items():
                # 𝒲 = W/√m with m inputs, and gradients are seen over s: ∂f/∂𝒲 over s is √m/s ∂f/∂W
                m = matrix.weight.shape[1]
                units = Units(m * inside / scale, math.sqrt(m) / scale, math.sqrt(m) * inside, m)
                self.items.append((problem.groups[branch.matrices[name].group], matrix.weight, units))
            for name, parameter in one.vectors.items():
                self.items.append((problem.groups[branch.vectors[name].group], parameter, vector))
        self.rules = [_rule(group, parameter, units, n) for group, parameter, units in self.items]

    def step(self, step: int) -> None:
        """Update all parameters from their gradients."""
        self._clip()
        shrunk = self.shrunk(step)
        for (group, parameter, _), rule in zip(self.items, self.rules, strict=True):
            with torch.no_grad():
                parameter.mul_(shrunk[parameter])
            rule.param_groups[0]["lr"] = float(group.rates[step]) * rule.param_groups[0]["unit"]
            rule.step()

    def shrunk(self, step: int) -> dict[Tensor, float]:
        """Return what weight decay multiplies each parameter by."""
        return {one: 1.0 - float(group.rates[step]) * group.weight_decay for group, one, _ in self.items}

    def _clip(self) -> None:
        if self.problem.gradient_clip is None:
            return
        squares = 0.0
        for _, parameter, units in self.items:
            squares += units.square * float((_gradient(parameter) ** 2).sum())
        for _, parameter, _ in self.items:
            _gradient(parameter).mul_(min(1.0, self.problem.gradient_clip / math.sqrt(squares)))


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def torch_rule(rule: Any, parameter: Tensor, scale: float = 1.0) -> torch.optim.Optimizer | None:
    """Return torch's optimiser of one parameter, or None where it has none; rules see `scale` times the gradient."""
    if type(rule) is SGD:
        return torch.optim.SGD([parameter], lr=1.0, momentum=rule.momentum, nesterov=rule.nesterov)
    if type(rule) is Adam:
        return torch.optim.Adam([parameter], lr=1.0, betas=rule.betas, eps=rule.epsilon / scale)
    return None


def _rule(group: Group, parameter: Tensor, units: Units, width: int) -> torch.optim.Optimizer:
    rule: Any = group.optimizer
    # Adam sees n times the gradient of a matrix, and its steps are over n
    n = width if rule.entrywise and group.matrix else 1
    optimizer: Any = _Muon(parameter, rule) if type(rule) is Muon else torch_rule(rule, parameter, n * units.gradient)
    if optimizer is None:
        raise ValueError(f"dense networks are trained by SGD, Adam and Muon, got {rule!r}")
    unit = units.rate if type(rule) is SGD else units.entry / n
    optimizer.param_groups[0]["unit"] = unit
    return optimizer


class _Muon(torch.optim.Optimizer):
    """One matrix, by the formula."""

    def __init__(self, parameter: Tensor, rule: Muon) -> None:
        super().__init__([parameter], {"lr": 1.0})
        self.rule, self.buffer = rule, torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        (parameter,) = self.param_groups[0]["params"]
        mu = self.rule.momentum
        self.buffer.mul_(mu).add_(parameter.grad)
        seen = parameter.grad + mu * self.buffer if self.rule.nesterov else self.buffer
        parameter.sub_(self.param_groups[0]["lr"] * self._orthogonal(seen))

    def _orthogonal(self, matrix: Tensor) -> Tensor:
        if not matrix.any():
            return torch.zeros_like(matrix)
        if self.rule.orthogonalization == "polar":
            left, sizes, right = torch.linalg.svd(matrix)
            kept = sizes > 1e-9 * sizes[0]
            return left[:, kept] @ right[kept]
        x = matrix / matrix.norm()
        for _ in range(5):
            square = x @ x.T
            x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
        return x
