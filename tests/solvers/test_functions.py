"""Elementary functions that loops can vectorise, against NumPy and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from scipy import special

import solvers

RNG = np.random.default_rng(0)
SMALL = np.exp(RNG.uniform(-700, 5, 200_000))
WIDE = np.concatenate([3 * RNG.standard_normal(200_000), SMALL, -SMALL, np.linspace(-21, 21, 99_998)])


def on(function, x):
    @njit
    def block(x, out):
        for i in range(len(x)):
            out[i] = function(x[i])

    out = np.empty_like(x)
    block(x, out)
    return out


def exact(function, x):
    """Of higher precision where the platform has it."""
    return function(x.astype(np.longdouble))


@pytest.mark.parametrize(
    ("function", "reference", "x", "error"),
    [
        (solvers.tanh, lambda x: exact(np.tanh, x), WIDE, 4e-16),
        (solvers.exp, lambda x: exact(np.exp, x), np.linspace(-708, 709.7, 500_001), 4e-16),
        # of SciPy in double precision, which adds its own unit in the last place
        (solvers.erf, special.erf, WIDE, 1e-15),
    ],
    ids=["tanh", "exp", "erf"],
)
def test_relative_errors(function, reference, x, error):
    right = reference(x)
    assert np.max(np.abs((on(function, x) - right) / right)) < error


@pytest.mark.parametrize(
    ("function", "reference"), [(solvers.tanh, np.tanh), (solvers.erf, special.erf)], ids=["tanh", "erf"]
)
def test_odd_functions_at_special_places(function, reference):
    places = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324])
    out = on(function, places)
    if function is solvers.tanh:
        np.testing.assert_array_equal(out, reference(places))
    else:  # 2/√π times the smallest number is rounded to it
        np.testing.assert_array_equal(out[:5], reference(places[:5]))
        assert out[5] == 5e-324
    np.testing.assert_array_equal(np.signbit(out[1:]), np.signbit(places[1:]))


def test_exp_at_special_places():
    places = np.array([np.nan, np.inf, 709.8, 709.78, 0.0, -0.0, -708.0, -708.1, -745.0, -np.inf])
    out = on(solvers.exp, places)
    np.testing.assert_array_equal(out[[0, 1, 2, 4, 5, 7, 8, 9]], [np.nan, np.inf, np.inf, 1.0, 1.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(out[[3, 6]], np.exp(places[[3, 6]]), rtol=4e-16)
