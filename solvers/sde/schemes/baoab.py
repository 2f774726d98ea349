"""The scheme BAOAB, for underdamped Langevin equations."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from solvers import checks
from solvers.accelerate import kernel
from solvers.sde.coefficients import Coefficients
from solvers.sde.equation import Form, McKeanVlasov
from solvers.sde.schemes.scheme import Scheme, Stage, Step, Term

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]


@kernel
def drift_and_mix(out: Matrix, force: Array, dw: Matrix, dt: float, friction: float, temperature: float) -> None:
    """Do a step of (q, p), the rows of `out`, but for its last kick: a kick, half a drift, friction, half a drift."""
    half = out.shape[0] // 2
    keep = math.exp(-friction * dt)
    heat = math.sqrt(temperature * (1.0 - keep * keep) / dt)
    for i in range(half):
        for p in range(out.shape[1]):
            momentum = out[half + i, p] + 0.5 * dt * force[i, p]
            position = out[i, p] + 0.5 * dt * momentum
            momentum = keep * momentum + heat * dw[i, p]
            out[i, p] = position + 0.5 * dt * momentum
            out[half + i, p] = momentum


@kernel
def kick(out: Matrix, force: Array, dt: float) -> None:
    """Add half a step of the force to the momenta."""
    half = out.shape[0] // 2
    for i in range(half):
        for p in range(out.shape[1]):
            out[half + i, p] += 0.5 * dt * force[i, p]


def first_terms(
    equation: McKeanVlasov, coefficients: Coefficients, form: Form, friction: float, temperature: float
) -> Iterator[Term]:
    """Return what leads to the positions where the step ends."""
    drift = coefficients.drift
    assert drift is not None

    def lead(out: Matrix, s: Step) -> None:
        drift_and_mix(out, drift(s.t, s.x, s.m, s.field, s.args), s.dw, s.dt, friction, temperature)

    yield lead


def last_terms(equation: McKeanVlasov, coefficients: Coefficients, form: Form) -> Iterator[Term]:
    """Return the kick of the force where the step ends."""
    drift = coefficients.drift
    assert drift is not None
    yield lambda out, s: kick(out, drift(s.t, s.x, s.m, s.field, s.args), s.dt)


class BAOAB(Scheme):
    """Langevin dynamics dq = p dt, dp = F dt − γ p dt + √(2 γ T) dW, split into kicks, drifts and friction.

    A particle is (q, p), with as many positions as momenta, and masses 1. The drift of the equation is the force
    F(t, x, m), of half as many numbers as x has, a number where that is one; it must not depend on p. The noise is that
    of the scheme, so the equation has no diffusion, and no interaction: give forces between particles through means.
    Weak order 2. The error of averages over q in the stationary law is of order 2 as well, with a small constant, and
    vanishes for harmonic forces.

    Parameters
    ----------
    friction : float
        γ, above 0, in 1 over time.
    temperature : float
        T, at least 0, in units of energy.

    Raises
    ------
    TypeError, ValueError
        If they are not such numbers.

    References
    ----------
    B. Leimkuhler, C. Matthews, "Rational construction of stochastic numerical methods for molecular sampling", Appl.
    Math. Res. Express (2013).
    """

    phase_space = True
    forward = True
    common_noise = False

    def __init__(self, friction: float, temperature: float) -> None:
        self.friction = checks.positive_number("friction", friction)
        self.temperature = checks.positive_number("temperature", temperature, zero=True)
        self.name = f"baoab(friction={self.friction!r}, temperature={self.temperature!r})"
        self.stages = (
            Stage(first_terms, settings=(self.friction, self.temperature), motions="own"),
            Stage(last_terms, motions="none"),
        )

    def requires(self, equation: McKeanVlasov) -> None:
        """Raise ValueError unless the equation is a force alone."""
        if equation.drift is None or set(equation.given) - {"drift", "moments"}:
            extra = sorted(set(equation.given) - {"drift", "moments"})
            raise ValueError(
                "BAOAB needs a drift, which is the force, and moments at most beside it, got "
                + (f"also {', '.join(extra)}" if extra else "no drift")
            )

    def weak_order(self, equation: McKeanVlasov) -> float:
        """Return 2, whatever the force."""
        return 2.0
