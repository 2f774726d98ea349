"""Losses of the Mean ODE: what one sample (and token) costs, its slope in the outputs, and which targets it takes.

Outputs are (samples[, tokens], outputs). Losses that compare numbers are divided by how many outputs there are, so that
the learning rates of one dimension suit another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flds.results.loss_names import FORMER
from solvers import checks

Array = NDArray[np.float64]

# What older files and programs call a loss of today.


class Loss(ABC):
    """A loss of outputs f, (samples[, tokens], outputs), with targets as `checked` returns them.

    Attributes
    ----------
    name : str
        How it is chosen, and stored in results.
    classifies : bool
        Whether targets are classes, so that there is an accuracy.
    """

    name: str
    classifies: bool = False

    @abstractmethod
    def checked(self, label: str, targets: NDArray[Any], leading: tuple[int, ...], outputs: int) -> NDArray[Any]:
        """Return targets for the samples (and tokens) of shape `leading`; raises ValueError, naming them `label`."""

    @abstractmethod
    def values(self, outputs: Array, targets: NDArray[Any]) -> Array:
        """Return the loss of every sample (and token), (samples[, tokens])."""

    @abstractmethod
    def slope(self, outputs: Array, targets: NDArray[Any]) -> Array:
        """Return the derivative of `values` in the outputs, (samples[, tokens], outputs)."""

    def accuracy(self, outputs: Array, targets: NDArray[Any]) -> float:
        """Return the share of classes that are predicted; only where `classifies`."""
        raise NotImplementedError(f"the loss {self.name!r} has no accuracy")

    def measured(self, outputs: Array, targets: NDArray[Any]) -> tuple[float, float]:
        """Return the mean loss of some samples and their accuracy, NaN where there is none."""
        accuracy = self.accuracy(outputs, targets) if self.classifies else np.nan
        return float(self.values(outputs, targets).mean()), accuracy


class _OfNumbers(Loss):
    """A loss that compares every output with a number of its own; one output needs no axis in the targets."""

    def checked(self, label: str, targets: NDArray[Any], leading: tuple[int, ...], outputs: int) -> NDArray[Any]:
        expected = (*leading, outputs)
        if outputs == 1 and targets.shape == leading:
            targets = targets[..., None]
        if targets.shape != expected:
            either = f" or {leading}" if outputs == 1 else ""
            raise ValueError(
                f"{label} must have shape {expected}{either} for the loss {self.name!r}, a number for each output, "
                f"got {targets.shape}"
            )
        return np.asarray(targets, np.float64)


class MeanSquared(_OfNumbers):
    """‖f − y‖²/(2 outputs)."""

    name = "mean_squared"

    def values(self, outputs: Array, targets: NDArray[Any]) -> Array:
        return np.asarray(((outputs - targets) ** 2).sum(axis=-1) / (2 * outputs.shape[-1]))

    def slope(self, outputs: Array, targets: NDArray[Any]) -> Array:
        return np.asarray((outputs - targets) / outputs.shape[-1])


class Logistic(_OfNumbers):
    """log(1 + exp(−y f)) with y = ±1, summed over outputs and divided by how many there are."""

    name = "logistic"
    classifies = True

    def checked(self, label: str, targets: NDArray[Any], leading: tuple[int, ...], outputs: int) -> NDArray[Any]:
        values = super().checked(label, targets, leading, outputs)
        wrong = values[np.abs(values) != 1.0]
        if wrong.size:
            raise ValueError(f'{label} must be -1 or 1 for the loss "logistic", got {wrong[0]:g}')
        return values

    def values(self, outputs: Array, targets: NDArray[Any]) -> Array:
        return np.asarray(np.logaddexp(0.0, -targets * outputs).sum(axis=-1) / outputs.shape[-1])

    def slope(self, outputs: Array, targets: NDArray[Any]) -> Array:
        margins = targets * outputs
        small = np.exp(-np.abs(margins))  # never overflows; 1/(1 + exp(margin)) is one of the two quotients
        return np.asarray(-targets * (np.where(margins > 0, small, 1.0) / (1.0 + small)) / outputs.shape[-1])

    def accuracy(self, outputs: Array, targets: NDArray[Any]) -> float:
        return float(np.mean(outputs * targets > 0))


class CrossEntropy(Loss):
    """−log softmax(f)_y for class indices y = 0, 1, …, one output a class."""

    name = "cross_entropy"
    classifies = True

    def checked(self, label: str, targets: NDArray[Any], leading: tuple[int, ...], outputs: int) -> NDArray[Any]:
        if targets.shape != leading:
            raise ValueError(
                f'{label} must have shape {leading} for the loss "cross_entropy", a class index each, '
                f"got {targets.shape}"
            )
        if targets.dtype.kind not in "iu" or targets.min() < 0 or targets.max() >= outputs:
            raise ValueError(
                f"{label} must be class indices from 0 to {outputs - 1}, got {targets.dtype} from {targets.min()} to "
                f"{targets.max()}"
            )
        return np.asarray(targets, np.int64)

    def values(self, outputs: Array, targets: NDArray[Any]) -> Array:
        shifted = outputs - outputs.max(axis=-1, keepdims=True)
        chosen = np.take_along_axis(shifted, targets[..., None], axis=-1)[..., 0]
        return np.asarray(np.log(np.exp(shifted).sum(axis=-1)) - chosen)

    def slope(self, outputs: Array, targets: NDArray[Any]) -> Array:
        powers = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
        slope = powers / powers.sum(axis=-1, keepdims=True)
        chosen = np.take_along_axis(slope, targets[..., None], axis=-1)
        np.put_along_axis(slope, targets[..., None], chosen - 1.0, axis=-1)
        return np.asarray(slope)

    def accuracy(self, outputs: Array, targets: NDArray[Any]) -> float:
        return float(np.mean(outputs.argmax(axis=-1) == targets))


_LOSSES: dict[str, Loss] = {loss.name: loss for loss in (MeanSquared(), Logistic(), CrossEntropy())}
LOSSES = tuple(_LOSSES)


def get_loss(name: str) -> Loss:
    """Return the loss of that name.

    Raises ValueError for a name of no loss, listing those there are, or for one that older versions used.
    """
    if isinstance(name, str) and name in FORMER:
        raise ValueError(
            f"loss {name!r} of a MeanFieldProblem is now {FORMER[name]!r}, since it is divided by the number of "
            f"outputs, as it always was; give loss={FORMER[name]!r}"
        )
    return _LOSSES[checks.choice("loss", name, LOSSES)]
