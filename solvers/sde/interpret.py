"""Compiled functions run another way: as Python, or compiled again with checks of every index.

Compiled code reads beyond the end of an array without a word. Functions that it calls are found among the globals and
the closure of its source, and are taken with it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

from numba import jit

Function = Callable[..., Any]

# Compiled in memory, since the source is made here.
_CHECKED = {"boundscheck": True, "nopython": True, "cache": False}


@lru_cache(maxsize=64)
def interpreted(function: Function) -> Function:
    """Return a function compiled with numba.njit as Python, with all compiled functions that it calls."""
    return _rebuilt(function, lambda plain, options: plain, True, {})


@lru_cache(maxsize=64)
def bounds_checked(function: Function) -> Function:
    """Return a function compiled with numba.njit so that an index beyond the end raises IndexError."""
    return _rebuilt(function, lambda plain, options: jit(**options | _CHECKED)(plain), False, {})


class _Namespace:
    """A module whose compiled functions are rebuilt when they are read."""

    def __init__(self, module: ModuleType, rebuild: Callable[[Any], Any]) -> None:
        self._module, self._rebuild = module, rebuild

    def __getattr__(self, name: str) -> Any:
        return self._rebuild(getattr(self._module, name))


def _rebuilt(function: Any, make: Callable[..., Function], modules: bool, known: dict[Any, Any]) -> Any:
    """Return make(source, options) of a compiled function, with those it calls rebuilt; `modules`: also those in there.

    What is not compiled is returned as it is.
    """
    source = getattr(function, "py_func", None)
    if not isinstance(source, FunctionType):
        return function
    if function in known:  # it calls itself
        return known[function]
    names = _names(source.__code__)
    scope: dict[str, Any] = {"__builtins__": source.__globals__["__builtins__"]}
    cells = tuple(CellType() for _ in source.__closure__ or ())
    twin = FunctionType(source.__code__, scope, source.__name__, source.__defaults__, cells)
    twin.__kwdefaults__, twin.__module__ = source.__kwdefaults__, source.__module__
    known[function] = make(twin, getattr(function, "targetoptions", {}))

    def rebuild(value: Any) -> Any:
        if modules and isinstance(value, ModuleType):
            return _Namespace(value, rebuild)
        return _rebuilt(value, make, modules, known)

    scope |= {name: rebuild(value) for name, value in source.__globals__.items() if name in names}
    for cell, old in zip(cells, source.__closure__ or (), strict=True):
        cell.cell_contents = rebuild(old.cell_contents)
    return known[function]


def _names(code: CodeType) -> set[str]:
    """Names that a function, or one inside it, may read from its globals."""
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*inner)
