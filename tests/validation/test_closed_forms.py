"""The references themselves: published values, and closed forms against the exact linear dynamics."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import one_sample, three_samples
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


def test_bad_arguments():
    with pytest.raises(ValueError, match='must have the activation "identity"'):
        closed_forms.IdentityDynamics(three_samples("tanh"), 3)
    with pytest.raises(ValueError, match="backward_weights must be one of"):
        closed_forms.IdentityDynamics(three_samples("identity"), 3, "tide")
