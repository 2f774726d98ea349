"""Training against exact answers: closed forms, the exact linear dynamics, the tangent kernel."""

from __future__ import annotations

import numpy as np
import pytest

import flds
from tests.conftest import MARGIN, one_sample, three_samples, z_score
from validation import closed_forms

BOTH = pytest.mark.parametrize("weights", ["tied", "independent"])


@BOTH
def test_identity_first_step_has_its_closed_form(weights):
    problem = one_sample("identity")
    exact = closed_forms.identity_first_output(0.5, 1.0, 1.0, 4, weights)
    for sampling in ("law", "matched"):
        solution = flds.solve_flds(
            problem, particles=3000, depth=4, backward_weights=weights, sampling=sampling, replicates=60
        )
        assert z_score(solution.replicate_outputs[:, 1, 0], exact) < MARGIN


def test_tied_and_independent_differ_by_the_closed_form():
    problem = one_sample("identity")
    runs = {
        w: flds.solve_flds(problem, particles=5000, depth=4, backward_weights=w, replicates=30).replicate_outputs[
            :, 1, 0
        ]
        for w in ("tied", "independent")
    }
    exact = [closed_forms.identity_first_output(0.5, 1.0, 1.0, 4, w) for w in ("tied", "independent")]
    difference = runs["tied"] - runs["independent"]
    assert z_score(difference, exact[0] - exact[1]) < MARGIN
    assert difference.mean() > 20 * difference.std() / np.sqrt(30)


@BOTH
@pytest.mark.parametrize("batch", [{}, {"batch_size": 2}, {"batch_order": np.array([[0, 1], [1, 1], [2, 0]])}])
def test_matching_everything_reproduces_the_exact_linear_dynamics(weights, batch):
    # exact up to rounding: the reference and the engine share no code and no algorithm
    problem = three_samples("identity", steps=3, **batch)
    exact = closed_forms.IdentityDynamics(problem, 5, weights).outputs()[:, :, 0]
    solution = flds.solve_flds(
        problem, particles=1500, depth=5, backward_weights=weights, sampling="matched_all", tolerance=0.0
    )
    for step in range(4):
        trained = solution.outputs[step, problem.batches[step]]
        np.testing.assert_allclose(trained, exact[step], rtol=0, atol=1e-8)


@BOTH
def test_vector_outputs_in_the_linear_dynamics(weights):
    rng = np.random.default_rng(0)
    problem = flds.TrainingProblem(
        rng.standard_normal((3, 4)), rng.standard_normal((3, 2)), activation="identity", steps=3, learning_rate=0.3
    )
    exact = closed_forms.IdentityDynamics(problem, 4, weights).outputs()
    solution = flds.solve_flds(
        problem, particles=1500, depth=4, backward_weights=weights, sampling="matched_all", tolerance=0.0
    )
    np.testing.assert_allclose(solution.outputs, exact, rtol=0, atol=1e-8)


@BOTH
@pytest.mark.parametrize("activation", ["tanh", "relu", "erf"])
def test_small_steps_follow_the_tangent_kernel(activation, weights):
    # the next order in the rate is 1e-4 of the kernel, the standard error 20 times that
    rate = 1e-4
    solution = flds.solve_flds(
        one_sample(activation, rate), particles=4000, depth=4, backward_weights=weights, replicates=40
    )
    f = solution.replicate_outputs[:, :, 0]
    kernel = (f[:, 1] - f[:, 0]) / (rate * (1 - f[:, 0]))
    assert z_score(kernel, closed_forms.tangent_kernel(activation, 1.0, 1.0, 4, weights)) < MARGIN


