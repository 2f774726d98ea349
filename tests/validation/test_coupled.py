"""Exact coupled errors against Monte-Carlo integration of the two recursions on one path, written out."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import MARGIN
from validation import closed_forms, coupled, plain

DEPTH, DEEPER, HORIZON, INITIAL, PATHS = 4, 16, 1.0, 0.7, 200_000


def errors_by_sampling(activation):
    """|h^L − h^L*|² at T and |g^L − g^L*|² at 0 of independent paths, (2, PATHS)."""
    rng = np.random.default_rng(0)
    every, dt = DEEPER // DEPTH, HORIZON / DEEPER
    forward, backward = np.sqrt(dt) * rng.standard_normal((2, DEEPER, PATHS))
    h0, v = rng.standard_normal((2, PATHS)) * np.sqrt([[INITIAL], [1.0]])
    ends = []
    for depth in (DEPTH, DEEPER):
        stretch = DEEPER // depth
        q = closed_forms.feature_variance(activation, INITIAL, HORIZON, depth)
        p = closed_forms.gradient_variance(activation, INITIAL, HORIZON, depth)
        sigma = np.sqrt(np.diff(q) / (HORIZON / depth))
        h = [h0]
        for layer in range(depth):
            h.append(h[-1] + sigma[layer] * forward[layer * stretch : (layer + 1) * stretch].sum(0))
        g = v
        for layer in reversed(range(depth)):
            noise = backward[layer * stretch : (layer + 1) * stretch].sum(0)
            g = g + plain.slope(activation, h[layer]) * np.sqrt(p[layer + 1]) * noise
        ends.append((h[-1], g))
    assert every * DEPTH == DEEPER
    return [(a - b) ** 2 for a, b in zip(*ends, strict=True)]


@pytest.mark.parametrize("activation", ["identity", "tanh", "relu"])
def test_errors_are_means_over_paths(activation):
    exact = [
        error(activation, INITIAL, HORIZON, DEPTH, DEEPER) for error in (coupled.feature_error, coupled.gradient_error)
    ]
    for samples, value in zip(errors_by_sampling(activation), exact, strict=True):
        assert abs(samples.mean() - value) < MARGIN * samples.std() / np.sqrt(PATHS)
        assert samples.std() / np.sqrt(PATHS) < 0.01 * value  # so that one per cent would be seen


def test_a_power_is_found():
    gaps = np.array([0.1, 0.05, 0.02])
    assert coupled.exponent(list(3.0 * gaps**1.7), gaps) == pytest.approx(1.7, abs=1e-12)


def test_exponents_tend_to_those_of_small_steps():
    """2 for h, and for g 1 where φ' is Lipschitz and ½ where it jumps; the distance falls like the coarsest step."""
    for activation, expected in (("tanh", (2.0, 1.0)), ("relu", (2.0, 0.5))):
        for error, value in zip((coupled.feature_error, coupled.gradient_error), expected, strict=True):
            fine = [error(activation, 1.0, 1.0, depth, 2048) for depth in (64, 128)]
            found = coupled.exponent(fine, 1 / np.array([64, 128]) - 1 / 2048)
            assert abs(found - value) < 2 / 64
