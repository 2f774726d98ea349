"""Equations used by several tests, so that each is compiled once, and the same coefficients for all particles."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from solvers import McKeanVlasov

# mean-field Ornstein–Uhlenbeck: dX = −a (X − θ E X) dt + s dW
A, THETA, S = 1.5, 0.4, 0.7
ORNSTEIN_UHLENBECK = McKeanVlasov(
    njit(lambda t, x, m: -A * (x - THETA * m)), njit(lambda t, x, m: S), njit(lambda t, x: x), noise="additive"
)

# geometric Brownian motion: dX = μ X dt + σ X dW
MU, SIGMA = 0.3, 0.8
GEOMETRIC = McKeanVlasov(njit(lambda t, x, m: MU * x), njit(lambda t, x, m: SIGMA * x))

# dX = dW, and dX = c dt in an external field c: where c = 1, particles from 0 are at the time whatever the scheme
BROWNIAN = McKeanVlasov(diffusion=lambda t, x, m: 1.0, noise="additive", vectorized=True)
DRIVEN = McKeanVlasov(njit(lambda t, x, m, c: c))
# dX = c (dt + dW), for a field of each particle's own, with which noise may still be called additive
CARRIED = McKeanVlasov(njit(lambda t, x, m, c: c), njit(lambda t, x, m, c: c), noise="additive")


@njit
def planar_drift(t, x, m):
    return m[1] - x[0], math.sin(t) * x[0] - m[0] * x[1]


@njit
def planar_diffusion(t, x, m):
    return 0.5 * x[0] + m[2], 0.3 + 0.2 * math.cos(x[1])


@njit
def planar_matrix(t, x, m):
    return ((0.5, x[0], m[0]), (0.1 * x[1], 0.2, t))


@njit
def planar_common(t, x, m):
    return ((x[0], m[0], 1.0), (0.5, t, 2.0 * x[1]))


@njit
def planar_moments(t, x):
    return x[0], x[1], x[0] * x[1] + t


PLANAR = McKeanVlasov(planar_drift, planar_diffusion, planar_moments)
PLANAR_GENERAL = McKeanVlasov(planar_drift, planar_matrix, planar_moments, noise="general")
PLANAR_SHARED = McKeanVlasov(planar_drift, planar_matrix, planar_moments, noise="general", common=planar_common)


def planar_arrays():
    """The same coefficients as functions of (N, 2) particles, for `naive.mean_field_path`."""

    def drift(t, x, m):
        return np.stack([m[1] - x[:, 0], np.sin(t) * x[:, 0] - m[0] * x[:, 1]], axis=1)

    def diagonal(t, x, m):
        out = np.zeros((len(x), 2, 2))
        out[:, 0, 0], out[:, 1, 1] = 0.5 * x[:, 0] + m[2], 0.3 + 0.2 * np.cos(x[:, 1])
        return out

    def matrix(t, x, m):
        one = np.ones(len(x))
        return np.stack(
            [np.stack([0.5 * one, x[:, 0], m[0] * one], 1), np.stack([0.1 * x[:, 1], 0.2 * one, t * one], 1)], 1
        )

    def common(t, x, m):
        one = np.ones(len(x))
        return np.stack([np.stack([x[:, 0], m[0] * one, one], 1), np.stack([0.5 * one, t * one, 2 * x[:, 1]], 1)], 1)

    def psi(t, x):
        return np.stack([x[:, 0], x[:, 1], x[:, 0] * x[:, 1] + t], axis=1)

    def slope(t, x, m):
        return np.stack([np.full(len(x), 0.5), -0.2 * np.sin(x[:, 1])], axis=1)

    return drift, diagonal, matrix, common, psi, slope
