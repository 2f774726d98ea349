"""The lazy operator against a matrix sampled in full: exact relations, and the law of its products."""

from __future__ import annotations

import numpy as np
import pytest

from solvers.ensemble.random import Address, Noise, Stream
from solvers.ensemble.threads import ThreadParticles
from solvers.matrices.dense import DenseOperator
from solvers.matrices.lazy import LazyOperator
from solvers.matrices.matched import MatchedSampling, orthonormalise
from solvers.matrices.operator import RankBudgetExceeded
from solvers.matrices.sampling import Sampling
from tests.plain_particles import PlainParticles

Home = ThreadParticles


@pytest.fixture(params=[ThreadParticles, PlainParticles], autouse=True)
def home(request, monkeypatch):
    """Every test runs in both homes of particles."""
    monkeypatch.setattr(f"{__name__}.Home", request.param)


def lazy(particles=500, seed=0, tied=True, tolerance=0.0, budget=(100, 100), sampling=None, dtype=np.float64):
    return LazyOperator(
        Home(particles), Noise(seed), 0, tied=tied, tolerance=tolerance, budget=budget,
        sampling=sampling or Sampling(), dtype=np.dtype(dtype),
    )  # fmt: skip


def forward(step=0, count=1):
    return Address(Stream.FORWARD, step, tuple(range(count)))


def backward(step=0, count=1):
    return Address(Stream.BACKWARD, step, tuple(range(count)))


def history(operator, particles, steps=4, batch=3, seed=5):
    """Forward, backward and update with random vectors; returns every product that was asked for."""
    rng = np.random.default_rng(seed)
    products = []
    for step in range(steps):
        a, b = rng.standard_normal((2, batch, particles))
        image, c = operator.forward(a, forward(step, batch), a)
        back, d = operator.backward(b, backward(step, batch), b)
        products.append((a, image, b, back))
        operator.update(0.3 * d, c)
    return products


@pytest.mark.parametrize("tied", [True, False])
def test_repeated_products_repeat_and_updates_add_their_rank_one_part(tied):
    particles = 300
    operator = lazy(particles, tied=tied)
    products = history(operator, particles)
    learned = sum(0.3 * b.T @ a / particles for a, _, b, _ in products)
    for step, (a, image, b, back) in enumerate(products):
        before = sum((0.3 * g.T @ f / particles for f, _, g, _ in products[:step]), np.zeros((particles, particles)))
        again = operator.forward(a, forward(9, 3), a)[0]
        np.testing.assert_allclose(again, image + a @ (learned - before).T, atol=1e-9)
        again = operator.backward(b, backward(9, 3), b)[0]
        np.testing.assert_allclose(again, back + b @ (learned - before), atol=1e-9)
    assert operator.rank == (12, 12)


@pytest.mark.parametrize("tied", [True, False])
def test_decay_multiplies_what_is_known_and_what_is_not(tied):
    """After a factor old images are multiplied by it; new ones are of that size, repeat, and are those of a probe."""
    particles = 500
    operator = lazy(particles, tied=tied)
    a, _, b, _ = history(operator, particles, steps=2)[-1]
    before, back = operator.forward(a, forward(8, 3), a)[0], operator.backward(b, backward(8, 3), b)[0]
    operator.shrink(0.5)
    np.testing.assert_allclose(operator.forward(a, forward(9, 3), a)[0], 0.5 * before, atol=1e-9)
    np.testing.assert_allclose(operator.backward(b, backward(9, 3), b)[0], 0.5 * back, atol=1e-9)
    new, met = np.random.default_rng(1).standard_normal((2, 2, particles))
    for one, other, vectors in ((forward, operator.forward, new), (backward, operator.backward, met)):
        first = other(vectors, one(10, 2), vectors)[0]
        # entries of deviation ½, and what was learned adds less: the mean square of 1,000 numbers
        assert 0.25 * (1 - 4 * np.sqrt(2 / 1000)) < np.mean(first**2) < 0.25 * (1 + 4 * np.sqrt(2 / 1000)) + 0.1
        np.testing.assert_allclose(other(vectors, one(11, 2), vectors)[0], first, atol=1e-9)
        np.testing.assert_allclose(other(vectors, one(12, 2), vectors, remember=False)[0], first, atol=1e-9)
    if tied:
        image, pulled = operator.forward(new, forward(13, 2), new)[0], operator.backward(met, backward(13, 2), met)[0]
        np.testing.assert_allclose(image @ met.T, (pulled @ new.T).T, atol=1e-9 * particles)


