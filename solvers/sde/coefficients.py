"""The coefficients of an equation as functions of a part of the particles.

Whatever way a coefficient was written, here it takes t, positions x (D, n), means m (M,), the external field
(n or 1, F) and the parameters, and returns (rows, n), or (D, K, n) for a matrix. So the schemes are written once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.accelerate import composed_kernel
from solvers.sde.equation import Form, McKeanVlasov

Array = NDArray[np.floating]
Function = Callable[..., Any]

# How many partners particles meet at a time, so that these stay in cache; and for functions of arrays how many pairs,
# so that the temporaries do.
_PARTNERS = 1024
_PAIRS = 2**18


_FASTMATH = frozenset({"contract", "reassoc", "nsz"})
_inner = njit(nogil=True, fastmath=set(_FASTMATH), error_model="numpy")


class Coefficients(NamedTuple):
    """Functions of n particles, for one equation; None where a coefficient is left out.

    All take (t, x, m, field, args) except for moments and covariance, (t, x, args), and interaction,
    (x, field, args, ensemble). Where there are no parameters, `args` is ().
    """

    drift: Function | None
    diffusion: Function | None
    moments: Function | None
    covariance: Function | None
    common: Function | None
    interaction: Function | None


class _Written(NamedTuple):
    """A coefficient as the user wrote it."""

    function: Function
    arguments: str  # "pair": (x, y, …), "local": (t, x, m, …), or "marked": (t, x, m, z, …) with a random number z
    shape: tuple[int, ...]  # of its value for one particle: (rows,), or (D, K) for a matrix
    number: bool  # it returns a number instead of a sequence
    takes: tuple[bool, bool]  # the field, the parameters


def coefficient_functions(equation: McKeanVlasov, form: Form) -> Coefficients:
    """Return the coefficients of an equation for particles and fields of this form."""
    adapt = _of_arrays if equation.vectorized else _of_particles
    position = (form.dimension,)
    matrix = (form.dimension, form.motions) if equation.noise == "general" else position
    adapted: dict[str, Function] = {}
    if equation.moments is not None:
        adapted["moments"] = law_function(
            equation, "moments", (form.moments - form.share,), form.number, form.scalar, form.dimension, form.args
        )
    if equation.psi is not None:
        adapted["covariance"] = law_function(
            equation, "covariance", position, form.scalar, form.scalar, form.dimension, form.args
        )
    force = (form.dimension // 2,) if form.force else position
    shapes = {"drift": force, "diffusion": matrix, "common": form.common, "interaction": position}
    for name, shape in shapes.items():
        if name in equation.given:
            arguments = "pair" if name == "interaction" else "local"
            function = getattr(equation, name)
            takes = equation.extras(name, form.field != "none", form.args is not None)
            number = form.dimension == 2 if form.force and name == "drift" else form.scalar
            written = _Written(function, arguments, shape, number, takes)
            adapted[name] = adapt(written, form)
    return Coefficients(**{name: adapted.get(name) for name in Coefficients._fields})


def given_function(
    equation: McKeanVlasov, form: Form, function: Function, takes: tuple[bool, bool], axes: int, marked: bool = False
) -> Function:
    """Return a function of an event or a scheme for n particles, (t, x, m[, z], field, args), with z (n,) if marked.

    It returns (1, n) for a number, (D, n) for values with one axis and (D, D, n) for those with two.
    """
    D, number = form.dimension, axes == 0 or form.scalar
    shape = (1,) if axes == 0 else (D,) if number or axes == 1 else (D, D)
    written = _Written(function, "marked" if marked else "local", shape, number, takes)
    found = (_of_arrays if equation.vectorized else _of_particles)(written, form)
    if axes < 2 or not number:
        return found

    def matrix(t: float, x: Array, m: Array, field: Array, args: Any) -> Array:
        return found(t, x, m, field, args).reshape((1, 1, x.shape[1]))  # type: ignore[no-any-return]

    return matrix if equation.vectorized else _inner(matrix)  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def law_function(
    equation: McKeanVlasov,
    name: str,
    shape: tuple[int, ...],
    number: bool,
    scalar: bool,
    dimension: int,
    args: type | None = None,
) -> Function:
    """Return "moments" or "covariance" of an equation as a function (t, x, args) of n particles, compiled once."""
    given = name if getattr(equation, name) is not None else "moments"
    function, (_, takes) = getattr(equation, given), equation.extras(given, False, args is not None)
    if equation.vectorized:
        if takes:
            return lambda t, x, args: _rows(function(t, _position(x, scalar), args), shape, x.shape[1])
        return lambda t, x, args: _rows(function(t, _position(x, scalar)), shape, x.shape[1])
    point, store, parameters = _point(scalar), _store(shape, number), parameters_of(args)
    room = _room(scalar, dimension)
    call = _inner(lambda t, x, args: function(t, x, args)) if takes else _inner(lambda t, x, args: function(t, x))

    def of_law(t, x, args):  # type: ignore[no-untyped-def]
        out, here, own = np.empty(shape + (x.shape[1],)), room(), parameters(args)
        for p in range(x.shape[1]):
            store(out, p, call(t, point(x, p, here), own))
        return out

    return composed_kernel(of_law, _FASTMATH)


def _position(x: Array, scalar: bool) -> Array:
    """Return the particles as a NumPy function takes them; one that changes x would change the run."""
    seen = x[0] if scalar else x[:]
    seen.flags.writeable = False
    return seen


def _rows(value: Any, shape: tuple[int, ...], n: int) -> Array:
    """Return what a NumPy function gave for n particles as (*shape, n)."""
    value = np.asarray(value, np.float64)
    if value.shape != (*shape, n):
        value = np.broadcast_to(value.reshape(*shape, -1) if value.ndim else value, (*shape, n))
    return np.ascontiguousarray(value)


def _of_arrays(written: _Written, form: Form) -> Function:
    """Adapt a NumPy function of many particles."""
    function, shape, (takes, takes_args) = written.function, written.shape, written.takes

    def position(x: Array) -> Array:
        return _position(x, form.scalar)

    mean = array_means_of(form)

    def outside(field: Array) -> Any:
        if form.field == "number":
            return field[:, 0] if form.per_particle else field[0, 0]
        return field.T if form.per_particle else field[0]

    if written.arguments == "local":

        def coefficient(t: float, x: Array, m: Array, field: Array, args: Any) -> Array:
            more = (outside(field),) * takes + (args,) * takes_args
            return _rows(function(t, position(x), mean(m), *more), shape, x.shape[1])

        return coefficient

    if written.arguments == "marked":

        def marked(t: float, x: Array, m: Array, z: Array, field: Array, args: Any) -> Array:
            more = (outside(field),) * takes + (args,) * takes_args
            return _rows(function(t, position(x), mean(m), z, *more), shape, x.shape[1])

        return marked

    def interaction(x: Array, field: Array, args: Any, ensemble: Array) -> Array:
        n, total = x.shape[1], np.zeros((*shape, x.shape[1]))
        size = max(1, _PAIRS // n)
        for first in range(0, ensemble.shape[1], size):
            others = position(ensemble[:, first : first + size])
            here = outside(field)[..., None] if takes and form.per_particle else outside(field) if takes else None
            more = (here,) * takes + (args,) * takes_args
            value = function(position(x)[..., None], others[..., None, :], *more)
            pairs = (n, others.shape[-1]) if form.scalar else (*shape, n, others.shape[-1])
            total += np.broadcast_to(value, pairs).sum(-1)
        return total / ensemble.shape[1]

    return interaction


def _of_particles(written: _Written, form: Form) -> Function:
    """Compile a loop over particles around a function of one."""
    shape, D, parameters = written.shape, form.dimension, parameters_of(form.args)
    room = _room(form.scalar, D)
    point, outside, mean, store = _point(form.scalar), _outside(form), means_of(form), _store(shape, written.number)

    call = _call(written.function, written.takes, outside)

    if written.arguments == "local":

        @_inner
        def coefficient(t, x, m, field, args):  # type: ignore[no-untyped-def]
            out, here, own = np.empty(shape + (x.shape[1],)), room(), parameters(args)
            for p in range(x.shape[1]):
                store(out, p, call((t, point(x, p, here), mean(m)), field, own, p))
            return out

        return coefficient

    if written.arguments == "marked":

        @_inner
        def marked(t, x, m, z, field, args):  # type: ignore[no-untyped-def]
            out, here, own = np.empty(shape + (x.shape[1],)), room(), parameters(args)
            for p in range(x.shape[1]):
                store(out, p, call((t, point(x, p, here), mean(m), z[p]), field, own, p))
            return out

        return marked

    accumulate = _accumulate(form)

    @_inner
    def interaction(x, field, args, ensemble):  # type: ignore[no-untyped-def]
        total, here, there = np.zeros((D, x.shape[1])), room(), room()
        partners, own = ensemble.shape[1], parameters(args)
        for first in range(0, partners, _PARTNERS):
            for p in range(x.shape[1]):
                mine = point(x, p, here)
                accumulate(total, p, mine, ensemble, first, min(first + _PARTNERS, partners), there, field, own, call)
        return total / partners

    return interaction


def _call(function: Function, takes: tuple[bool, bool], outside: Function) -> Function:
    """Call a function of a tuple's entries, as (t, x, m), with what more it takes."""
    if takes == (True, True):
        return _inner(lambda at, field, args, p: function(*at, outside(field, p), args))
    if takes == (True, False):
        return _inner(lambda at, field, args, p: function(*at, outside(field, p)))
    if takes == (False, True):
        return _inner(lambda at, field, args, p: function(*at, args))
    return _inner(lambda at, field, args, p: function(*at))


