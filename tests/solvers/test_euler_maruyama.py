"""The stepper on equations with closed forms, and its bookkeeping of time and noise."""

from __future__ import annotations

import numpy as np

from solvers.blocks import Blocks
from solvers.euler_maruyama import McKeanVlasov, euler_maruyama
from solvers.random import Address, Noise, Stream
from tests.conftest import MARGIN, z_score

# mean-field Ornstein–Uhlenbeck: dX = −a(X − θ E X) dt + s dW
A, THETA, S = 1.5, 0.4, 0.7
ORNSTEIN_UHLENBECK = McKeanVlasov(
    lambda t, x: np.stack([x, x * x]), lambda t, x, m, field: S, lambda t, x, m, field: -A * (x - THETA * m[0])
)


def solve(equation, particles, times, seed, start=1.0, threads=1, **rest):
    blocks = Blocks(particles, threads)
    x = np.full(particles, start)
    with blocks.running():
        moments = euler_maruyama(equation, x, times, blocks=blocks, noise=Noise(seed), stream=Stream.FORWARD, **rest)
    return x, moments


def test_mean_field_ornstein_uhlenbeck_moments():
    steps, times = 40, np.linspace(0, 1, 41)
    dt = 1 / steps
    mean, second = 1.0, 1.0
    for _ in range(steps):  # the moments of the scheme itself, so that only sampling errors remain
        second = (1 - A * dt) ** 2 * second + 2 * (1 - A * dt) * A * THETA * dt * mean**2 + (A * THETA * dt * mean) ** 2
        second += S**2 * dt
        mean *= 1 - A * (1 - THETA) * dt
    runs = np.array([solve(ORNSTEIN_UHLENBECK, 4000, times, seed)[1][-1] for seed in range(40)])
    # the second moment of the particle system exceeds the limit's by O(1/N), far below its standard error
    assert np.all(z_score(runs, np.array([mean, second])) < MARGIN)
    exact = np.exp(-A * (1 - THETA))
    assert abs(mean - exact) < 0.02  # weak order 1: a (1 - θ) dt/2 of the mean


def test_the_same_path_backward_in_time_uses_the_same_intervals():
    equation = McKeanVlasov(lambda t, x: x[None], lambda t, x, m, field: 1.0 + t)
    times = np.array([0.0, 0.25, 1.0])
    noise = np.empty((1, 50))
    increments = []
    for layer in range(2):
        Noise(3).fill(noise, slice(0, 50), Address(Stream.FORWARD), layer)
        increments.append(noise[0] * np.sqrt(times[layer + 1] - times[layer]))
    forward, _ = solve(equation, 50, times, 3, start=0.0)
    np.testing.assert_allclose(forward, increments[0] + 1.25 * increments[1], atol=1e-14)
    backward, _ = solve(equation, 50, times[::-1], 3, start=0.0)
    np.testing.assert_allclose(backward, 2.0 * increments[1] + 1.25 * increments[0], atol=1e-14)


def test_threads_field_and_observation():
    rng = np.random.default_rng(0)
    path = rng.standard_normal((3, 9000))
    equation = McKeanVlasov(lambda t, x: x[None], lambda t, x, m, field: field)
    seen = []
    results = [
        solve(
            equation, 9000, np.linspace(0, 1, 4), 1, threads=threads,
            field=lambda step, block: path[step, block], observe=lambda step, x: seen.append((step, x.copy())),
        ) for threads in (1, 2)
    ]  # fmt: skip
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])
    assert [step for step, _ in seen] == [0, 1, 2, 3] * 2
    np.testing.assert_array_equal(seen[3][1], results[0][0])
