"""Multilevel Monte Carlo: exact values, rates of its variances, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import njit

import solvers
from solvers import McKeanVlasov
from tests.conftest import MARGIN
from validation import multilevel
from validation.multilevel import CUBIC, LINEAR, MULTIPLICATIVE, linear_square, variance_rate

square = njit(lambda x: x * x)
GEOMETRIC = solvers.equations.geometric_brownian_motion(0.5, 0.2)


def estimate(equation=LINEAR, payoff=square, x0=1.0, target_error=0.02, **rest):
    return solvers.mlmc(equation, payoff, x0, 0.0, 1.0, target_error=target_error, **rest)


def test_a_value_is_within_the_error_that_was_asked_for():
    found = estimate(target_error=0.01)
    assert abs(found.value - linear_square()) < 0.01
    assert found.interval[0] < linear_square() < found.interval[1]
    assert 1.96 * found.standard_error + found.bias <= 1.1 * 0.01
    assert [level.particles for level in found.levels] == [512 << number for number in range(len(found.levels))]
    assert str(found).count("\n") == 1 + len(found.levels)
    assert found.cost == sum(level.cost * level.samples for level in found.levels)


def test_particles_that_do_not_meet_have_levels_in_time_alone():
    """E X_1 of a geometric Brownian motion is e^{1/2}; Euler's bias falls with the step."""
    found = estimate(GEOMETRIC, lambda x: x, x0=lambda generator, count: np.ones(count))
    assert abs(found.value - math.exp(0.5)) < 0.02
    assert {level.particles for level in found.levels} == {512}


def test_payoffs_are_compiled_or_of_arrays_and_threads_change_no_bit():
    plane = McKeanVlasov(
        drift=njit(lambda t, x, m: (m[0] - x[0], -x[1])), moments=njit(lambda t, x: x), noise="additive",
        diffusion=njit(lambda t, x, m: (0.5, 0.5)),
    )  # fmt: skip
    start = np.array([1.0, 2.0])
    one = estimate(plane, njit(lambda x: x[0] * x[1]), start)
    other = estimate(plane, lambda x: x[0] * x[1], start, threads=1)
    assert (one.value, one.standard_error) == (other.value, other.standard_error)
    assert estimate(plane, njit(lambda x: x[0] * x[1]), start, seed=1).value != one.value


@pytest.mark.parametrize(
    "rest",
    [
        {"boundary": solvers.Absorbing(-1.0, np.inf)},
        {"jumps": solvers.Jumps(njit(lambda t, x, m: 1.0), njit(lambda t, x, m: 0.1), 1.0)},
        {"scheme": "heun"},
    ],
)
def test_events_and_schemes(rest):
    found = estimate(**rest)
    run = solvers.solve(LINEAR, np.ones(200_000), 0.0, 1.0, 100, save={"f": lambda t, x: (x**2).mean()}, **rest)
    # of 200,000 particles, and steps of 0.01
    assert abs(found.value - run.f[-1]) < 0.02 + MARGIN * 1.1 / 200_000**0.5 + 0.01


@pytest.mark.parametrize(
    ("equation", "in_time", "rate"), [(CUBIC, False, 2.0), (LINEAR, True, 2.0), (MULTIPLICATIVE, True, 1.0)]
)
def test_variances_fall_at_their_rates(equation, in_time, rate):
    found, error = variance_rate(equation, in_time, 500)
    assert abs(found - rate) < MARGIN * error + 0.15  # which the coarsest levels add


def test_one_half_of_the_particles_alone_is_caught(monkeypatch):
    """Less the first half alone, variances fall like 1/N."""
    make = multilevel.Systems._solved

    def first_half(self, home, brownian, x, offset):
        if offset:
            return self.first
        self.first = make(self, home, brownian, x, offset)
        return self.first

    monkeypatch.setattr(multilevel.Systems, "_solved", first_half)
    found, error = variance_rate(CUBIC, False, 500)
    assert found < 2.0 - MARGIN * error - 0.15
    assert abs(found - 1.0) < MARGIN * error + 0.15


def test_what_has_to_be_compiled_does_not_count():
    fresh = McKeanVlasov(drift=njit(lambda t, x, m: m - 1.0625 * x), moments=njit(lambda t, x: x), diffusion=njit(
        lambda t, x, m: 0.71), noise="additive")  # fmt: skip
    found = estimate(fresh, budget_seconds=20.0)
    assert max(level.seconds for level in found.levels) < 0.5


@pytest.mark.slow
def test_ninety_five_of_a_hundred_runs_meet_the_target():
    values = np.array([estimate(target_error=0.01, seed=seed).value for seed in range(100)])
    assert (np.abs(values - linear_square()) <= 0.01).sum() >= 95


still = McKeanVlasov(drift=njit(lambda t, x, m: -x))


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [
        (lambda: estimate(target_error=0.0), ValueError, "^target_error must be "),
        (lambda: estimate(target_error="small"), TypeError, "^target_error must be "),
        (lambda: estimate(payoff=3), TypeError, "^payoff must be a function of x, got 3$"),
        (lambda: estimate(payoff=lambda x: x[:3]), ValueError, "^payoff must return a number for each particle"),
        (lambda: estimate(payoff=lambda x: np.log(-(x**2))), ValueError, "^payoff must be finite, got nan"),
        (lambda: estimate(payoff=lambda x: x.upper()), TypeError, "^payoff failed"),
        (lambda: estimate(still), ValueError, "^payoff has no variance: it was the same in all of 30 systems"),
        (lambda: estimate(x0=np.ones((3, 2))), ValueError, "^x0 must be where all particles start, a number or"),
        (lambda: estimate(particles=1), ValueError, "^particles must be at least 2, got 1$"),
        (lambda: estimate(steps=0), ValueError, "^steps must be at least 1, got 0$"),
        (
            lambda: estimate(field=solvers.ExternalField(np.ones(5), per_particle=True)),
            ValueError,
            "^field must be one for all particles",
        ),
        (
            lambda: estimate(target_error=1e-5, budget_seconds=2.0),
            ValueError,
            r"^target_error=1e-05 needs about \S+ seconds, more than budget_seconds=2: raise one of them$",
        ),
        (lambda: estimate(reset=solvers.Reset(5.0, 0.0)), ValueError, "^mlmc has no resets: the share of them in m is"),
        (lambda: estimate(payoff=lambda x: x * 1j), TypeError, "^payoff must return real numbers, got complex128$"),
        (lambda: estimate(budget_seconds=-1.0), ValueError, "^budget_seconds must be "),
        (
            lambda: estimate(McKeanVlasov(drift=njit(lambda t, x, m: 1e60 * x**3)), steps=8),
            ValueError,
            "^level 0, with 8 steps, diverges: begin with more steps=$",
        ),
        (lambda: estimate("dX"), TypeError, "^equation must be a solvers.McKeanVlasov, got str$"),
    ],
)
def test_bad_input(work, error, message):
    with pytest.raises(error, match=message) as found:
        work()
    assert "\n" not in str(found.value)
