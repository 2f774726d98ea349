"""A pass over the particles, compiled for an equation from the terms of a stage."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.accelerate import composed_kernel, inlined_kernel, merged_kernel
from solvers.ensemble.random import fill_integrals, fill_normals, fill_path
from solvers.sde.coefficients import Coefficients, coefficient_functions
from solvers.sde.equation import Form, McKeanVlasov
from solvers.sde.events.event import NO_PLAN, Plan
from solvers.sde.events.finish import finishing
from solvers.sde.march import Leg, marching
from solvers.sde.moments.mean import add_sums
from solvers.sde.schemes.kernels import (
    add_entries,
    add_row,
    between,
    load,
    load_finite,
    mix,
    note_fault,
    put,
)
from solvers.sde.schemes.scheme import Stage, Step, Term, check_term

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


def stage_pass(equation: McKeanVlasov, form: Form, stage: Stage, plan: Plan = NO_PLAN, partly: bool = False) -> Pass:
    """Return the pass of a stage; it is compiled when first called, unless the equation is vectorized.

    The `plan` is that of the last stage of a step. `partly` says that a step ends between times of the grid.
    """
    return _pass(equation, form, stage.terms, stage.settings, stage.motions, plan, partly)


@lru_cache(maxsize=32)
def _pass(
    equation: McKeanVlasov,
    form: Form,
    terms: Function,
    settings: tuple[Any, ...],
    motions: str,
    plan: Plan,
    partly: bool,
) -> Pass:
    plain = equation.vectorized
    inlined, merged, entry = (_as_it_is,) * 3 if plain else (inlined_kernel, merged_kernel, composed_kernel)
    coefficients = coefficient_functions(equation, form)
    given = list(terms(equation, coefficients, form, *settings))
    for term in given:
        check_term(term)
    parts = [inlined(term) for term in given]
    if not parts:
        raise ValueError(f"{getattr(terms, '__name__', 'the scheme')} gives no terms, so there is nothing to add")
    change, *others = parts
    for term in others:
        change = merged(_both(change, term))
    measure = merged(_measure(coefficients, form, merged))
    finish = merged(finishing(plan.acts, equation, coefficients, form, merged))
    fill = merged(_FILL["part" if partly else "integrals" if motions == "integrals" else "increments"])
    tally = merged(_tally(form, plan))
    noisy = equation.diffusion is not None or equation.noise == "mean_field"
    count = form.motions if motions == "own" or (noisy and motions != "none") else 0
    sizes = form.dimension, count, count if motions == "integrals" else 0
    advance = _advance(change, measure, finish, tally, fill, sizes)
    return Pass(entry(advance), entry(_measure_all(measure, form.dimension, tally)), merged(advance))


@lru_cache(maxsize=32)
def march(
    equation: McKeanVlasov, form: Form, scheme_stages: tuple[Stage, ...], times: tuple[float, ...], plan: Plan,
    stop: Function | None,
) -> Function:  # fmt: skip
    """Return what does many steps of an equation that is not vectorized in one call; compiled when first called."""
    passes = stage_passes(equation, form, scheme_stages, plan)
    parts = [(one.part, float(stage.weight)) for one, stage in zip(passes, scheme_stages, strict=True)]
    correlated = equation.noise == "mean_field"
    return composed_kernel(marching(parts, times, merged_kernel, form, correlated, stop))


def stage_passes(
    equation: McKeanVlasov, form: Form, stages: tuple[Stage, ...], plan: Plan, partly: bool = False
) -> list[Pass]:
    """Return the passes of a step."""
    last = len(stages) - 1
    return [
        stage_pass(equation, form, stage, plan if number == last else Plan((), plan.share), partly)
        for number, stage in enumerate(stages)
    ]


def _as_it_is(function: Function) -> Function:
    return function


def _both(first: Term, second: Term) -> Term:
    def both(out: Matrix, s: Step) -> None:
        first(out, s)
        second(out, s)

    return both


def _measure(coefficients: Coefficients, form: Form, compiled: Function) -> Function:
    """Return a function that adds Σ ψ and Σ ψψᵀ over some particles to a row of sums."""
    moments, covariance, M = coefficients.moments, coefficients.covariance, form.summed

    def add_moments(t: float, x: Array, args: Any, out: Matrix) -> None:
        add_sums(moments(t, x, args), out)  # type: ignore[misc]

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


def _advance(
    change: Term, measure: Function, finish: Function, tally: Function, fill: Function, sizes: tuple[int, int, int]
) -> Function:
    dimension, motions, integrals = sizes

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
        first, last, group_size, part_size = groups
        particles, origin = source.shape[1], leg.draw.first
        n = min(part_size, group_size, particles - first * group_size)
        x, moved, dw = np.empty((dimension, n)), np.empty((dimension, n)), np.empty((motions, n))
        dz, own = np.empty((integrals, n)) if integrals > 0 else dw[:0], len(leg.field) == particles
        for group in range(first, last):
            end = min((group + 1) * group_size, particles)
            for start in range(group * group_size, end, part_size):
                stop = min(start + part_size, end)
                if stop - start != n:
                    n = stop - start
                    x, moved, dw = np.empty((dimension, n)), np.empty((dimension, n)), np.empty((motions, n))
                    dz = np.empty((integrals, n)) if integrals > 0 else dw[:0]
                load(source, start, x, moved)
                if motions > 0:
                    fill(dw, dz, origin + start, origin + stop, leg)
                here = between(leg.field, leg.later, leg.share, start, stop, own)
                fault = leg.faults[group]
                step = Step(
                    leg.t, leg.dt, x, leg.m, here, dw, leg.common, leg.factor, leg.everyone, leg.args,
                    leg.t0, leg.m0, between(leg.field, leg.later, 0.0, start, stop, own), dz, fault,
                    leg.number + start,
                )  # fmt: skip
                change(moved, step)
                mix(moved, base, weight, start)
                finish(moved, leg, base, target, start, own, fault)
                sums[group, -1] += put(moved, target, start, leg.limit)
                sums[group, -1] += note_fault(leg.faults, group, leg.number + start)
                measure(leg.arrival, moved, leg.args, sums[group])
                tally(base, target, start, stop, sums[group])

    return advance


def _fill_increments(dw: Matrix, dz: Matrix, low: int, high: int, leg: Leg) -> None:
    seed, stream, step, positions, finest, refinement, _ = leg.draw
    fill_normals(dw, low, high, low, seed, stream, step, positions, finest, refinement, math.sqrt(abs(leg.dt)))


def _fill_integrals(dw: Matrix, dz: Matrix, low: int, high: int, leg: Leg) -> None:
    seed, stream, step, positions, finest, refinement, _ = leg.draw
    fill_integrals(dw, dz, low, high, low, seed, stream, step, positions, finest, refinement, leg.dt)


def _fill_part(dw: Matrix, dz: Matrix, low: int, high: int, leg: Leg) -> None:
    seed, stream, step, positions, finest, refinement, _ = leg.draw
    fill_path(
        dw, low, high, low, seed, stream, step, positions, finest, refinement, abs(leg.whole), leg.part, leg.dt < 0.0
    )


_FILL = {"increments": _fill_increments, "integrals": _fill_integrals, "part": _fill_part}


def _tally(form: Form, plan: Plan) -> Function:
    """Return what adds a mark of some particles to their sums, where the last entry of m is."""
    row, place, after = form.dimension + plan.share, form.summed - 1, bool(plan.acts)
    if plan.share < 0:
        return lambda base, target, start, stop, out: None
    if after:
        return lambda base, target, start, stop, out: add_row(target, row, start, stop, out, place)
    return lambda base, target, start, stop, out: add_row(base, row, start, stop, out, place)


def _measure_all(measure: Function, dimension: int, tally: Function) -> Function:
    def measure_all(source: Array, t: float, args: Any, sums: Matrix, groups: tuple[int, int, int, int]) -> None:
        """Add up what the first step needs."""
        first, last, group_size, part_size = groups
        particles = source.shape[1]
        x = np.empty((dimension, 0))
        for group in range(first, last):
            end = min((group + 1) * group_size, particles)
            for start in range(group * group_size, end, part_size):
                stop = min(start + part_size, end)
                if stop - start != x.shape[1]:
                    x = np.empty((dimension, stop - start))
                sums[group, -1] += load_finite(source, start, x)
                measure(t, x, args, sums[group])
                tally(source, source, start, stop, sums[group])

    return measure_all
