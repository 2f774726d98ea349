"""What the machine code of a compiled function depends on, as a key under which it can be kept on disk.

A function is known by its bytecode, its constants and defaults, and by whatever it refers to: variables of the
functions around it, names of its module, and functions in these, which are followed in turn. What belongs to Python,
NumPy or Numba is known by its name, since their versions belong to the key of every kernel.
"""

from __future__ import annotations

import builtins
import hashlib
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher

_LIBRARIES = ("builtins", "math", "cmath", "operator", "numpy", "numba", "llvmlite")
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))


class _Unknown(Exception):
    """Something that compiled code might depend on in a way that cannot be seen here."""


def identity(function: Callable[..., Any]) -> str | None:
    """Return a key of a Python function that is to be compiled, or None if it depends on what cannot be told.

    Two functions with the same key, in any process, have the same code and refer to the same values.
    """
    digest = hashlib.sha256(np.__version__.encode())
    try:
        for part in _function(function, {}):
            digest.update(part.encode() + b"\0")
    except _Unknown:
        return None
    return digest.hexdigest()


def _value(value: Any, seen: dict[int, int]) -> Iterator[str]:
    """Describe what a function refers to."""
    if isinstance(value, _PLAIN):
        yield f"{type(value).__name__} {value!r}"
    elif isinstance(value, tuple):
        yield f"{type(value).__module__}.{type(value).__qualname__} {len(value)}"
        for entry in value:
            yield from _value(entry, seen)
    elif isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        yield f"{type(value).__name__} {value.dtype.str} {value.shape} {value.tobytes().hex()}"
    elif isinstance(value, Dispatcher):
        yield from _options(value)
        yield from _function(value.py_func, seen)
    elif isinstance(value, types.CodeType):
        yield from _code(value, seen)
    elif isinstance(value, types.ModuleType):
        yield f"module {value.__name__}"
    elif isinstance(value, type) and issubclass(value, tuple) and hasattr(value, "_fields"):
        yield f"{value.__module__}.{value.__qualname__} {value._fields}"
    elif hasattr(value, "compiled_by"):  # a Python function of ours that an overload stands for
        yield from _function(value.compiled_by, seen)
    elif _library(value):
        yield f"{getattr(value, '__module__', '')} {getattr(value, '__qualname__', '')} {value!r}".split(" at 0x")[0]
    else:  # among them Python functions, whose compiled form may be declared anywhere
        raise _Unknown(value)


def _options(dispatcher: Dispatcher) -> Iterator[str]:
    for name, option in sorted(dispatcher.targetoptions.items()):
        flags = getattr(option, "flags", option)
        yield f"{name}={sorted(flags) if isinstance(flags, (set, frozenset)) else flags!r}"
    explicit = getattr(dispatcher, "_can_compile", True) or dispatcher.nopython_signatures
    yield f"{sorted(dispatcher.locals.items())} {explicit}"


def _function(function: Any, seen: dict[int, int]) -> Iterator[str]:
    if id(function) in seen:
        yield f"again {seen[id(function)]}"
        return
    seen[id(function)] = len(seen)
    if not isinstance(function, types.FunctionType):
        raise _Unknown(function)
    yield from _value((function.__defaults__, tuple(sorted((function.__kwdefaults__ or {}).items()))), seen)
    yield from _code(function.__code__, seen)
    for cell in function.__closure__ or ():
        try:
            yield from _value(cell.cell_contents, seen)
        except ValueError:  # not set yet
            raise _Unknown(function) from None
    for name in sorted(names_read(function.__code__)):
        if name in function.__globals__:
            yield f"global {name}"
            yield from _global(function.__globals__[name], function.__code__, seen)
        elif hasattr(builtins, name):
            yield f"builtin {name}"


def _global(value: Any, code: types.CodeType, seen: dict[int, int]) -> Iterator[str]:
    """Describe what a name of a module refers to, and of another module what the code may read there."""
    yield from _value(value, seen)
    if isinstance(value, types.ModuleType) and not _library(value):
        for name in sorted(names_read(code)):
            if hasattr(value, name):
                yield name
                yield from _global(getattr(value, name), code, seen)


def _code(code: types.CodeType, seen: dict[int, int]) -> Iterator[str]:
    yield f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {code.co_freevars} {code.co_cellvars}"
    yield f"{code.co_argcount} {code.co_kwonlyargcount} {code.co_flags}"
    for constant in code.co_consts:
        if isinstance(constant, frozenset):
            raise _Unknown(constant)  # whose order changes from process to process
        yield from _value(constant, seen)


def names_read(code: types.CodeType) -> set[str]:
    """Names that a code and the codes inside it read, of variables and of attributes."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*map(names_read, inner))


def _library(value: Any) -> bool:
    module = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
    if isinstance(value, np.ufunc):
        return True
    return isinstance(module, str) and module.split(".")[0] in _LIBRARIES and not isinstance(value, types.FunctionType)
