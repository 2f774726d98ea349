"""Well-known equations, ready to solve; nothing has to be compiled.

They are also examples of coefficients that take arrays of particles (``vectorized=True``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers import checks
from solvers.sde.equation import McKeanVlasov

Array = NDArray[np.float64]


def ornstein_uhlenbeck(rate: float = 1.0, attraction: float = 0.5, volatility: float = 1.0) -> McKeanVlasov:
    """Return the mean-field Ornstein–Uhlenbeck equation dX = −a (X − θ E X) dt + s dW of numbers.

    E X_t = E X_0 e^{−a(1−θ)t}, and Var X_t = Var X_0 e^{−2at} + s² (1 − e^{−2at}) / 2a.

    Parameters
    ----------
    rate, attraction, volatility : float
        a, θ and s, in any sign.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not a finite number.
    """
    law = _OrnsteinUhlenbeck(*checks.finite_numbers(rate=rate, attraction=attraction, volatility=volatility))
    return McKeanVlasov(law.drift, law.diffusion, law.moments, noise="additive", vectorized=True)


def geometric_brownian_motion(growth: float = 0.0, volatility: float = 1.0) -> McKeanVlasov:
    """Return dX = μ X dt + σ X dW of numbers, with X_t = X_0 exp((μ − σ²/2) t + σ W_t).

    Parameters
    ----------
    growth, volatility : float
        μ and σ.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not a finite number.
    """
    law = _GeometricBrownianMotion(*checks.finite_numbers(growth=growth, volatility=volatility))
    return McKeanVlasov(law.drift, law.diffusion, vectorized=True)


def kuramoto(coupling: float = 1.0, volatility: float = 0.0) -> McKeanVlasov:
    """Return Kuramoto's oscillators, dθ_i = ω_i dt + (K/N) Σ_j sin(θ_j − θ_i) dt + s dW_i.

    The sum is K (cos θ_i E sin θ − sin θ_i E cos θ), so the time is O(N). Pass the frequencies as
    ``field=ExternalField(frequencies, per_particle=True)``, or one number for all. For N → ∞ oscillators synchronise
    above K = 2 / (π g(0)) without noise, where the density g of the frequencies is symmetric with its maximum at
    0, and above K = s² where they are all equal. The order parameter is |m| of the moments (E cos θ, E sin θ).

    Parameters
    ----------
    coupling, volatility : float
        K and s.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not a finite number.

    References
    ----------
    S. H. Strogatz, "From Kuramoto to Crawford", Physica D 143 (2000).
    """
    law = _Kuramoto(*checks.finite_numbers(coupling=coupling, volatility=volatility))
    noise, diffusion = _additive(law)
    return McKeanVlasov(law.drift, diffusion, law.moments, noise, vectorized=True)


def cucker_smale(strength: float = 1.0, exponent: float = 0.25, volatility: float = 0.0) -> McKeanVlasov:
    """Return a flock: dr_i = v_i dt, dv_i = (K/N) Σ_j (v_j − v_i) / (1 + |r_j − r_i|²)^β dt + s dW_i.

    A particle is (r, v), so D is twice the dimension of space. All velocities become equal whatever the start
    if β ≤ ½ and s = 0. The time is O(N²).

    Parameters
    ----------
    strength, exponent, volatility : float
        K, β and s.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not a finite number.

    References
    ----------
    F. Cucker, S. Smale, "Emergent behavior in flocks", IEEE Trans. Automat. Control 52 (2007).
    """
    law = _CuckerSmale(*checks.finite_numbers(strength=strength, exponent=exponent, volatility=volatility))
    noise, diffusion = _additive(law)
    return McKeanVlasov(law.drift, diffusion, noise=noise, interaction=law.interaction, vectorized=True)


# Coefficients are methods of classes of this module, so that equations can be pickled and sent to other processes.


@dataclass(frozen=True)
class _OrnsteinUhlenbeck:
    rate: float
    attraction: float
    volatility: float

    def drift(self, t: float, x: Array, m: float) -> Array:
        return -self.rate * (x - self.attraction * m)

    def diffusion(self, t: float, x: Array, m: float) -> float:
        return self.volatility

    def moments(self, t: float, x: Array) -> Array:
        return x


@dataclass(frozen=True)
class _GeometricBrownianMotion:
    growth: float
    volatility: float

    def drift(self, t: float, x: Array, m: float) -> Array:
        return self.growth * x

    def diffusion(self, t: float, x: Array, m: float) -> Array:
        return self.volatility * x


@dataclass(frozen=True)
class _Kuramoto:
    coupling: float
    volatility: float

    def drift(self, t: float, x: Array, m: Array, frequency: Any) -> Array:
        return np.asarray(frequency + self.coupling * (np.cos(x) * m[1] - np.sin(x) * m[0]))

    def diffusion(self, t: float, x: Array, m: Array) -> float:
        return self.volatility

    def moments(self, t: float, x: Array) -> Array:
        return np.stack([np.cos(x), np.sin(x)])


@dataclass(frozen=True)
class _CuckerSmale:
    strength: float
    exponent: float
    volatility: float

    def drift(self, t: float, x: Array, m: float) -> Array:
        half = len(x) // 2
        return np.concatenate([x[half:], np.zeros_like(x[half:])])

    def interaction(self, x: Array, y: Array) -> Array:
        half = len(x) // 2
        apart = np.sum((y[:half] - x[:half]) ** 2, axis=0)
        pull = self.strength * (y[half:] - x[half:]) / (1.0 + apart) ** self.exponent
        return np.concatenate([np.zeros_like(pull), pull])

    def diffusion(self, t: float, x: Array, m: float) -> Array:
        half = len(x) // 2
        return np.concatenate([np.zeros_like(x[half:]), np.full_like(x[half:], self.volatility)])


def _additive(law: _Kuramoto | _CuckerSmale) -> tuple[str, Callable[..., Any] | None]:
    """Return the kind of noise and the diffusion, which is left out where there is none."""
    return ("additive", law.diffusion) if law.volatility else ("diagonal", None)
