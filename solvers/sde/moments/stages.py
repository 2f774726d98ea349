"""Moments that take a pass of their own over the particles, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.accelerate import composed_kernel, merged_kernel
from solvers.ensemble.threads import ThreadParticles
from solvers.sde.coefficients import moment_function
from solvers.sde.equation import Form, McKeanVlasov
from solvers.sde.moments.moment import Moment
from solvers.sde.schemes.kernels import load_finite

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]
Function = Callable[..., Any]


class Stage(NamedTuple):
    """A moment, what its functions return, and its compiled pass."""

    moment: Moment
    rows: int
    measure: Function

    def found(
        self, ensemble: ThreadParticles, x: Array, t: float, m: Matrix, args: Any, share: int, size: int
    ) -> Matrix:
        """Return its entries of m, from particles x, (D or more, held), and the entries before it."""
        sums = np.zeros((len(ensemble.groups), self.moment.width(self.rows)))

        def work(groups: slice) -> None:
            self.measure(x, t, m, args, sums, (groups.start, groups.stop, ensemble.group_size, share))

        ensemble.on_groups(work, size)
        total = np.zeros(sums.shape[1])
        self.moment.kernels[1](ensemble.of_all_groups(sums), total)
        found = np.asarray(self.moment.finish(total, ensemble.particles), np.float64)
        if found.shape != (self.moment.size(self.rows),):
            kind = type(self.moment).__name__
            raise ValueError(f"finish of {kind} must return {self.moment.size(self.rows)} numbers, got {found.shape}")
        return found


@lru_cache(maxsize=32)
def moment_stages(equation: McKeanVlasov, form: Form) -> tuple[Stage, ...]:
    """Return the later moments of an equation with their passes."""
    plain = form.summed - form.share
    before = plain, form.plain_number if plain else True
    found = []
    for place, moment in enumerate(equation.later_moments):
        found.append(moment_stage(equation, form, place, form.later[place], before))
        before = entries_after(before, moment, form.later[place])
    return tuple(found)


def moment_stage(
    equation: McKeanVlasov, form: Form, place: int, counts: tuple[tuple[int, bool], ...], before: tuple[int, bool]
) -> Stage:
    """Return the later moment at a place, whose functions return these numbers, with its pass."""
    moment = equation.later_moments[place]
    names = [equation.name_of(name, place) for name in moment.functions()]
    functions = [
        moment_function(equation, form, name, count, number, before)
        for name, (count, number) in zip(names, counts, strict=True)
    ]
    rows = sum(count for count, _ in counts)
    merged, entry = (_as_it_is, _as_it_is) if equation.vectorized else (merged_kernel, composed_kernel)
    values = merged(_values(functions, [count for count, _ in counts]))
    return Stage(moment, rows, entry(_measure(values, moment.kernels[0], form.dimension)))


def entries_after(before: tuple[int, bool], moment: Moment, counts: tuple[tuple[int, bool], ...]) -> tuple[int, bool]:
    """Return how many entries m has after a moment, and whether it is a number."""
    size = moment.size(sum(count for count, _ in counts))
    return before[0] + size, before[0] == 0 and size == 1 and all(number for _, number in counts)


def _as_it_is(function: Function) -> Function:
    return function


def _values(functions: list[Function], counts: list[int]) -> Function:
    """Return what puts the values of one or two functions on top of each other, (rows, n)."""
    if len(functions) == 1:
        (only,) = functions
        return lambda t, x, m, field, args: only(t, x, m, field, args)
    first, second = functions
    above, below = counts

    def both(t: float, x: Array, m: Matrix, field: Matrix, args: Any) -> Matrix:
        out = np.empty((above + below, x.shape[1]))
        out[:above] = first(t, x, m, field, args)
        out[above:] = second(t, x, m, field, args)
        return out

    return both


def _measure(values: Function, add: Function, dimension: int) -> Function:
    def measure(source: Array, t: float, m: Matrix, args: Any, sums: Matrix, groups: tuple[int, int, int, int]) -> None:
        """Take in the particles of some groups."""
        first, last, group_size, part_size = groups
        particles = source.shape[1]
        x, field = np.empty((dimension, 0)), np.zeros((1, 0))
        for group in range(first, last):
            end = min((group + 1) * group_size, particles)
            for start in range(group * group_size, end, part_size):
                stop = min(start + part_size, end)
                if stop - start != x.shape[1]:
                    x = np.empty((dimension, stop - start))
                load_finite(source, start, x)
                add(values(t, x, m, field, args), sums[group])

    return measure
