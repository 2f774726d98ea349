"""Functions of one particle, or of arrays of them, as functions of a part of the particles.

Whatever way a function was written, here it takes t, positions x (D, n), means m (M,), the external field
(n or 1, F) and the parameters, and returns (rows, n), or (D, K, n) for a matrix. So the schemes are written once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.sde.equation import Form

Array = NDArray[np.floating]
Function = Callable[..., Any]

FASTMATH = frozenset({"contract", "reassoc", "nsz"})
inner = njit(nogil=True, fastmath=set(FASTMATH), error_model="numpy")


class Written(NamedTuple):
    """A coefficient as the user wrote it."""

    function: Function
    arguments: str  # "local": (t, x, m, …), or a name of `_MORE_OF`: (t, x, m, z, …) with one more
    shape: tuple[int, ...]  # of its value for one particle: (rows,), or (D, K) for a matrix
    number: bool  # it returns a number instead of a sequence
    takes: tuple[bool, bool]  # the field, the parameters


def position_of(x: Array, scalar: bool) -> Array:
    """Return the particles as a NumPy function takes them; one that changes x would change the run."""
    seen = x[0] if scalar else x[:]
    seen.flags.writeable = False
    return seen


def rows_of(value: Any, shape: tuple[int, ...], n: int) -> Array:
    """Return what a NumPy function gave for n particles as (*shape, n)."""
    value = np.asarray(value, np.float64)
    if value.shape != (*shape, n):
        value = np.broadcast_to(value.reshape(*shape, -1) if value.ndim else value, (*shape, n))
    return np.ascontiguousarray(value)


def of_arrays(written: Written, form: Form) -> Function:
    """Adapt a NumPy function of many particles."""
    function, shape, (takes, takes_args) = written.function, written.shape, written.takes

    def position(x: Array) -> Array:
        return position_of(x, form.scalar)

    mean, outside = array_means_of(form), array_outside_of(form)

    if written.arguments == "local":

        def coefficient(t: float, x: Array, m: Array, field: Array, args: Any) -> Array:
            more = (outside(field),) * takes + (args,) * takes_args
            return rows_of(function(t, position(x), mean(m), *more), shape, x.shape[1])

        return coefficient

    only = written.arguments == "sum"

    def with_more(t: float, x: Array, m: Array, z: Array, field: Array, args: Any) -> Array:
        more = (outside(field),) * takes + (args,) * takes_args
        return rows_of(function(t, position(x), mean(m), z[0] if only else z, *more), shape, x.shape[1])

    return with_more


def of_particles(written: Written, form: Form) -> Function:
    """Compile a loop over particles around a function of one."""
    shape, D, parameters = written.shape, form.dimension, parameters_of(form.args)
    room = room_of(form.scalar, D)
    point, outside, mean, store = (
        point_of(form.scalar),
        outside_of(form),
        means_of(form),
        store_of(shape, written.number),
    )

    call = call_of(written.function, written.takes, outside)

    if written.arguments == "local":

        @inner
        def coefficient(t, x, m, field, args):  # type: ignore[no-untyped-def]
            out, here, own = np.empty(shape + (x.shape[1],)), room(), parameters(args)
            for p in range(x.shape[1]):
                store(out, p, call((t, point(x, p, here), mean(m)), field, own, p))
            return out

        return coefficient

    more_of = inner(_MORE_OF[written.arguments])

    @inner
    def with_more(t, x, m, z, field, args):  # type: ignore[no-untyped-def]
        out, here, own = np.empty(shape + (x.shape[1],)), room(), parameters(args)
        for p in range(x.shape[1]):
            store(out, p, call((t, point(x, p, here), mean(m), more_of(z, p)), field, own, p))
        return out

    return with_more


# One argument more: a random number, a sum over partners, or several.
_MORE_OF: dict[str, Function] = {
    "mark": lambda z, p: z[p],
    "sum": lambda z, p: z[0, p],
    "sums": lambda z, p: z[:, p].copy(),
}


def call_of(function: Function, takes: tuple[bool, bool], outside: Function) -> Function:
    """Call a function of a tuple's entries, as (t, x, m), with what more it takes."""
    if takes == (True, True):
        return inner(lambda at, field, args, p: function(*at, outside(field, p), args))
    if takes == (True, False):
        return inner(lambda at, field, args, p: function(*at, outside(field, p)))
    if takes == (False, True):
        return inner(lambda at, field, args, p: function(*at, args))
    return inner(lambda at, field, args, p: function(*at))


def parameters_of(args: type | None) -> Function:
    """Return what makes the parameters that a coefficient takes of those that kernels pass on.

    Kernels are known by the types of what they are called with, so what they pass on is a plain tuple: that of another
    class with the same name would be taken for this one.
    """
    if args is None or not hasattr(args, "_fields"):
        return inner(lambda args: args)
    return inner(lambda entries: args(*entries))


def room_of(scalar: bool, dimension: int) -> Function:
    """Return what makes room for the position of a particle, where it is not a number."""
    return inner(lambda: 0) if scalar else inner(lambda: np.empty(dimension))


def point_of(scalar: bool) -> Function:
    """The position of one particle: a number, or D numbers copied side by side."""
    if scalar:
        return inner(lambda x, p, here: x[0, p])

    @inner
    def point(x, p, here):  # type: ignore[no-untyped-def]
        for i in range(len(here)):
            here[i] = x[i, p]
        return here

    return point


def means_of(form: Form) -> Function:
    """Return what makes the m that a coefficient takes, a number or (M,), of the (M,) that kernels pass on."""
    if form.share or not form.number:
        return inner(lambda m: m)
    return inner(lambda m: m[0]) if form.moments else inner(lambda m: 0.0)


def array_means_of(form: Form) -> Function:
    """Return the same for functions of arrays, which are not compiled."""
    return (lambda m: m[0] if len(m) else 0.0) if form.number and not form.share else (lambda m: m)


def outside_of(form: Form) -> Function:
    """Return what makes the external field that a coefficient takes of those of all particles, for particle p."""
    if form.field == "number":
        return inner(lambda field, p: field[p, 0]) if form.per_particle else inner(lambda field, p: field[0, 0])
    return inner(lambda field, p: field[p]) if form.per_particle else inner(lambda field, p: field[0])


def array_outside_of(form: Form) -> Function:
    """Return the same for functions of arrays, which take the fields of all particles at once."""
    if form.field == "number":
        return lambda field: field[:, 0] if form.per_particle else field[0, 0]
    return lambda field: field.T if form.per_particle else field[0]


def store_of(shape: tuple[int, ...], number: bool) -> Function:
    """Keep the value of one particle: a number, D numbers, or a matrix."""
    if len(shape) == 2:

        @inner
        def store(out, p, value):  # type: ignore[no-untyped-def]
            if len(value) != out.shape[0]:
                raise ValueError("a matrix has another number of rows than at the start")
            for i in range(out.shape[0]):
                if len(value[i]) != out.shape[1]:
                    raise ValueError("a matrix has another number of columns than at the start")
                for k in range(out.shape[1]):
                    out[i, k, p] = value[i][k]

    elif number:

        @inner
        def store(out, p, value):  # type: ignore[no-untyped-def]
            out[0, p] = value

    else:

        @inner
        def store(out, p, value):  # type: ignore[no-untyped-def]
            if len(value) != out.shape[0]:
                raise ValueError("a coefficient returns another number of components than at the start")
            for i in range(out.shape[0]):
                out[i, p] = value[i]

    return store
