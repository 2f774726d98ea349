"""The untrained network against quadrature, and both solvers against each other."""

from __future__ import annotations

import numpy as np
import pytest

import flds
from flds.training.activations import ACTIVATIONS
from tests.conftest import MARGIN, one_sample, z_score
from validation import closed_forms


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_moments_over_depth_equal_the_euler_recursion(activation):
    settings = {"particles": 4000, "depth": 12, "initial_variance": 0.8, "horizon": 1.5}
    forward = np.array([flds.solve_forward(activation, seed=s, **settings).variance for s in range(30)])
    backward = np.array([flds.solve_backward(activation, seed=s, **settings).variance for s in range(30)])
    q = closed_forms.feature_variance(activation, 0.8, 1.5, 12)
    p = closed_forms.gradient_variance(activation, 0.8, 1.5, 12)
    assert np.all(z_score(forward, q) < MARGIN)
    assert np.all(z_score(backward, p) < MARGIN)


def test_the_wrong_moment_of_the_printed_proposition_is_told_apart():
    # Prop. 3 prints E[g]² for E[g²]; E g vanishes, so g would not move at all
    p = closed_forms.gradient_variance("tanh", 1.0, 1.0, 12)
    runs = np.array([flds.solve_backward("tanh", particles=4000, depth=12, seed=s).variance for s in range(30)])
    assert abs(runs[:, 0].mean() - 1.0) > 20 * runs[:, 0].std() / np.sqrt(30)
    assert p[0] > 1.5


def test_first_pass_of_a_lazy_network_is_the_sde_path():
    problem = one_sample("tanh", steps=0)
    options = {"depth": 10, "seed": 4, "noise_depth": 20}
    h = flds.solve_forward("tanh", particles=3000, **options)
    g = flds.solve_backward("tanh", particles=3000, **options)
    # independent weights: with tied ones the network has no projection to make, the SDE has none
    network = flds.simulate_resnet(problem, width=3000, backward_weights="independent", operator="lazy", **options)
    np.testing.assert_allclose(network.feature_variance[0], h.variance, rtol=1e-12)
    np.testing.assert_allclose(network.gradient_variance[0], g.variance, rtol=1e-12)


def test_refinement_converges_on_the_same_path():
    # first pass: strong order 1, so halving the step halves the error; measured against 16 times finer
    runs = {
        depth: flds.solve_forward("tanh", particles=20_000, depth=depth, noise_depth=256).final_particles
        for depth in (8, 16, 256)
    }
    coarse = np.sqrt(np.mean((runs[8] - runs[256]) ** 2))
    fine = np.sqrt(np.mean((runs[16] - runs[256]) ** 2))
    # 1/8 - 1/256 over 1/16 - 1/256 is 2.07
    assert 1.8 < coarse / fine < 2.4


def test_threads_and_particles_do_not_change_the_path():
    one = flds.solve_forward("tanh", particles=30_000, depth=6, threads=1)
    two = flds.solve_forward("tanh", particles=30_000, depth=6, threads=2)
    np.testing.assert_array_equal(one.final_particles, two.final_particles)
    np.testing.assert_array_equal(one.variance, two.variance)


def test_float32_agrees_to_its_rounding():
    double = flds.solve_backward("gelu", particles=20_000, depth=16)
    single = flds.solve_backward("gelu", particles=20_000, depth=16, dtype="float32")
    assert single.final_particles.dtype == np.float32
    np.testing.assert_allclose(single.variance, double.variance, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("activation", "tanhh", "activation must be one of identity, tanh"),
        ("initial_variance", -1.0, "initial_variance must be a finite number of at least 0, got -1"),
        ("horizon", 0.0, "horizon must be a finite number above 0, got 0"),
        ("particles", 0, "particles must be at least 1, got 0"),
        ("depth", 2.5, "depth must be an integer, got 2.5"),
        ("noise_depth", 300, r"noise_depth must be a multiple of depth \(256\), got 300"),
        ("seed", -1, "seed must be at least 0, got -1"),
        ("dtype", "float16", "dtype must be one of float64, float32, got 'float16'"),
        ("threads", 0, "threads must be at least 1, got 0"),
    ],
)
def test_bad_arguments(name, value, message):
    for solver in (flds.solve_forward, flds.solve_backward):
        with pytest.raises((ValueError, TypeError), match=message):
            solver(**{name: value})


def test_a_path_that_does_not_fit_is_refused_with_numbers():
    with pytest.raises(MemoryError, match=r"needs .* GB and .* GB are available; lower particles"):
        flds.solve_backward(particles=10**9, depth=1000)
