"""Infinite width at finite depth: three recursions, three closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from flds.training.method import decide
from flds.training.network import Network
from solvers.ensemble.random import Address, Stream
from tests.conftest import MARGIN, one_sample, three_samples, z_score
from validation import closed_forms, tensor_program

DEPTH = 3
EXACT = {
    "exact": closed_forms.identity_first_output(0.5, 1.0, 1.0, DEPTH, "tied"),
    "printed": closed_forms.printed_first_output(0.5, 1.0, 1.0, DEPTH),
    "uncorrected": closed_forms.identity_first_output(0.5, 1.0, 1.0, DEPTH, "independent"),
}


@pytest.mark.parametrize("version", tensor_program.VERSIONS)
def test_the_first_step_of_the_identity_in_closed_form(version):
    problem = one_sample("identity")
    runs = np.array(
        [
            tensor_program.solve(problem, version=version, particles=4000, depth=DEPTH, seed=seed).outputs[1]
            for seed in range(24)
        ]
    )
    assert np.all(z_score(runs, EXACT[version]) < MARGIN)
    error = runs.std(ddof=1) / np.sqrt(24)
    for other, value in EXACT.items():  # and none of them is another one
        assert other == version or abs(runs.mean() - value) > 5 * error


def test_the_printed_term_vanishes_with_depth_and_the_exact_one_does_not():
    gap = [
        closed_forms.printed_first_output(1.0, 1.0, 1.0, depth)
        - closed_forms.identity_first_output(1.0, 1.0, 1.0, depth, "independent")
        for depth in (8, 64, 512)
    ]
    np.testing.assert_allclose(np.diff(np.log(gap)) / np.log(8), -1.0, atol=0.1)
    tied = closed_forms.identity_first_output(1.0, 1.0, 1.0, 512, "tied")
    assert tied - closed_forms.identity_first_output(1.0, 1.0, 1.0, 512, "independent") > 2.5


def test_the_printed_recursion_in_plain_numpy():
    """Three samples, tanh, two steps: kernels, drifts and the printed term written out with plain loops."""
    problem, width, depth = three_samples("tanh", steps=2), 300, 3
    options = {"particles": width, "depth": depth, "sampling": "law", "tolerance": 0.0, "seed": 3}
    printed = tensor_program.solve(problem, version="printed", **options)
    uncorrected = tensor_program.solve(problem, version="uncorrected", **options)
    # both see the same U, v and fresh noise, so that at step 1 they differ by the printed term alone
    np.testing.assert_array_equal(printed.outputs[0], uncorrected.outputs[0])
    assert np.abs(printed.outputs[1] - uncorrected.outputs[1]).max() > 1e-3
    # at depth 1 the term is τ² a Σ(0) Φ'(0) g_1 with g_1 = v, so f^(1) changes by known inner products
    options["depth"] = 1
    one, other = (tensor_program.solve(problem, version=v, **options) for v in ("printed", "uncorrected"))
    settings = decide(problem, width, 1, "law", {"tolerance": 0.0, "backward_weights": "independent"}).settings
    network = Network(problem, settings, 3)
    with network.ensemble.running():
        network.initialise()
        u, v = network.input_weights.copy(), network.readout[0].copy()
    h = problem.x @ u / np.sqrt(problem.x.shape[1])
    slopes = (other.outputs[0] - problem.y[:, 0]) / problem.samples
    # g_0 by the first backward pass: v + φ'(h_0) ⊙ W̃ᵀ v with one fresh vector, scaled by the norm of v
    z = np.empty((1, width))
    network.noise.fill(z, slice(0, width), Address(Stream.BACKWARD, 0, (0,)), 0)
    g = v + (1 - np.tanh(h) ** 2) * z[0] * np.sqrt(np.mean(v * v))
    moved = h - 0.5 * (slopes[:, None] * (problem.x @ problem.x.T / problem.x.shape[1])).T @ g
    old, new = np.tanh(h), np.tanh(moved)
    kernel = (old @ new.T / width) * ((1 - old**2) @ (1 - new**2).T / width)
    term = -0.5 * (slopes[:, None] * kernel).T @ np.tile(v, (3, 1))  # τ = 1
    h_last = h + other_image(network, old, width)
    readout = v - 0.5 * slopes @ h_last
    np.testing.assert_allclose(one.outputs[1] - other.outputs[1], term @ readout / width, rtol=1e-9)


def other_image(network, old, width):
    """𝒲 φ(h_0) of the first forward pass: orthonormal directions in sample order times fresh noise."""
    z = np.empty((3, width))
    network.noise.fill(z, slice(0, width), Address(Stream.FORWARD, 0, (0, 1, 2)), 0)
    return np.linalg.cholesky(old @ old.T / width) @ z


def test_bad_arguments():
    with pytest.raises(ValueError, match="version must be one of exact, printed, uncorrected, got 'draft'"):
        tensor_program.solve(one_sample(), version="draft")
    with pytest.raises(TypeError, match="the version decides on backward_weights; leave it out"):
        tensor_program.solve(one_sample(), backward_weights="tied")
