"""The compiled steps against plain NumPy twins, for every kind of noise, field and interaction."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import njit

import solvers
from solvers import BrownianMotion, ExternalField, McKeanVlasov, Stream
from tests import naive
from tests.solvers import equations
from tests.solvers.equations import PLANAR, PLANAR_GENERAL

# the kernels and the twins order sums differently; values are of order 1 and steps few
ROUNDING = 1e-12
STEPS, PARTICLES = 6, 5000


@pytest.fixture(scope="module")
def start():
    return np.random.default_rng(0).standard_normal((PARTICLES, 2))


def increments(motions, t0=0.0, t1=0.9, seed=3, particles=PARTICLES, stream=Stream.PATH):
    brownian = BrownianMotion(t0, t1, STEPS, motions, seed, stream=stream)
    return brownian.times, brownian.increments(slice(0, particles))


@pytest.mark.parametrize("scheme", ["euler_maruyama", "milstein", "heun"])
def test_diagonal_noise_in_the_plane(start, scheme):
    drift, diagonal, _, psi, slope = equations.planar_arrays()
    times, dw = increments(2)
    exact = naive.mean_field_path(start, times, dw, drift, diagonal, psi, scheme, slope)
    run = solvers.solve(PLANAR, start, 0.0, 0.9, STEPS, seed=3, scheme=scheme)
    # Milstein's derivative is a central difference: error about 1e-10 of the slope, times s dW²
    np.testing.assert_allclose(run.final_particles, exact, rtol=0, atol=1e-9 if scheme == "milstein" else ROUNDING)


@pytest.mark.parametrize("scheme", ["euler_maruyama", "heun"])
def test_general_noise_in_the_plane(start, scheme):
    drift, _, matrix, psi, _ = equations.planar_arrays()
    times, dw = increments(3)
    exact = naive.mean_field_path(start, times, dw, drift, matrix, psi, scheme)
    run = solvers.solve(PLANAR_GENERAL, start, 0.0, 0.9, STEPS, seed=3, scheme=scheme)
    np.testing.assert_allclose(run.final_particles, exact, rtol=0, atol=ROUNDING)


def test_backward_in_time_reads_the_same_increments_in_reverse(start):
    drift, diagonal, _, psi, _ = equations.planar_arrays()
    times, dw = increments(2)
    exact = naive.mean_field_path(start, times[::-1], dw[::-1], drift, diagonal, psi)
    run = solvers.solve(PLANAR, start, 0.9, 0.0, STEPS, seed=3)
    np.testing.assert_allclose(run.final_particles, exact, rtol=0, atol=ROUNDING)


def test_functions_of_arrays_give_the_same_path(start):
    drift, _, _, psi, _ = equations.planar_arrays()
    arrays = McKeanVlasov(
        lambda t, x, m: drift(t, x.T, m).T,
        lambda t, x, m: np.stack([0.5 * x[0] + m[2], 0.3 + 0.2 * np.cos(x[1])]),
        lambda t, x: psi(t, x.T).T,
        vectorized=True,
    )
    for scheme in ("euler_maruyama", "milstein", "heun"):
        one = solvers.solve(PLANAR, start, 0.0, 0.9, STEPS, scheme=scheme).final_particles
        other = solvers.solve(arrays, start, 0.0, 0.9, STEPS, scheme=scheme).final_particles
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9 if scheme == "milstein" else ROUNDING)


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("factor", [None, "position"])
def test_mean_field_noise(start, vectorized, factor):
    """dX = (1 or x) L dW with L Lᵀ = E[ψψᵀ], ψ = tanh X."""
    times, dw = increments(2)

    def matrix(t, x, m):
        psi = np.tanh(x)
        root = np.linalg.cholesky(psi.T @ psi / len(x))
        return (x[:, :, None] if factor else 1.0) * np.broadcast_to(root, (len(x), 2, 2))

    exact = naive.mean_field_path(start, times, dw, lambda t, x, m: 0.0 * x, matrix, lambda t, x: x)
    psi = (lambda t, x: np.tanh(x)) if vectorized else njit(lambda t, x: (math.tanh(x[0]), math.tanh(x[1])))
    scale = (lambda t, x, m: x) if vectorized else njit(lambda t, x, m: x)
    equation = McKeanVlasov(None, scale if factor else None, noise="mean_field", covariance=psi, vectorized=vectorized)
    run = solvers.solve(equation, start, 0.0, 0.9, STEPS, seed=3)
    np.testing.assert_allclose(run.final_particles, exact, rtol=0, atol=ROUNDING)


def test_mean_field_noise_with_a_singular_covariance(start):
    """Two equal components stay equal, and the third keeps its own motion."""
    x = np.column_stack([start[:, 0], start[:, 0], start[:, 1]])
    run = solvers.solve(
        McKeanVlasov(moments=njit(lambda t, x: x), noise="mean_field"), x, 0.0, 1.0, STEPS, seed=1
    ).final_particles
    np.testing.assert_allclose(run[:, 0], run[:, 1], rtol=0, atol=ROUNDING)
    assert np.std(run[:, 2] - run[:, 0]) > 0.5


def matrix_of_arrays(t, x, m):
    one = np.ones_like(x[0])
    return np.stack([np.stack([x[0], x[1], one]), np.stack([0.5 * one, 0.0 * one, 2.0 * one])])


COMMON = {
    (False, "numbers"): njit(lambda t, x, m: (x[0], x[1])),
    (True, "numbers"): lambda t, x, m: x,
    (False, "matrix"): njit(lambda t, x, m: ((x[0], x[1], 1.0), (0.5, 0.0, 2.0))),
    (True, "matrix"): matrix_of_arrays,
}


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("kind", ["numbers", "matrix"])
def test_common_noise_is_shared_by_all_particles(start, vectorized, kind):
    """dX_i = X_i dW⁰_i for each component, or dX = M(X) dW⁰ with a (2, 3) matrix."""
    _, dw = increments(2 if kind == "numbers" else 3, particles=1, stream=Stream.COMMON)
    x = start
    for w in dw[:, 0]:
        x = x + (x * w if kind == "numbers" else np.einsum("ikp,k->pi", matrix_of_arrays(0, x.T, 0), w))
    equation = McKeanVlasov(common=COMMON[vectorized, kind], vectorized=vectorized)
    run = solvers.solve(equation, start, 0.0, 0.9, STEPS, seed=3)
    np.testing.assert_allclose(run.final_particles, x, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("scalar", [False, True])
def test_pairwise_interaction(start, vectorized, scalar):
    """dX_i = (c/N) Σ_j sin(X_j − X_i) dt, in as many components as there are."""
    x0 = start[:3000, 0] if scalar else start[:3000]
    x, dt = x0, 0.9 / STEPS
    for _ in range(STEPS):
        x = x + dt * 0.7 * np.sin(x[None] - x[:, None]).mean(1)
    if vectorized:
        pull = lambda x, y, c: c * np.sin(y - x)  # noqa: E731
    elif scalar:
        pull = njit(lambda x, y, c: c * math.sin(y - x))
    else:
        pull = njit(lambda x, y, c: (c * math.sin(y[0] - x[0]), c * math.sin(y[1] - x[1])))
    equation = McKeanVlasov(interaction=pull, vectorized=vectorized)
    run = solvers.solve(equation, x0, 0.0, 0.9, STEPS, field=0.7)
    np.testing.assert_allclose(run.final_particles, x, rtol=0, atol=ROUNDING)


FREQUENCIES = np.random.default_rng(1).standard_normal(PARTICLES)
GRID = np.linspace(0.0, 0.9, STEPS + 1)
PATH = np.random.default_rng(2).standard_normal((STEPS + 1, PARTICLES, 2))


DRIVEN = {False: McKeanVlasov(njit(lambda t, x, m, c: c)), True: McKeanVlasov(lambda t, x, m, c: c, vectorized=True)}


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("scheme", ["euler_maruyama", "heun"])
@pytest.mark.parametrize(
    ("field", "at"),
    [
        (2.0, lambda j: 2.0),
        (ExternalField(FREQUENCIES, per_particle=True), lambda j: FREQUENCIES),
        (ExternalField(np.cos(GRID), times=GRID), lambda j: np.cos(GRID[j])),
        (ExternalField([1.0, 3.0], times=[0.0, 0.9]), lambda j: 1.0 + 2.0 * GRID[j] / 0.9),
        (ExternalField(PATH[::-1, :, 0], times=GRID[::-1], per_particle=True), lambda j: PATH[j, :, 0]),
    ],
    ids=["constant", "particles", "time", "interpolated", "path"],
)
def test_a_field_that_is_a_number(vectorized, scheme, field, at):
    x = np.zeros(PARTICLES)
    for j in range(STEPS):
        mean = (at(j) + at(j + 1)) / 2 if scheme == "heun" else at(j)
        x = x + mean * (GRID[j + 1] - GRID[j])
    run = solvers.solve(DRIVEN[vectorized], np.zeros(PARTICLES), 0.0, 0.9, STEPS, field=field, scheme=scheme)
    np.testing.assert_allclose(run.final_particles, x, rtol=0, atol=ROUNDING)


ATTRACTED = {
    False: McKeanVlasov(njit(lambda t, x, m, c: (c[0] - x[0], c[1] - x[1]))),
    True: McKeanVlasov(lambda t, x, m, c: (c if c.ndim == 2 else c[:, None]) - x, vectorized=True),
}


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize(
    ("field", "at"),
    [
        ([0.5, 2.0], lambda j: np.array([0.5, 2.0])),
        (ExternalField(PATH[0], per_particle=True), lambda j: PATH[0]),
        (ExternalField(PATH[:, 0], times=GRID), lambda j: PATH[j, 0]),
        (ExternalField(PATH, times=GRID, per_particle=True), lambda j: PATH[j]),
    ],
    ids=["constant", "particles", "time", "path"],
)
def test_a_field_of_two_components(start, vectorized, field, at):
    x = start
    for j in range(STEPS):
        x = x + (at(j) - x) * (GRID[j + 1] - GRID[j])
    run = solvers.solve(ATTRACTED[vectorized], start, 0.0, 0.9, STEPS, field=field)
    np.testing.assert_allclose(run.final_particles, x, rtol=0, atol=ROUNDING)


def test_ito_and_stratonovich_differ_by_the_correction():
    """dX = X ∘ dW is dX = ½ X dt + X dW: the exact path is x exp(W), Euler's without the correction x exp(W − t/2)."""
    one = McKeanVlasov(diffusion=njit(lambda t, x, m: x))
    brownian = BrownianMotion(0.0, 1.0, 4000)
    w = brownian.increments(slice(0, 300)).sum(0)[:, 0]
    heun = solvers.solve(one, np.ones(300), 0.0, 1.0, 4000, scheme="heun").final_particles
    milstein = solvers.solve(one, np.ones(300), 0.0, 1.0, 4000, scheme="milstein").final_particles
    # strong order 1: the relative error is a few times the step, 2.5e-4
    np.testing.assert_allclose(heun, np.exp(w), rtol=0.01)
    np.testing.assert_allclose(milstein, np.exp(w - 0.5), rtol=0.01)


def test_additive_noise_may_differ_between_particles_through_the_field():
    loud = ExternalField(FREQUENCIES, per_particle=True)
    equation = McKeanVlasov(diffusion=njit(lambda t, x, m, c: c), noise="additive")
    run = solvers.solve(equation, np.zeros(PARTICLES), 0.0, 0.9, STEPS, seed=3, field=loud)
    _, dw = increments(1)
    np.testing.assert_allclose(run.final_particles, FREQUENCIES * dw.sum(0)[:, 0], rtol=0, atol=ROUNDING)
