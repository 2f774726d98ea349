"""A pass over the particles, compiled for an equation from the terms of a stage."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.accelerate import composed_kernel, inlined_kernel, merged_kernel
from solvers.ensemble.random import fill_normals
from solvers.sde.coefficients import Coefficients, coefficient_functions
from solvers.sde.equation import Form, McKeanVlasov
from solvers.sde.march import Leg, marching
from solvers.sde.schemes.kernels import add_entries, add_row_sums, load, load_finite, put
from solvers.sde.schemes.scheme import Stage, Step, Term

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]
Function = Callable[..., Any]


class Pass(NamedTuple):
    """What a solve calls for a stretch of the particles: a stage of a step, and their sums where the first starts.

    `part` is `advance` for kernels.
    """

    advance: Function
    measure: Function
    part: Function


def stage_pass(equation: McKeanVlasov, form: Form, stage: Stage) -> Pass:
    """Return the pass of a stage; it is compiled when first called, unless the equation is vectorized."""
    return _pass(equation, form, stage.terms, stage.settings)


@lru_cache(maxsize=32)
def _pass(equation: McKeanVlasov, form: Form, terms: Function, settings: tuple[Any, ...]) -> Pass:
    plain = equation.vectorized
    inlined, merged, entry = (_as_it_is,) * 3 if plain else (inlined_kernel, merged_kernel, composed_kernel)
    coefficients = coefficient_functions(equation, form)
    parts = [inlined(term) for term in terms(equation, coefficients, form, *settings)]
    if not parts:
        raise ValueError(f"{getattr(terms, '__name__', 'the scheme')} gives no terms, so there is nothing to add")
    change, *others = parts
    for term in others:
        change = merged(_both(change, term))
    measure = merged(_measure(coefficients, form, merged))
    noisy = equation.diffusion is not None or equation.noise == "mean_field"
    advance = _advance(change, measure, form.motions if noisy else 0)
    return Pass(entry(advance), entry(_measure_all(measure)), merged(advance))


@lru_cache(maxsize=32)
def march(equation: McKeanVlasov, form: Form, stages: tuple[Stage, ...]) -> Function:
    """Return what does many steps of an equation that is not vectorized in one call; compiled when first called."""
    parts = [(stage_pass(equation, form, stage).part, float(stage.weight)) for stage in stages]
    return composed_kernel(marching(parts, merged_kernel, form.moments, equation.noise == "mean_field"))


def _as_it_is(function: Function) -> Function:
    return function


def _both(first: Term, second: Term) -> Term:
    def both(out: Matrix, s: Step) -> None:
        first(out, s)
        second(out, s)

    return both


def _measure(coefficients: Coefficients, form: Form, compiled: Function) -> Function:
    """Return a function that adds Σ ψ and Σ ψψᵀ over some particles to a row of sums."""
    moments, covariance, M = coefficients.moments, coefficients.covariance, form.moments

    def add_moments(t: float, x: Array, args: Any, out: Matrix) -> None:
        add_row_sums(moments(t, x, args), out)  # type: ignore[misc]

    def add_covariance(t: float, x: Array, args: Any, out: Matrix) -> None:
        psi = covariance(t, x, args)  # type: ignore[misc]
        add_entries(np.dot(psi, psi.T), out, M)

    parts = [compiled(add_moments)] if moments is not None else []
    parts += [compiled(add_covariance)] if covariance is not None else []
    nothing = compiled(lambda t, x, args, out: None)
    first, second = (*parts, nothing, nothing)[:2]

    def measure(t: float, x: Array, args: Any, out: Matrix) -> None:
        first(t, x, args, out)
        second(t, x, args, out)

    return measure


def _advance(change: Term, measure: Function, motions: int) -> Function:
    def advance(
        source: Array,
        target: Array,
        weight: float,
        base: Array,
        leg: Leg,
        sums: Matrix,
        groups: tuple[int, int, int, int],
    ) -> None:
        """Set target to (1 − weight) base + weight (source + change), add up ψ at arrival, and count the lost.

        `groups` are the first one, the one after the last, how many particles they have, and how many are done at once.
        """
        t, dt, arrival, m, field, common, factor, draw, limit, everyone, args = leg
        first, last, group_size, part_size = groups
        dimension, particles = source.shape
        x, moved, dw = np.empty((dimension, 0)), np.empty((dimension, 0)), np.empty((motions, 0))
        scale = math.sqrt(abs(dt))
        for group in range(first, last):
            end = min((group + 1) * group_size, particles)
            for start in range(group * group_size, end, part_size):
                stop = min(start + part_size, end)
                if stop - start != x.shape[1]:
                    x, moved = np.empty((dimension, stop - start)), np.empty((dimension, stop - start))
                    dw = np.empty((motions, stop - start))
                load(source, start, x, moved)
                if motions > 0:
                    seed, stream, step, positions, finest, refinement, origin = draw
                    low, high = origin + start, origin + stop
                    fill_normals(dw, low, high, low, seed, stream, step, positions, finest, refinement, scale)
                here = field[start:stop] if len(field) == particles else field
                change(moved, Step(t, dt, x, m, here, dw, common, factor, everyone, args))
                sums[group, -1] += put(moved, target, weight, base, start, limit)
                measure(arrival, moved, args, sums[group])

    return advance


def _measure_all(measure: Function) -> Function:
    def measure_all(source: Array, t: float, args: Any, sums: Matrix, groups: tuple[int, int, int, int]) -> None:
        """Add up what the first step needs."""
        first, last, group_size, part_size = groups
        dimension, particles = source.shape
        x = np.empty((dimension, 0))
        for group in range(first, last):
            end = min((group + 1) * group_size, particles)
            for start in range(group * group_size, end, part_size):
                stop = min(start + part_size, end)
                if stop - start != x.shape[1]:
                    x = np.empty((dimension, stop - start))
                sums[group, -1] += load_finite(source, start, x)
                measure(t, x, args, sums[group])

    return measure_all
