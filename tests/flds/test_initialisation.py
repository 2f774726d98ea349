"""The untrained network against quadrature, and both solvers against each other."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

import flds
from flds.training.activations import ACTIVATIONS
from flds.training.compiled_activations import compiled_activation, on_arrays
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


INPUTS = np.array([[1.0, 0.0], [0.6, 1.1], [1.0, 0.0], [0.0, 0.0]])  # the third like the first, the last of no length


@pytest.mark.parametrize("activation", ["tanh", "gelu", "softplus"])
def test_joint_law_over_inputs_equals_the_recursion(activation):
    options = {"inputs": INPUTS, "particles": 3000, "depth": 8, "horizon": 1.5}
    forward = np.array([flds.solve_forward(activation, seed=s, **options).covariance for s in range(40)])
    backward = np.array([flds.solve_backward(activation, seed=s, **options).covariance for s in range(40)])
    h, _ = closed_forms.feature_kernels(activation, INPUTS, 1.5, 8)
    g = closed_forms.gradient_kernels(activation, INPUTS, 1.5, 8)
    moves = forward.std(0) > 0  # where φ(0) = 0 an input of no length stays
    assert np.all(z_score(forward[:, moves], h[moves]) < MARGIN)
    assert np.all(h[~moves] == 0)
    assert np.all(z_score(backward, g) < MARGIN)


def test_equal_inputs_have_equal_particles():
    for solve in (flds.solve_forward, flds.solve_backward):
        run = solve("tanh", inputs=INPUTS, particles=500, depth=4)
        # sums over particles of the same numbers may be taken in another order
        np.testing.assert_allclose(run.final_particles[:, 0], run.final_particles[:, 2], rtol=0, atol=1e-13)
        assert run.status == "completed"
        assert run.covariance.shape == (5, 4, 4)
        np.testing.assert_array_equal(run.variance, np.einsum("taa->ta", run.covariance))


def test_one_input_of_a_joint_solve_is_a_solve_of_its_own():
    for solve in (flds.solve_forward, flds.solve_backward):
        joint = solve("gelu", inputs=[[0.5, 1.0]], particles=3000, depth=6)
        # with one column the first weight is the same, so the path is
        joint_1, alone = (solve("gelu", particles=3000, depth=6, **o)
                          for o in ({"inputs": [[0.8]]}, {"initial_variance": 0.64}))  # fmt: skip
        np.testing.assert_allclose(joint_1.final_particles[:, 0], alone.final_particles, rtol=1e-12, atol=1e-13)
        assert joint.variance.shape == (7, 1)


def test_first_pass_of_a_network_on_several_samples_is_the_joint_path():
    inputs = INPUTS[:3]
    problem = flds.TrainingProblem(inputs, [3.0, 3.0, 3.0], steps=0)
    options = {"depth": 6, "seed": 4, "noise_depth": 12}
    h = flds.solve_forward("tanh", inputs=inputs, particles=2000, **options)
    g = flds.solve_backward("tanh", inputs=inputs, particles=2000, **options)
    network = flds.simulate_resnet(problem, width=2000, backward_weights="independent", operator="lazy", **options)
    np.testing.assert_allclose(network.feature_variance[0], h.variance.mean(1), rtol=1e-12)
    np.testing.assert_allclose(network.gradient_variance[0], g.variance.mean(1), rtol=1e-9)


def test_joint_solves_on_threads_and_in_single_precision():
    options = {"inputs": INPUTS, "particles": 30_000, "depth": 5}
    one, two = (flds.solve_backward("tanh", threads=threads, **options) for threads in (1, 2))
    np.testing.assert_array_equal(one.final_particles, two.final_particles)
    np.testing.assert_array_equal(one.covariance, two.covariance)
    single = flds.solve_backward("tanh", dtype="float32", **options)
    assert single.final_particles.dtype == np.float32
    np.testing.assert_allclose(single.covariance, one.covariance, rtol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([1.0, 2.0], r"inputs must have shape \(samples, d\)"),
        (np.ones((2, 2, 2)), r"inputs must have shape \(samples, d\)"),
        (np.empty((0, 2)), "inputs"),
        ([[1.0], [np.nan]], "inputs must"),
        ([["a"]], "inputs must"),
    ],
)
def test_other_inputs_are_refused(inputs, message):
    for solver in (flds.solve_forward, flds.solve_backward):
        with pytest.raises((ValueError, TypeError), match=message):
            solver(inputs=inputs, particles=10, depth=2)
    with pytest.raises(ValueError, match="give inputs or initial_variance, not both"):
        flds.solve_forward(inputs=[[1.0]], initial_variance=1.0)


def exploding(limit, compiled):
    """An activation that is x up to a limit and infinite beyond."""

    def value(x):
        return x / (np.abs(x) < limit)

    def derivative(x):
        return 1.0 / (np.abs(x) < limit)

    functions = (njit(error_model="numpy")(f) if compiled else f for f in (value, derivative))
    return flds.Activation(*functions)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("inputs", [None, [[1.0], [-0.5]]])
def test_an_activation_that_is_not_finite_on_the_way(compiled, inputs):
    phi = exploding(4.0, compiled)
    sizes = {"particles": 1000, "depth": 20, "horizon": 3.0}
    with pytest.warns(RuntimeWarning, match="not finite at layer") as caught:
        run = flds.solve_forward(phi, inputs=inputs, **sizes)
    layer = int(str(caught[0].message).split()[-1])
    assert run.status == "diverged"
    assert run.notes == [str(caught[0].message)]
    assert 0 < layer < 20
    # where the first particle was beyond the limit; later ones were not reached
    assert np.all(np.isfinite(run.variance[:layer]))
    assert np.all(np.isnan(run.variance[layer + 1 :]))
    assert np.abs(run.final_particles).max() >= 4.0
    with pytest.warns(RuntimeWarning, match=f"h, or its activation, was not finite at layer {layer}"):
        back = flds.solve_backward(phi, inputs=inputs, **sizes)
    assert back.status == "diverged"
    assert np.all(np.isnan(back.variance))


def test_own_activations_of_numpy_and_of_numba():
    def value(x):
        return x / (1.0 + x * x)

    def derivative(x):
        return (1.0 - x * x) / (1.0 + x * x) ** 2

    plain = flds.Activation(value, derivative, "bump")
    compiled = flds.Activation(njit(value), njit(derivative), "bump")
    of_arrays = flds.Activation(njit(lambda x: x / (1.0 + x * x).reshape(x.shape)), njit(derivative), "bump")
    for inputs in (None, INPUTS):
        for solve in (flds.solve_forward, flds.solve_backward):
            runs = [solve(phi, inputs=inputs, particles=1000, depth=4) for phi in (plain, compiled, of_arrays)]
            for run in runs[1:]:
                np.testing.assert_allclose(run.final_particles, runs[0].final_particles, rtol=1e-12, atol=1e-13)
    assert compiled_activation(compiled) is not None
    assert compiled_activation(of_arrays) is None
    assert compiled_activation(plain) is None


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_compiled_activations_equal_those_of_numpy(name):
    x = np.concatenate([np.linspace(-30, 30, 20_001), np.linspace(-700, 700, 501), [np.inf, -np.inf, np.nan]])
    phi, compiled = ACTIVATIONS[name], compiled_activation(ACTIVATIONS[name])
    with np.errstate(invalid="ignore", over="ignore"):
        for plain, function in ((phi.value, compiled.value), (phi.derivative, compiled.derivative)):
            # two units in the last place of numbers of order x, which cancel
            np.testing.assert_allclose(on_arrays(function)(x[None])[0], plain(x), rtol=1e-15, atol=1e-14)
