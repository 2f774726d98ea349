"""Brownian increments that can be asked for again, and the elementary functions of compiled coefficients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from solvers import BrownianMotion, Stream

ALL = BrownianMotion(0.0, 2.0, 12, motions=3, seed=5).increments(slice(0, 5000))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 4999), min_size=1, max_size=6), st.integers(0, 11), st.integers(1, 12))
def test_any_particle_and_interval_can_be_replayed(particles, first, count):
    again = BrownianMotion(2.0, 0.0, 12, motions=3, seed=5).increments(particles, slice(first, first + count))
    np.testing.assert_array_equal(again, ALL[first : first + count][:, particles])


def test_a_coarse_path_is_the_fine_one():
    coarse = BrownianMotion(0.0, 2.0, 4, motions=3, seed=5, noise_steps=12).increments(slice(0, 5000))
    np.testing.assert_allclose(coarse, ALL.reshape(4, 3, 5000, 3).sum(1), atol=1e-14)


def test_increments_are_normal_and_independent():
    scaled = ALL / np.sqrt(2.0 / 12)
    assert stats.kstest(scaled.ravel(), "norm").pvalue > 1e-3
    series = scaled.transpose(0, 2, 1).reshape(36, 5000)
    correlation = series @ series.T / 5000 - np.eye(36)
    # 666 entries of standard deviation 1/√5000, √2 times that on the diagonal: 5 covers their maximum
    assert np.abs(correlation).max() < 5 * np.sqrt(2 / 5000)
    common = BrownianMotion(0.0, 2.0, 12, motions=3, seed=5, stream=Stream.COMMON).increments()
    assert not np.isclose(common[:, 0], ALL[:, 0]).any()


def test_one_interval_and_one_particle():
    brownian = BrownianMotion(0.0, 2.0, 12, motions=3, seed=5)
    np.testing.assert_array_equal(brownian.increments(7, 4)[0, 0], ALL[4, 7])
    np.testing.assert_array_equal(brownian.increments(slice(10, 40, 3), -1)[0], ALL[-1, 10:40:3])
    assert brownian.times[0] == 0.0
    assert brownian.times[-1] == 2.0


@pytest.mark.parametrize(
    ("particles", "message"),
    [
        (slice(3, None), "a slice of particles needs a stop"),
        (-1, "particles must be integers of at least 0 or a slice, got -1"),
        ([0.5], "particles must be integers of at least 0 or a slice"),
    ],
)
def test_bad_particles(particles, message):
    with pytest.raises(ValueError, match=message):
        BrownianMotion(0.0, 1.0, 4).increments(particles)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 0.0, 4), "t0 and t1 must differ"),
        ((0.0, 1.0, 0), "steps must be at least 1, got 0"),
        ((0.0, 1.0, 4, 0), "motions must be at least 1, got 0"),
        ((0.0, 1.0, 4, 1, 2**63), "seed must be below"),
        ((0.0, 1.0, 4, 1, 0, 6), r"noise_steps must be a multiple of steps \(4\), got 6"),
    ],
)
def test_bad_grids(arguments, message):
    with pytest.raises(ValueError, match=message):
        BrownianMotion(*arguments)