def parameters_of(args: type | None) -> Function:
    """Return what makes the parameters that a coefficient takes of those that kernels pass on.

    Kernels are known by the types of what they are called with, so what they pass on is a plain tuple: that of another
    class with the same name would be taken for this one.
    """
    if args is None or not hasattr(args, "_fields"):
        return _inner(lambda args: args)
    return _inner(lambda entries: args(*entries))


def _room(scalar: bool, dimension: int) -> Function:
    """Return what makes room for the position of a particle, where it is not a number."""
    return _inner(lambda: 0) if scalar else _inner(lambda: np.empty(dimension))


def _point(scalar: bool) -> Function:
    """The position of one particle: a number, or D numbers copied side by side."""
    if scalar:
        return _inner(lambda x, p, here: x[0, p])

    @_inner
    def point(x, p, here):  # type: ignore[no-untyped-def]
        for i in range(len(here)):
            here[i] = x[i, p]
        return here

    return point


def means_of(form: Form) -> Function:
    """Return what makes the m that a coefficient takes, a number or (M,), of the (M,) that kernels pass on."""
    if form.share or not form.number:
        return _inner(lambda m: m)
    return _inner(lambda m: m[0]) if form.moments else _inner(lambda m: 0.0)


def array_means_of(form: Form) -> Function:
    """Return the same for functions of arrays, which are not compiled."""
    return (lambda m: m[0] if len(m) else 0.0) if form.number and not form.share else (lambda m: m)


