"""The coefficients of an equation as functions of a part of the particles."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.accelerate import composed_kernel
from solvers.sde.adapted import (
    FASTMATH,
    Written,
    inner,
    of_arrays,
    of_particles,
    parameters_of,
    point_of,
    position_of,
    room_of,
    rows_of,
    store_of,
)
from solvers.sde.equation import Form, McKeanVlasov
from solvers.sde.pairs.sums import pair_sums

Array = NDArray[np.floating]
Function = Callable[..., Any]


class Coefficients(NamedTuple):
    """Functions of n particles, for one equation; None where a coefficient is left out.

    All take (t, x, m, field, args) except for moments and covariance, (t, x, args), and interaction,
    (t, x, m, field, args, ensemble, first). Where there are no parameters, `args` is ().
    """

    drift: Function | None
    diffusion: Function | None
    moments: Function | None
    covariance: Function | None
    common: Function | None
    interaction: Function | None


def coefficient_functions(equation: McKeanVlasov, form: Form) -> Coefficients:
    """Return the coefficients of an equation for particles and fields of this form."""
    adapt = of_arrays if equation.vectorized else of_particles
    position = (form.dimension,)
    matrix = (form.dimension, form.motions) if equation.noise == "general" else position
    adapted: dict[str, Function] = {}
    if equation.plain_moments is not None:
        kept = (form.summed - form.share,), form.plain_number
        adapted["moments"] = law_function(equation, "moments", *kept, form.scalar, form.dimension, form.args)
    if equation.psi is not None:
        adapted["covariance"] = law_function(
            equation, "covariance", position, form.scalar, form.scalar, form.dimension, form.args
        )
    force = (form.dimension // 2,) if form.force else position
    if equation.interaction is not None:
        adapted["interaction"] = pair_sums(equation, form)
    shapes = {"drift": force, "diffusion": matrix, "common": form.common}
    for name, shape in shapes.items():
        if name in equation.given:
            takes = equation.extras(name, form.field != "none", form.args is not None)
            number = form.dimension == 2 if form.force and name == "drift" else form.scalar
            adapted[name] = adapt(Written(getattr(equation, name), "local", shape, number, takes), form)
    return Coefficients(**{name: adapted.get(name) for name in Coefficients._fields})


def given_function(
    equation: McKeanVlasov, form: Form, function: Function, takes: tuple[bool, bool], axes: int, marked: bool = False
) -> Function:
    """Return a function of an event or a scheme for n particles, (t, x, m[, z], field, args), with z (n,) if marked.

    It returns (1, n) for a number, (D, n) for values with one axis and (D, D, n) for those with two.
    """
    D, number = form.dimension, axes == 0 or form.scalar
    shape = (1,) if axes == 0 else (D,) if number or axes == 1 else (D, D)
    written = Written(function, "mark" if marked else "local", shape, number, takes)
    found = (of_arrays if equation.vectorized else of_particles)(written, form)
    if axes < 2 or not number:
        return found

    def matrix(t: float, x: Array, m: Array, field: Array, args: Any) -> Array:
        return found(t, x, m, field, args).reshape((1, 1, x.shape[1]))  # type: ignore[no-any-return]

    return matrix if equation.vectorized else inner(matrix)  # type: ignore[no-any-return]


def moment_function(
    equation: McKeanVlasov, form: Form, name: str, count: int, number: bool, before: tuple[int, bool]
) -> Function:
    """Return a function of a later moment for n particles, (t, x, m, field, args) → (count, n).

    `before` says how many entries m has by then, and whether it is a number.
    """
    function, arguments = equation.functions[name]
    takes = equation.extras(name, False, form.args is not None)
    if "m" not in arguments:
        function = _without_means(function, takes[1], equation.vectorized)
    seen = form._replace(moments=before[0], number=before[1], share=False, later_moments=0)
    written = Written(function, "local", (count,), number, takes)
    return (of_arrays if equation.vectorized else of_particles)(written, seen)


def _without_means(function: Function, takes_args: bool, vectorized: bool) -> Function:
    """Return a function of (t, x[, args]) as one of (t, x, m[, args])."""
    compiled = (lambda function: function) if vectorized else inner
    if takes_args:
        return compiled(lambda t, x, m, args: function(t, x, args))  # type: ignore[no-any-return, no-untyped-call]
    return compiled(lambda t, x, m: function(t, x))  # type: ignore[no-any-return, no-untyped-call]


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
    given = name if name in equation.functions else "moments"
    (function, _), (_, takes) = equation.functions[given], equation.extras(given, False, args is not None)
    if equation.vectorized:
        if takes:
            return lambda t, x, args: rows_of(function(t, position_of(x, scalar), args), shape, x.shape[1])
        return lambda t, x, args: rows_of(function(t, position_of(x, scalar)), shape, x.shape[1])
    point, store, parameters = point_of(scalar), store_of(shape, number), parameters_of(args)
    room = room_of(scalar, dimension)
    call = inner(lambda t, x, args: function(t, x, args)) if takes else inner(lambda t, x, args: function(t, x))

    def of_law(t, x, args):  # type: ignore[no-untyped-def]
        out, here, own = np.empty(shape + (x.shape[1],)), room(), parameters(args)
        for p in range(x.shape[1]):
            store(out, p, call(t, point(x, p, here), own))
        return out

    return composed_kernel(of_law, FASTMATH)
