"""Tensors of torch that answer NumPy's functions, where their numbers are.

What a home of particles maps over them, and what rules do with gradients, is written with NumPy: `np.tanh(x) + 1.0`.
On a `DeviceArray` NumPy's functions, and those of `scipy.special`, call torch's of the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

# Of torch's, where they have other names.
_NAMES = {
    "absolute": "abs",
    "fabs": "abs",
    "invert": "bitwise_not",
    "power": "pow",
    "float_power": "pow",
    "psi": "digamma",
    "rint": "round",
}
# Functions of whole arrays.
_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.where: torch.where,
    np.clip: torch.clamp,
    np.zeros_like: torch.zeros_like,
    np.ones_like: torch.ones_like,
    np.sum: torch.sum,
    np.trace: torch.trace,
    np.linalg.norm: torch.linalg.norm,
    np.linalg.svd: lambda matrix, full_matrices=True: torch.linalg.svd(matrix, full_matrices=full_matrices),
    np.linalg.eigh: torch.linalg.eigh,
    np.linalg.qr: torch.linalg.qr,
    np.linalg.inv: torch.linalg.inv,
    np.linalg.solve: torch.linalg.solve,
    np.copy: torch.clone,
    np.shape: lambda values: tuple(values.shape),
    np.ndim: lambda values: values.ndim,
    np.size: lambda values: values.numel(),
    np.may_share_memory: lambda one, other: _memory(one) == _memory(other),
}


class DeviceArray(torch.Tensor):
    """A tensor for functions that are written with NumPy; what torch has no form for raises TypeError.

    It does not become an array of the host by itself.
    """

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **rest: Any) -> Any:
        if method != "__call__" or rest:
            raise TypeError(f"np.{ufunc.__name__}{'' if method == '__call__' else f'.{method}'} has no form in torch")
        found = _form(ufunc.__name__)(*_tensors(self, inputs))
        return found if out is None else out[0].copy_(found)

    def __array_function__(self, function: Callable[..., Any], types: Any, inputs: Any, rest: Any) -> Any:
        if function not in _FUNCTIONS:
            raise TypeError(f"np.{function.__name__} has no form in torch")
        return _FUNCTIONS[function](*_tensors(self, inputs), **rest)

    def __array__(self, *rest: Any, **named: Any) -> Any:
        raise TypeError("it becomes an array of the host; use NumPy's functions of numbers, which stay where these are")

    def copy(self) -> torch.Tensor:
        """Return a copy, as an array does."""
        return self.clone()

    def astype(self, dtype: Any, copy: bool = True) -> torch.Tensor:
        """Return the numbers in a NumPy type, as an array does."""
        return self.to(torch_type(dtype), copy=copy)


class DeviceCoordinates(DeviceArray):
    """Likewise, and it becomes an array of the host where one is asked for."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.asarray(self.as_subclass(torch.Tensor).cpu().numpy(), dtype)


def torch_type(dtype: Any) -> torch.dtype:
    """Return torch's type of numbers for NumPy's, or itself."""
    if isinstance(dtype, torch.dtype):
        return dtype
    found: torch.dtype = getattr(torch, np.dtype(dtype).name)
    return found


def _memory(values: Any) -> Any:
    return values.untyped_storage().data_ptr() if isinstance(values, torch.Tensor) else id(values)


def _form(name: str) -> Callable[..., torch.Tensor]:
    """Return torch's function of this name."""
    wanted = _NAMES.get(name, name)
    for home in (torch, torch.special):
        if hasattr(home, wanted):
            found: Callable[..., torch.Tensor] = getattr(home, wanted)
            return found
    raise TypeError(f"{name} has no form in torch")


def _tensors(like: torch.Tensor, values: Any) -> list[Any]:
    """Return tensors where `like` is: numbers, and arrays of the host, take the type of those that are there."""
    real = [v.dtype for v in (*values, like) if isinstance(v, torch.Tensor) and v.is_floating_point()]
    dtype = real[0] if real else torch.float64
    return [
        torch.as_tensor(v, dtype=dtype, device=like.device)
        if isinstance(v, (int, float, np.number, np.ndarray)) and not isinstance(v, bool)
        else v
        for v in values
    ]
