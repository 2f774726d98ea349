"""The scheme of Milstein."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from solvers.accelerate import kernel
from solvers.sde.coefficients import Coefficients, Function
from solvers.sde.equation import Form, McKeanVlasov
from solvers.sde.schemes.scheme import Scheme, Stage, Step, Term
from solvers.sde.schemes.terms import drift_terms, noise_terms

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]

# Central differences of s: truncation step² and rounding eps/step are equal near this step.
_DIFFERENCE = 6e-6


@kernel
def shifted(x: Array, i: int, by: float) -> Array:
    """Return x with its i-th row moved by `by` relative to 1 + |x|."""
    out = x.copy()
    for p in range(x.shape[1]):
        out[i, p] += by * (1.0 + abs(x[i, p]))
    return out


@kernel
def add_correction(
    out: Matrix,
    i: int,
    x: Array,
    here: Array,
    up: Array,
    down: Array,
    above: Array,
    below: Array,
    dw: Matrix,
    dt: float,
) -> None:
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


def milstein_terms(equation: McKeanVlasov, coefficients: Coefficients, form: Form) -> Iterator[Term]:
    """Return the terms of b dt + s dW + ½ s ∂s (dW² − dt)."""
    yield from drift_terms(equation, coefficients, form)
    yield from noise_terms(equation, coefficients, form)
    if coefficients.diffusion is not None and equation.noise != "additive":
        yield _correction(coefficients.diffusion)


def _correction(diffusion: Function) -> Term:
    def correction(out: Matrix, s: Step) -> None:
        here = diffusion(s.t, s.x, s.m, s.field, s.args)
        for i in range(s.x.shape[0]):
            above, below = shifted(s.x, i, _DIFFERENCE), shifted(s.x, i, -_DIFFERENCE)
            up, down = diffusion(s.t, above, s.m, s.field, s.args), diffusion(s.t, below, s.m, s.field, s.args)
            add_correction(out, i, s.x, here, up, down, above, below, s.dw, s.dt)

    return correction


class Milstein(Scheme):
    """A step of Euler–Maruyama and ½ s ∂s (dW² − dt), with ∂s by central differences; "milstein" for short.

    For additive or diagonal noise without common noise. Strong order 1 where s_i depends on x_i and not on the other
    components; the derivative with respect to the law is left out, which does not change the order. Weak order 1.

    References
    ----------
    P. E. Kloeden, E. Platen, "Numerical solution of stochastic differential equations", 1992, section 10.3.
    C. Kumar, Neelima, C. Reisinger, W. Stockinger, "Well-posedness and tamed schemes for McKean–Vlasov equations with
    common noise", Ann. Appl. Probab. 32 (2022): Milstein without the derivative with respect to the law.
    """

    name = "milstein"
    noises = ("additive", "diagonal")
    common_noise = False
    stages = (Stage(milstein_terms),)

    def strong_order(self, equation: McKeanVlasov) -> float:
        """Return 1, whatever the equation."""
        return 1.0

    def weak_order(self, equation: McKeanVlasov) -> float:
        """Return 1, whatever the equation."""
        return 1.0
