"""A run that goes on where another one ended follows the paths of one long run; other grids have noise of their own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import solvers
from solvers import BrownianMotion, ExternalField, McKeanVlasov
from tests.conftest import MARGIN
from tests.solvers.equations import BROWNIAN, GEOMETRIC, ORNSTEIN_UHLENBECK, PLANAR_SHARED

COMMON = McKeanVlasov(
    lambda t, x, m, f: f - x, lambda t, x, m: 0.3 * x, lambda t, x: np.cos(t) * x, common=lambda t, x, m: 0.5,
    vectorized=True,
)  # fmt: skip
MEAN_FIELD = McKeanVlasov(
    lambda t, x, m: m[:, None] - x + t, moments=lambda t, x: x, noise="mean_field", vectorized=True
)
# Each with the schemes that it allows and the dimension of its particles.
EQUATIONS = [
    (ORNSTEIN_UHLENBECK, ("euler_maruyama", "heun"), 1, None),
    (GEOMETRIC, ("milstein",), 1, None),
    (PLANAR_SHARED, ("euler_maruyama",), 2, None),
    (COMMON, ("euler_maruyama", "heun"), 1, ExternalField([[0.0], [3.0]], times=[-9.0, 9.0])),
    (MEAN_FIELD, ("euler_maruyama", "heun"), 3, None),
]
CASES = [(equation, scheme, D, field) for equation, schemes, D, field in EQUATIONS for scheme in schemes]


@settings(max_examples=24, deadline=None)
@given(
    case=st.sampled_from(CASES), first=st.integers(1, 5), second=st.integers(1, 5), third=st.integers(0, 3),
    refinement=st.integers(1, 3), threads=st.integers(1, 3), particles=st.sampled_from([1, 100, 2049, 32_000]),
    start=st.sampled_from([0.0, -1.5, 0.3125]), backward=st.booleans(),
)  # fmt: skip
def test_a_resumed_run_is_one_long_run(
    case, first, second, third, refinement, threads, particles, start, backward, tmp_path_factory
):
    """Steps of 1/16 have the same float from any number of them, so that the bits have to be the same.

    Several threads work where there are 60,000 numbers or more.
    """
    equation, scheme, dimension, field = case
    field = field and ExternalField(field.values[:, 0], times=field.times)
    dt = -0.0625 if backward else 0.0625
    ends = start + dt * np.cumsum([0, first, second, third])
    x0 = np.random.default_rng(3).normal(1.0, 0.3, (particles, dimension) if dimension > 1 else particles)
    common = {"field": field, "save": ["mean"]}

    def solve(n, steps, save_at=None):
        return solvers.solve(
            equation, x0, start, ends[n], steps, scheme=scheme, seed=5, noise_steps=refinement * steps, threads=1,
            save_at=save_at, **common,
        )  # fmt: skip

    whole = solve(3, first + second + third)
    part = solvers.resume(equation, solve(1, first), ends[2], second, threads=threads, **common)
    if third:
        path = tmp_path_factory.mktemp("runs") / "part.nc"
        part = solvers.resume(equation, solvers.load(part.save(path)), ends[3], third, threads=threads, **common)
    np.testing.assert_array_equal(part.final_particles, whole.final_particles)
    np.testing.assert_array_equal(part.mean, whole.mean[-len(part.mean) :])
    if equation.moments:
        np.testing.assert_array_equal(part.moments, whole.moments[-len(part.moments) :])
    np.testing.assert_allclose(part.times, whole.times[-len(part.times) :], rtol=0, atol=1e-15)
    assert not part.notes
    assert part.status == "completed"


def test_a_plain_start_where_another_run_ended_goes_on_too():
    first = solvers.solve(BROWNIAN, np.zeros(50_000), 0.0, 1.0, 100)
    second = solvers.solve(BROWNIAN, first.final_particles, 1.0, 2.0, 100)
    # the variance of N normals of variance 2 has a standard error of 2 √(2/N)
    assert abs(second.variance[-1] - 2) < MARGIN * 2 * math.sqrt(2 / 50_000)
    whole = solvers.solve(BROWNIAN, np.zeros(50_000), 0.0, 2.0, 200)
    np.testing.assert_allclose(second.final_particles, whole.final_particles, rtol=0, atol=1e-13)
    # so does the noise that all particles share: 400 motions, each of a component of one particle
    common = McKeanVlasov(common=lambda t, x, m: np.ones_like(x), vectorized=True)
    first = solvers.solve(common, np.zeros((1, 400)), 0.0, 1.0, 2, save=[])
    second = solvers.solve(common, first.final_particles, 1.0, 2.0, 2, save=[])
    assert abs(np.var(second.final_particles) - 2) < MARGIN * 2 * math.sqrt(2 / 400)
    whole = solvers.solve(common, np.zeros((1, 400)), 0.0, 2.0, 4, save=[])
    np.testing.assert_allclose(second.final_particles, whole.final_particles, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("coarse", "fine"), [(50, 100), (100, 150), (7, 8)])
def test_runs_with_other_steps_are_independent_or_the_same_path(coarse, fine):
    runs = [solvers.solve(GEOMETRIC, np.ones(50_000), 0.0, 1.0, n, save=[]).final_particles for n in (coarse, fine)]
    assert abs(np.corrcoef(np.log(np.abs(runs)))[0, 1]) < MARGIN / math.sqrt(50_000)
    together = coarse * fine // math.gcd(coarse, fine)
    runs = [
        solvers.solve(GEOMETRIC, np.ones(50_000), 0.0, 1.0, n, noise_steps=together, save=[]).final_particles
        for n in (coarse, fine)
    ]
    assert np.corrcoef(runs)[0, 1] > 0.7


@settings(max_examples=60, deadline=None)
@given(
    st.integers(-40, 40), st.integers(1, 6), st.integers(1, 3), st.sampled_from([0.1, 1 / 3, 0.25, 1e-3, 7.0]),
    st.sampled_from([0.0, 0.3, 0.017, 1e3]),
)  # fmt: skip
def test_neighbouring_grids_carry_one_path(first, count, refinement, dt, shift):
    """However the ends are computed, and in pieces of other steps, increments are those of the long grid."""
    t0 = first * dt + shift
    whole = BrownianMotion(t0, t0 + 6 * dt, 6, 2, noise_steps=6 * refinement).increments(3)
    middle = sum([dt] * count, t0)
    left = BrownianMotion(middle, t0, count, 2, noise_steps=count * refinement).increments(3)
    np.testing.assert_allclose(left, whole[:count], rtol=1e-9, atol=1e-14)
    if count < 6:
        rest = (6 - count) * refinement
        right = BrownianMotion(middle, t0 + 6 * dt, 1, 2, noise_steps=rest).increments(3)
        np.testing.assert_allclose(right[0], whole[count:].sum(0), rtol=1e-9, atol=1e-12)
    other = BrownianMotion(t0, t0 + 6 * dt, 5, 2).increments(3)
    assert not np.isclose(other[0, 0], whole[0, 0], rtol=1e-6).any()


def test_other_steps_go_on_with_new_noise_and_a_note():
    run = solvers.solve(BROWNIAN, np.zeros(20_000), 0.0, 1.0, 10)
    again = solvers.resume(BROWNIAN, run, 2.0, 7)
    assert again.notes == ["steps of 0.142857 are not made of those of the run, 0.1: from t = 1 on the noise is new"]
    assert again.status == "completed"
    change = again.final_particles - run.final_particles
    assert abs(np.var(change) - 1) < MARGIN * math.sqrt(2 / 20_000)
    assert abs(np.corrcoef(change, run.final_particles)[0, 1]) < MARGIN / math.sqrt(20_000)
    # steps made of those of the run keep its path
    coarse = solvers.resume(BROWNIAN, run, 2.0, 5)
    whole = solvers.solve(BROWNIAN, np.zeros(20_000), 0.0, 2.0, 20)
    assert not coarse.notes
    np.testing.assert_allclose(coarse.final_particles, whole.final_particles, atol=1e-13)
    third = solvers.resume(BROWNIAN, coarse, 3.0, 10)
    np.testing.assert_allclose(
        third.final_particles, solvers.resume(BROWNIAN, whole, 3.0, 10).final_particles, atol=1e-13
    )


def test_a_run_that_ended_early_goes_on():
    def stop(t, x):
        if 0.45 < t < 0.55 and stop.armed:
            raise KeyboardInterrupt
        return t

    stop.armed = True
    with pytest.warns(RuntimeWarning, match="interrupted at t = 0.5"):
        run = solvers.solve(ORNSTEIN_UHLENBECK, np.ones(300), 0.0, 1.0, 10, save=[stop])
    stop.armed = False
    rest = solvers.resume(ORNSTEIN_UHLENBECK, run, 1.0, 5, save=[stop])
    whole = solvers.solve(ORNSTEIN_UHLENBECK, np.ones(300), 0.0, 1.0, 10)
    np.testing.assert_array_equal(rest.final_particles, whole.final_particles)
    np.testing.assert_allclose(rest.stop, np.linspace(0.5, 1.0, 6))


def test_what_cannot_go_on():
    run = solvers.solve(BROWNIAN, np.zeros(10), 0.0, 1.0, 10)
    bad = solvers.solve(BROWNIAN, np.zeros(10), 1.0, 0.0, 10)
    with pytest.raises(ValueError, match=r"t1 must lie beyond the end of the run at t = 1 in its direction, got 0\.5"):
        solvers.resume(BROWNIAN, run, 0.5, 5)
    with pytest.raises(ValueError, match="t1 must lie beyond the end of the run at t = 0 in its direction, got 2"):
        solvers.resume(BROWNIAN, bad, 2, 5)
    with pytest.raises(ValueError, match="equation must be that of the run"):
        solvers.resume(GEOMETRIC, run, 2.0, 5)
    with pytest.raises(TypeError, match=r"run must be a solvers\.Solution, got ndarray"):
        solvers.resume(BROWNIAN, run.final_particles, 2.0, 5)
    with pytest.raises(TypeError, match=r"equation must be a solvers\.McKeanVlasov, got int"):
        solvers.resume(3, run, 2.0, 5)
    with pytest.raises(TypeError, match=r"steps must be an integer, got 2\.5"):
        solvers.resume(BROWNIAN, run, 2.0, 2.5)
    with pytest.raises(ValueError, match=r"save_at must lie between t0 = 1 and t1 = 2, got 0\.5"):
        solvers.resume(BROWNIAN, run, 2.0, 10, save_at=[0.5])
    grows = McKeanVlasov(lambda t, x, m: 1e60 * x, vectorized=True)
    with pytest.warns(RuntimeWarning, match="diverged"):
        lost = solvers.solve(grows, np.ones(3), 0.0, 1.0, 10)
    with pytest.raises(ValueError, match="run diverged, so there is nothing to go on from"):
        solvers.resume(grows, lost, 2.0, 10)


def test_steps_that_vanish_beside_the_time_are_refused():
    with pytest.raises(ValueError, match=r"steps of 1e-06 vanish beside times of 1e\+16; take fewer steps"):
        BrownianMotion(1e16, 1e16 + 100, 100_000_000)
