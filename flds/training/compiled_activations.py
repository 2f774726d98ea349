"""Activation functions φ and φ' of one number, compiled into the loops over particles that call them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from flds.training.activations import ACTIVATIONS, Activation
from solvers.accelerate import composed_kernel, inlined_kernel
from solvers.sde.functions import erf, exp, tanh

Function = Callable[..., Any]

_ROOT_HALF = math.sqrt(0.5)
_GAUSS, _ERF = 1.0 / math.sqrt(2.0 * math.pi), 2.0 / math.sqrt(math.pi)


class CompiledActivation(NamedTuple):
    """φ and φ' of one number, as functions compiled with Numba."""

    value: Function
    derivative: Function


@inlined_kernel
def _identity(x: float) -> float:
    return x


@inlined_kernel
def _one(x: float) -> float:
    return 1.0


@inlined_kernel
def _tanh_derivative(x: float) -> float:
    value = tanh(x)
    return 1.0 - value * value


@inlined_kernel
def _relu(x: float) -> float:
    return 0.0 if x < 0.0 else x


@inlined_kernel
def _step(x: float) -> float:
    return 1.0 if x > 0.0 else 0.0


@inlined_kernel
def _normal_distribution(x: float) -> float:
    return 0.5 * (1.0 + erf(_ROOT_HALF * x))


@inlined_kernel
def _gelu(x: float) -> float:
    return x * _normal_distribution(x)


@inlined_kernel
def _gelu_derivative(x: float) -> float:
    return _normal_distribution(x) + x * (_GAUSS * exp(-0.5 * x * x))


@inlined_kernel
def _erf_derivative(x: float) -> float:
    return _ERF * exp(-x * x)


@inlined_kernel
def _sigmoid(x: float) -> float:
    return 0.5 * (1.0 + tanh(0.5 * x))


@inlined_kernel
def _softplus(x: float) -> float:
    """log(1 + e^x) = max(x, 0) + log(1 + z) with z = e^−|x|, and log(1 + z) = 2 artanh(z / (2 + z)) as a series."""
    z = exp(-abs(x))
    s = z / (2.0 + z)
    q = s * s  # at most 1/9, so sixteen terms leave 1e-17
    p = 1.0 / 27.0 + q * (1.0 / 29.0 + q * (1.0 / 31.0))
    p = 1.0 / 21.0 + q * (1.0 / 23.0 + q * (1.0 / 25.0 + q * p))
    p = 1.0 / 15.0 + q * (1.0 / 17.0 + q * (1.0 / 19.0 + q * p))
    p = 1.0 / 9.0 + q * (1.0 / 11.0 + q * (1.0 / 13.0 + q * p))
    p = 1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * p))
    return _relu(x) + 2.0 * (s + s * q * p)


@inlined_kernel
def _silu(x: float) -> float:
    return x * _sigmoid(x)


@inlined_kernel
def _silu_derivative(x: float) -> float:
    s = _sigmoid(x)
    return s * (1.0 + x * (1.0 - s))


@inlined_kernel
def _sin(x: float) -> float:
    return math.sin(x)


@inlined_kernel
def _cos(x: float) -> float:
    return math.cos(x)


_COMPILED = {
    "identity": CompiledActivation(_identity, _one),
    "tanh": CompiledActivation(tanh, _tanh_derivative),
    "relu": CompiledActivation(_relu, _step),
    "gelu": CompiledActivation(_gelu, _gelu_derivative),
    "erf": CompiledActivation(erf, _erf_derivative),
    "softplus": CompiledActivation(_softplus, _sigmoid),
    "silu": CompiledActivation(_silu, _silu_derivative),
    "sin": CompiledActivation(_sin, _cos),
}


def compiled_activation(phi: Activation) -> CompiledActivation | None:
    """Return φ and φ' of one number, or None if they are NumPy functions of the user's.

    Functions compiled with Numba serve as they are if they take a number, too, and return one.
    """
    if ACTIVATIONS.get(phi.name) is phi:
        return _COMPILED[phi.name]
    own = CompiledActivation(phi.value, phi.derivative)
    return own if all(_of_a_number(function) for function in own) else None


def _of_a_number(function: Function) -> bool:
    if not hasattr(function, "py_func"):
        return False
    try:
        return isinstance(function(0.5), float)
    except Exception:  # whatever compiling a function of arrays for a number raises
        return False


@lru_cache(maxsize=64)
def on_arrays(function: Function) -> Function:
    """Return a compiled function of one number as a function of an array (D, n), compiled as well."""

    def elementwise(x):  # type: ignore[no-untyped-def]
        out = np.empty(x.shape)
        for i in range(x.shape[0]):
            for p in range(x.shape[1]):
                out[i, p] = function(x[i, p])
        return out

    return composed_kernel(elementwise)