def _outside(form: Form) -> Function:
    if form.field == "number":
        return _inner(lambda field, p: field[p, 0]) if form.per_particle else _inner(lambda field, p: field[0, 0])
    return _inner(lambda field, p: field[p]) if form.per_particle else _inner(lambda field, p: field[0])


def _store(shape: tuple[int, ...], number: bool) -> Function:
    """Keep the value of one particle: a number, D numbers, or a matrix."""
    if len(shape) == 2:

        @_inner
        def store(out, p, value):  # type: ignore[no-untyped-def]
            if len(value) != out.shape[0]:
                raise ValueError("a matrix has another number of rows than at the start")
            for i in range(out.shape[0]):
                if len(value[i]) != out.shape[1]:
                    raise ValueError("a matrix has another number of columns than at the start")
                for k in range(out.shape[1]):
                    out[i, k, p] = value[i][k]

    elif number:

        @_inner
        def store(out, p, value):  # type: ignore[no-untyped-def]
            out[0, p] = value

    else:

        @_inner
        def store(out, p, value):  # type: ignore[no-untyped-def]
            if len(value) != out.shape[0]:
                raise ValueError("a coefficient returns another number of components than at the start")
            for i in range(out.shape[0]):
                out[i, p] = value[i]

    return store


def _accumulate(form: Form) -> Function:
    """Add the pull of partners first … last − 1 on particle p to total[:, p]."""
    if form.scalar:

        @_inner
        def accumulate(total, p, mine, ensemble, first, last, there, field, args, call):  # type: ignore[no-untyped-def]
            pull = 0.0
            for j in range(first, last):
                pull += call((mine, ensemble[0, j]), field, args, p)
            total[0, p] += pull

    else:

        @_inner
        def accumulate(total, p, mine, ensemble, first, last, there, field, args, call):  # type: ignore[no-untyped-def]
            for j in range(first, last):
                for i in range(len(there)):
                    there[i] = ensemble[i, j]
                value = call((mine, there), field, args, p)
                if len(value) != len(there):
                    raise ValueError("interaction returns another number of components than at the start")
                for i in range(len(there)):
                    total[i, p] += value[i]

    return accumulate
