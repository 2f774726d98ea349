"""What functions and objects are told apart by, as well as can be: a digest of their code and of what it refers to.

Two that agree in all that is looked at have the same digest, in any process; so may two that differ in something else,
such as what a library of others does.
"""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cached_property
from typing import Any

import numpy as np

from solvers.identity import names_read

# The number of each object that was met, and the object.
Seen = dict[int, tuple[int, Any]]
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))
# Packages whose objects are known by their names, since their versions are compared.
_NAMED = ("builtins", "math", "cmath", "operator", "numpy", "numba", "scipy", "flds", "solvers")


def fingerprint(*values: Any) -> str:
    """Return a digest, 64 letters, of functions, numbers, arrays, collections and objects made of these."""
    digest = hashlib.sha256()
    seen: Seen = {}
    for value in values:
        for part in _parts(value, seen):
            digest.update(part + b"\0")
    return digest.hexdigest()


def _parts(value: Any, seen: Seen) -> Iterator[bytes]:
    if isinstance(value, _PLAIN):
        yield f"{type(value).__name__} {value!r}".encode()
        return
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        yield f"array {array.dtype.str} {array.shape}".encode()
        if array.dtype.hasobject:
            yield from _parts(array.tolist(), seen)
        else:
            yield array.tobytes()
        return
    if id(value) in seen:
        yield f"again {seen[id(value)][0]}".encode()
        return
    seen[id(value)] = len(seen), value  # which stays, so that no other has its number
    plain = getattr(value, "py_func", value)  # of what Numba compiled
    if isinstance(plain, functools.partial):
        yield b"partial"
        yield from _parts((plain.func, plain.args, plain.keywords), seen)
    elif isinstance(plain, types.MethodType):
        yield from _parts((plain.__func__, plain.__self__), seen)
    elif isinstance(plain, types.FunctionType):
        yield from _function(plain, seen)
    elif isinstance(plain, types.CodeType):
        yield from _code(plain, seen)
    elif isinstance(plain, Mapping):
        yield f"mapping {len(plain)}".encode()
        for key, item in sorted(plain.items(), key=lambda pair: repr(pair[0])):
            yield from _parts((key, item), seen)
    elif isinstance(plain, (set, frozenset)):
        yield from _parts(sorted(map(repr, plain)), seen)
    elif isinstance(plain, (list, tuple)):
        yield f"{type(plain).__name__} {len(plain)}".encode()
        for item in plain:
            yield from _parts(item, seen)
    elif isinstance(plain, type):
        yield from _class(plain, seen)
    else:
        yield from _class(type(plain), seen)
        yield f"{getattr(plain, '__module__', '')} {getattr(plain, '__qualname__', '')}".encode()
        yield from _parts(_attributes(plain), seen)


def _attributes(value: Any) -> dict[str, Any]:
    """Return what an object was made of: its fields or attributes, but for what it has computed from them."""
    kind, ours = type(value), type(value).__module__.split(".")[0] in ("flds", "solvers")
    if _is_named(kind) and not ours:
        return {}
    if is_dataclass(value):
        return {item.name: getattr(value, item.name) for item in fields(value) if item.init}
    computed = {name for base in kind.__mro__ for name, item in vars(base).items() if isinstance(item, cached_property)}
    own = getattr(value, "__dict__", {})
    return {name: item for name, item in own.items() if name not in computed and not (ours and name.startswith("_"))}


def _class(kind: type, seen: Seen) -> Iterator[bytes]:
    """Describe a class: of one's own also what its methods do."""
    yield f"{kind.__module__}.{kind.__qualname__}".encode()
    if _is_named(kind):
        return
    for base in kind.__mro__[:-1]:
        if not _is_named(base):
            own = {name: item for name, item in vars(base).items() if isinstance(item, types.FunctionType)}
            yield from _parts(own, seen)


def _function(function: types.FunctionType, seen: Seen) -> Iterator[bytes]:
    yield function.__qualname__.encode()
    if (function.__module__ or "").split(".")[0] in _NAMED:
        yield str(function.__module__).encode()
        if "<locals>" not in function.__qualname__:
            return
    yield from _parts((function.__defaults__, function.__kwdefaults__), seen)
    yield from _code(function.__code__, seen)
    for cell in function.__closure__ or ():
        try:
            yield from _parts(cell.cell_contents, seen)
        except ValueError:  # not set yet
            yield b"empty"
    for name in sorted(names_read(function.__code__)):
        if name in function.__globals__:
            yield name.encode()
            yield from _global(function.__globals__[name], function.__code__, seen)


def _global(value: Any, code: types.CodeType, seen: Seen) -> Iterator[bytes]:
    """Describe what a name of a module refers to; of another module what the code may read there."""
    if not isinstance(value, types.ModuleType):
        yield from _parts(value, seen)
        return
    yield f"module {value.__name__}".encode()
    if value.__name__.split(".")[0] not in _NAMED:
        for name in sorted(names_read(code)):
            inner = vars(value).get(name)
            if isinstance(inner, (types.FunctionType, *_PLAIN)):
                yield from _parts(inner, seen)


def _code(code: types.CodeType, seen: Seen) -> Iterator[bytes]:
    yield code.co_code
    yield f"{code.co_names} {code.co_varnames} {code.co_freevars} {code.co_argcount} {code.co_flags}".encode()
    yield from _parts(code.co_consts, seen)


def _is_named(kind: type) -> bool:
    return kind.__module__.split(".")[0] in _NAMED
