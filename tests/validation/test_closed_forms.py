"""The references themselves: published values, and closed forms against the exact linear dynamics."""

from __future__ import annotations

import numpy as np
import pytest

import flds
from tests.conftest import MARGIN, one_sample, three_samples, z_score
from validation import closed_forms


@pytest.mark.parametrize(
    ("activation", "q", "p", "tied", "independent"),
    [
        ("identity", 2.71828183, 2.71828183, 8.15484549, 5.43656366),
        ("tanh", 1.42789992, 1.54077378, 3.49832288, 2.85579985),
        ("relu", 1.64872127, 1.64872127, 4.12180318, 3.29744254),
        ("erf", 1.50444231, 1.68603018, 3.84378687, 3.00888463),
    ],
)
def test_values_of_the_limit(activation, q, p, tied, independent):
    # the recursion has an error of order 1/L; extrapolating from L and 2L leaves order 1/L²
    def limit(function):
        return 2 * function(512) - function(256)

    for value, function in (
        (q, lambda depth: closed_forms.feature_variance(activation, 1.0, 1.0, depth)[-1]),
        (p, lambda depth: closed_forms.gradient_variance(activation, 1.0, 1.0, depth)[0]),
        (tied, lambda depth: closed_forms.tangent_kernel(activation, 1.0, 1.0, depth)),
        (independent, lambda depth: closed_forms.tangent_kernel(activation, 1.0, 1.0, depth, "independent")),
    ):
        assert limit(function) == pytest.approx(value, rel=2e-5)


def test_erf_moments_have_their_closed_form():
    q = closed_forms.feature_variance("erf", 0.7, 1.0, 1)
    assert q[1] - q[0] == pytest.approx(2 / np.pi * np.arcsin(1.4 / 2.4), abs=1e-12)
    p = closed_forms.gradient_variance("erf", 0.7, 1.0, 1)
    assert p[0] - 1 == pytest.approx(4 / np.pi / np.sqrt(3.8), abs=1e-12)


@pytest.mark.parametrize("weights", ["tied", "independent"])
@pytest.mark.parametrize("depth", [1, 2, 7])
def test_first_step_closed_form_equals_the_exact_dynamics(weights, depth):
    problem = one_sample("identity", rate=0.3, horizon=1.7)
    exact = closed_forms.IdentityDynamics(problem, depth, weights).outputs()[1, 0, 0]
    assert exact == pytest.approx(closed_forms.identity_first_output(0.3, 1.0, 1.7, depth, weights), rel=1e-12)


def test_the_two_limits_of_the_first_step():
    for weights, limit in (("tied", 3 * np.e), ("independent", 2 * np.e)):
        value = closed_forms.identity_first_output(1.0, 1.0, 1.0, 10**6, weights)
        assert value == pytest.approx(limit, rel=1e-5)


INPUTS = np.random.default_rng(1).standard_normal((3, 5))


def angles():
    """Norms and angles of the inputs."""
    gram = INPUTS @ INPUTS.T / 5
    norms = np.sqrt(np.outer(np.diagonal(gram), np.diagonal(gram)))
    return gram, norms, np.arccos(np.clip(gram / norms, -1, 1))


def test_kernels_of_relu_are_arc_cosine_kernels():
    _, norms, angle = angles()
    _, rates = closed_forms.feature_kernels("relu", INPUTS, 1.0, 1)
    exact = norms / (2 * np.pi) * (np.sin(angle) + (np.pi - angle) * np.cos(angle))
    np.testing.assert_allclose(rates[0], exact, atol=1e-5)  # second order of the grid across the kink
    g = closed_forms.gradient_kernels("relu", INPUTS, 1.0, 1)
    np.testing.assert_allclose(g[0] - 1, (np.pi - angle) / (2 * np.pi), atol=2e-3)  # and less across a jump


def test_kernels_of_erf_have_their_closed_form():
    gram, _, _ = angles()
    h, rates = closed_forms.feature_kernels("erf", INPUTS, 1.0, 3)
    for covariance, rate in zip(h, rates, strict=False):
        scale = np.sqrt(np.outer(1 + 2 * np.diagonal(covariance), 1 + 2 * np.diagonal(covariance)))
        np.testing.assert_allclose(rate, 2 / np.pi * np.arcsin(2 * covariance / scale), atol=1e-11)
    np.testing.assert_allclose(h[0], gram)


@pytest.mark.parametrize("weights", ["tied", "independent"])
def test_kernels_of_one_input_are_the_variances(weights):
    one = INPUTS[:1]
    initial = float(np.mean(one**2))
    h, _ = closed_forms.feature_kernels("tanh", one, 1.3, 4)
    np.testing.assert_allclose(h[:, 0, 0], closed_forms.feature_variance("tanh", initial, 1.3, 4), rtol=1e-12)
    kernel = closed_forms.tangent_kernels("tanh", one, 1.3, 4, weights)[0, 0]
    assert kernel == pytest.approx(closed_forms.tangent_kernel("tanh", initial, 1.3, 4, weights), rel=1e-12)


@pytest.mark.parametrize("weights", ["tied", "independent"])
def test_kernels_of_several_inputs_give_the_first_step_of_the_identity(weights):
    """f^(1) = −(η_c / m) K L' is exact for the identity but for the shares of second order in the rate."""
    rate = 1e-5
    problem = flds.TrainingProblem(INPUTS, [1.0, -1.0, 0.5], activation="identity", learning_rate=rate, steps=1)
    exact = closed_forms.IdentityDynamics(problem, 4, weights).outputs()[1, :, 0]
    kernel = closed_forms.tangent_kernels("identity", INPUTS, 1.0, 4, weights)
    np.testing.assert_allclose(exact, rate / 3 * kernel @ [1.0, -1.0, 0.5], rtol=20 * rate)


def test_post_activation_moments_against_samples():
    """relu, infinite width: h sums independent rectified Gaussians of known variance."""
    means, squares = closed_forms.post_activation("relu", 0.8, 1.5, 6)
    rng, n, tau = np.random.default_rng(0), 400_000, 1.5 / 6
    h = np.maximum(np.sqrt(0.8) * rng.standard_normal(n), 0)
    for layer in range(7):
        assert z_score(h, means[layer]) < MARGIN
        assert z_score(h**2, squares[layer]) < MARGIN
        if layer < 6:
            h = h + np.sqrt(tau) * np.maximum(np.sqrt(squares[layer]) * rng.standard_normal(n), 0)


def test_bad_arguments():
    with pytest.raises(ValueError, match='must have the activation "identity"'):
        closed_forms.IdentityDynamics(three_samples("tanh"), 3)
    with pytest.raises(ValueError, match="backward_weights must be one of"):
        closed_forms.IdentityDynamics(three_samples("identity"), 3, "tide")
