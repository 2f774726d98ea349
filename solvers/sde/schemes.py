"""Euler–Maruyama, Milstein and Heun steps for McKean–Vlasov equations, over blocks of particles.

One step of Euler–Maruyama is x + b dt + s dW with the means of the particles where the step starts. A step
of Milstein adds ½ s ∂s (dW² − dt). Heun averages the increments at both ends of a step of Euler–Maruyama,
which solves the Stratonovich equation.

References
----------
P. E. Kloeden, E. Platen, "Numerical solution of stochastic differential equations", 1992, chapters 10 and 11.
C. Kumar, Neelima, C. Reisinger, W. Stockinger, "Well-posedness and tamed schemes for McKean–Vlasov equations with
common noise", Ann. Appl. Probab. 32 (2022): Milstein without the derivative with respect to the law.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.accelerate import kernel, reduction_kernel
from solvers.ensemble.random import fill_normals
from solvers.sde.coefficients import Coefficients, block_coefficients
from solvers.sde.equation import Form, McKeanVlasov

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]
Function = Callable[..., Any]

SCHEMES = ("euler_maruyama", "milstein", "heun")

# Central differences of s: truncation step² and rounding eps/step are equal near this step.
_DIFFERENCE = 6e-6


class Step(NamedTuple):
    """What a block of particles needs to know to make one step."""

    t: float
    dt: float
    x: Any  # (D, n) positions
    m: Any  # (M,) means of the particles
    field: Any  # (n or 1, F)
    dw: Any  # (K, n) increments of the particles' Brownian motions
    common: Any  # (K⁰, 1) increments of the common ones
    factor: Any  # (D, D), times its transpose the covariance rate of mean-field noise
    ensemble: Any  # (D, N) all positions


class Draw(NamedTuple):
    """Where the normals of a step are found."""

    seed: int
    stream: int
    step: int
    positions: Any
    finest: int
    refinement: int


@reduction_kernel
def add_row_sums(values, out):
    """Add the sums of the rows of `values`, (rows, n), to out[:rows]."""
    for row in range(values.shape[0]):
        total = 0.0
        for p in range(values.shape[1]):
            total += values[row, p]
        out[row] += total


@kernel
def load(source, start, x, moved):
    """Copy source[:, start : start + n] into `x` and `moved`, (D, n)."""
    for row in range(x.shape[0]):
        here = source[row, start : start + x.shape[1]]
        for p in range(x.shape[1]):
            x[row, p] = here[p]
            moved[row, p] = here[p]


@kernel
def put(x, target, weight, base, start, limit):
    """Set target[:, start : start + n] and `x` to (1 − weight) base + weight x; count what is NaN or beyond limit."""
    bad = 0
    for row in range(x.shape[0]):
        there = target[row, start : start + x.shape[1]]
        if weight != 1.0:
            old = base[row, start : start + x.shape[1]]
            for p in range(x.shape[1]):
                x[row, p] = (1.0 - weight) * old[p] + weight * x[row, p]
        for p in range(x.shape[1]):
            there[p] = x[row, p]
            bad += not abs(x[row, p]) <= limit
    return bad


@kernel
def add_scaled(out, values, factor):
    """Add factor · values to `out`."""
    for i in range(out.shape[0]):
        for p in range(out.shape[1]):
            out[i, p] += factor * values[i, p]


@kernel
def add_product(out, values, dw):
    """Add values · dw to `out`, entry by entry; `dw` may have a single column for all particles."""
    for i in range(out.shape[0]):
        if dw.shape[1] == 1:
            for p in range(out.shape[1]):
                out[i, p] += values[i, p] * dw[i, 0]
        else:
            for p in range(out.shape[1]):
                out[i, p] += values[i, p] * dw[i, p]


@kernel
def add_matrix_product(out, matrix, dw):
    """Add matrix @ dw of every particle to `out`; `matrix` is (D, K, n), `dw` (K, n) or (K, 1)."""
    for i in range(out.shape[0]):
        for k in range(matrix.shape[1]):
            if dw.shape[1] == 1:
                for p in range(out.shape[1]):
                    out[i, p] += matrix[i, k, p] * dw[k, 0]
            else:
                for p in range(out.shape[1]):
                    out[i, p] += matrix[i, k, p] * dw[k, p]


@kernel
def shifted(x, i, by):
    """Return x with its i-th row moved by `by` relative to 1 + |x|."""
    out = x.copy()
    for p in range(x.shape[1]):
        out[i, p] += by * (1.0 + abs(x[i, p]))
    return out


@kernel
def milstein_row(out, i, x, here, up, down, above, below, dw, dt):
    """Add to out[i] ½ s_i ∂s_i/∂x_i (dW_i² − |dt|); the derivative is (up − down) / (above − below).

    At the edge of where s is defined, the difference is taken on the side that is finite.
    """
    for p in range(out.shape[1]):
        slope = (up[i, p] - down[i, p]) / (above[i, p] - below[i, p])
        if not math.isfinite(down[i, p]):
            slope = (up[i, p] - here[i, p]) / (above[i, p] - x[i, p])
        elif not math.isfinite(up[i, p]):
            slope = (here[i, p] - down[i, p]) / (x[i, p] - below[i, p])
        out[i, p] += 0.5 * here[i, p] * slope * (dw[i, p] * dw[i, p] - abs(dt))


@kernel
def add_entries(values, out, first):
    """Add the entries of a matrix to out[first:]."""
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            out[first + i * values.shape[1] + j] += values[i, j]


_compiled = njit(nogil=True, fastmath={"contract"}, error_model="numpy")


class Kernels(NamedTuple):
    """What a solve calls: a step of a stretch of particles, and their sums where it starts."""

    advance: Function
    measure: Function


@lru_cache(maxsize=32)
def kernels(equation: McKeanVlasov, form: Form, milstein: bool) -> Kernels:
    """Build the kernels of an equation; they are compiled when first called, unless it is vectorized."""
    compiled = (lambda function: function) if equation.vectorized else _compiled
    c = block_coefficients(equation, form)
    change, *others = [compiled(term) for term in _terms(equation, c, form, milstein)]
    for term in others:
        change = compiled(_both(change, term))
    measure_block = compiled(_measure(c, form, compiled))
    noisy = equation.diffusion is not None or equation.noise == "mean_field"
    return Kernels(compiled(_advance(change, measure_block, form.motions if noisy else 0)), _measure_all(measure_block))


def _both(first: Function, second: Function) -> Function:
    def both(out: Array, s: Step) -> None:
        first(out, s)
        second(out, s)

    return both


def _terms(equation: McKeanVlasov, c: Coefficients, form: Form, milstein: bool) -> Iterator[Function]:
    """Yield the terms of the change over one step; each is a function that adds itself to (D, n)."""
    drift, diffusion, common, interaction = c.drift, c.diffusion, c.common, c.interaction
    if drift is not None:
        yield lambda out, s: add_scaled(out, drift(s.t, s.x, s.m, s.field), s.dt)
    if interaction is not None:
        yield lambda out, s: add_scaled(out, interaction(s.x, s.field, s.ensemble), s.dt)
    if equation.noise == "mean_field" and diffusion is None:
        yield lambda out, s: add_scaled(out, np.dot(s.factor, s.dw), 1.0)
    elif equation.noise == "mean_field":
        yield lambda out, s: add_product(out, diffusion(s.t, s.x, s.m, s.field), np.dot(s.factor, s.dw))
    elif equation.noise == "general":
        yield lambda out, s: add_matrix_product(out, diffusion(s.t, s.x, s.m, s.field), s.dw)
    elif diffusion is not None:
        yield lambda out, s: add_product(out, diffusion(s.t, s.x, s.m, s.field), s.dw)
        if milstein and equation.noise != "additive":
            yield _milstein(diffusion)
    if common is not None and len(form.common) == 2:
        yield lambda out, s: add_matrix_product(out, common(s.t, s.x, s.m, s.field), s.common)
    elif common is not None:
        yield lambda out, s: add_product(out, common(s.t, s.x, s.m, s.field), s.common)


def _milstein(diffusion: Function) -> Function:
    def correction(out: Array, s: Step) -> None:
        here = diffusion(s.t, s.x, s.m, s.field)
        for i in range(s.x.shape[0]):
            above, below = shifted(s.x, i, _DIFFERENCE), shifted(s.x, i, -_DIFFERENCE)
            up, down = diffusion(s.t, above, s.m, s.field), diffusion(s.t, below, s.m, s.field)
            milstein_row(out, i, s.x, here, up, down, above, below, s.dw, s.dt)

    return correction


def _measure(c: Coefficients, form: Form, compiled: Function) -> Function:
    """Return a function that adds Σ ψ and Σ ψψᵀ over a block to a row of sums."""
    moments, covariance, M = c.moments, c.covariance, form.moments

    @compiled
    def add_moments(t: float, x: Array, out: Matrix) -> None:
        add_row_sums(moments(t, x), out)  # type: ignore[misc]

    @compiled
    def add_covariance(t: float, x: Array, out: Matrix) -> None:
        psi = covariance(t, x)  # type: ignore[misc]
        add_entries(np.dot(psi, psi.T), out, M)

    parts = [add_moments] if moments is not None else []
    parts += [add_covariance] if covariance is not None else []
    nothing = compiled(lambda t, x, out: None)
    first, second = (*parts, nothing, nothing)[:2]

    def measure(t: float, x: Array, out: Matrix) -> None:
        first(t, x, out)
        second(t, x, out)

    return measure


def _advance(change: Function, measure: Function, motions: int) -> Function:
    def advance(
        source: Array, target: Array, weight: float, base: Array, t: float, dt: float, arrival: float, m: Matrix,
        field: Array, common: Matrix, factor: Matrix, draw: Draw, limit: float, sums: Matrix, first: int, last: int,
        group_size: int, block: int,
    ) -> None:  # fmt: skip
        """Set target to (1 − weight) base + weight (source + change), add up ψ at `arrival`, and count the lost."""
        dimension, particles = source.shape
        x, moved, dw = np.empty((dimension, 0)), np.empty((dimension, 0)), np.empty((motions, 0))
        for group in range(first, last):
            end = min((group + 1) * group_size, particles)
            for start in range(group * group_size, end, block):
                stop = min(start + block, end)
                if stop - start != x.shape[1]:
                    x, moved = np.empty((dimension, stop - start)), np.empty((dimension, stop - start))
                    dw = np.empty((motions, stop - start))
                load(source, start, x, moved)
                if motions > 0:
                    fill_normals(
                        dw, start, stop, start, draw.seed, draw.stream, draw.step, draw.positions, draw.finest,
                        draw.refinement, math.sqrt(abs(dt)),
                    )  # fmt: skip
                here = field[start:stop] if len(field) == particles else field
                change(moved, Step(t, dt, x, m, here, dw, common, factor, source))
                sums[group, -1] += put(moved, target, weight, base, start, limit)
                measure(arrival, moved, sums[group])

    return advance


def _measure_all(measure: Function) -> Function:
    def measure_all(source: Array, t: float, sums: Matrix, first: int, last: int, group_size: int, block: int) -> None:
        """Add up what the first step needs."""
        for group in range(first, last):
            end = min((group + 1) * group_size, source.shape[1])
            for start in range(group * group_size, end, block):
                x = source[:, start : min(start + block, end)].astype(np.float64)
                sums[group, -1] += np.sum(~np.isfinite(x))
                measure(t, x, sums[group])

    return measure_all
