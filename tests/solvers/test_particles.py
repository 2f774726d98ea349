"""The algebra of particles against NumPy in every home, and the same bits for any number of threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from solvers.ensemble.random import Address, Noise, Stream
from solvers.ensemble.threads import ThreadParticles
from solvers.partition import STRETCH, group_size, partition
from tests.mpi.digest import communicator
from tests.plain_particles import PlainParticles


def on_torch(particles):
    """A home in tensors, on the processor."""
    pytest.importorskip("torch")
    from solvers.ensemble.device.particles import TorchParticles

    return TorchParticles(particles)


def on_ranks(particles):
    """A home over the ranks of MPI, as far as there are particles for them."""
    from tests.mpi.gathered import GatheredParticles

    try:
        return GatheredParticles(particles)
    except ValueError as error:  # the same on all ranks
        pytest.skip(str(error))


def on_threads(particles):
    """A home on two threads."""
    return ThreadParticles(particles, 2)


# Programs on several ranks run these tests too, in tests/mpi/test_homes.py.
HOMES = [on_threads, PlainParticles, on_torch] + ([] if communicator() is None else [on_ranks])
SIZES = [1, 5, STRETCH, STRETCH + 1, 40 * STRETCH + 77]


def vectors(rows, particles, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, particles)).astype(dtype)


@pytest.mark.parametrize("particles", SIZES)
def test_groups_cover_every_particle_once(particles):
    blocks = ThreadParticles(particles, 2)
    for slices in (blocks.groups, blocks.shares):
        assert np.array_equal(np.concatenate([np.arange(s.start, s.stop) for s in slices]), np.arange(particles))
        assert all(s.start % 256 == 0 for s in slices)  # whole rows of pairs of normals, and whole vectors


def test_groups_suit_hundreds_of_ranks():
    groups = {
        particles: -(-particles // group_size(particles)) for particles in (10**3, 5000, 10**5, 10**6, 10**7, 10**9)
    }
    assert groups[10**3] == 2
    assert groups[5000] == 10
    assert 10 <= groups[10**5] <= 16
    assert 100 <= groups[10**6] <= 512
    assert min(groups[10**7], groups[10**9]) >= 300
    assert max(groups.values()) <= 512


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 7), (2, 3), (7, 2), (9, 1), (5, 6), (0, 3), (3, 0)])
@pytest.mark.parametrize("particles", SIZES)
@pytest.mark.parametrize("home", HOMES)
def test_products_equal_numpy(home, particles, rows, columns, dtype):
    a, b = vectors(rows, particles, dtype), vectors(columns, particles, dtype, seed=1)
    blocks = home(particles)
    left, right, host = blocks.from_host(a.copy()), blocks.from_host(b.copy()), blocks.to_host
    # rounding of a sum of N products of size one: eps sqrt(N), and a factor for unlucky cases
    atol = 10 * np.finfo(dtype).eps * np.sqrt(min(particles, STRETCH)) / np.sqrt(max(1, particles / STRETCH))
    with blocks.running():
        np.testing.assert_allclose(
            blocks.inner(left, right), a.astype(float) @ b.astype(float).T / particles, rtol=0, atol=atol
        )
        np.testing.assert_allclose(
            blocks.mean_squares(left),
            (a.astype(float) ** 2).mean(1) if rows else [],
            rtol=1e-12 if dtype == np.float64 else 1e-6,
        )
        coefficients = np.random.default_rng(2).standard_normal((columns, rows))
        exact = coefficients @ a.astype(float)
        out = blocks.copy(right)
        blocks.combine(out, [(coefficients, left)])
        np.testing.assert_allclose(host(out), exact, rtol=0, atol=100 * np.finfo(dtype).eps)
        out = blocks.copy(right)
        blocks.combine(out, [(coefficients, left), (np.eye(columns), right)], add=True)
        np.testing.assert_allclose(host(out), exact + 2 * b.astype(float), rtol=0, atol=100 * np.finfo(dtype).eps)


@pytest.mark.parametrize("home", HOMES)
def test_elementwise_work_and_noise(home):
    particles = 2 * STRETCH + 3
    ensemble = home(particles)
    a, b = vectors(3, particles), vectors(3, particles, seed=1)
    first, second = ensemble.from_host(a.copy()), ensemble.from_host(b.copy())

    def same(found, expected):
        """Other libraries of functions round the last digit otherwise."""
        np.testing.assert_allclose(ensemble.to_host(found), expected, rtol=1e-15, atol=1e-15)

    with ensemble.running():
        same(ensemble.map(lambda x, y: np.tanh(x) * y, first, second), np.tanh(a) * b)
        out = ensemble.copy(first)
        ensemble.apply(lambda out, other: np.add(out, other, out=out), out, second)
        same(out, a + b)
        same(ensemble.stack([first, second[:0], second]), np.concatenate([a, b]))
        np.testing.assert_allclose(ensemble.gram(first), a @ a.T / particles, rtol=0, atol=1e-14)
        np.testing.assert_allclose(ensemble.means(first, second, first), (a * b * a).mean(1), rtol=0, atol=1e-14)
        assert ensemble.precision(first) == np.float64
        ensemble.put(out, b)
        same(out, b)
        rows = np.array([1.0, 2.0, 3.0])
        same(ensemble.map(lambda x, row: x * row, first, rows=[rows]), a * rows[:, None])
        scaled = ensemble.copy(first)
        ensemble.scale(scaled, 3.0)
        same(scaled, 3.0 * a)
        noise, expected = ensemble.allocate(3), np.empty((3, particles))
        ensemble.fill(noise, Noise(5), Address(Stream.FORWARD, 2, (4, 0, 7)), layer=3)
        Noise(5).fill(expected, slice(0, particles), Address(Stream.FORWARD, 2, (4, 0, 7)), 3)
        np.testing.assert_allclose(ensemble.to_host(noise), expected, rtol=0, atol=2e-15)
        if ensemble.communicator is None:  # ranks have as many sums as groups
            assert ensemble.total([np.ones(2, np.float32), np.full(2, 0.5)]).tolist() == [1.5, 1.5]
    single = vectors(2, particles, np.float32)
    kept = ensemble.from_host(single)
    for found in (ensemble.allocate(2, np.float32), ensemble.copy(kept), ensemble.map(np.negative, kept)):
        assert ensemble.precision(found) == np.float32
    exact = single.astype(float) @ single.astype(float).T / particles
    np.testing.assert_allclose(ensemble.gram(kept), exact, rtol=0, atol=1e-14)  # beyond float32
    done = []
    with ensemble.running(), ensemble.whole():
        ensemble.each(done.append, [3, 1, 2])
    assert sorted(done) == [1, 2, 3]


@pytest.mark.parametrize("home", HOMES)
def test_noise_has_known_values(home):
    """Those of `test_random`, which files that were saved are solved again with."""
    ensemble = home(4 * STRETCH)
    noise = ensemble.allocate(3)
    with ensemble.running():
        ensemble.fill(noise, Noise(11, refinement=2), Address(Stream.PROBE, 4, (0, 2, 7)), layer=3)
    expected = [
        0.5895338984163452, -2.501355676127089, 0.5659658098954835, 0.047977565001196945, -0.2269499492894109,
        -0.1781553650805266, 0.558598069343249,
    ]  # fmt: skip
    found = ensemble.to_host(noise)[1, [0, 63, 64, 127, 2047, 2048, 4098]]
    np.testing.assert_allclose(found, expected, rtol=1e-13)  # another library's logarithm and sine


@pytest.mark.parametrize("home", HOMES)
def test_matrices_that_are_held_whole(home):
    small = home(300)
    matrix, left, right = vectors(300, 300), vectors(4, 300, seed=2), vectors(4, 300, seed=3)
    if small.communicator is not None:
        with pytest.raises(NotImplementedError, match=r"^matrices that are held whole are held by one process$"):
            small.multiply(left, matrix)
        return
    with small.running():
        held, rows = small.from_host(matrix.copy()), small.from_host(left)
        for transposed in (False, True):
            found = small.to_host(small.multiply(rows, held, transposed=transposed))
            np.testing.assert_allclose(found, left @ (matrix.T if transposed else matrix), rtol=0, atol=1e-12)
        second = small.from_host(np.zeros_like(matrix))
        small.add_product(left, right, held, second)
        np.testing.assert_allclose(small.to_host(held) - matrix, left.T @ right, rtol=0, atol=1e-12)
        np.testing.assert_allclose(small.to_host(second), left.T @ right, rtol=0, atol=1e-12)


@pytest.mark.parametrize("home", HOMES)
def test_stacked_products_equal_products_of_the_stack(home):
    parts = [vectors(3, 5000), vectors(0, 5000), vectors(1, 5000, seed=3)]
    right = vectors(4, 5000, seed=4)
    blocks = home(5000)
    found = blocks.inner([blocks.from_host(part) for part in parts], blocks.from_host(right))
    np.testing.assert_allclose(found, np.concatenate(parts) @ right.T / 5000, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("rows", "count"), [(1, 1), (3, 0), (2, 9), (5, 6), (16, 70)])
@pytest.mark.parametrize("particles", [5, STRETCH + 1, 8192])
@pytest.mark.parametrize("home", HOMES)
def test_what_is_left_of_vectors_and_what_it_meets(home, particles, rows, count, dtype):
    a, directions = vectors(rows, particles, dtype), vectors(count, particles, dtype, seed=1)
    coordinates = np.random.default_rng(2).standard_normal((rows, count))
    blocks = home(particles)
    rest, overlap, gram = blocks.project(blocks.from_host(a), coordinates, blocks.from_host(directions))
    rest = blocks.to_host(rest)
    exact = a.astype(float) - coordinates @ directions.astype(float)
    scale = np.finfo(dtype).eps * (1 + count)  # of sums of `count` products
    np.testing.assert_allclose(rest, exact, rtol=0, atol=30 * scale)
    assert rest.dtype == dtype
    held = rest.astype(float)
    np.testing.assert_allclose(overlap, held @ directions.astype(float).T / particles, rtol=0, atol=30 * scale)
    np.testing.assert_allclose(gram, held @ held.T / particles, rtol=1e-12, atol=1e-12)  # float64 for both


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 4), st.sampled_from([STRETCH * 3, STRETCH * 33 + 5]))
def test_bits_do_not_depend_on_the_number_of_threads(threads, particles):
    a, b = vectors(5, particles), vectors(70, particles, seed=1)
    results = []
    for count in (1, threads):
        blocks = ThreadParticles(particles, count)
        with blocks.running():
            out, noise = np.empty_like(a), np.empty_like(a)
            blocks.combine(out, [(blocks.inner(a, b), b)])
            blocks.fill(noise, Noise(5), Address(Stream.FORWARD, 0, tuple(range(5))))
            results.append((blocks.inner(a, b), out, noise, blocks.mean_squares(b)))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_nan_and_infinity_stay_visible():
    a = vectors(2, 5000)
    a[0, 3], a[1, 4] = np.nan, np.inf
    blocks = ThreadParticles(5000)
    assert np.isnan(blocks.mean_squares(a)[0])
    assert np.isinf(blocks.mean_squares(a)[1])
    assert np.isnan(blocks.inner(a, a)[0, 0])


def test_an_error_in_a_thread_reaches_the_caller():
    blocks = ThreadParticles(40 * STRETCH, 2)

    def fail(share: slice) -> None:
        if share.start:
            raise KeyError("from a thread")

    with blocks.running(), pytest.raises(KeyError, match="from a thread"):
        blocks.each(fail, blocks.shares)


def test_partition():
    assert partition(5, 2) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert partition(0, 2) == []


def test_blas_is_limited_for_solves_on_any_thread():
    def limits() -> set[int]:
        with ThreadParticles(1).running():
            return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    before = threadpool_info()
    assert limits() == {1}
    with ThreadPoolExecutor(1) as pool:  # another thread, after this one has set and restored the limits
        assert pool.submit(limits).result() == {1}
    assert limits() == {1}
    assert threadpool_info() == before


def test_threads_beyond_the_pieces_of_work_are_not_started():
    blocks = ThreadParticles(3 * STRETCH, 10**12)
    a = vectors(200, 3 * STRETCH)
    with blocks.running():
        before = threading.active_count()
        blocks.inner(a, a)
        assert threading.active_count() == before + len(blocks.groups) - 1
        blocks.fill(a, Noise(1), Address(Stream.FORWARD, 0, tuple(range(200))))
        assert threading.active_count() == before + len(blocks.shares) - 1
    assert threading.active_count() == before
