"""Activation functions φ and their derivatives φ'.

They are NumPy functions of a block of particles: NumPy's own vectorised tanh and exp take about 1 ns a
number, which compiled scalar code does not reach.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Elementwise = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class Activation:
    """An activation function and its derivative.

    Parameters
    ----------
    value, derivative : callable
        φ and φ', each mapping a float array of any shape to an array of that shape, such as NumPy
        functions or functions compiled by Numba that take arrays. They may run on several threads.
    name : str
        How the activation is called in results.

    Raises
    ------
    TypeError
        If one of them is not callable.
    ValueError
        If one of them changes the shape or gives non-finite values on [-3, 3], or if `derivative`
        differs from the central difference of `value` there.
    """

    value: Elementwise
    derivative: Elementwise
    name: str = "custom"

    def __post_init__(self) -> None:
        for label in ("value", "derivative"):
            if not callable(getattr(self, label)):
                raise TypeError(f"{label} must be a function of an array, got {getattr(self, label)!r}")
        x = np.linspace(-3.0, 3.0, 41) + 0.0123  # off the kinks that people place at round numbers
        step = 1e-6
        for label in ("value", "derivative"):
            result = np.asarray(getattr(self, label)(x))
            if result.shape != x.shape or not np.all(np.isfinite(result)):
                raise ValueError(
                    f"{label} must return finite numbers in the shape of its argument, "
                    f"got shape {result.shape} for {x.shape}"
                )
        slope = (self.value(x + step) - self.value(x - step)) / (2 * step)
        # central differences: truncation step^2, rounding eps/step, both far below 1e-5
        wrong = np.abs(slope - self.derivative(x)) > 1e-5 * (1 + np.abs(slope))
        if np.any(wrong):
            at = x[np.argmax(wrong)]
            raise ValueError(f"derivative must be the derivative of value, but differs from it at x = {at:.4g}")


def _gauss(x: NDArray[Any]) -> NDArray[Any]:
    return np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _erf(x: NDArray[Any]) -> NDArray[Any]:
    from scipy.special import erf

    return np.asarray(erf(x))


def _sigmoid(x: NDArray[Any]) -> NDArray[Any]:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def _cdf(x: NDArray[Any]) -> NDArray[Any]:
    return 0.5 * (1.0 + _erf(x / math.sqrt(2.0)))


_DEFINITIONS: dict[str, tuple[Elementwise, Elementwise]] = {
    "identity": (lambda x: x * 1.0, np.ones_like),
    "tanh": (np.tanh, lambda x: 1.0 - np.tanh(x) ** 2),
    "relu": (lambda x: np.maximum(x, 0.0), lambda x: np.where(x > 0, 1.0, 0.0)),
    "gelu": (lambda x: x * _cdf(x), lambda x: _cdf(x) + x * _gauss(x)),
    "erf": (_erf, lambda x: 2.0 / math.sqrt(math.pi) * np.exp(-x * x)),
    "softplus": (lambda x: np.logaddexp(0.0, x), _sigmoid),
    "silu": (lambda x: x * _sigmoid(x), lambda x: _sigmoid(x) * (1.0 + x * (1.0 - _sigmoid(x)))),
    "sin": (np.sin, np.cos),
}

ACTIVATIONS: dict[str, Activation] = {name: Activation(*pair, name) for name, pair in _DEFINITIONS.items()}


def get_activation(activation: str | Activation) -> Activation:
    """Return the activation of that name, or the `Activation` itself.

    Raises
    ------
    ValueError
        If there is no activation of that name; the message lists those there are.
    TypeError
        If it is neither a name nor an `Activation`.
    """
    if isinstance(activation, Activation):
        return activation
    if not isinstance(activation, str):
        raise TypeError(f"activation must be a name or a flds.Activation, got {activation!r}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    return ACTIVATIONS[activation]
