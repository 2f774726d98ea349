"""The compiled steps against plain NumPy twins, for every kind of noise, field and interaction."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import njit

import solvers
from solvers import BrownianMotion, ExternalField, McKeanVlasov, Stream
from solvers.partition import STRETCH
from tests import naive
from tests.solvers import equations
from tests.solvers.equations import CARRIED, DRIVEN, GEOMETRIC, MU, PLANAR, PLANAR_SHARED, SIGMA

# the kernels and the twins order sums differently; values are of order 1 and steps few
ROUNDING = 1e-12
STEPS, PARTICLES = 6, 5000

FREQUENCIES = np.random.default_rng(1).standard_normal(PARTICLES)
GRID = np.linspace(0.0, 0.9, STEPS + 1)
PATH = np.random.default_rng(2).standard_normal((STEPS + 1, PARTICLES, 2))


@pytest.fixture(scope="module")
def start():
    return np.random.default_rng(0).standard_normal((PARTICLES, 2))


def increments(motions, t0=0.0, t1=0.9, seed=3, particles=PARTICLES, stream=Stream.PATH):
    brownian = BrownianMotion(t0, t1, STEPS, motions, seed, stream=stream)
    return brownian.times, brownian.increments(slice(0, particles))


@pytest.fixture(scope="module")
def arrays():
    """The equation `PLANAR` as functions of arrays."""
    drift, *_, psi, _ = equations.planar_arrays()
    return McKeanVlasov(
        lambda t, x, m: drift(t, x.T, m).T,
        lambda t, x, m: np.stack([0.5 * x[0] + m[2], 0.3 + 0.2 * np.cos(x[1])]),
        lambda t, x: psi(t, x.T).T,
        vectorized=True,
    )


@pytest.mark.parametrize(
    ("scheme", "vectorized"),
    [
        ("euler_maruyama", False), ("heun", False), ("tamed_euler", False),
        ("euler_maruyama", True), ("heun", True), ("tamed_euler", True), ("milstein", True),
    ],
)  # fmt: skip
def test_diagonal_noise_in_the_plane(start, arrays, scheme, vectorized):
    """Milstein's correction is one compiled function for both; all of it compiled is below, with an exact path."""
    drift, diagonal, _, _, psi, slope = equations.planar_arrays()
    times, dw = increments(2)
    exact = naive.mean_field_path(start, times, dw, drift, diagonal, psi, scheme, slope)
    run = solvers.solve(arrays if vectorized else PLANAR, start, 0.0, 0.9, STEPS, seed=3, scheme=scheme)
    # Milstein's derivative is a central difference: error about 1e-10 of the slope, times s dW²
    np.testing.assert_allclose(run.final_particles, exact, rtol=0, atol=1e-9 if scheme == "milstein" else ROUNDING)


def side_by_side(own, shared):
    """The matrices, or the increments, of the noise of each particle and of the noise that all of them share."""
    return np.concatenate([own, np.broadcast_to(shared, (*own.shape[:-1], shared.shape[-1]))], axis=-1)


@pytest.mark.parametrize("scheme", ["euler_maruyama", "heun", "tamed_euler"])
def test_general_and_common_noise_in_the_plane(start, scheme):
    drift, _, own, shared, psi, _ = equations.planar_arrays()
    times, dw = increments(3)
    dw = side_by_side(dw, increments(3, particles=1, stream=Stream.COMMON)[1])

    def matrix(t, x, m):
        return side_by_side(own(t, x, m), shared(t, x, m))

    exact = naive.mean_field_path(start, times, dw, drift, matrix, psi, scheme)
    run = solvers.solve(PLANAR_SHARED, start, 0.0, 0.9, STEPS, seed=3, scheme=scheme)
    np.testing.assert_allclose(run.final_particles, exact, rtol=0, atol=ROUNDING)


