"""The terms that schemes are made of: those of a step of Euler–Maruyama, from the coefficients of an equation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from solvers.sde.coefficients import Coefficients
from solvers.sde.equation import Form, McKeanVlasov
from solvers.sde.schemes.kernels import add_matrix_product, add_multiples, add_product, add_scaled, first_of
from solvers.sde.schemes.scheme import Term


def drift_terms(equation: McKeanVlasov, coefficients: Coefficients, form: Form) -> Iterator[Term]:
    """Return b dt and (1/N) Σ_j K(x, x_j) dt, as far as the equation has them.

    The arguments `equation`, `coefficients` and `form` are those of the `terms` of a `Stage`.
    """
    drift = coefficients.drift
    if drift is not None:
        yield lambda out, s: add_scaled(out, drift(s.t, s.x, s.m, s.field, s.args), s.dt)
    yield from interaction_terms(equation, coefficients, form)


def interaction_terms(equation: McKeanVlasov, coefficients: Coefficients, form: Form) -> Iterator[Term]:
    """Return (1/N) Σ_j K(x, x_j) dt, if the equation has it.

    The arguments `equation`, `coefficients` and `form` are those of the `terms` of a `Stage`.
    """
    interaction = coefficients.interaction
    if interaction is not None:
        yield lambda out, s: add_scaled(out, interaction(s.t, s.x, s.m, s.field, s.args, s.ensemble, s.first), s.dt)


def noise_terms(equation: McKeanVlasov, coefficients: Coefficients, form: Form) -> Iterator[Term]:
    """Return s dW, the noise that each particle has of its own.

    The arguments `equation`, `coefficients` and `form` are those of the `terms` of a `Stage`.
    """
    diffusion = coefficients.diffusion
    if equation.noise == "mean_field" and diffusion is None:
        yield lambda out, s: add_scaled(out, np.dot(s.factor, s.dw), 1.0)
    elif diffusion is None:
        return
    elif equation.noise == "mean_field":
        yield lambda out, s: add_product(out, diffusion(s.t, s.x, s.m, s.field, s.args), np.dot(s.factor, s.dw))
    elif equation.noise == "general":
        yield lambda out, s: add_matrix_product(out, diffusion(s.t, s.x, s.m, s.field, s.args), s.dw)
    elif equation.noise == "additive" and not _own_field(equation, form):
        # one value for all particles, since it does not depend on x
        yield lambda out, s: add_multiples(out, diffusion(s.t, first_of(s.x), s.m, s.field, s.args), s.dw)
    else:
        yield lambda out, s: add_product(out, diffusion(s.t, s.x, s.m, s.field, s.args), s.dw)


def common_noise_terms(equation: McKeanVlasov, coefficients: Coefficients, form: Form) -> Iterator[Term]:
    """Return s⁰ dW⁰, the noise that all particles share.

    The arguments `equation`, `coefficients` and `form` are those of the `terms` of a `Stage`.
    """
    common = coefficients.common
    if common is not None and len(form.common) == 2:
        yield lambda out, s: add_matrix_product(out, common(s.t, s.x, s.m, s.field, s.args), s.common)
    elif common is not None:
        yield lambda out, s: add_product(out, common(s.t, s.x, s.m, s.field, s.args), s.common)


def euler_terms(equation: McKeanVlasov, coefficients: Coefficients, form: Form) -> Iterator[Term]:
    """Return the terms of drift, noise and common noise, whose sum is the change of Euler–Maruyama.

    The arguments `equation`, `coefficients` and `form` are those of the `terms` of a `Stage`.
    """
    yield from drift_terms(equation, coefficients, form)
    yield from noise_terms(equation, coefficients, form)
    yield from common_noise_terms(equation, coefficients, form)


def _own_field(equation: McKeanVlasov, form: Form) -> bool:
    """Whether the diffusion takes a field that each particle has its own of."""
    return form.per_particle and equation.extras("diffusion", True, form.args is not None)[0]
