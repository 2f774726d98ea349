"""Whether a network trains alike at every width: the size and the change of every activation against width."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from flds.nn.groups import check_optimizer, parameter_groups
from solvers import checks

if TYPE_CHECKING:
    import os

Tensor = torch.Tensor
Array = NDArray[np.float64]

_CONFIDENCE = 0.95
# Of what is random in a pass.
_SEED = 0
# Exponents this near 0 are called stable: finite widths bend the line.
_STABLE = 0.1


@dataclass(frozen=True)
class LayerCheck:
    """What was measured of the outputs of one module.

    Attributes
    ----------
    name : str
        Of the module in the network.
    size, change : (widths, seeds) array
        Root mean square over a batch of the outputs before training, and of how far they have moved after it.
    size_exponent, change_exponent : (float, float)
        α of rms ∝ widthᵅ, and the half width of its 95 % interval.
    verdict : str
        Of the change: "stable", "grows", "vanishes", "undecided" or "does not change"; "grows" where the size does too.
    """

    name: str
    size: Array
    change: Array
    size_exponent: tuple[float, float]
    change_exponent: tuple[float, float]
    verdict: str


@dataclass(frozen=True)
class CoordinateCheck:
    """What `coordinate_check` returns; printed, it is a table.

    Attributes
    ----------
    widths : tuple of int
        Those compared.
    layers : tuple of LayerCheck
        In the order in which the modules are called.
    steps : int
        Updates made.
    """

    widths: tuple[int, ...]
    layers: tuple[LayerCheck, ...]
    steps: int

    @property
    def passed(self) -> bool:
        """Whether no activation grows or stops to move as the network grows wider."""
        return all(layer.verdict in ("stable", "does not change") for layer in self.layers)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw sizes and changes against width; return the figure, which is also written to `path` if there is one."""
        from flds.plotting.coordinates import coordinate_overview

        figure = coordinate_overview(self)
        if path is not None:
            figure.savefig(path)
        return figure

    def __str__(self) -> str:
        length = max(len(layer.name) for layer in self.layers)
        lines = [
            f"{'':{length}}  size ∝ widthᵅ     change ∝ widthᵅ   after {self.steps} steps, widths {list(self.widths)}"
        ]
        for layer in self.layers:
            numbers = [f"{value:+.2f} ± {error:.2f}" for value, error in (layer.size_exponent, layer.change_exponent)]
            lines.append(f"{layer.name:{length}}  {numbers[0]:16}  {numbers[1]:16}  {layer.verdict}")
        return "\n".join(lines)


def coordinate_check(
    make_model: Callable[[int], nn.Module],
    widths: Sequence[int],
    batch: Any,
    steps: int,
    *,
    learning_rate: float = 0.1,
    make_optimizer: Callable[[nn.Module, int], torch.optim.Optimizer] | None = None,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    seeds: int = 3,
) -> CoordinateCheck:
    """Train a network at several widths and measure how activations, and their changes, depend on the width.

    In a network that learns features at any width the change of every activation is of order 1: its exponent is 0. It
    works for any module of torch, with dense or Gaussian matrices.

    Parameters
    ----------
    make_model : callable
        Makes the network of a width, from torch's generator, which is seeded here.
    widths : sequence of int
        At least three.
    batch : (inputs, targets) or anything
        What every step trains on, and what `loss` takes.
    steps : int
        Updates.
    learning_rate : float
        Of SGD with the groups of `parameter_groups`, if there is no `make_optimizer`.
    make_optimizer : callable, optional
        (model, width) → the optimiser. With Gaussian matrices it must be one that `check_optimizer` takes: Adam is
        checked on a network of dense ones.
    loss : callable, optional
        (model, batch) → the loss, a tensor; by default cross-entropy for whole-number targets, over the last axis of
        the outputs, and else half the mean square.
    seeds : int
        Networks of each width, at least 2. Dropout drops the same in every pass.

    Returns
    -------
    CoordinateCheck
        Sizes, changes, exponents and verdicts of every module that returns a tensor.

    Raises
    ------
    ValueError, TypeError
        If an argument is not valid, no module is called, networks of two widths have other modules, training diverges,
        or `check_optimizer` refuses the optimiser.

    References
    ----------
    G. Yang et al., "Tensor Programs V: Tuning large neural networks via zero-shot hyperparameter transfer", NeurIPS
    2021.
    """
    widths = _widths(widths)
    steps, seeds = checks.positive_integer("steps", steps), checks.positive_integer("seeds", seeds, smallest=2)
    rate = checks.positive_number("learning_rate", learning_rate)
    loss, make_optimizer = loss or _default_loss, make_optimizer or _sgd(rate)
    measured = []
    for width in widths:
        for seed in range(seeds):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = make_model(width)
                if not isinstance(model, nn.Module):
                    raise TypeError(f"make_model must return a torch.nn.Module, got {checks.shown(model)}")
                optimizer = make_optimizer(model, width)
                check_optimizer(model, optimizer)
                measured.append(_measure(model, optimizer, loss, batch, steps, width))
    names = list(measured[0])
    if not names:
        raise ValueError("no module of the network returned a tensor while loss was computed; call modules in it")
    if any(list(one) != names for one in measured):
        raise ValueError("networks of all widths must have modules of the same names, called in the same order")
    values = np.array([[one[name] for name in names] for one in measured]).reshape(len(widths), seeds, len(names), 2)
    layers = tuple(_layer(name, widths, values[:, :, index]) for index, name in enumerate(names))
    return CoordinateCheck(widths, layers, steps)


