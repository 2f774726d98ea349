"""Sums over partners as functions of a part of the particles: (t, x, m, field, args, partners, first) → (rows, n)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.sde.adapted import (
    Written,
    array_outside_of,
    call_of,
    inner,
    of_arrays,
    of_particles,
    outside_of,
    parameters_of,
    point_of,
    position_of,
    room_of,
)
from solvers.sde.equation import Form, McKeanVlasov
from solvers.sde.pairs.cells import AXES
from solvers.sde.pairs.lists import lists_of
from solvers.sde.pairs.pairs import Pairs
from solvers.sde.pairs.partners import Partners

Array = NDArray[np.floating]
Function = Callable[..., Any]

# How many partners particles meet at a time, so that these stay in cache; and for functions of arrays how many pairs,
# so that the temporaries do.
_PARTNERS = 1024
_PAIRS = 2**18


def pair_sums(equation: McKeanVlasov, form: Form) -> Function:
    """Return what the interaction of an equation adds to its drift for n particles, (D, n).

    `partners` are the positions of all particles, (D, N), where the interaction is a function, else `Partners`; `first`
    is the number of the first of the n.
    """
    takes = equation.extras("interaction", form.field != "none", form.args is not None)
    pairs = equation.pairs
    if pairs is None:
        function, _ = equation.functions["interaction"]
        return (_of_all_arrays if equation.vectorized else _of_all)(function, takes, form)
    sums = (_of_lists if equation.vectorized else _of_partners)(pairs, takes, form)
    if pairs.function is None:
        return sums
    change = function_of_sums(equation, form)

    def changed(t: float, x: Array, m: Array, field: Array, args: Any, partners: Partners, first: int) -> Array:
        return change(t, x, m, sums(t, x, m, field, args, partners, first), field, args)

    return changed if equation.vectorized else inner(changed)


def function_of_sums(equation: McKeanVlasov, form: Form) -> Function:
    """Return the function that pairs have of their sums s, (rows, n), as (t, x, m, s, field, args) → (D, n)."""
    function, _ = equation.functions["function of pairs"]
    takes = equation.extras("function of pairs", form.field != "none", form.args is not None)
    written = Written(function, "sum" if form.sum else "sums", (form.dimension,), form.scalar, takes)
    return (of_arrays if equation.vectorized else of_particles)(written, form)


def _of_all_arrays(function: Function, takes: tuple[bool, bool], form: Form) -> Function:
    """The mean of a NumPy function over all particles."""
    outside, shape = array_outside_of(form), (form.dimension,)

    def interaction(t: float, x: Array, m: Array, field: Array, args: Any, ensemble: Array, first: int) -> Array:
        n, total = x.shape[1], np.zeros((*shape, x.shape[1]))
        size = max(1, _PAIRS // n)
        more = (args,) * takes[1]
        if takes[0]:
            own = outside(field)
            more = (own[..., None] if form.per_particle else own, *more)
        for low in range(0, ensemble.shape[1], size):
            others = position_of(ensemble[:, low : low + size], form.scalar)
            value = function(position_of(x, form.scalar)[..., None], others[..., None, :], *more)
            pairs = (n, others.shape[-1]) if form.scalar else (*shape, n, others.shape[-1])
            total += np.broadcast_to(value, pairs).sum(-1)
        return total / ensemble.shape[1]

    return interaction


def _of_all(function: Function, takes: tuple[bool, bool], form: Form) -> Function:
    """The mean of a compiled function over all particles."""
    D, parameters, room = form.dimension, parameters_of(form.args), room_of(form.scalar, form.dimension)
    point, call = point_of(form.scalar), call_of(function, takes, outside_of(form))
    accumulate = _accumulate(form)

    @inner
    def interaction(t, x, m, field, args, ensemble, number):  # type: ignore[no-untyped-def]
        total, here, there = np.zeros((D, x.shape[1])), room(), room()
        partners, own = ensemble.shape[1], parameters(args)
        for first in range(0, partners, _PARTNERS):
            for p in range(x.shape[1]):
                mine = point(x, p, here)
                accumulate(total, p, mine, ensemble, first, min(first + _PARTNERS, partners), there, field, own, call)
        return total / partners

    return interaction


def _accumulate(form: Form) -> Function:
    """Add the pull of partners first … last − 1 on particle p to total[:, p]."""
    if form.scalar:

        @inner
        def accumulate(total, p, mine, ensemble, first, last, there, field, args, call):  # type: ignore[no-untyped-def]
            pull = 0.0
            for j in range(first, last):
                pull += call((mine, ensemble[0, j]), field, args, p)
            total[0, p] += pull

    else:

        @inner
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


def _of_lists(pairs: Pairs, takes: tuple[bool, bool], form: Form) -> Function:
    """The mean of a NumPy kernel over the partners of each particle, from lists of pairs."""
    rows, outside, both = form.sums, array_outside_of(form), pairs.partner == "field"

    def part(field: Array, places: Any) -> Array:
        return field[places] if form.per_particle else field

    def interaction(t: float, x: Array, m: Array, field: Array, args: Any, partners: Partners, first: int) -> Array:
        n, total = x.shape[1], np.zeros((rows, x.shape[1]))
        for i, j, y, weight in lists_of(pairs, x, first, partners, _PAIRS):
            points = [position_of(np.ascontiguousarray(one), form.scalar) for one in (x[:, i], y)]
            more: tuple[Any, ...] = (first + i, j) if pairs.partner == "index" else ()
            more += (outside(part(field, i)),) if takes[0] or both else ()
            more += (outside(part(partners.fields, j)),) if both else ()
            value = pairs.kernel(*points, *more, *(args,) * takes[1])
            value = np.broadcast_to(value, (rows, len(i)))
            for row in range(rows):
                total[row] += np.bincount(i, weights=value[row] * weight, minlength=n)
        return total / partners.particles

    return interaction


def _of_partners(pairs: Pairs, takes: tuple[bool, bool], form: Form) -> Function:
    """The mean of a compiled kernel over the partners of each particle."""
    rows, number, parameters = form.sums, form.sum, parameters_of(form.args)
    meet = {"all": _meet_all, "cutoff": _meet_near, "batch": _meet_batch}[_kind(pairs)](
        pairs, form, _adding(pairs, takes, form, number)
    )

    @inner
    def interaction(t, x, m, field, args, partners, first):  # type: ignore[no-untyped-def]
        total, own = np.zeros((rows, x.shape[1])), parameters(args)
        here, there = np.empty(x.shape[0]), np.empty(x.shape[0])
        sums = np.zeros(rows)
        for p in range(x.shape[1]):
            for i in range(len(here)):
                here[i] = x[i, p]
            for i in range(rows):
                sums[i] = 0.0
            meet(sums, here, there, p, first + p, field, own, partners)
            for i in range(rows):
                total[i, p] = sums[i]
        return total

    return interaction


def _kind(pairs: Pairs) -> str:
    return "cutoff" if pairs.cutoff is not None else "batch" if pairs.random_batch is not None else "all"


def _adding(pairs: Pairs, takes: tuple[bool, bool], form: Form, number: bool) -> Function:
    """Return what adds the kernel of a pair to sums: add(sums, here, there, p, i, j, field, args, partners)."""
    point = inner(lambda place: place[0]) if form.scalar else inner(lambda place: place)
    outside = outside_of(form)
    if pairs.partner == "index":
        call = call_of(pairs.kernel, takes, outside)
        value_of = inner(lambda x, y, p, i, j, field, args, fields: call((x, y, i, j), field, args, p))
    elif pairs.partner == "field":
        call = call_of(pairs.kernel, (False, takes[1]), outside)
        value_of = inner(
            lambda x, y, p, i, j, field, args, fields: call(
                (x, y, outside(field, p), outside(fields, j)), field, args, p
            )
        )
    else:
        call = call_of(pairs.kernel, takes, outside)
        value_of = inner(lambda x, y, p, i, j, field, args, fields: call((x, y), field, args, p))
    if number:

        @inner
        def add(sums, here, there, p, i, j, field, args, fields):  # type: ignore[no-untyped-def]
            sums[0] += value_of(point(here), point(there), p, i, j, field, args, fields)

    else:

        @inner
        def add(sums, here, there, p, i, j, field, args, fields):  # type: ignore[no-untyped-def]
            value = value_of(point(here), point(there), p, i, j, field, args, fields)
            if len(value) != len(sums):
                raise ValueError("interaction returns another number of components than at the start")
            for k in range(len(sums)):
                sums[k] += value[k]

    return add


@inner
def _nearest(here, there, points, k, box):  # type: ignore[no-untyped-def]
    """Set `there` to the image of a point that is nearest to `here`."""
    for i in range(len(here)):
        there[i] = points[i, k]
        period = box[1, i] - box[0, i]
        if period < np.inf:
            there[i] -= period * np.round((there[i] - here[i]) / period)


def _meet_all(pairs: Pairs, form: Form, add: Function) -> Function:
    @inner
    def meet(sums, here, there, p, number, field, args, partners):  # type: ignore[no-untyped-def]
        for k in range(partners.points.shape[1]):
            _nearest(here, there, partners.points, k, partners.box)
            add(sums, here, there, p, number, k, field, args, partners.fields)
        for i in range(len(sums)):
            sums[i] /= partners.particles

    return meet


def _meet_batch(pairs: Pairs, form: Form, add: Function) -> Function:
    @inner
    def meet(sums, here, there, p, number, field, args, partners):  # type: ignore[no-untyped-def]
        batch, count = partners.batch[number], partners.particles
        begin, end = partners.begin[batch], partners.begin[batch + 1]
        for k in range(begin, end):
            if partners.numbers[k] != number:
                _nearest(here, there, partners.points, k, partners.box)
                add(sums, here, there, p, number, partners.numbers[k], field, args, partners.fields)
        for i in range(len(sums)):
            sums[i] *= (count - 1) / (end - begin - 1)
        for i in range(len(here)):
            there[i] = here[i]
        add(sums, here, there, p, number, number, field, args, partners.fields)
        for i in range(len(sums)):
            sums[i] /= count

    return meet


def _square_of(pairs: Pairs) -> float:
    cutoff = float(pairs.cutoff or 0.0)
    return cutoff * cutoff  # which may be infinite


def _meet_near(pairs: Pairs, form: Form, add: Function) -> Function:
    space, square = pairs.components(form.dimension), _square_of(pairs)

    @inner
    def meet(sums, here, there, p, number, field, args, partners):  # type: ignore[no-untyped-def]
        shift = np.empty(len(here))  # from the image in the box to where the particle is
        for i in range(len(here)):
            low, high = partners.box[0, i], partners.box[1, i]
            shift[i] = here[i] - (low + (here[i] - low) % (high - low)) if high - low < np.inf else 0.0
        planes = _around(here, shift, 0, space, partners)
        rows = _around(here, shift, 1, space, partners)
        cells = _around(here, shift, 2, space, partners)
        for plane in range(planes[0], planes[1]):
            for row in range(rows[0], rows[1]):
                line = (plane * partners.shape[1] + row) * partners.shape[2]
                for k in range(partners.begin[line + cells[0]], partners.begin[line + cells[1]]):
                    distance = 0.0
                    for i in range(space):
                        apart = partners.points[i, k] + shift[i] - here[i]
                        distance += apart * apart
                    if distance < square:
                        _nearest(here, there, partners.points, k, partners.box)
                        for i in range(space):
                            there[i] = partners.points[i, k] + shift[i]
                        add(sums, here, there, p, number, partners.numbers[k], field, args, partners.fields)
        for i in range(len(sums)):
            sums[i] /= partners.particles

    return meet


@inner
def _around(here, shift, axis, space, partners):  # type: ignore[no-untyped-def]
    """Return the first cell along an axis where partners may be, and the one after the last."""
    i = axis - (AXES - space)
    at = (here[i] - shift[i] - partners.low[axis]) * partners.inverse if i >= 0 else 0.0
    middle = math.floor(min(max(at, 0.0), partners.shape[axis] - 1.0))
    return max(middle - 1, 0), min(middle + 2, partners.shape[axis])