def test_backward_in_time_reads_the_same_increments_in_reverse(start):
    drift, diagonal, *_, psi, _ = equations.planar_arrays()
    times, dw = increments(2)
    exact = naive.mean_field_path(start, times[::-1], dw[::-1], drift, diagonal, psi)
    run = solvers.solve(PLANAR, start, 0.9, 0.0, STEPS, seed=3)
    np.testing.assert_allclose(run.final_particles, exact, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(("vectorized", "factor"), [(False, True), (True, True), (True, False)])
def test_mean_field_noise(start, vectorized, factor):
    """dX = X L dW + X dW⁰, or L dW alone, with L Lᵀ = E[ψψᵀ], ψ = tanh X; compiled the latter is below."""
    times, dw = increments(2)
    dw = side_by_side(dw, increments(2, particles=1, stream=Stream.COMMON)[1])

    def matrix(t, x, m):
        psi = np.tanh(x)
        root = np.linalg.cholesky(psi.T @ psi / len(x))
        own = (x[:, :, None] if factor else 1.0) * np.broadcast_to(root, (len(x), 2, 2))
        return side_by_side(own, x[:, :, None] * np.eye(2) if factor else np.zeros((2, 2)))

    exact = naive.mean_field_path(start, times, dw, lambda t, x, m: 0.0 * x, matrix, lambda t, x: x)
    psi = (lambda t, x: np.tanh(x)) if vectorized else njit(lambda t, x: (math.tanh(x[0]), math.tanh(x[1])))
    scale = (lambda t, x, m: x) if vectorized else njit(lambda t, x, m: x)
    given = {"diffusion": scale, "common": scale} if factor else {}
    equation = McKeanVlasov(noise="mean_field", covariance=psi, vectorized=vectorized, **given)
    run = solvers.solve(equation, start, 0.0, 0.9, STEPS, seed=3)
    np.testing.assert_allclose(run.final_particles, exact, rtol=0, atol=ROUNDING)


def test_mean_field_noise_with_a_singular_covariance(start):
    """Two equal components stay equal, the motion of the second has no part in them, and the third keeps its own."""
    x = np.column_stack([start[:, 0], start[:, 0], start[:, 1]])
    run = solvers.solve(
        McKeanVlasov(moments=njit(lambda t, x: x), noise="mean_field"), x, 0.0, 0.9, STEPS, seed=3
    ).final_particles
    np.testing.assert_allclose(run[:, 0], run[:, 1], rtol=0, atol=ROUNDING)
    times, dw = increments(3)

    def matrix(t, x, m):
        return np.broadcast_to(np.linalg.cholesky(x.T @ x / len(x)), (len(x), 2, 2))

    exact = naive.mean_field_path(start, times, dw[..., [0, 2]], lambda t, x, m: 0.0 * x, matrix, lambda t, x: x)
    np.testing.assert_allclose(run[:, [0, 2]], exact, rtol=0, atol=ROUNDING)
    assert np.std(run[:, 2] - run[:, 0]) > 0.5


def matrix_of_arrays(t, x, m):
    one = np.ones_like(x[0])
    return np.stack([np.stack([x[0], x[1], one]), np.stack([0.5 * one, 0.0 * one, 2.0 * one])])


@pytest.mark.parametrize("common", [lambda t, x, m: x, matrix_of_arrays], ids=["numbers", "matrix"])
def test_common_noise_is_shared_by_all_particles(start, common):
    """dX_i = X_i dW⁰_i for each component, or dX = M(X) dW⁰ with a (2, 3) matrix; compiled both are above."""
    numbers = common is not matrix_of_arrays
    _, dw = increments(2 if numbers else 3, particles=1, stream=Stream.COMMON)
    x = start
    for w in dw[:, 0]:
        x = x + (x * w if numbers else np.einsum("ikp,k->pi", matrix_of_arrays(0, x.T, 0), w))
    run = solvers.solve(McKeanVlasov(common=common, vectorized=True), start, 0.0, 0.9, STEPS, seed=3)
    np.testing.assert_allclose(run.final_particles, x, rtol=0, atol=ROUNDING)


CLOSE = STRETCH + 5  # particles that are more than one part of them


@pytest.mark.parametrize(
    ("vectorized", "scalar", "field", "at"),
    [
        (False, True, [0.2, 0.5], 0.7),
        (False, False, ExternalField(PATH[0, :CLOSE], per_particle=True), PATH[0, :CLOSE]),
        (True, True, ExternalField(FREQUENCIES[:CLOSE], per_particle=True), FREQUENCIES[:CLOSE]),
        (True, False, 0.7, 0.7),
        (True, False, ExternalField(PATH[0, :CLOSE], per_particle=True), PATH[0, :CLOSE]),
    ],
    ids=["compiled", "compiled in the plane", "arrays", "arrays in the plane", "arrays in the plane, own fields"],
)
def test_pairwise_interaction(start, vectorized, scalar, field, at):
    """dX_i = (c_i/N) Σ_j sin(X_j − X_i) dt, in as many components as there are."""
    x0 = start[:CLOSE, 0] if scalar else start[:CLOSE]
    x, dt = x0, 0.45
    for _ in range(2):
        x = x + dt * at * np.sin(x[None] - x[:, None]).mean(1)
    if vectorized:
        pull = lambda x, y, c: c * np.sin(y - x)  # noqa: E731
    elif scalar:
        pull = njit(lambda x, y, c: (c[0] + c[1]) * math.sin(y - x))
    else:
        pull = njit(lambda x, y, c: (c[0] * math.sin(y[0] - x[0]), c[1] * math.sin(y[1] - x[1])))
    run = solvers.solve(McKeanVlasov(interaction=pull, vectorized=vectorized), x0, 0.0, 0.9, 2, field=field)
    np.testing.assert_allclose(run.final_particles, x, rtol=0, atol=ROUNDING)


# a field of each particle's own is the size of its noise as well
SAME = {False: DRIVEN, True: McKeanVlasov(lambda t, x, m, c: c, vectorized=True)}
OWN = {
    False: CARRIED,
    True: McKeanVlasov(lambda t, x, m, c: c, lambda t, x, m, c: c, noise="additive", vectorized=True),
}


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("scheme", ["euler_maruyama", "heun"])
@pytest.mark.parametrize(
    ("field", "at"),
    [
        (2.0, lambda j: 2.0),
        (ExternalField(FREQUENCIES, per_particle=True), lambda j: FREQUENCIES),
        (ExternalField(np.cos(GRID), times=GRID), lambda j: np.cos(GRID[j])),
        (
            ExternalField([1.0, 3.0, 2.0], times=[0.0, 0.4, 0.9]),
            lambda j: np.interp(GRID[j], [0.0, 0.4, 0.9], [1.0, 3.0, 2.0]),
        ),
        (ExternalField(PATH[::-1, :, 0], times=GRID[::-1], per_particle=True), lambda j: PATH[j, :, 0]),
    ],
    ids=["constant", "particles", "time", "interpolated", "path"],
)
def test_a_field_that_is_a_number(vectorized, scheme, field, at):
    own = getattr(field, "per_particle", False)
    _, dw = increments(1)
    x = np.zeros(PARTICLES)
    for j in range(STEPS):
        mean = (at(j) + at(j + 1)) / 2 if scheme == "heun" else at(j)
        x = x + mean * (GRID[j + 1] - GRID[j]) + (mean * dw[j, :, 0] if own else 0.0)
    equation = (OWN if own else SAME)[vectorized]
    run = solvers.solve(equation, np.zeros(PARTICLES), 0.0, 0.9, STEPS, seed=3, field=field, scheme=scheme)
    np.testing.assert_allclose(run.final_particles, x, rtol=0, atol=ROUNDING)


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
def test_a_field_of_two_components(start, field, at):
    """Compiled they are in the test of pairs, where the coefficients read them in the same way."""
    x = start
    for j in range(STEPS):
        x = x + (at(j) - x) * (GRID[j + 1] - GRID[j])
    equation = McKeanVlasov(lambda t, x, m, c: (c if c.ndim == 2 else c[:, None]) - x, vectorized=True)
    run = solvers.solve(equation, start, 0.0, 0.9, STEPS, field=field)
    np.testing.assert_allclose(run.final_particles, x, rtol=0, atol=ROUNDING)


def test_ito_and_stratonovich_differ_by_the_correction():
    """dX = μ X dt + σ X ∘ dW is dX = (μ + σ²/2) X dt + σ X dW: the exact path is x exp(μ t + σ W), without it less."""
    brownian = BrownianMotion(0.0, 1.0, 1000)
    w = brownian.increments(slice(0, 300)).sum(0)[:, 0]
    heun = solvers.solve(GEOMETRIC, np.ones(300), 0.0, 1.0, 1000, scheme="heun").final_particles
    milstein = solvers.solve(GEOMETRIC, np.ones(300), 0.0, 1.0, 1000, scheme="milstein").final_particles
    # strong order 1: the relative error is a few times the step, 1e-3
    np.testing.assert_allclose(heun, np.exp(MU + SIGMA * w), rtol=0.01)
    np.testing.assert_allclose(milstein, np.exp(MU - SIGMA**2 / 2 + SIGMA * w), rtol=0.01)
