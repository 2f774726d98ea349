"""What must not change the result: threads, recording, probing; and what shares a path."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import flds
from flds.training.method import decide
from flds.training.network import Network
from solvers.ensemble.random import Address, Stream
from tests.conftest import one_sample, three_samples


@pytest.mark.parametrize("sampling", ["law", "matched"])
@pytest.mark.parametrize("operator", ["lazy", "dense"])
def test_one_and_two_threads_give_the_same_bits(classes, sampling, operator):
    particles = 5000 if operator == "lazy" else 700
    if operator == "dense" and sampling == "matched":
        sampling = "law"
    runs = [
        flds.solve_flds(classes, particles=particles, depth=4, sampling=sampling, operator=operator, threads=threads)
        for threads in (1, 2)
    ]
    for name in (
        "outputs",
        "test_outputs",
        "feature_variance",
        "gradient_variance",
        "batch_loss",
        "rank",
        "truncation",
    ):
        np.testing.assert_array_equal(getattr(runs[0], name), getattr(runs[1], name))


@pytest.mark.parametrize("sampling", ["law", "matched"])
def test_one_and_two_threads_give_the_same_bits_inside_branches(classes, sampling):
    problem = replace(classes, residual="two_layer", hidden_ratio=1.5, normalization="layer_norm", gain=True, bias=True)
    runs = [flds.solve_flds(problem, particles=4000, depth=3, sampling=sampling, threads=threads) for threads in (1, 2)]
    for name in ("test_outputs", "feature_variance", "gradient_variance", "batch_loss", "truncation"):
        np.testing.assert_array_equal(getattr(runs[0], name), getattr(runs[1], name))


def test_the_same_seed_repeats_and_another_does_not(classes):
    one, again, other = (flds.solve_flds(classes, particles=800, depth=3, seed=s).outputs for s in (3, 3, 4))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("sampling", ["law", "matched"])
def test_recording_changes_nothing(classes, sampling):
    settings = {"particles": 2500, "depth": 3, "sampling": sampling, "operator": "lazy"}
    every = flds.solve_flds(classes, record_every=1, record_kernels=True, **settings)
    rarely = flds.solve_flds(classes, record_every=5, recorded_samples=[2], **settings)
    np.testing.assert_array_equal(every.batch_loss, rarely.batch_loss)
    np.testing.assert_array_equal(every.feature_variance[-1], rarely.feature_variance[-1])
    np.testing.assert_array_equal(every.rank, rarely.rank)
    np.testing.assert_array_equal(every.steps, np.arange(6))
    np.testing.assert_array_equal(rarely.steps, [0, 5])


def test_many_probes_do_not_change_the_training_of_few_particles():
    # 40 probes a chunk are many among 150 particles
    rng = np.random.default_rng(0)
    problem = flds.TrainingProblem(rng.standard_normal((40, 2)), np.ones(40), steps=4, batch_size=1)
    settings = {"particles": 150, "depth": 2, "operator": "lazy"}
    probed = flds.solve_flds(problem, recorded_samples=range(40), **settings)
    assert probed.settings["sampling"] == "matched"
    alone = flds.solve_flds(problem, recorded_samples=[0], **settings)
    np.testing.assert_array_equal(probed.batch_loss, alone.batch_loss)


def test_probing_a_trained_sample_gives_its_output():
    # after its own forward pass a sample lies in the basis, so a probe needs no fresh noise
    problem = three_samples("tanh", steps=3, batch_size=3, batch_order=np.array([[0, 1, 2]] * 3))
    full = three_samples("tanh", steps=3)
    probed = flds.solve_flds(problem, particles=2000, depth=4, operator="lazy", tolerance=0.0)
    trained = flds.solve_flds(full, particles=2000, depth=4, operator="lazy", tolerance=0.0)
    np.testing.assert_allclose(probed.outputs, trained.outputs, atol=1e-6)


def test_probes_have_the_outputs_of_the_network_they_probe():
    # a test input that is a training input: known to the network once it has been trained on
    full = three_samples("tanh", steps=2)
    problem = flds.TrainingProblem(
        full.inputs, full.targets, steps=2, test_inputs=full.inputs, test_targets=full.targets
    )
    solution = flds.simulate_resnet(problem, width=400, depth=4, operator="lazy", tolerance=0.0)
    np.testing.assert_allclose(solution.test_outputs, solution.outputs, atol=1e-6)


def test_runs_of_different_depth_share_their_path():
    problem = three_samples("tanh", steps=1)
    settings = {"particles": 2000, "sampling": "law", "operator": "lazy", "noise_depth": 64}
    f = {depth: flds.solve_flds(problem, depth=depth, **settings).outputs[1] for depth in (16, 32, 64)}
    other = flds.solve_flds(problem, depth=64, seed=1, **settings).outputs[1]
    coupled = np.abs(f[64] - f[32]).max()
    assert coupled < 0.3 * np.abs(f[64] - other).max()
    assert coupled < np.abs(f[64] - f[16]).max()


def test_particles_are_nested():
    # by law, n particles start as the first n of N and meet the same fresh noise
    for branch in ({}, {"residual": "two_layer", "hidden_ratio": 0.5}):
        nested(one_sample("tanh", steps=0, **branch))


def nested(problem):
    networks = []
    for width in (1000, 3000):
        settings = decide(problem, width, 2, "law", {"operator": "lazy"}).settings
        network = Network(problem, settings, 5)
        with network.ensemble.running():
            network.initialise()
            network.forward(problem.x, Address(Stream.FORWARD, 0))
        networks.append(network)
    few, many = networks
    np.testing.assert_array_equal(few.input_weights, many.input_weights[:, :1000])
    np.testing.assert_array_equal(few.readout, many.readout[:, :1000])
    for a, b in zip(few.operators, many.operators, strict=True):
        if problem.residual == "single_matrix":
            np.testing.assert_array_equal(a.features.images, b.features.images[:, :1000])
    if problem.residual == "two_layer":
        # the first images are the fresh noise; those behind them need inner products, which are of other particles
        one, other = (network.operators[0].features.images for network in networks)
        np.testing.assert_array_equal(one, other[:, :500])


def test_probes_have_noise_of_their_own():
    # equal inputs that nobody trains on, in different chunks or sets, are different draws of the same law
    inputs = np.tile([1.0, -1.0], (66, 1))
    inputs[1] = [1.0, 1.0]
    problem = flds.TrainingProblem(
        inputs, np.ones(66), steps=1, batch_order=np.array([[1]]), test_inputs=inputs[:1], test_targets=[1.0]
    )
    solution = flds.simulate_resnet(problem, width=500, depth=2, operator="lazy")
    outputs = solution.outputs[0]
    np.testing.assert_allclose(outputs[2:64], outputs[0], atol=1e-6)  # one chunk knows that they are equal
    assert abs(outputs[64] - outputs[0]) > 1e-4
    assert abs(solution.test_outputs[0, 0] - outputs[0]) > 1e-4


def test_kernels_are_the_inner_products_of_recorded_vectors():
    problem = three_samples("tanh", steps=2)
    for operator in ("lazy", "dense"):
        solution = flds.simulate_resnet(
            problem, width=300, depth=3, operator=operator, record_kernels=True, tolerance=0.0
        )
        sigma, theta = solution.feature_kernel, solution.gradient_kernel
        assert sigma.shape == theta.shape == (3, 9, 9)
        np.testing.assert_allclose(sigma, sigma.transpose(0, 2, 1), atol=1e-14)
        assert np.linalg.eigvalsh(sigma).min() > -1e-12
        # Θ at depth L of the first pass is ⟨v, v⟩ for every pair of samples
        assert np.ptp(theta[-1, :3, :3]) < 1e-12
        # its diagonal is the gradient variance, a mean over the batch
        diagonal = np.einsum("lii->li", theta).reshape(3, 3, 3).mean(axis=2)
        np.testing.assert_allclose(diagonal.T, solution.gradient_variance[:, 1:], rtol=1e-10)


def test_kernels_are_nan_where_no_gradient_was_needed():
    x = np.array([[0.0, 0.0], [1.0, 2.0], [1.0, -1.0]])
    problem = flds.TrainingProblem(x, [0.0, 1.0, -1.0], steps=2, batch_order=np.array([[0], [1]]))
    solution = flds.solve_flds(problem, particles=500, depth=2, record_kernels=True, record_every=1)
    missing = np.isnan(solution.gradient_kernel[0])
    np.testing.assert_array_equal(missing, [[True, True, True], [True, False, True], [True, True, True]])
    assert not np.isnan(solution.feature_kernel).any()


def test_replicates_are_independent_runs_with_standard_errors():
    problem = three_samples("tanh", steps=2)
    many = flds.simulate_resnet(problem, width=200, depth=3, replicates=4, seed=9)
    first = flds.simulate_resnet(problem, width=200, depth=3, seed=9)
    np.testing.assert_array_equal(many.replicate_outputs[0], first.outputs)
    np.testing.assert_allclose(many.outputs, many.replicate_outputs.mean(0), atol=1e-15)
    np.testing.assert_allclose(many.outputs_standard_error, many.replicate_outputs.std(0, ddof=1) / 2, atol=1e-15)
    assert np.unique(many.replicate_outputs[:, 1, 0]).size == 4
