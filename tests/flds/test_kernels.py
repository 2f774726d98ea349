"""Feature kernels of test inputs, and the alignment of kernels with targets."""

from __future__ import annotations

import re
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

import flds
from flds import plotting
from tests.conftest import three_samples

BRANCHES = {
    "one matrix": {},
    "two layers": {"residual": "two_layer", "normalization": "rms_norm", "hidden_ratio": 0.5},
    "complete": {"residual": "two_layer", "bias": True, "hidden_ratio": 2.0, "branch_exponent": 1.0},
}


def problem(**rest):
    """Five samples; the first five test inputs are the training inputs, and three are others."""
    rng = np.random.default_rng(0)
    x, others, y = rng.standard_normal((5, 4)), rng.standard_normal((3, 4)), np.array([1.0, -1.0, 1.0, -1.0, 0.5])
    tests = {"test_inputs": np.concatenate([x, others]), "test_targets": np.append(y, [1.0, 1.0, -1.0])}
    return flds.TrainingProblem(x, y, steps=4, **tests | rest)


@pytest.mark.parametrize("operator", ["lazy", "dense"])
@pytest.mark.parametrize("branch", BRANCHES)
def test_a_test_input_that_is_trained_on_has_the_kernel_of_training(branch, operator):
    """Rounding of a few passes; nothing is dropped at tolerance 0."""
    options = {"operator": operator, "tolerance": 0.0, "record_kernels": True, "record_every": 2}
    run = flds.simulate_resnet(problem(**BRANCHES[branch]), width=200, depth=3, **options)
    trained, tested = run.step_kernel().values, run.step_kernel("test_feature_kernel")
    assert tested.dims == ("step", "t", "test_sample", "other_test_sample")
    assert tested.shape == (3, 3, 8, 8)
    np.testing.assert_allclose(tested.values[..., :5, :5], trained, atol=1e-12)
    np.testing.assert_allclose(run.cross_feature_kernel[:, :, :5], trained, atol=1e-12)
    np.testing.assert_allclose(run.cross_feature_kernel, tested.values[..., :5], atol=1e-12)


def test_kernels_of_test_inputs_do_not_change_training():
    with_kernels, without = (
        flds.solve_flds(problem(batch_size=2), particles=300, depth=2, record_kernels=asked) for asked in (True, False)
    )
    np.testing.assert_array_equal(with_kernels.outputs, without.outputs)
    np.testing.assert_array_equal(with_kernels.test_outputs, without.test_outputs)
    assert "test_feature_kernel" not in without.variables


def test_the_untrained_kernel_of_test_inputs_is_that_of_infinite_width():
    """x·x'/d at depth 0 for identity: a mean over N particles, of standard deviation 1.4 |x|²/d/√N at most."""
    data = problem(activation="identity")
    run = flds.solve_flds(data, particles=4000, depth=2, sampling="law", record_kernels=True)
    expected = data.test_x @ data.test_x.T / 4
    error = np.sqrt((expected**2 + np.outer(np.diagonal(expected), np.diagonal(expected))) / 4000)
    assert np.all(np.abs(run.test_feature_kernel[0, 0] - expected) < 4 * error)


def test_minibatches_align_batches_of_their_own():
    """Recorded samples are others than those of the batch; kernels of a batch of one tell nothing apart."""
    run = flds.solve_flds(
        problem(batch_size=2), particles=300, depth=2, record_kernels=True, recorded_samples=[3, 0], record_every=1
    )
    assert run.cross_feature_kernel.shape == (5, 2, 8, 2)
    np.testing.assert_allclose(run.cross_feature_kernel[..., 0], run.test_feature_kernel[..., 3], atol=0.02)
    y = problem().y[:, 0]
    for record, block in enumerate(run.feature_kernel[1].reshape(5, 2, 5, 2)[range(5), :, range(5)]):
        pair = run.pass_sample[2 * record : 2 * record + 2]
        np.testing.assert_allclose(run.kernel_alignment[record, 1], flds.kernel_alignment(block, y[pair]), rtol=1e-12)
    alone = flds.solve_flds(problem(batch_size=1), particles=50, depth=2, record_kernels=True)
    assert np.isnan(alone.kernel_alignment).all()
    assert np.isfinite(alone.test_kernel_alignment).all()


def test_training_aligns_kernels_with_targets():
    """Three classes; the last layer's kernel of trained samples, by more than 4 standard errors of four replicates."""
    rng = np.random.default_rng(1)
    x, labels = rng.standard_normal((12, 5)), np.arange(12) % 3
    data = flds.TrainingProblem(x, labels, loss="cross_entropy", steps=20, learning_rate=2.0)
    run = flds.solve_flds(data, particles=1000, depth=4, replicates=4, record_kernels=True)
    error = np.hypot(*run.kernel_alignment_standard_error[[0, -1], -1])
    assert run.kernel_alignment[-1, -1] - run.kernel_alignment[0, -1] > max(4 * error, 0.1)
    kept = run.step_kernel().values[-1, -1]
    assert flds.kernel_alignment(kept, labels, classes=True) == pytest.approx(run.kernel_alignment[-1, -1], abs=0.01)


