"""The scheme of Euler and Maruyama with a tamed drift, for drifts that grow faster than linearly."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from solvers.accelerate import kernel
from solvers.sde.coefficients import Coefficients
from solvers.sde.equation import Form, McKeanVlasov
from solvers.sde.schemes.euler_maruyama import EulerMaruyama
from solvers.sde.schemes.scheme import Stage, Term
from solvers.sde.schemes.terms import common_noise_terms, noise_terms

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]


@kernel
def add_tamed(out: Matrix, drift: Array, dt: float) -> None:
    """Add b dt / (1 + |dt| |b|) to every column of `out`, with |b| the norm of a column of `drift`, (D, n)."""
    for p in range(out.shape[1]):
        largest = 0.0
        for i in range(out.shape[0]):
            largest = max(largest, abs(drift[i, p]))
        total = 0.0
        if largest > 0.0:
            for i in range(out.shape[0]):
                total += (drift[i, p] / largest) ** 2  # squares of large numbers would overflow
        factor = dt / (1.0 + abs(dt) * largest * math.sqrt(total))
        for i in range(out.shape[0]):
            out[i, p] += factor * drift[i, p]


def tamed_terms(equation: McKeanVlasov, coefficients: Coefficients, form: Form) -> Iterator[Term]:
    """Return b dt / (1 + |dt| |b|), with the interaction in b, and the noise of Euler–Maruyama."""
    drift, interaction = coefficients.drift, coefficients.interaction
    if drift is not None and interaction is not None:
        yield lambda out, s: add_tamed(
            out,
            drift(s.t, s.x, s.m, s.field, s.args) + interaction(s.t, s.x, s.m, s.field, s.args, s.ensemble, s.first),
            s.dt,
        )
    elif drift is not None:
        yield lambda out, s: add_tamed(out, drift(s.t, s.x, s.m, s.field, s.args), s.dt)
    elif interaction is not None:
        yield lambda out, s: add_tamed(out, interaction(s.t, s.x, s.m, s.field, s.args, s.ensemble, s.first), s.dt)
    yield from noise_terms(equation, coefficients, form)
    yield from common_noise_terms(equation, coefficients, form)


class TamedEuler(EulerMaruyama):
    """A step adds b dt / (1 + |b| dt) + s dW, where that of Euler–Maruyama may explode; "tamed_euler" for short.

    No step of the drift is longer than 1, however fast it grows; |b| is the norm over the components of a particle, and
    interactions are part of b. For drifts that grow faster than linearly and pull back. Orders are those of
    Euler–Maruyama, where that converges and beyond: strong order 1 where the noise is additive and none is common, else
    ½; weak order 1.

    References
    ----------
    M. Hutzenthaler, A. Jentzen, P. E. Kloeden, "Strong convergence of an explicit numerical method for SDEs with
    nonglobally Lipschitz continuous coefficients", Ann. Appl. Probab. 22 (2012).
    G. dos Reis, S. Engelhardt, G. Smith, "Simulation of McKean–Vlasov SDEs with super-linear growth", IMA J. Numer.
    Anal. 42 (2022).
    """

    name = "tamed_euler"
    stages = (Stage(tamed_terms),)