@pytest.mark.parametrize("remember", [True, False])
def test_after_decay_tied_products_are_adjoint_whichever_came_first(remember):
    """A vector that is new, or is probed, meets what the other side has revealed before and after the factor."""
    operator = lazy(400)
    (_, _, b, _), *_ = history(operator, 400, steps=2)
    operator.shrink(0.5)
    new = np.random.default_rng(2).standard_normal((2, 400))
    back = operator.backward(b, backward(8, 3), b)[0]
    image = operator.forward(new, forward(9, 2), new, remember=remember)[0]
    np.testing.assert_allclose(image @ b.T, new @ back.T, atol=1e-9 * 400)


def test_tied_products_are_adjoint_and_independent_ones_are_not():
    # ⟨p, 𝒲q⟩ = ⟨𝒲ᵀp, q⟩ for one matrix, whichever product came first
    for tied in (True, False):
        operator = lazy(400, tied=tied)
        rng = np.random.default_rng(0)
        q, p = rng.standard_normal((2, 2, 400))
        image = operator.forward(q, forward(0, 2), q)[0]
        back = operator.backward(p, backward(0, 2), p)[0]
        difference = np.abs(image @ p.T - (back @ q.T).T).max() / 400
        assert (difference < 1e-12) == tied


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_bases_stay_orthonormal_on_nearly_dependent_vectors(dtype):
    operator = lazy(3000, tolerance=1e-3, dtype=dtype)
    rng = np.random.default_rng(0)
    base = rng.standard_normal((4, 3000))
    for step in range(12):
        batch = (base + 2e-3 * rng.standard_normal((4, 3000))).astype(dtype)
        batch[3] = batch[2]  # a duplicated sample
        operator.forward(batch, forward(step, 4), batch)
    directions = operator.features.directions.astype(np.float64)
    error = np.abs(directions @ directions.T / 3000 - np.eye(len(directions))).max()
    # rounding of the storage: about eps, far below the 1e-6 that long runs need
    assert error < (1e-13 if dtype == np.float64 else 5e-7)


def test_coordinates_are_rows_of_the_cholesky_factor():
    operator = lazy(2000)
    batch = np.random.default_rng(0).standard_normal((5, 2000))
    c = operator.forward(batch, forward(0, 5), batch)[1]
    np.testing.assert_allclose(c, np.linalg.cholesky(batch @ batch.T / 2000), atol=1e-12)


def test_dropped_mass_is_what_lies_outside_the_basis():
    operator = lazy(2000, tolerance=0.5)
    a, b = np.random.default_rng(0).standard_normal((2, 2000))
    operator.forward(a[None], forward(0), a[None])
    vector = a + 0.1 * b
    operator.forward(vector[None], forward(1), vector[None])
    assert operator.rank[0] == 1
    q = a / np.sqrt(np.mean(a * a))
    outside = vector - np.mean(vector * q) * q
    total = np.mean(a * a) + np.mean(vector * vector)
    assert operator.truncation[0] == pytest.approx(np.mean(outside**2) / total, rel=1e-10)


def test_probes_leave_the_operator_as_it_was():
    operator = lazy(600)
    products = history(operator, 600)
    rank, image = operator.rank, products[-1][1]
    probe = np.random.default_rng(8).standard_normal((4, 600))
    address = Address(Stream.PROBE, 0, (0, 1, 2, 3))
    first = operator.forward(probe, address, probe, remember=False)[0]
    second = operator.forward(probe, address, probe, remember=False)[0]
    np.testing.assert_array_equal(first, second)
    assert operator.rank == rank
    assert np.all(np.isfinite(image))


def test_rank_budget_is_enforced():
    operator = lazy(200, budget=(2, 2))
    batch = np.random.default_rng(0).standard_normal((3, 200))
    with pytest.raises(RankBudgetExceeded, match="rank 3 exceeds the budget of 2"):
        operator.forward(batch, forward(0, 3), batch)


def test_the_whole_space_can_be_revealed():
    # with r = N nothing is left to draw, and the products are those of one N × N matrix
    particles = 7
    operator = lazy(particles, budget=(7, 7))
    eye = np.eye(particles) * np.sqrt(particles)
    columns = operator.forward(eye, forward(0, particles), eye)[0] / np.sqrt(particles)
    rows = operator.backward(eye, backward(0, particles), eye)[0] / np.sqrt(particles)
    np.testing.assert_allclose(rows, columns.T, atol=1e-12)
    assert operator.rank == (7, 7)


A, B, C = np.random.default_rng(3).standard_normal((3, 6))


def products(seed, tied):
    """Three products of a random history at N = 6; each vector depends on the products before it, as in training."""
    operator = lazy(6, seed=seed, tied=tied)
    image = operator.forward(A[None], forward(0), A[None])[0][0]
    back = operator.backward((B + image)[None], backward(0), A[None])[0][0]
    return np.concatenate([image, back, operator.forward((C + np.tanh(back))[None], forward(1), A[None])[0][0]])


