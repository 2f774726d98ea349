"""Muon for Gaussian matrices: the rule of `flds.Muon` as an optimiser of PyTorch, in full precision."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from flds.nn.linear import GaussianLinear, gaussian_layers
from flds.training.optimizers.muon import Muon as Rule
from solvers import checks
from solvers.ensemble.device.arrays import DeviceArray

_SCALES = ("none", "torch")


class Muon(torch.optim.Optimizer):
    """Moves matrices by the orthogonal factor of their gradient with momentum, as `flds.Muon` does.

    `torch.optim.Muon` works in bfloat16, takes its factor from the shape of A, which is the rank, and decays by 0.1
    unless told otherwise; this one works in the type of the matrix, takes no factor unless asked, and then from the
    shape of 𝒲.

    Parameters
    ----------
    layers : nn.Module, or iterable of GaussianLinear and of matrices
        What is trained: all `GaussianLinear` of a network, or layers, and 2-dimensional parameters, one by one. A layer
        is given whole: its `learned` alone has neither its shape nor what decays.
    lr : float
        η of the step −η O(M).
    momentum : float
        μ, from 0 to below 1.
    nesterov : bool
        Whether M is G + μ buf, or buf.
    weight_decay : float
        λ: the weights, 𝒲_0 included, are multiplied by 1 − η λ before a step.
    orthogonalization : str
        "newton_schulz" or "polar", as for `flds.Muon`.
    scale : str
        "none", or "torch": η is multiplied by √max(1, M/N) of the weights 𝒲.

    Raises
    ------
    ValueError, TypeError
        If an argument is not valid.

    References
    ----------
    K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).
    """

    def __init__(
        self,
        layers: torch.nn.Module | Iterable[Any],
        lr: float,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        orthogonalization: str = "newton_schulz",
        scale: str = "none",
    ) -> None:
        Rule(momentum, nesterov, orthogonalization)  # which checks them
        checks.choice("scale", scale, _SCALES)
        trained = _trained(layers)
        self._layers = {one.learned: one for one in trained if isinstance(one, GaussianLinear)}
        defaults = {
            "lr": checks.positive_number("lr", lr, zero=True),
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": checks.positive_number("weight_decay", weight_decay, zero=True),
            "orthogonalization": orthogonalization,
            "scale": scale,
        }
        super().__init__([_matrix(one) for one in trained], defaults)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_layers": self._layers}  # for copies

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make a step; `closure` may compute the loss anew, as for any optimiser of torch."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._move(matrix, group)
        return loss

    def _move(self, matrix: Any, group: dict[str, Any]) -> None:
        rate, layer = group["lr"], self._layers.get(matrix)
        if group["weight_decay"]:
            factor = 1.0 - rate * group["weight_decay"]
            if factor <= 0:
                raise ValueError(f"lr × weight_decay must be below 1, got {1 - factor:g}")
            layer.decay_weights(factor) if layer is not None else matrix.mul_(factor)
        if layer is not None:  # what was not revealed is zero, and stays so
            forward, backward = layer.used
            part = slice(0, backward), slice(0, forward)
        else:
            part = slice(None), slice(None)
        if group["scale"] == "torch":
            outputs, inputs = matrix.shape if layer is None else (layer.out_features, layer.in_features)
            rate = rate * max(1.0, outputs / inputs) ** 0.5
        rule = Rule(group["momentum"], group["nesterov"], group["orthogonalization"])
        state = self.state[matrix]
        if not state and rule.momentum:
            state["momentum"] = torch.zeros_like(matrix)
        seen = {name: buffer[part].as_subclass(DeviceArray) for name, buffer in state.items()}
        step, after = rule.step(matrix.grad[part].as_subclass(DeviceArray), seen, rate)
        matrix[part] += step.as_subclass(torch.Tensor)
        for name, buffer in after.items():
            state[name][part] = buffer.as_subclass(torch.Tensor)


def _trained(layers: Any) -> list[Any]:
    if isinstance(layers, torch.nn.Module):
        found = list(gaussian_layers(layers).values())
        if not found:
            raise ValueError("layers must have a GaussianLinear, or be a list of matrices; the network has none")
        return found
    return list(layers)


def _matrix(one: Any) -> torch.Tensor:
    if isinstance(one, GaussianLinear):
        return one.learned
    if isinstance(one, torch.Tensor) and one.ndim == 2:
        return one
    given = f"a tensor of shape {tuple(one.shape)}" if isinstance(one, torch.Tensor) else checks.shown(one)
    raise TypeError(f"layers must be GaussianLinear or matrices, got {given}; vectors take another optimiser")
