"""The McKean–Vlasov equations of an untrained network, for one input and for several jointly."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from flds.training.activations import Activation
from flds.training.compiled_activations import CompiledActivation, compiled_activation, on_arrays
from solvers.accelerate import inlined_kernel
from solvers.sde.equation import McKeanVlasov


def forward_equation(phi: Activation, joint: bool) -> McKeanVlasov:
    """dh = C_t dw with C_t C_tᵀ = E φ(h) φ(h)ᵀ (Prop. 2), a number for one input; then the moments are E φ², E h²."""
    compiled = compiled_activation(phi)
    if joint:
        value = phi.value if compiled is None else on_arrays(compiled.value)
        return McKeanVlasov(covariance=lambda t, h: value(h), noise="mean_field", vectorized=True)
    if compiled is not None:
        return _compiled_forward(compiled)
    return McKeanVlasov(
        diffusion=lambda t, h, m: np.sqrt(m[0]),
        moments=lambda t, h: np.stack([phi.value(h) ** 2, h * h]),
        noise="additive",
        vectorized=True,
    )


def backward_equation(phi: Activation, joint: bool) -> McKeanVlasov:
    """dg = φ'(h) C_t dw̃ with C_t C_tᵀ = E g gᵀ, down to t = 0 (Prop. 3, erratum: E g², not (E g)²); the field is h."""
    compiled = compiled_activation(phi)
    if joint:
        slope = phi.derivative if compiled is None else on_arrays(compiled.derivative)
        return McKeanVlasov(
            diffusion=lambda t, g, m, h: slope(h), covariance=lambda t, g: g, noise="mean_field", vectorized=True
        )
    if compiled is not None:
        return _compiled_backward(compiled)
    return McKeanVlasov(
        diffusion=lambda t, g, m, h: phi.derivative(h) * np.sqrt(m), moments=lambda t, g: g * g, vectorized=True
    )


# An equation is compiled, or loaded from disk, once for all solves that share it.
@lru_cache(maxsize=32)
def _compiled_forward(phi: CompiledActivation) -> McKeanVlasov:
    value = phi.value

    @inlined_kernel
    def diffusion(t, h, m):  # type: ignore[no-untyped-def]
        return math.sqrt(m[0])

    @inlined_kernel
    def moments(t, h):  # type: ignore[no-untyped-def]
        image = value(h)
        return image * image, h * h

    return McKeanVlasov(diffusion=diffusion, moments=moments, noise="additive")


@lru_cache(maxsize=32)
def _compiled_backward(phi: CompiledActivation) -> McKeanVlasov:
    derivative = phi.derivative

    @inlined_kernel
    def diffusion(t, g, m, h):  # type: ignore[no-untyped-def]
        return derivative(h) * math.sqrt(m)

    @inlined_kernel
    def moments(t, g):  # type: ignore[no-untyped-def]
        return g * g

    return McKeanVlasov(diffusion=diffusion, moments=moments)