@pytest.mark.parametrize("home", [ThreadParticles], indirect=True)
@pytest.mark.parametrize("tied", [True, False])
def test_law_of_products_equals_that_of_a_full_matrix(tied):
    """Second moments of all products, lazily and with dense matrices, of which there are many more."""
    rng, matrices = np.random.default_rng(4), 60_000
    w = rng.standard_normal((matrices, 6, 6)) / np.sqrt(6)
    w2 = w if tied else rng.standard_normal(w.shape) / np.sqrt(6)
    image = w @ A
    back = np.einsum("sji,sj->si", w2, B + image)
    densely = np.concatenate([image, back, np.einsum("sij,sj->si", w, C + np.tanh(back))], axis=1)

    def moments(found):
        rows, columns = np.triu_indices(18)
        values = found[:, rows] * found[:, columns]
        return values.mean(0), values.var(0) / len(found)

    one, error = moments(np.array([products(seed, tied) for seed in range(3000)]))
    other, smaller = moments(densely)
    z = (one - other) / np.sqrt(error + smaller)
    # 171 correlated comparisons: the largest of so many normals exceeds 4.5 with probability 1e-3. Images without their
    # projection lie 6 away, and a response with the wrong sign 65
    assert np.abs(z).max() < 4.5
    assert np.sqrt(np.mean(z**2)) < 1.5


