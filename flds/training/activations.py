"""Activation functions φ and their derivatives φ'.

They are NumPy functions of many particles, in the precision that these have.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers import checks

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
    second_derivative : callable, optional
        φ'', which tangent ODEs need.

    Raises
    ------
    TypeError
        If one of them is not callable.
    ValueError
        If one of them changes the shape, mixes the numbers of an array or gives non-finite values on [-3, 3], or if a
        derivative differs there from the central difference of what it is the derivative of.
    """

    value: Elementwise
    derivative: Elementwise
    name: str = "custom"
    second_derivative: Elementwise | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"name must be a string, got {checks.shown(self.name)}")
        self._check_derivative("derivative", "value")
        if self.second_derivative is not None:
            self._check_derivative("second_derivative", "derivative")

    def with_slope(self, x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return φ(x) and φ'(x) in new arrays, in the shape of x, from one evaluation where one gives both."""
        if self.value is np.tanh:
            value = np.tanh(x)
            slope = np.multiply(value, value)
            return value, np.subtract(1.0, slope, out=slope)
        return self.value(x), np.array(self.derivative(x))

    def curvature(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return φ''(x), in the shape of x; raises ValueError if it was not given."""
        if self.second_derivative is None:
            raise ValueError(f"the tangent ODE needs the second_derivative of the activation {self.name!r}")
        return self.second_derivative(x)

    def _check_derivative(self, label: str, of: str) -> None:
        """Compare one function with the central difference of another."""
        x = np.linspace(-3.0, 3.0, 41) + 0.0123  # off the kinks that people place at round numbers
        derivative = self._checked(label, x)
        # the step balances truncation step² against rounding eps/step in the precision of the values
        step = float(np.finfo(self._checked(of, x).dtype).eps) ** (1 / 3)
        slope = (self._checked(of, x + step) - self._checked(of, x - step)) / (2 * step)
        wrong = np.abs(slope - derivative) > 100 * step**2 * (1 + np.abs(slope))
        if np.any(wrong):
            at = x[np.argmax(wrong)]
            raise ValueError(f"{label} must be the derivative of {of}, but differs from it at x = {at:.4g}")

    def _checked(self, label: str, x: NDArray[np.float64]) -> NDArray[Any]:
        function = getattr(self, label)
        if not callable(function):
            raise TypeError(f"{label} must be a function of an array, got {checks.shown(function)}")
        argument = x.copy()
        result = checks.called(f"{label} must be a function of an array, but failed on one", function, argument)
        if not np.array_equal(argument, x):
            raise ValueError(f"{label} must not change its argument; return a new array")
        if not isinstance(result, np.ndarray) or result.dtype.kind != "f" or result.shape != x.shape:
            raise ValueError(f"{label} must return a float array in the shape of its argument, {x.shape}")
        part = np.asarray(function(x[:7].copy()))
        if part.shape != (7,) or not np.allclose(part, result[:7], rtol=1e-6, equal_nan=True):
            raise ValueError(f"{label} must act on each number alone, but other numbers in the array change its values")
        if not np.all(np.isfinite(result)):
            raise ValueError(f"{label} must return finite numbers on [-3, 3], got {result[~np.isfinite(result)][0]}")
        return result


def _gauss(x: NDArray[Any]) -> NDArray[Any]:
    return np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _erf(x: NDArray[Any]) -> NDArray[Any]:
    from scipy.special import erf

    return erf(x)


def _sigmoid(x: NDArray[Any]) -> NDArray[Any]:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def _cdf(x: NDArray[Any]) -> NDArray[Any]:
    return 0.5 * (1.0 + _erf(x / math.sqrt(2.0)))


def _identity(x: NDArray[Any]) -> NDArray[Any]:
    return x * 1.0


def _tanh_derivative(x: NDArray[Any]) -> NDArray[Any]:
    return 1.0 - np.tanh(x) ** 2


def _relu(x: NDArray[Any]) -> NDArray[Any]:
    return np.maximum(x, 0.0)


def _step(x: NDArray[Any]) -> NDArray[Any]:
    return np.where(x > 0, 1.0, 0.0)


def _gelu(x: NDArray[Any]) -> NDArray[Any]:
    return x * _cdf(x)


def _gelu_derivative(x: NDArray[Any]) -> NDArray[Any]:
    return _cdf(x) + x * _gauss(x)


def _erf_derivative(x: NDArray[Any]) -> NDArray[Any]:
    return 2.0 / math.sqrt(math.pi) * np.exp(-x * x)


def _softplus(x: NDArray[Any]) -> NDArray[Any]:
    return np.logaddexp(0.0, x)


def _silu(x: NDArray[Any]) -> NDArray[Any]:
    return x * _sigmoid(x)


def _silu_derivative(x: NDArray[Any]) -> NDArray[Any]:
    s = _sigmoid(x)
    return s * (1.0 + x * (1.0 - s))


def _tanh_curvature(x: NDArray[Any]) -> NDArray[Any]:
    t = np.tanh(x)
    return -2.0 * t * (1.0 - t * t)


def _gelu_curvature(x: NDArray[Any]) -> NDArray[Any]:
    return (2.0 - x * x) * _gauss(x)


def _erf_curvature(x: NDArray[Any]) -> NDArray[Any]:
    return -2.0 * x * _erf_derivative(x)


def _softplus_curvature(x: NDArray[Any]) -> NDArray[Any]:
    s = _sigmoid(x)
    return s * (1.0 - s)


def _silu_curvature(x: NDArray[Any]) -> NDArray[Any]:
    s = _sigmoid(x)
    return s * (1.0 - s) * (2.0 + x * (1.0 - 2.0 * s))


def _negative_sine(x: NDArray[Any]) -> NDArray[Any]:
    return -np.sin(x)


_DEFINITIONS: dict[str, tuple[Elementwise, Elementwise, Elementwise]] = {
    "identity": (_identity, np.ones_like, np.zeros_like),
    "tanh": (np.tanh, _tanh_derivative, _tanh_curvature),
    "relu": (_relu, _step, np.zeros_like),
    "gelu": (_gelu, _gelu_derivative, _gelu_curvature),
    "erf": (_erf, _erf_derivative, _erf_curvature),
    "softplus": (_softplus, _sigmoid, _softplus_curvature),
    "silu": (_silu, _silu_derivative, _silu_curvature),
    "sin": (np.sin, np.cos, _negative_sine),
}

ACTIVATIONS: dict[str, Activation] = {
    name: Activation(value, derivative, name, second) for name, (value, derivative, second) in _DEFINITIONS.items()
}


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
        raise TypeError(f"activation must be a name or a flds.Activation, got {checks.shown(activation)}")
    return ACTIVATIONS[checks.choice("activation", activation, tuple(ACTIVATIONS))]
