"""Matrices with M outputs and N inputs: exact relations, and the law of their products, for M on either side of N."""

from __future__ import annotations

import numpy as np
import pytest

from solvers.ensemble.random import Address, Noise, Stream
from solvers.ensemble.threads import ThreadParticles
from solvers.matrices.dense import DenseOperator
from solvers.matrices.lazy import LazyOperator
from solvers.matrices.matched import MatchedSampling, orthonormalise
from solvers.matrices.sampling import Sampling
from tests.plain_particles import PlainParticles

SHAPES = [(150, 400), (400, 150)]


def lazy(outputs, inputs, seed=0, tied=True, home=ThreadParticles, **options):
    space = home(inputs)
    given = {"tolerance": 0.0, "budget": (100, 100), "sampling": Sampling(), "dtype": np.dtype(float)} | options
    return LazyOperator(space, Noise(seed), 0, tied=tied, outputs=space.beside(outputs), **given)


def at(stream, step=0, count=1):
    return Address(stream, step, tuple(range(count)))


def history(operator, steps=4, batch=3, seed=5):
    """Forward, backward and update with random vectors; returns every product that was asked for."""
    rng, products = np.random.default_rng(seed), []
    outputs, inputs = operator.outputs.particles, operator.inputs.particles
    for step in range(steps):
        a, b = rng.standard_normal((batch, inputs)), rng.standard_normal((batch, outputs))
        image, c = operator.forward(a, at(Stream.FORWARD, step, batch), b)
        back, d = operator.backward(b, at(Stream.BACKWARD, step, batch), a)
        products.append((a, image, b, back))
        operator.update(0.3 * d, c)
    return products


@pytest.mark.parametrize("home", [ThreadParticles, PlainParticles])
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
@pytest.mark.parametrize("tied", [True, False])
def test_repeated_products_repeat_and_updates_add_their_part(tied, outputs, inputs, home):
    operator = lazy(outputs, inputs, tied=tied, home=home)
    products = history(operator)
    root = np.sqrt(outputs * inputs)
    learned = sum(0.3 * b.T @ a / root for a, _, b, _ in products)
    for step, (a, image, b, back) in enumerate(products):
        before = sum((0.3 * g.T @ f / root for f, _, g, _ in products[:step]), np.zeros((outputs, inputs)))
        again = operator.forward(a, at(Stream.FORWARD, 9, 3), b)[0]
        np.testing.assert_allclose(again, image + a @ (learned - before).T, atol=1e-9)
        again = operator.backward(b, at(Stream.BACKWARD, 9, 3), a)[0]
        np.testing.assert_allclose(again, back + b @ (learned - before), atol=1e-9)
    assert operator.rank == (12, 12)


@pytest.mark.parametrize("home", [ThreadParticles, PlainParticles])
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
@pytest.mark.parametrize("remember", [True, False])
def test_tied_products_are_adjoint_whichever_came_first(remember, outputs, inputs, home):
    """Also after decay, and of vectors that are probed, whose noise meets what the other side has revealed."""
    operator = lazy(outputs, inputs, home=home)
    (_, _, b, _), *_ = history(operator, steps=2)
    operator.shrink(0.5)
    new = np.random.default_rng(2).standard_normal((2, inputs))
    back = operator.backward(b, at(Stream.BACKWARD, 8, 3), new)[0]
    image = operator.forward(new, at(Stream.FORWARD, 9, 2), b, remember=remember)[0]
    np.testing.assert_allclose(image @ b.T, new @ back.T, atol=1e-9 * inputs)
    other = np.random.default_rng(3).standard_normal((2, outputs))
    seen = operator.forward(new, at(Stream.FORWARD, 9, 2), b)[0]
    back = operator.backward(other, at(Stream.BACKWARD, 9, 2), new, remember=remember)[0]
    np.testing.assert_allclose(seen @ other.T, new @ back.T, atol=1e-9 * inputs)


def test_the_whole_matrix_can_be_revealed():
    for outputs, inputs in ((5, 8), (8, 5)):
        operator = lazy(outputs, inputs, budget=(8, 8))
        columns = operator.forward(np.eye(inputs), at(Stream.FORWARD, 0, inputs), np.eye(outputs))[0]
        rows = operator.backward(np.eye(outputs), at(Stream.BACKWARD, 0, outputs), np.eye(inputs))[0]
        np.testing.assert_allclose(rows, columns.T, atol=1e-12)
        assert operator.rank == (inputs, outputs)


RNG = np.random.default_rng(3)
A, C, B = RNG.standard_normal(6), RNG.standard_normal(6), RNG.standard_normal(4)