def test_matched_noise_is_unbiased_and_reduces_the_spread():
    problem = three_samples("tanh", steps=2)
    runs = {
        sampling: flds.solve_flds(
            problem, particles=600, depth=3, sampling=sampling, replicates=200
        ).replicate_outputs for sampling in ("law", "matched")
    }  # fmt: skip
    law, matched = runs["law"], runs["matched"]
    np.testing.assert_allclose(matched[:, 0], 0.0, atol=1e-7)  # in float32
    error = np.sqrt((law.var(0) + matched.var(0)) / 200)[1:]
    assert np.all(np.abs(law.mean(0) - matched.mean(0))[1:] < MARGIN * error)
    spread = np.sqrt(law.var(0).mean(1) / matched.var(0).mean(1))
    # measured: 14 and 8, at depth 8 as well; a ratio of standard deviations over 200 runs has a relative error of 7 %,
    # and matching the wrong states lowers the first to 8
    assert spread[1] > 10
    assert spread[2] > 4.5


def test_fluctuations_over_width_fall_like_one_over_n():
    problem = one_sample("tanh")
    spread = [
        flds.simulate_resnet(problem, width=n, depth=2, replicates=300, operator="lazy")
        .replicate_outputs[:, 1, 0]
        .std()
        for n in (100, 1600)
    ]
    # standard deviations fall like n^-1/2, so by 4; each is known to 1/sqrt(2·300) = 4 %
    assert 4 * 0.77 < spread[0] / spread[1] < 4 * 1.3


@BOTH
def test_duplicated_samples_and_long_runs_saturate(weights):
    problem = flds.TrainingProblem(
        np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), [1.0, 1.0, -1.0], learning_rate=0.3, steps=120
    )
    solution = flds.solve_flds(problem, particles=2500, depth=4, backward_weights=weights)
    assert solution.status == "completed"
    # equal up to what was drawn twice for rounding-level residuals
    np.testing.assert_allclose(solution.outputs[:, 0], solution.outputs[:, 1], atol=1e-6)
    np.testing.assert_allclose(solution.outputs[-1], [1.0, 1.0, -1.0], atol=1e-3)
    assert solution.rank.max() < 40  # 363 vectors were met on either side


def test_float32_agrees_with_float64():
    problem = three_samples("tanh", steps=3)
    double = flds.solve_flds(problem, particles=3000, depth=6)
    single = flds.solve_flds(problem, particles=3000, depth=6, dtype="float32")
    np.testing.assert_allclose(single.outputs, double.outputs, atol=2e-4)


def test_custom_activation_equals_the_built_in():
    mine = flds.Activation(value=np.tanh, derivative=lambda x: 1 - np.tanh(x) ** 2)
    one = flds.solve_flds(three_samples("tanh"), particles=500, depth=3)
    other = flds.solve_flds(three_samples(mine), particles=500, depth=3)
    np.testing.assert_array_equal(one.outputs, other.outputs)


def test_learning_rate_per_step_and_zero_rate():
    problem = one_sample("tanh", rate=np.array([0.5, 0.0, 0.5]), steps=3)
    f = flds.solve_flds(problem, particles=2000, depth=4, tolerance=0.0).outputs[:, 0]
    # a step of rate zero changes nothing but the matched noise of rounding-level residuals
    assert abs(f[1] - f[2]) < 1e-6
    assert abs(f[3] - f[2]) > 0.1


def test_logistic_and_cross_entropy_agree_on_two_classes():
    """softmax of (f, −f) is logistic in 2f: with y = ±1 both lower the loss; both must learn."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 6))
    y = np.sign(x[:, 0])
    logistic = flds.solve_flds(
        flds.TrainingProblem(x, y, loss="logistic", steps=25, learning_rate=2.0),
        particles=600, depth=4, sampling="law",
    )  # fmt: skip
    entropy = flds.solve_flds(
        flds.TrainingProblem(x, (y > 0).astype(int), loss="cross_entropy", steps=25, learning_rate=2.0),
        particles=600, depth=4, sampling="law",
    )  # fmt: skip
    for solution in (logistic, entropy):
        # f^(0) is N(0, E h²/N)
        assert solution.loss[0] == pytest.approx(np.log(2), abs=0.15)
        assert solution.loss[-1] < 0.3
        assert solution.accuracy[-1] == 1.0
