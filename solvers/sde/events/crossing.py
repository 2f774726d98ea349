"""Whether a path crossed a level between the ends of a step, which a Brownian bridge tells from the ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.accelerate import kernel, merged_kernel
from solvers.sde.coefficients import Coefficients
from solvers.sde.equation import Form, McKeanVlasov
from solvers.sde.schemes.scheme import Step

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]

# A crossing is less likely than exp(−40) beyond this exponent.
_UNLIKELY = 40.0


@kernel
def chance(before: float, after: float, level: float, variance: float) -> float:
    """The probability that a bridge between two values on one side of a level met it; `variance` is of its increment.

    exp(−2 (before − level)(after − level) / variance).
    """
    if not (variance > 0.0 and abs(level) < np.inf):
        return 0.0
    exponent = 2.0 * (before - level) * (after - level) / variance
    return math.exp(-exponent) if exponent < _UNLIKELY else 0.0


@kernel
def find_crossings(
    which: NDArray[np.int64], before: Array, after: Array, low: float, high: float, variance: Array, u: Array
) -> None:
    """Set which[p] to 1 if particle p met the lower level on its way, 2 if the upper one, else 0.

    All are (n,): positions at both ends of the step, the variance of its increment, 0 to look at the ends only, and
    numbers uniform on (0, 1).
    """
    for p in range(len(which)):
        if after[p] <= low:
            which[p] = 1
        elif after[p] >= high:
            which[p] = 2
        else:
            near = chance(before[p], after[p], low, variance[p])
            far = chance(before[p], after[p], high, variance[p])
            which[p] = 1 if u[p] < near else 2 if u[p] < near + far else 0


@kernel
def add_squares(out: Matrix, values: Array) -> None:
    """Add the squares of `values`, (D, n), to `out`."""
    for i in range(out.shape[0]):
        for p in range(out.shape[1]):
            out[i, p] += values[i, p] ** 2


@kernel
def add_square_rows(out: Matrix, matrix: Array) -> None:
    """Add Σ_k of the squares of a matrix, (D, K, n), to `out`, (D, n)."""
    for i in range(out.shape[0]):
        for k in range(matrix.shape[1]):
            for p in range(out.shape[1]):
                out[i, p] += matrix[i, k, p] ** 2


@kernel
def add_correlated(out: Matrix, values: Array, factor: Matrix) -> None:
    """Add the variances of values · (factor dW), entry by entry, to `out`, (D, n)."""
    for i in range(out.shape[0]):
        total = 0.0
        for k in range(factor.shape[1]):
            total += factor[i, k] ** 2
        for p in range(out.shape[1]):
            out[i, p] += values[i, p] ** 2 * total


def variance_rate(equation: McKeanVlasov, coefficients: Coefficients, form: Form) -> Any:
    """Return a function (out, s) that adds the variance of each component in unit time, given where a step starts."""
    diffusion, common = coefficients.diffusion, coefficients.common
    compiled: Callable[..., Any] = (lambda function: function) if equation.vectorized else merged_kernel
    if equation.noise == "mean_field" and diffusion is None:
        own = compiled(lambda out, s: add_correlated(out, np.ones(out.shape), s.factor))
    elif diffusion is None:
        own = compiled(lambda out, s: None)
    elif equation.noise == "mean_field":
        own = compiled(lambda out, s: add_correlated(out, diffusion(s.t, s.x, s.m, s.field, s.args), s.factor))
    elif equation.noise == "general":
        own = compiled(lambda out, s: add_square_rows(out, diffusion(s.t, s.x, s.m, s.field, s.args)))
    else:
        own = compiled(lambda out, s: add_squares(out, diffusion(s.t, s.x, s.m, s.field, s.args)))
    if common is None:
        return own
    if len(form.common) == 2:
        shared = compiled(lambda out, s: add_square_rows(out, common(s.t, s.x, s.m, s.field, s.args)))
    else:
        shared = compiled(lambda out, s: add_squares(out, common(s.t, s.x, s.m, s.field, s.args)))

    def both(out: Matrix, s: Step) -> None:
        own(out, s)
        shared(out, s)

    return compiled(both)