def products(operator):
    """Three products of a random history; each vector depends on the products before it, as in training."""
    image = operator.forward(A[None], at(Stream.FORWARD), B[None])[0][0]
    back = operator.backward((B + image)[None], at(Stream.BACKWARD), A[None])[0][0]
    last = operator.forward((C + np.tanh(back))[None], at(Stream.FORWARD, 1), B[None])[0][0]
    return np.concatenate([image, back, last])


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("tied", [True, False])
def test_law_of_products_equals_that_of_a_full_matrix(tied, wide, monkeypatch):
    """Second moments of all products, lazily and with dense matrices, of which there are many more."""
    if wide:
        monkeypatch.setitem(globals(), "A", RNG.standard_normal(4))
        monkeypatch.setitem(globals(), "C", RNG.standard_normal(4))
        monkeypatch.setitem(globals(), "B", RNG.standard_normal(6))
    rng, matrices, outputs, inputs = np.random.default_rng(4), 60_000, len(B), len(A)
    w = rng.standard_normal((matrices, outputs, inputs)) / np.sqrt(inputs)
    w2 = w if tied else rng.standard_normal(w.shape) / np.sqrt(inputs)
    image = w @ A
    back = np.einsum("sji,sj->si", w2, B + image)
    densely = np.concatenate([image, back, np.einsum("sij,sj->si", w, C + np.tanh(back))], axis=1)

    def moments(found):
        rows, columns = np.triu_indices(found.shape[1])
        values = found[:, rows] * found[:, columns]
        return values.mean(0), values.var(0) / len(found)

    one, error = moments(np.array([products(lazy(outputs, inputs, seed, tied)) for seed in range(3000)]))
    other, smaller = moments(densely)
    z = (one - other) / np.sqrt(error + smaller)
    # 105 or 136 correlated comparisons, as for square matrices
    assert np.abs(z).max() < 4.5
    assert np.sqrt(np.mean(z**2)) < 1.5


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("matched", [True, False])
def test_few_particles_in_one_call_and_many_operations_agree(tied, matched, monkeypatch):
    found = []
    for most in (0, 2048):
        monkeypatch.setattr("solvers.ensemble.threads.FEW", most)
        space = ThreadParticles(700)
        hidden = space.beside(300)
        constants = np.random.default_rng(1).standard_normal((3, 700))
        orthonormalise(space, constants)
        operator = LazyOperator(
            space, Noise(3, part=1), 1, tied=tied, tolerance=1e-3, budget=(50, 50), dtype=np.dtype(float),
            outputs=hidden, sampling=MatchedSampling(hidden, hidden.allocate(0)) if matched else Sampling(),
            backward_sampling=MatchedSampling(space, constants) if matched else Sampling(),
        )  # fmt: skip
        rng, images = np.random.default_rng(2), []
        for step in range(3):
            a, b = rng.standard_normal((4, 700)), rng.standard_normal((4, 300))
            a[2], b[1] = a[0] - a[1], 2 * b[0]
            image, c = operator.forward(a, at(Stream.FORWARD, step, 4), b)
            back, d = operator.backward(b, at(Stream.BACKWARD, step, 4), a)
            operator.update(0.3 * d, c)
            probe = operator.forward(a + 1, at(Stream.PROBE, 0, 4), b, remember=False)[0]
            images.append(np.concatenate([image, back, probe], axis=1))
        assert operator.rank == (9, 9)
        found.append(np.array(images))
    np.testing.assert_allclose(*found, rtol=0, atol=1e-10)  # BLAS builds may round small products in another order


@pytest.mark.parametrize("home", [ThreadParticles, PlainParticles])
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_matched_noise_is_orthonormal_and_of_the_size_of_its_space(outputs, inputs, home):
    """Independent images are the fresh vectors themselves, of size 1, and √(M/N) on the way back."""
    space = home(inputs)
    hidden, constants = space.beside(outputs), np.random.default_rng(0).standard_normal((3, inputs))
    orthonormalise(space, constants)
    operator = LazyOperator(
        space, Noise(0), 0, tied=False, tolerance=0.0, budget=(100, 100), dtype=np.dtype(float), outputs=hidden,
        sampling=MatchedSampling(hidden, hidden.allocate(0)), backward_sampling=MatchedSampling(space, constants),
    )  # fmt: skip
    rng = np.random.default_rng(1)
    for step in range(3):
        a, b = rng.standard_normal((4, inputs)), rng.standard_normal((4, outputs))
        operator.forward(a, at(Stream.FORWARD, step, 4), b[:0])
        operator.backward(b, at(Stream.BACKWARD, step, 4), a)
        forward, backward = operator.features.images[-4:], operator.gradients.images[-4:]
        np.testing.assert_allclose(forward @ forward.T / outputs, np.eye(4), atol=1e-12)
        np.testing.assert_allclose(backward @ backward.T / inputs, outputs / inputs * np.eye(4), atol=1e-12)
        for family in (constants, a):
            np.testing.assert_allclose(backward @ family.T, 0, atol=1e-12 * inputs)
    assert not operator.unmatched


@pytest.mark.parametrize("home", [ThreadParticles, PlainParticles])
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
@pytest.mark.parametrize("tied", [True, False])
def test_dense_operator_is_a_matrix(tied, outputs, inputs, home):
    space = home(inputs)
    operator = DenseOperator(space, Noise(2), 0, tied=tied, dtype=np.dtype(float), outputs=space.beside(outputs))
    size = outputs * inputs
    assert operator.weights.shape == (outputs, inputs)
    # entries of 𝒲 are N(0, 1/N)
    assert abs(inputs * np.mean(operator.weights**2) - 1) < 4 * np.sqrt(2 / size)
    if not tied:
        assert abs(np.mean(operator.weights * operator.backward_weights)) * inputs < 4 / np.sqrt(size)
    w, back = operator.weights.copy(), operator.backward_weights.copy()
    for a, image, b, reverse in history(operator, steps=3):
        np.testing.assert_allclose(image, a @ w.T, atol=1e-10)
        np.testing.assert_allclose(reverse, b @ back, atol=1e-10)
        w += 0.3 * b.T @ a / np.sqrt(size)
        back += 0.3 * b.T @ a / np.sqrt(size)


def test_fields_of_one_seed_are_independent():
    noise = [np.empty((2, 5000)) for _ in range(2)]
    for part, out in enumerate(noise):
        Noise(4, part=part).fill(out, slice(0, 5000), at(Stream.FORWARD, 0, 2))
    correlation = noise[0] @ noise[1].T / 5000
    assert np.abs(correlation).max() < 4 / np.sqrt(5000)