def test_states_before_kernels_of_test_inputs_go_on():
    """What they do not hold is unknown; all that comes after is there."""
    data = problem()
    options = {
        "particles": 300,
        "depth": 2,
        "record_kernels": True,
        "keep_state": True,
        "record_every": 1,
        "threads": 1,
    }
    half = flds.solve_flds(replace(data, steps=2), **options)
    for state in half.states:
        del state["recorded_test_kernels"]
    whole, resumed = flds.solve_flds(data, **options), flds.resume(half, steps=2)
    np.testing.assert_array_equal(resumed.outputs, whole.outputs)
    assert np.isnan(resumed.test_feature_kernel[:3]).all()
    np.testing.assert_array_equal(resumed.test_feature_kernel[3:], whole.test_feature_kernel[3:])


# Alignment


def test_alignment_has_exact_values():
    """1 for the targets' own kernel, shifted features or targets change nothing, and two classes are signs."""
    rng = np.random.default_rng(2)
    y, features = rng.standard_normal((6, 2)), rng.standard_normal((6, 3))
    assert flds.kernel_alignment(y @ y.T, y) == pytest.approx(1.0, rel=1e-14)
    kernel = features @ features.T
    found = flds.kernel_alignment(kernel, y)
    assert 0 < found < 1
    shifted = features + rng.standard_normal(3)
    np.testing.assert_allclose(flds.kernel_alignment(5 * shifted @ shifted.T, y + 7), found, rtol=1e-12)
    for kernels, targets in ((1e200 * kernel, y), (1e-200 * kernel, 1e-200 * y)):
        np.testing.assert_allclose(flds.kernel_alignment(kernels, targets), found, rtol=1e-12)
    signs = np.array([0, 1, 1, 0, 1, 0])
    np.testing.assert_allclose(flds.kernel_alignment(kernel, signs), flds.kernel_alignment(kernel, 2.0 * signs - 1))
    np.testing.assert_array_equal(flds.kernel_alignment(np.stack([kernel, 2 * kernel]), y), [found, found])
    # by the definition, with H = I − 11ᵀ/m
    centring = np.eye(6) - 1 / 6
    one, other = (centring @ k @ centring for k in (kernel, y @ y.T))
    np.testing.assert_allclose(found, np.trace(one @ other) / np.linalg.norm(one) / np.linalg.norm(other), rtol=1e-12)


def test_alignment_is_unknown_where_nothing_is_told_apart():
    assert np.isnan(flds.kernel_alignment(np.ones((3, 3)), [1.0, 2.0, 3.0]))
    assert np.isnan(flds.kernel_alignment(np.eye(3), [0.1, 0.1, 0.1]))
    assert np.isnan(flds.kernel_alignment([[2.0]], [1.0]))


@pytest.mark.parametrize(
    ("kernel", "targets", "message"),
    [
        (np.ones(3), [1, 2, 3], "kernel must have the shape (..., m, m), got (3,)"),
        (np.ones((2, 3)), [1, 2], "kernel must have the shape (..., m, m), got (2, 3)"),
        (np.eye(3), [1.0, 2.0], "targets must be of 3 samples, as the kernel is, got shape (2,)"),
        (np.eye(2), [1.0, np.nan], "targets must be finite"),
        (np.full((2, 2), np.inf), [1.0, 2.0], "kernel must be finite"),
        (np.arange(4.0).reshape(2, 2), [1.0, 2.0], "kernel must be symmetric"),
        (np.eye(3), [1, 2, 5], "targets are whole numbers: say with classes=True or classes=False what they are"),
    ],
)
def test_alignment_refuses_what_it_cannot_take(kernel, targets, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        flds.kernel_alignment(kernel, targets)


# Pictures


def test_solutions_without_kernels_say_what_they_take():
    run = flds.simulate_resnet(three_samples(steps=1), width=30, depth=2, record_kernels=True)
    with pytest.raises(AttributeError, match="no test_feature_kernel, which takes record_kernels=True and test inputs"):
        run.step_kernel("test_feature_kernel")


def test_kernels_of_test_inputs_are_drawn():
    run = flds.simulate_resnet(problem(batch_size=2), width=50, depth=2, record_kernels=True)
    figure, axes = plt.subplots(1, 3)
    ax = plotting.plot_kernel(run, "test_feature_kernel", step=0, order=[0, 1, 0, 1, 0, 1, 0, 1], ax=axes[0])
    assert ax.get_title().startswith("Test samples' feature kernel Σ")
    shown = np.ma.getdata(ax.images[0].get_array())
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    np.testing.assert_array_equal(shown, run.test_feature_kernel[0, -1][np.ix_(order, order)])
    moved = plotting.plot_kernel_movement(run, "test_feature_kernel", ax=axes[1]).lines[-1].get_ydata()
    kernels = run.test_feature_kernel[:, -1]
    expected = np.linalg.norm(kernels - kernels[0], axis=(1, 2)) / np.linalg.norm(kernels[0])
    np.testing.assert_allclose(moved, expected)
    assert plotting.plot_spectrum(run, "test_feature_kernel", ax=axes[2]).lines
    with pytest.raises(ValueError, match="each of the 8 test samples"):
        plotting.plot_kernel(run, "test_feature_kernel", order=[1, 2])
    plt.close(figure)
