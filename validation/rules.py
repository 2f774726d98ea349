"""The optimisers of dense torch networks: torch.optim where torch has the rule, Muon from its formula."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from flds.training.groups import Group
from flds.training.optimizers import SGD, Adam, Muon
from flds.training.problem import TrainingProblem

Tensor = torch.Tensor


class Units(NamedTuple):
    """What numbers of a parameter mean in a network of width n.

    Attributes
    ----------
    rate : float
        A learning rate of 1 for SGD, on ∂f/∂parameter.
    gradient : float
        Times ∂f/∂parameter it is what rules see.
    entry : float
        A step of 1 of Muon or Adam, in the parameter.
    """

    rate: float
    gradient: float
    entry: float


class Rules:
    """Steps of all parameters of a dense network.

    Parameters
    ----------
    problem : TrainingProblem
        Supplies the rules, rates, decay and the largest norm.
    vectors : dict
        The parameters "input" and "readout", whose entries are those of U and v.
    matrices : sequence of tensors
        W_ℓ, (n, n), which act as W_ℓ/√n inside branches that carry √(T/L).

    Raises
    ------
    ValueError
        If a rule is none of flds.SGD, flds.Adam and flds.Muon.
    """

    def __init__(self, problem: TrainingProblem, vectors: dict[str, Tensor], matrices: Sequence[Tensor]) -> None:
        self.problem = problem
        n, tau = matrices[0].shape[0], problem.horizon / len(matrices)
        vector = Units(rate=n, gradient=n, entry=1.0)
        # 𝒲 = W/√n, and gradients are seen over √τ: ∂f/∂𝒲 over √τ is √(n/τ) ∂f/∂W
        matrix = Units(rate=n, gradient=math.sqrt(n / tau), entry=math.sqrt(n * tau))
        self.items = [(problem.groups[name], parameter, vector) for name, parameter in vectors.items()]
        self.items += [(problem.groups["hidden"], parameter, matrix) for parameter in matrices]
        self.rules = [_rule(group, parameter, units) for group, parameter, units in self.items]

    def step(self, step: int) -> None:
        """Update all parameters from their gradients."""
        self._clip()
        for (group, parameter, _), rule in zip(self.items, self.rules, strict=True):
            rate = float(group.rates[step])
            with torch.no_grad():
                parameter.mul_(1.0 - rate * group.weight_decay)
            rule.param_groups[0]["lr"] = rate * rule.param_groups[0]["unit"]
            rule.step()

    def _clip(self) -> None:
        if self.problem.gradient_clip is None:
            return
        squares = 0.0
        for _, parameter, units in self.items:
            squares += units.rate * float((_gradient(parameter) ** 2).sum())
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


def _rule(group: Group, parameter: Tensor, units: Units) -> torch.optim.Optimizer:
    rule: Any = group.optimizer
    # Adam sees n times the gradient of a matrix, and its steps are over n
    n = parameter.shape[0] if rule.entrywise and units.entry != 1.0 else 1
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
