"""The coefficients of an equation as functions of a block of particles.

Whatever way a coefficient was written, here it takes t, positions x (D, n), means m (M,) and the external
field (n or 1, F), and returns (rows, n), or (D, K, n) for a matrix. So the schemes are written once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.equation import Form, McKeanVlasov

Block = NDArray[np.floating]
Function = Callable[..., Any]

# Partners that a block of particles meets at a time, so that they stay in cache, and, for functions of
# arrays, so that the temporaries of all pairs do.
_PARTNERS = 1024
_PAIRS = 2**18


_inner = njit(nogil=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")


class Coefficients(NamedTuple):
    """Block functions of one equation; None where a coefficient is left out.

    All take (t, x, m, field), except moments and covariance, (t, x), and interaction, (x, field, ensemble).
    """

    drift: Function | None
    diffusion: Function | None
    moments: Function | None
    covariance: Function | None
    common: Function | None
    interaction: Function | None


def block_coefficients(equation: McKeanVlasov, form: Form) -> Coefficients:
    """Return the block functions of an equation for particles and fields of this form."""
    adapt = _of_arrays if equation.vectorized else _of_particles
    matrix = (form.dimension, form.motions)
    position = (form.dimension,)
    shapes = {
        "drift": position, "diffusion": matrix if equation.noise == "general" else position,
        "moments": (form.moments,), "covariance": position,
        "common": position if len(form.common) < 2 else form.common, "interaction": position,
    }  # fmt: skip
    functions = {name: adapt(equation, form, name, shape) for name, shape in shapes.items() if _used(equation, name)}
    return Coefficients(**{name: functions.get(name) for name in Coefficients._fields})


def _used(equation: McKeanVlasov, name: str) -> bool:
    return (equation.psi if name == "covariance" else getattr(equation, name)) is not None


def _of_arrays(equation: McKeanVlasov, form: Form, name: str, shape: tuple[int, ...]) -> Function:
    """Adapt a NumPy function of many particles."""
    function: Function = equation.psi if name == "covariance" else getattr(equation, name)  # type: ignore[assignment]
    position = (lambda x: x[0]) if form.scalar else (lambda x: x)
    mean = (lambda m: m[0] if len(m) else 0.0) if form.number else (lambda m: m)

    def outside(field: Block) -> Any:
        shared = len(field) == 1
        if form.field == "number":
            return field[0, 0] if shared else field[:, 0]
        return field[0] if shared else field.T

    takes = equation.takes_field(name) if name != "covariance" else False

    def rows(value: Any, n: int) -> Block:
        value = np.asarray(value, np.float64)
        return np.ascontiguousarray(np.broadcast_to(value.reshape(*shape, -1) if value.ndim else value, (*shape, n)))

    if name in ("moments", "covariance"):
        return lambda t, x: rows(function(t, position(x)), x.shape[1])
    if name != "interaction":
        return lambda t, x, m, field: rows(
            function(t, position(x), mean(m), *((outside(field),) if takes else ())), x.shape[1]
        )

    def interaction(x: Block, field: Block, ensemble: Block) -> Block:
        n, total = x.shape[1], np.zeros((*shape, x.shape[1]))
        size = max(1, _PAIRS // n)
        for first in range(0, ensemble.shape[1], size):
            others = position(ensemble[:, first : first + size])
            here = outside(field)[..., None] if takes and len(field) > 1 else outside(field)
            value = function(position(x)[..., None], others[..., None, :], *((here,) if takes else ()))
            total += np.broadcast_to(
                value, (*shape, n, others.shape[-1]) if not form.scalar else (n, others.shape[-1])
            ).sum(-1)
        return total / ensemble.shape[1]

    return interaction


def _of_particles(equation: McKeanVlasov, form: Form, name: str, shape: tuple[int, ...]) -> Function:
    """Compile a loop over the particles of a block around a function of one."""
    function = equation.psi if name == "covariance" else getattr(equation, name)
    point, outside, mean = _point(form), _outside(form), _mean(form)
    takes = equation.takes_field(name) if name != "covariance" else False
    store = _store(shape, _is_number(form, name))
    D = form.dimension

    if name in ("moments", "covariance"):

        @_inner
        def of_law(t, x):  # type: ignore[no-untyped-def]
            out, here = np.empty(shape + (x.shape[1],)), np.empty(D)
            for p in range(x.shape[1]):
                store(out, p, function(t, point(x, p, here)))
            return out

        return of_law

    if name != "interaction":
        call = (
            _inner(lambda t, x, m, field, p: function(t, x, m, outside(field, p)))
            if takes
            else _inner(lambda t, x, m, field, p: function(t, x, m))
        )

        @_inner
        def coefficient(t, x, m, field):  # type: ignore[no-untyped-def]
            out, here = np.empty(shape + (x.shape[1],)), np.empty(D)
            for p in range(x.shape[1]):
                store(out, p, call(t, point(x, p, here), mean(m), field, p))
            return out

        return coefficient

    meet = (
        _inner(lambda x, y, field, p: function(x, y, outside(field, p)))
        if takes
        else _inner(lambda x, y, field, p: function(x, y))
    )
    accumulate = _accumulate(form)

    @_inner
    def interaction(x, field, ensemble):  # type: ignore[no-untyped-def]
        total, here, there = np.zeros((D, x.shape[1])), np.empty(D), np.empty(D)
        partners = ensemble.shape[1]
        for first in range(0, partners, _PARTNERS):
            for p in range(x.shape[1]):
                mine = point(x, p, here)
                accumulate(total, p, mine, ensemble, first, min(first + _PARTNERS, partners), there, field, meet)
        return total / partners

    return interaction


def _is_number(form: Form, name: str) -> bool:
    """Whether a function of one particle returns a number instead of a sequence."""
    return form.number if name == "moments" else form.scalar


def _point(form: Form) -> Function:
    """The position of one particle: a number, or D numbers copied side by side."""
    if form.scalar:
        return _inner(lambda x, p, here: x[0, p])

    @_inner
    def point(x, p, here):  # type: ignore[no-untyped-def]
        for i in range(len(here)):
            here[i] = x[i, p]
        return here

    return point


def _mean(form: Form) -> Function:
    if not form.number:
        return _inner(lambda m: m)
    return _inner(lambda m: m[0]) if form.moments else _inner(lambda m: 0.0)


def _outside(form: Form) -> Function:
    if form.field == "number":
        return _inner(lambda field, p: field[p % len(field), 0])
    return _inner(lambda field, p: field[p % len(field)])


def _store(shape: tuple[int, ...], number: bool) -> Function:
    """Keep the value of one particle: a number, D numbers, or a matrix."""
    if len(shape) == 2:

        @_inner
        def store(out, p, value):  # type: ignore[no-untyped-def]
            for i in range(out.shape[0]):
                for k in range(out.shape[1]):
                    out[i, k, p] = value[i][k]

    elif number:

        @_inner
        def store(out, p, value):  # type: ignore[no-untyped-def]
            out[0, p] = value

    else:

        @_inner
        def store(out, p, value):  # type: ignore[no-untyped-def]
            for i in range(out.shape[0]):
                out[i, p] = value[i]

    return store


def _accumulate(form: Form) -> Function:
    """Add the pull of partners first … last − 1 on particle p to total[:, p]."""
    if form.scalar:

        @_inner
        def accumulate(total, p, mine, ensemble, first, last, there, field, meet):  # type: ignore[no-untyped-def]
            pull = 0.0
            for j in range(first, last):
                pull += meet(mine, ensemble[0, j], field, p)
            total[0, p] += pull

    else:

        @_inner
        def accumulate(total, p, mine, ensemble, first, last, there, field, meet):  # type: ignore[no-untyped-def]
            for j in range(first, last):
                for i in range(len(there)):
                    there[i] = ensemble[i, j]
                value = meet(mine, there, field, p)
                for i in range(len(there)):
                    total[i, p] += value[i]

    return accumulate
