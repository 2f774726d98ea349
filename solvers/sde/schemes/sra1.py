"""The scheme SRA1 of Rößler, of strong order 1.5 for additive noise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from solvers.accelerate import kernel
from solvers.sde.coefficients import Coefficients
from solvers.sde.equation import Form, McKeanVlasov
from solvers.sde.schemes.kernels import add_product, add_scaled
from solvers.sde.schemes.scheme import Scheme, Stage, Step, Term

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]

# The share of a step at which the drift is taken a second time. The first stage leads there; of the second, this much
# and where the step starts make its end, so that the drift at the start counts 1/3 and the other 2/3.
_TIME, _WEIGHT = 0.75, 4.0 / 9.0


@kernel
def add_noise(out: Matrix, first: Array, second: Array, dw: Matrix, dz: Matrix, dt: float) -> None:
    """Add to the second stage ∫ s dW for an s that is linear in time, less what the first stage has of it already.

    ∫ s dW = s dW + s' ∫ (t − t₀) dW, with s' from s where the step starts and where the second stage does, and
    ∫ (t − t₀) dW = dt dW − dz; `dw` and `dz` are (D, n).
    """
    for i in range(out.shape[0]):
        for p in range(out.shape[1]):
            mean = dz[i, p] / abs(dt)
            whole = first[i, p] * dw[i, p] + (second[i, p] - first[i, p]) / _TIME * (dw[i, p] - mean)
            out[i, p] += whole / _WEIGHT - 2.0 * _TIME * first[i, p] * mean


def _drift(equation: McKeanVlasov, coefficients: Coefficients, form: Form, factor: float) -> Iterator[Term]:
    """Return the drift and the pull of others, times a factor."""
    drift, interaction = coefficients.drift, coefficients.interaction
    if drift is not None:
        yield lambda out, s: add_scaled(out, drift(s.t, s.x, s.m, s.field, s.args), factor * s.dt)
    if interaction is not None:
        yield lambda out, s: add_scaled(
            out, interaction(s.t, s.x, s.m, s.field, s.args, s.ensemble, s.first), factor * s.dt
        )


def first_terms(equation: McKeanVlasov, coefficients: Coefficients, form: Form) -> Iterator[Term]:
    """Return ¾ b dt + 3/2 s dz/dt."""
    yield from _drift(equation, coefficients, form, _TIME)
    diffusion = coefficients.diffusion
    if diffusion is not None:

        def noise(out: Matrix, s: Step) -> None:
            add_product(out, diffusion(s.t, s.x, s.m, s.field, s.args), 2.0 * _TIME / abs(s.dt) * s.dz)

        yield noise


def second_terms(equation: McKeanVlasov, coefficients: Coefficients, form: Form) -> Iterator[Term]:
    """Return 2/3 b dt and the noise of the step, over the weight of the stage."""
    yield from _drift(equation, coefficients, form, 2.0 / 3.0 / _WEIGHT)
    diffusion = coefficients.diffusion
    if diffusion is not None:

        def noise(out: Matrix, s: Step) -> None:
            first = diffusion(s.t0, s.x, s.m0, s.field0, s.args)
            second = diffusion(s.t, s.x, s.m, s.field, s.args)
            add_noise(out, first, second, s.dw, s.dz, s.dt)

        yield noise


class SRA1(Scheme):
    """The drift at the start and at three quarters of a step, and ∫ W dt beside dW; "sra1" for short.

    For additive noise, s(t, m), without common noise: strong order 1.5, weak order 2. Means are those of the particles
    where each stage starts. Those of N particles are rough in time, so an s that depends on them adds an error of order
    ½ that falls like N^-½.

    References
    ----------
    A. Rößler, "Runge–Kutta methods for the strong approximation of solutions of stochastic differential equations",
    SIAM J. Numer. Anal. 48 (2010), scheme SRA1; here ∂s/∂t is taken from both stages, since s at the end of a step
    depends on means that are not known before it ends.
    """

    name = "sra1"
    noises = ("additive",)
    common_noise = False
    stages = (
        Stage(first_terms, motions="integrals"),
        Stage(second_terms, weight=_WEIGHT, time=_TIME, motions="integrals"),
    )

    def strong_order(self, equation: McKeanVlasov) -> float:
        """Return 1.5, whatever the equation."""
        return 1.5

    def weak_order(self, equation: McKeanVlasov) -> float:
        """Return 2, whatever the equation."""
        return 2.0
