"""Loss functions L(f, y) and their derivatives with respect to the outputs f."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from solvers import checks

Array = NDArray[np.float64]

# Larger labels are identifiers rather than classes.
MOST_CLASSES = 10_000


class Loss(ABC):
    """A loss of outputs f, (samples, outputs), and encoded targets of the same shape."""

    name: str
    classifies = False

    @abstractmethod
    def encode(self, targets: NDArray[np.generic], label: str = "targets") -> Array:
        """Check the targets and return them as (samples, outputs); raises ValueError."""

    @abstractmethod
    def value(self, outputs: Array, targets: Array) -> Array:
        """Return the loss of every sample, (samples,)."""

    @abstractmethod
    def derivative(self, outputs: Array, targets: Array) -> Array:
        """Return L' = ∂L/∂f, (samples, outputs)."""

    def accuracy(self, outputs: Array, targets: Array) -> float:
        """Return the share of samples whose class is predicted; only where `classifies`."""
        raise NotImplementedError

    def measured(self, outputs: Array, targets: Array) -> tuple[float, float]:
        """Return the mean loss of some samples and their accuracy, NaN where there is none."""
        accuracy = self.accuracy(outputs, targets) if self.classifies else np.nan
        return float(self.value(outputs, targets).mean()), accuracy


class Squared(Loss):
    """½(f − y)², summed over outputs."""

    name = "squared"

    def encode(self, targets: NDArray[np.generic], label: str = "targets") -> Array:
        values = np.asarray(targets, np.float64)
        return values[:, None] if values.ndim == 1 else values

    def value(self, outputs: Array, targets: Array) -> Array:
        return 0.5 * ((outputs - targets) ** 2).sum(axis=1)

    def derivative(self, outputs: Array, targets: Array) -> Array:
        return outputs - targets


class Logistic(Loss):
    """log(1 + exp(−y f)) for one output and labels y = ±1."""

    name = "logistic"
    classifies = True

    def encode(self, targets: NDArray[np.generic], label: str = "targets") -> Array:
        values = np.asarray(targets, np.float64)
        if values.ndim != 1:
            raise ValueError(f'{label} must have shape (samples,) for the loss "logistic", got {values.shape}')
        if not np.all(np.abs(values) == 1.0):
            wrong = values[np.abs(values) != 1.0][0]
            raise ValueError(f'{label} must be -1 or 1 for the loss "logistic", got {wrong:g}')
        return values[:, None]

    def value(self, outputs: Array, targets: Array) -> Array:
        return np.logaddexp(0.0, -targets * outputs)[:, 0]

    def derivative(self, outputs: Array, targets: Array) -> Array:
        return -targets * np.exp(-np.logaddexp(0.0, targets * outputs))

    def accuracy(self, outputs: Array, targets: Array) -> float:
        return float(np.mean(outputs * targets > 0))


class CrossEntropy(Loss):
    """−log softmax(f)_y for class indices y = 0, 1, …; one output a class."""

    name = "cross_entropy"
    classifies = True

    def __init__(self, classes: int | None = None) -> None:
        self.classes = classes

    def encode(self, targets: NDArray[np.generic], label: str = "targets") -> Array:
        values = np.asarray(targets)
        if values.ndim != 1:
            raise ValueError(
                f'{label} must be class indices of shape (samples,) for the loss "cross_entropy", got {values.shape}'
            )
        broken = values[(values != np.floor(values)) | (values < 0) | (values >= MOST_CLASSES)]
        if broken.size:
            raise ValueError(
                f"{label} must be whole class indices from 0 to at most {MOST_CLASSES - 1} for the loss "
                f'"cross_entropy", got {broken[0]}; for other numbers take the loss "squared"'
            )
        indices = values.astype(np.int64)
        if self.classes is None:
            self.classes = max(int(indices.max()) + 1, 2)
        outside = indices >= self.classes
        if np.any(outside):
            raise ValueError(
                f"{label} must be class indices from 0 to {self.classes - 1}, got {indices[outside][0]}; "
                "the number of classes is 1 + the largest training target"
            )
        return np.asarray(indices[:, None] == np.arange(self.classes), np.float64)

    def value(self, outputs: Array, targets: Array) -> Array:
        shifted = outputs - outputs.max(axis=1, keepdims=True)
        return np.asarray(np.log(np.exp(shifted).sum(axis=1)) - (shifted * targets).sum(axis=1))

    def derivative(self, outputs: Array, targets: Array) -> Array:
        powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True) - targets

    def accuracy(self, outputs: Array, targets: Array) -> float:
        return float(np.mean(outputs.argmax(axis=1) == targets.argmax(axis=1)))


LOSSES: dict[str, type[Loss]] = {loss.name: loss for loss in (Squared, Logistic, CrossEntropy)}


def get_loss(name: str) -> Loss:
    """Return a new loss of that name; raises ValueError, listing the valid names."""
    return LOSSES[checks.choice("loss", name, tuple(LOSSES))]()