@pytest.mark.parametrize("home", [PlainParticles], indirect=True)
@pytest.mark.parametrize("tied", [True, False])
def test_products_are_those_of_another_home(tied, monkeypatch):
    here = [products(seed, tied) for seed in range(20)]
    monkeypatch.setattr(f"{__name__}.Home", ThreadParticles)
    np.testing.assert_allclose(here, [products(seed, tied) for seed in range(20)], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "rounding"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_matched_noise_is_orthonormal_to_what_it_must_be(dtype, rounding):
    particles = 3000
    ensemble = Home(particles)
    constants = np.random.default_rng(0).standard_normal((3, particles)).astype(dtype)
    orthonormalise(ensemble, constants)
    # independent images are the fresh vectors themselves
    operator = lazy(particles, tied=False, sampling=MatchedSampling(ensemble, constants), dtype=dtype)
    rng = np.random.default_rng(1)
    for step in range(3):
        a, h, b, g = rng.standard_normal((4, 4, particles)).astype(dtype)
        h[3] = h[0] + 0.5 * constants[1]  # which is no constraint of its own
        for side, vectors, states, address, multiply in (
            (operator.features, a, h, forward(step, 4), operator.forward),
            (operator.gradients, b, g, backward(step, 4), operator.backward),
        ):
            multiply(vectors, address, states)
            fresh = side.images[-4:].astype(float)
            for family in (constants, states):
                assert np.abs(fresh @ family.T).max() / particles < rounding
            np.testing.assert_allclose(fresh @ fresh.T / particles, np.eye(4), atol=rounding)


@pytest.mark.parametrize("tied", [True, False])
def test_matched_noise_needs_twice_the_room(tied):
    ensemble, rng = Home(27), np.random.default_rng(0)
    constants = rng.standard_normal((5, 27))
    orthonormalise(ensemble, constants)
    sampling = MatchedSampling(ensemble, constants)
    operator = lazy(27, tied=tied, sampling=sampling)
    batch = rng.standard_normal((4, 27))
    operator.forward(batch, forward(0, 4), batch)
    assert not operator.unmatched  # 5 constants, 4 states and 4 vectors
    operator.forward(rng.standard_normal((5, 27)), forward(1, 5), batch)
    assert operator.unmatched


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("matched", [True, False])
def test_few_particles_in_one_call_and_many_operations_agree(dtype, tied, matched, monkeypatch):
    """Both ways through the same formulas, with vectors that depend on each other and probes, also beyond a group."""
    found = []
    for most in (0, 2048):
        monkeypatch.setattr("solvers.ensemble.threads.FEW", most)
        ensemble = ThreadParticles(700)
        assert (ensemble.cut is None) == (most == 0)
        constants = np.random.default_rng(1).standard_normal((3, 700)).astype(dtype)
        orthonormalise(ensemble, constants)
        operator = LazyOperator(
            ensemble, Noise(3, refinement=2), 1, tied=tied, tolerance=1e-3, budget=(50, 50), dtype=np.dtype(dtype),
            sampling=MatchedSampling(ensemble, constants) if matched else Sampling(),
        )  # fmt: skip
        rng, images = np.random.default_rng(2), []
        for step in range(3):
            a, b = rng.standard_normal((2, 4, 700)).astype(dtype)
            a[2], b[1] = a[0] - a[1], 2 * b[0]
            image, c = operator.forward(a, forward(step, 4), a)
            back, d = operator.backward(b, backward(step, 4), b)
            operator.update(0.3 * d, c)
            probe = operator.forward(b, Address(Stream.PROBE, 0, (0, 1, 2, 3)), b, remember=False)[0]
            images.append((image, back, probe))
        assert operator.rank == (9, 9)
        found.append(np.array(images))
    # BLAS builds may round small products in another order
    np.testing.assert_allclose(*found, rtol=0, atol=1e-11 if dtype == "float64" else 2e-4)


def test_probes_have_the_covariance_of_what_is_left():
    """Over many seeds of their noise: what is known of them, and noise with the Gram matrix of the rest."""
    particles, count = 40, 4000
    operator = lazy(particles)
    history(operator, particles, steps=2, batch=3)
    probes = np.random.default_rng(9).standard_normal((2, particles))
    images = np.empty((count, 2, particles))
    for seed in range(count):
        operator.noise = Noise(100 + seed)
        images[seed] = operator.forward(probes, Address(Stream.PROBE, 0, (0, 1)), probes, remember=False)[0]
    q, p = operator.features.directions, operator.gradients.directions
    rest = probes - probes @ q.T / particles @ q
    # 𝒲(rest) has the mean P⟨X, rest⟩, and outside P the covariance ⟨rest, rest⟩
    known = probes @ q.T / particles
    mean = known @ operator.features.images + known @ operator.learned.T @ p
    mean += rest @ operator.gradients.images.T / particles @ p
    outside = np.eye(particles) - p.T @ p / particles
    fresh = images - mean
    error = np.sqrt(np.diagonal(outside) * np.diagonal(rest @ rest.T / particles)[:, None] / count)
    assert np.abs(fresh.mean(0)).max() < 4.5 * error.max()
    covariance = np.einsum("sai,sbj->aibj", fresh, fresh) / count
    exact = np.einsum("ab,ij->aibj", rest @ rest.T / particles, outside)
    # variance of a product of two normals of these covariances; 6,400 comparisons
    spread = np.sqrt((np.einsum("aiai,bjbj->aibj", exact, exact) + exact**2) / count)
    assert np.abs((covariance - exact) / spread).max() < 5.5
    assert np.sqrt(np.mean(((covariance - exact) / spread) ** 2)) < 1.1


@pytest.mark.parametrize("remember", [True, False])
def test_more_vectors_than_dimensions_left(remember):
    """A batch larger than the rest of the space reveals what there is, and no rounding errors."""
    for seed in range(10):
        operator = lazy(40, seed=seed)
        rng = np.random.default_rng(seed)
        first = rng.standard_normal((5, 40))
        operator.forward(first, forward(0, 5), first)
        batch = rng.standard_normal((64, 40))
        image, c = operator.forward(batch, Address(Stream.FORWARD, 1, tuple(range(64))), batch, remember=remember)
        assert c.shape == (64, 40)
        assert np.all(np.isfinite(image))
        np.testing.assert_allclose(c @ c.T, batch @ batch.T / 40, atol=1e-10)
        assert operator.rank[0] == (40 if remember else 5)


def test_coordinates_reproduce_nearly_dependent_vectors():
    operator = lazy(2000, tolerance=1e-6)
    rng = np.random.default_rng(0)
    base = rng.standard_normal((1, 2000))
    for step in range(6):
        batch = base + 1e-4 * rng.standard_normal((3, 2000))
        c = operator.forward(batch, forward(step, 3), batch)[1]
        np.testing.assert_allclose(c @ operator.features.directions, batch, atol=1e-11)


@pytest.mark.parametrize("tied", [True, False])
def test_dense_operator_is_a_matrix(tied):
    operator = DenseOperator(Home(300), Noise(2), 0, tied=tied, dtype=np.dtype(np.float64))
    # entries of 𝒲 are N(0, 1/N): the mean square over N² entries has relative standard error sqrt(2)/N
    assert abs(300 * np.mean(operator.weights**2) - 1) < 4 * np.sqrt(2) / 300
    if not tied:
        assert abs(np.mean(operator.weights * operator.backward_weights)) * 300 < 4 / 300
    w, back = operator.weights.copy(), operator.backward_weights.copy()
    products = history(operator, 300, steps=3)
    for a, image, b, reverse in products:
        np.testing.assert_allclose(image, a @ w.T, atol=1e-10)
        np.testing.assert_allclose(reverse, b @ back, atol=1e-10)
        w += 0.3 * b.T @ a / 300
        back += 0.3 * b.T @ a / 300
