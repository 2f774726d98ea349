"""Addressed noise: known answers, law, independence, and invariance of what an address means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from scipy import stats

from solvers.ensemble import random
from solvers.ensemble.random import Address, Noise, Stream
from solvers.partition import STRETCH
from tests import naive


def from_python(part):
    """A part of kernels, which only kernels can call, as a function for Python."""
    return njit(lambda *arguments: part(*arguments))


def normals(count=STRETCH, seed=0, stream=Stream.FORWARD, step=0, position=0, layer=0, refinement=1):
    out = np.empty((1, count))
    Noise(seed, refinement).fill(out, slice(0, count), Address(stream, step, (position,)), layer)
    return out[0]


def test_splitmix64_known_answers():
    # the first outputs of SplitMix64 from the state 1234567, as published with the algorithm
    states = [(1234567 + k * 0x9E3779B97F4A7C15) % 2**64 for k in (1, 2, 3)]
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    mix64 = from_python(random.mix64)
    assert [int(mix64(np.uint64(s))) % 2**64 for s in states] == expected
    assert [naive.mix64(s) for s in states] == expected


def test_increments_are_odd_and_change_often():
    increment_of = from_python(random.increment_of)
    for key in range(2000):
        ours = int(increment_of(np.uint64(key))) % 2**64
        assert ours == naive.increment(key)
        assert ours % 2 == 1
        assert bin(ours ^ (ours >> 1)).count("1") >= 24


def test_normals_equal_their_plain_twin():
    seed, stream, step, position, layer, block = 7, 3, 2, 5, 1, 1
    key = int(from_python(random.address_key)(seed, stream, step, position, layer, block)) % 2**64
    ours = normals(2 * STRETCH, seed, Stream(stream), step, position, layer)[STRETCH:]
    exact = naive.normals(key, STRETCH, random.PAIRS)
    # some roundings of numbers up to 5
    np.testing.assert_allclose(ours, exact, rtol=4e-16, atol=2e-15)


def test_radius_and_direction_reach_their_ends():
    lowest, highest = np.uint64(0), np.uint64(2**64 - 1)
    radius, direction = from_python(random._radius), from_python(random._direction)
    assert radius(lowest) == pytest.approx(np.sqrt(2 * 53 * np.log(2)), rel=1e-15)
    assert radius(highest) == pytest.approx(2.0**-26, rel=1e-15)
    quarter = np.array([direction(np.uint64(2**63 + bits)) for bits in range(4)])
    half = np.sqrt(0.5)
    np.testing.assert_allclose(quarter, half * np.array([[1, -1], [-1, -1], [-1, 1], [-1, -1]]), atol=1e-15)


def test_normals_have_the_standard_normal_law():
    count = 2_000_000
    x = normals(count, seed=3)
    assert stats.kstest(x, "norm").pvalue > 1e-4
    # moments E x^k with variance (E x^2k - (E x^k)^2)/count
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        assert abs(np.mean(x**power) - moment) < 4 * np.sqrt(variance / count)
    for edge in (3.0, 3.7, 4.5):
        p = 2 * stats.norm.sf(edge)
        assert abs(np.mean(np.abs(x) > edge) - p) < 4 * np.sqrt(p / count)
    # the two normals of a pair, which share a radius, and each with its neighbours in other lanes
    rows = x[: count // STRETCH * STRETCH].reshape(-1, 2, random.PAIRS)
    for a, b in ((rows[:, 0], rows[:, 1]), (rows[..., :-1], rows[..., 1:]), (rows[:-1], rows[1:])):
        for f in (lambda y: y, lambda y: y**2 - 1, np.abs, np.sign):
            u, v = f(a) - f(a).mean(), f(b) - f(b).mean()
            assert abs(np.mean(u * v) / np.sqrt(np.mean(u * u) * np.mean(v * v))) < 4 / np.sqrt(u.size)


def test_neighbouring_addresses_are_independent():
    count = 64 * STRETCH
    base = normals(count)
    others = [
        normals(count, seed=1), normals(count, stream=Stream.BACKWARD), normals(count, step=1),
        normals(count, position=1), normals(count, layer=1), np.roll(base, STRETCH), np.roll(base, 1),
    ]  # fmt: skip
    for other in others:
        for a, b in ((base, other), (base**2 - 1, other**2 - 1)):
            # the correlation of independent samples has standard deviation 1/sqrt(count)
            assert abs(np.mean(a * b) / np.sqrt(np.mean(a * a) * np.mean(b * b))) < 4 / np.sqrt(count)


def test_coordinates_of_an_address_are_not_interchangeable():
    seen = {
        normals(4, stream=a, step=b, position=c, layer=d).tobytes()
        for a in (0, 1, 2) for b in (0, 1, 2) for c in (0, 1, 2) for d in (0, 1, 2)
    }  # fmt: skip
    assert len(seen) == 81


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3 * STRETCH), st.integers(1, 4))
def test_fewer_particles_see_the_first_values(count, refinement):
    many = normals(3 * STRETCH, refinement=refinement)
    np.testing.assert_array_equal(normals(count, refinement=refinement), many[:count])


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 5), st.integers(0, 3))
def test_coarse_increments_are_sums_of_fine_ones(refinement, layer):
    fine = sum(normals(100, layer=layer * refinement + j) for j in range(refinement))
    np.testing.assert_allclose(
        normals(100, layer=layer, refinement=refinement), fine / np.sqrt(refinement), rtol=0, atol=1e-14
    )


def test_offset_and_precision_do_not_change_the_values():
    whole = normals(3 * STRETCH)
    part = np.empty((1, STRETCH), np.float32)
    share = slice(STRETCH, 2 * STRETCH)
    Noise(0).fill(part, share, Address(Stream.FORWARD), offset=STRETCH)
    np.testing.assert_array_equal(part[0], whole[share].astype(np.float32))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2 * STRETCH), st.integers(1, 2 * STRETCH), st.integers(1, 3))
def test_a_field_may_begin_at_any_particle(first, count, refinement):
    whole = normals(4 * STRETCH, seed=5, refinement=refinement)
    part = np.empty((2, count))
    noise = Noise(5, refinement, first=first)
    # in blocks, as threads fill it, and then from one block on
    address = Address(Stream.FORWARD, positions=(1, 0))
    for start in range(0, count, STRETCH):
        noise.fill(part, slice(start, min(start + STRETCH, count)), address)
    np.testing.assert_array_equal(part[1], whole[first : first + count])
    if count > STRETCH:
        later = np.empty((2, count - STRETCH))
        noise.fill(later, slice(STRETCH, count), address, offset=STRETCH)
        np.testing.assert_array_equal(later, part[:, STRETCH:])


def test_values_are_those_of_earlier_versions():
    # files that were saved are solved again bit for bit
    found = normals(2 * STRETCH + 3, seed=11, stream=Stream.PROBE, step=4, position=2, layer=3, refinement=2)
    expected = [
        0.5895338984163452, -2.501355676127089, 0.5659658098954835, 0.047977565001196945, -0.2269499492894109,
        -0.1781553650805266, 0.558598069343249,
    ]  # fmt: skip
    np.testing.assert_allclose(found[[0, 63, 64, 127, 2047, 2048, 4098]], expected, rtol=1e-14)