def _widths(widths: Any) -> tuple[int, ...]:
    found = tuple(checks.positive_integer("widths", width) for width in widths)
    if len(set(found)) < 3 or len(set(found)) < len(found):
        raise ValueError(f"widths must be at least three different numbers, got {list(found)}")
    return tuple(sorted(found))


def _sgd(rate: float) -> Callable[[nn.Module, int], torch.optim.Optimizer]:
    def make(model: nn.Module, width: int) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameter_groups(model, rate, width=width))

    return make


def _default_loss(model: nn.Module, batch: Any) -> Tensor:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not isinstance(batch[1], Tensor):
        raise ValueError("batch must be (inputs, targets), with a tensor of targets, or loss must be given")
    inputs, targets = batch
    outputs = model(inputs)
    if not targets.is_floating_point():
        return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())
    return 0.5 * functional.mse_loss(outputs, targets.reshape(outputs.shape))


def _measure(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[..., Tensor], batch: Any, steps: int, width: int
) -> dict[str, tuple[float, float]]:
    """Return the size before training and the change after it of all outputs, by the names of modules."""
    seen: dict[str, Tensor] = {}

    def computed() -> Tensor:
        torch.manual_seed(_SEED)  # so that dropout drops the same each time
        seen.clear()
        value = loss(model, batch)
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise TypeError(f"loss must return a tensor of one number, got {checks.shown(value)}")
        if not math.isfinite(value.item()):
            raise ValueError(f"the loss is not finite at width {width}: lower the learning rate, or mend the batch")
        return value

    with _watched(model, seen):
        value = computed()
        before = dict(seen)
        for _ in range(steps):
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            value = computed()
    return {name: (_rms(first), _rms(seen[name] - first)) for name, first in before.items()}


@contextmanager
def _watched(model: nn.Module, seen: dict[str, Tensor]) -> Iterator[None]:
    """Keep the first output of every module that returns a tensor."""

    def keeper(name: str) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and name not in seen:
                seen[name] = output.detach().clone()

        return keep

    handles = [module.register_forward_hook(keeper(name or "output")) for name, module in model.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _rms(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())


def _layer(name: str, widths: tuple[int, ...], values: Array) -> LayerCheck:
    size, change = values[..., 0], values[..., 1]
    if not change.any():
        return LayerCheck(name, size, change, _exponent(widths, size), (math.nan, math.nan), "does not change")
    found = _exponent(widths, size), _exponent(widths, change)
    return LayerCheck(name, size, change, *found, _verdict(*found))


def _exponent(widths: tuple[int, ...], values: Array) -> tuple[float, float]:
    """Fit values (widths, seeds) to widthᵅ; return α and the half width of its interval."""
    from scipy.stats import t

    if not (values > 0).all():
        return math.nan, math.nan
    x = np.repeat(np.log(widths), values.shape[1])
    y = np.log(values).ravel()
    x = x - x.mean()
    slope = float(x @ y / (x @ x))
    rest = y - y.mean() - slope * x
    error = math.sqrt(float(rest @ rest) / (len(x) - 2) / float(x @ x))
    return slope, float(t.ppf((1 + _CONFIDENCE) / 2, len(x) - 2)) * error


def _verdict(size: tuple[float, float], change: tuple[float, float]) -> str:
    for (value, error), growing_only in ((change, False), (size, True)):
        if value - error > _STABLE:
            return "grows"
        if value + error < -_STABLE and not growing_only:
            return "vanishes"
    value, error = change
    return "stable" if abs(value) + error <= 3 * _STABLE else "undecided"
