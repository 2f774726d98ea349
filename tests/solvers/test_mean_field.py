"""The general solver: closed forms, invariances, what is saved, how runs end, and what is refused."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from threadpoolctl import threadpool_info

import solvers
from solvers import ExternalField, McKeanVlasov
from solvers.sde.coefficients import coefficient_functions
from solvers.sde.trial import Trial
from tests.conftest import MARGIN, z_score
from tests.solvers.equations import (
    BROWNIAN,
    CARRIED,
    DRIVEN,
    GEOMETRIC,
    MU,
    ORNSTEIN_UHLENBECK,
    PLANAR,
    SIGMA,
    THETA,
    A,
    S,
)
from validation import closed_forms


def normal(rng, n):
    return 1.0 + 0.5 * rng.standard_normal(n)


# closed forms -----------------------------------------------------------------------------------------------


def test_mean_field_ornstein_uhlenbeck_in_closed_form():
    # 500 steps of 0.002: the bias of the scheme, a dt/2 of each moment, is a third of a standard error
    runs = [
        solvers.solve(ORNSTEIN_UHLENBECK, normal, 0.0, 1.0, 500, seed=seed, particles=2000, save_at=[0.5, 1.0])
        for seed in range(30)
    ]
    t = np.array([0.5, 1.0])
    mean = np.exp(-A * (1 - THETA) * t)
    variance = 0.25 * np.exp(-2 * A * t) + S**2 * (1 - np.exp(-2 * A * t)) / (2 * A)
    assert np.all(z_score(np.array([run.mean for run in runs]), mean) < MARGIN)
    # the variance over N particles falls short of that of the law by about 1/N of it, which is known
    assert np.all(z_score(np.array([run.variance for run in runs]) * 2000 / 1999, variance) < MARGIN)


@pytest.mark.parametrize("scheme", ["euler_maruyama", "milstein"])
def test_moments_of_geometric_brownian_motion_under_the_scheme(scheme):
    """E X and E X² of the scheme itself are known: products over the steps."""
    steps, h = 20, 1 / 20
    correction = 0.5 * SIGMA**4 * h**2 if scheme == "milstein" else 0.0
    exact = np.array([(1 + MU * h) ** steps, ((1 + MU * h) ** 2 + SIGMA**2 * h + correction) ** steps])
    runs = [
        solvers.solve(
            GEOMETRIC, np.ones(20_000), 0.0, 1.0, steps, seed=seed, scheme=scheme, save_at=[1.0],
            save={"squares": lambda t, x: np.mean(x**2), "mean": "mean"},
        ) for seed in range(30)
    ]  # fmt: skip
    assert np.all(z_score(np.array([[run.mean[0], run.squares[0]] for run in runs]), exact) < MARGIN)


def test_common_noise_moves_the_mean():
    """With s⁰ dW⁰ the mean is an Ornstein–Uhlenbeck process of rate a (1 − θ), driven by W⁰ and by S/√N dW."""
    equation = McKeanVlasov(
        lambda t, x, m: -A * (x - THETA * m), lambda t, x, m: S, lambda t, x: x, common=lambda t, x, m: 0.6,
        vectorized=True,
    )  # fmt: skip
    seeds, particles, steps, h = 60, 400, 20, 1 / 20
    shrink = (1 - A * (1 - THETA) * h) ** np.arange(steps)[::-1]
    driven, means = np.empty((2, seeds))
    for seed in range(seeds):
        means[seed] = solvers.solve(
            equation, np.zeros(particles), 0.0, 1.0, steps, seed=seed, save_at=[1.0], threads=1
        ).mean[0]
        w = solvers.BrownianMotion(0.0, 1.0, steps, seed=seed, stream=solvers.Stream.COMMON).increments()
        driven[seed] = 0.6 * shrink @ w[:, 0, 0]
    rest = S**2 / particles * h * np.sum(shrink**2)
    # squares of normals: chi-square with `seeds` degrees; with the rate a, the least that may be wrong, the rest is 14
    # times as large
    assert abs(np.mean((means - driven) ** 2) / rest - 1) < MARGIN * np.sqrt(2 / seeds)
    assert abs(np.mean(means**2) / (0.36 * h * np.sum(shrink**2) + rest) - 1) < MARGIN * np.sqrt(2 / seeds)


def test_mean_field_covariance_grows_as_its_equation_says():
    """d E[XXᵀ] = E[XXᵀ] dt for dX = dW with covariance rate E[XXᵀ]; the scheme multiplies by 1 + h."""
    equation = McKeanVlasov(moments=lambda t, x: x, noise="mean_field", vectorized=True)
    mix = np.array([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [1.0, 0.0, 0.0]])  # the third component repeats the first

    def start(rng, n):
        return rng.standard_normal((n, 3)) @ mix.T

    runs = np.array(
        [
            solvers.solve(
                equation, start, 0.0, 1.0, 16, seed=seed, particles=2000, save_at=[1.0],
                save={"second": lambda t, x: x.T @ x / len(x)},
            ).second[0] for seed in range(60)
        ]
    )  # fmt: skip
    np.testing.assert_allclose(runs[:, 0, 0], runs[:, 2, 2], rtol=1e-12)
    assert np.all(z_score(runs, mix @ mix.T * (1 + 1 / 16) ** 16) < MARGIN)


def test_backward_solve_of_the_reflected_problem_has_the_same_law():
    forward = McKeanVlasov(
        lambda t, x, m: -(1 + t) * x + m, lambda t, x, m: 1 + t + 0 * x, lambda t, x: np.tanh(x), vectorized=True
    )
    reflected = McKeanVlasov(
        lambda t, x, m: (2 - t) * x - m, lambda t, x, m: 2 - t + 0 * x, lambda t, x: np.tanh(x), vectorized=True
    )
    save = {"moments_of_x": lambda t, x: [x.mean(), (x**2).mean(), np.tanh(x).mean()]}

    def run(equation, t0, t1, seed):
        return solvers.solve(
            equation, normal, t0, t1, 25, seed=seed, particles=2000, save_at=[t1], save=save
        ).moments_of_x[0]

    one = np.array([run(forward, 0.0, 1.0, seed) for seed in range(40)])
    other = np.array([run(reflected, 1.0, 0.0, 100 + seed) for seed in range(40)])
    spread = np.sqrt((one.var(0, ddof=1) + other.var(0, ddof=1)) / 40)
    assert np.all(np.abs(one.mean(0) - other.mean(0)) < MARGIN * spread)


def test_kuramoto_oscillators_lock_above_the_threshold_only():
    """Frequencies N(0, 1): K_c = 2 / (π g(0)) = 1.596. Above it r solves r = K r ∫ cos² φ g(K r sin φ) dφ."""
    rng = np.random.default_rng(0)
    frequencies = ExternalField(rng.standard_normal(10_000), per_particle=True)
    phases = rng.uniform(0, 2 * np.pi, 10_000)

    def order(coupling):
        run = solvers.solve(
            solvers.equations.kuramoto(coupling), phases, 0.0, 60.0, 600, field=frequencies,
            save_at=np.arange(40, 60.5, 1.0),
        )  # fmt: skip
        return np.hypot(*run.moments.T).mean()

    r = closed_forms.kuramoto_order_parameter(2.5)
    # finite-size fluctuations are about 1/√N = 0.01 far from the threshold, frequencies and phases drawn once
    assert abs(order(2.5) - r) < 4 * 0.01
    assert order(1.0) < 5 * 0.01


def test_a_flock_keeps_its_mean_velocity_and_aligns():
    def start(rng, n):
        return rng.standard_normal((n, 4))

    run = solvers.solve(solvers.equations.cucker_smale(), start, 0.0, 10.0, 100, particles=200)
    np.testing.assert_allclose(run.mean[:, 2:], np.broadcast_to(run.mean[0, 2:], run.mean[:, 2:].shape), atol=1e-12)
    assert np.all(run.variance[-1, 2:] < 1e-3 * run.variance[0, 2:])
    # the same through the mean: without distances in the weight the velocities relax at rate K exactly
    flat = solvers.solve(solvers.equations.cucker_smale(exponent=0.0), start, 0.0, 1.0, 50, particles=200)
    np.testing.assert_allclose(flat.variance[-1, 2:], flat.variance[0, 2:] * (1 - 1 / 50) ** 100, rtol=1e-10)


def test_ready_equations_equal_compiled_ones():
    built = solvers.equations.ornstein_uhlenbeck(A, THETA, S), solvers.equations.geometric_brownian_motion(MU, SIGMA)
    for one, other in zip(built, (ORNSTEIN_UHLENBECK, GEOMETRIC), strict=True):
        runs = [solvers.solve(equation, normal, 0, 1, 10, particles=5000).final_particles for equation in (one, other)]
        np.testing.assert_allclose(*runs, rtol=0, atol=1e-13)


# invariances ------------------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 5), st.sampled_from([1, 2047, 4096, 65_001]))
def test_bits_do_not_depend_on_the_number_of_threads(threads, particles):
    """The last of these particles are enough work for several threads."""
    one, other = (
        solvers.solve(ORNSTEIN_UHLENBECK, normal, 0, 1, 4, particles=particles, threads=n) for n in (1, threads)
    )
    np.testing.assert_array_equal(one.final_particles, other.final_particles)
    np.testing.assert_array_equal(one.moments, other.moments)


def test_a_small_run_is_the_beginning_of_a_large_one_without_interaction():
    small, large = (solvers.solve(GEOMETRIC, normal, 0, 1, 7, particles=n, save=["particles"]) for n in (3000, 9000))
    np.testing.assert_array_equal(small.particles, large.particles[:, :3000])


def test_half_the_steps_follow_the_same_path():
    coarse = solvers.solve(BROWNIAN, np.zeros(3000), 0, 1, 8, noise_steps=32)
    fine = solvers.solve(BROWNIAN, np.zeros(3000), 0, 1, 16, noise_steps=32, save_at=coarse.times)
    np.testing.assert_allclose(coarse.final_particles, fine.final_particles, atol=1e-14)
    w = solvers.BrownianMotion(0, 1, 32).increments(slice(0, 3000)).sum(0)[:, 0]
    np.testing.assert_allclose(fine.final_particles, w, atol=1e-14)


def test_the_particles_given_are_not_overwritten():
    x0 = np.ones(5000)
    first = solvers.solve(GEOMETRIC, x0, 0, 1, 3).final_particles
    assert np.all(x0 == 1)
    np.testing.assert_array_equal(first, solvers.solve(GEOMETRIC, x0, 0, 1, 3).final_particles)


# what is saved ----------------------------------------------------------------------------------------------


def test_statistics_are_those_of_the_particles(tmp_path):
    def spread(t, x):
        return np.ptp(x, axis=0)

    save = {
        "mean": "mean", "variance": "variance", "covariance": "covariance", "quantiles": solvers.quantiles([0.1, 0.9]),
        "chosen": solvers.particles([3, 1]), "everything": "particles", "spread": spread,
    }  # fmt: skip
    x0 = np.random.default_rng(0).standard_normal((500, 2))
    run = solvers.solve(PLANAR, x0, 0.0, 1.0, 10, save=save, save_at=[0.0, 0.3, 1.0])
    np.testing.assert_array_equal(run.times, np.linspace(0, 1, 11)[[0, 3, 10]])
    x = run.everything
    np.testing.assert_array_equal(x[0], x0)
    np.testing.assert_array_equal(x[-1], run.final_particles)
    np.testing.assert_allclose(run.mean, x.mean(1), atol=1e-14)
    np.testing.assert_allclose(run.variance, x.var(1), atol=1e-13)
    np.testing.assert_allclose(run.covariance[1], np.cov(x[1].T, bias=True), atol=1e-13)
    np.testing.assert_allclose(run.quantiles[2], np.quantile(x[2], [0.1, 0.9], axis=0))
    np.testing.assert_array_equal(run.chosen, x[:, [3, 1]])
    np.testing.assert_array_equal(run.spread, np.ptp(x, axis=1))
    np.testing.assert_allclose(run.moments[:, 2], (x[..., 0] * x[..., 1]).mean(1) + run.times, atol=1e-14)
    assert run.final_time == 1.0
    stored = solvers.load(run.save(tmp_path / "run.nc"))
    np.testing.assert_array_equal(stored.quantiles, run.quantiles)
    assert stored.settings["drift"] == "planar_drift"
    data = xarray.load_dataset(tmp_path / "run.nc")
    assert data["covariance"].dims == ("time", "row", "component")
    assert data["quantiles"].dims == ("time", "quantiles_quantile_level", "component")
    np.testing.assert_array_equal(data["quantiles_quantile_level"], [0.1, 0.9])


def test_records_do_not_grow_with_the_steps():
    run = solvers.solve(GEOMETRIC, np.ones(10), 0, 1, 1234)
    assert len(run.times) == 101
    assert run.mean.shape == run.variance.shape == (101,)
    assert run.timings.keys() == {"compile", "solve"}


def test_a_single_entry_can_be_saved_without_a_list():
    run = solvers.solve(GEOMETRIC, np.ones(10), 0, 1, 4, save="quantiles")
    assert run.quantiles.shape == (5, 5)
    with pytest.raises(AttributeError, match="has no variable 'mean'; it has times, quantiles"):
        _ = run.mean


# how runs end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["euler_maruyama", "heun"])
@pytest.mark.parametrize("particles", [1, 5000])
def test_a_blow_up_has_a_status_and_a_time(scheme, particles):
    """dx = x³ dt from x = 1 is infinite at t = ½; Euler needs some more steps to overflow."""
    equation = McKeanVlasov(lambda t, x, m: x**3, moments=lambda t, x: x, vectorized=True)
    with pytest.warns(RuntimeWarning, match="diverged: at t = 0.5.* a particle or a mean was not"):
        run = solvers.solve(equation, np.ones(particles), 0.0, 1.0, 1000, scheme=scheme, save_at=[0.0, 0.4, 1.0])
    assert run.status == "diverged"
    assert 0.5 < run.final_time < 0.53
    np.testing.assert_array_equal(run.times, [0.0, 0.4])
    assert np.isfinite(run.mean).all()
    assert not np.all(np.abs(run.final_particles) < 1e100)


ROOT = McKeanVlasov(lambda t, x, m, c: c * np.sqrt(x), vectorized=True)


@pytest.mark.parametrize(("equation", "x", "c"), [(CARRIED, 1.0, 1e308), (ROOT, -1.0, 1.0)], ids=["infinite", "NaN"])
def test_one_particle_that_is_not_finite_is_enough(equation, x, c):
    x0, field = np.ones((2, 5000))
    x0[4321], field[4321] = x, c
    with pytest.warns(RuntimeWarning, match="diverged"):
        run = solvers.solve(equation, x0, 0.0, 50.0, 5, field=ExternalField(field, per_particle=True))
    assert run.final_time == 10.0
    assert np.flatnonzero(~np.isfinite(run.final_particles)).tolist() == [4321]


def test_an_interrupt_keeps_what_was_saved():
    def stop(t, x):
        if t > 0.45:
            raise KeyboardInterrupt
        return t

    with pytest.warns(RuntimeWarning, match="interrupted at t = 0.5"):
        run = solvers.solve(GEOMETRIC, np.ones(10), 0.0, 1.0, 10, save=[stop])
    assert run.status == "interrupted"
    assert len(run.stop) == 5


@njit
def decay(t, x, m):
    if x < 0:
        raise ValueError("outside")
    if t > 0.5:
        raise ValueError("no drift so late")
    return -0.5 * x * m[1] / m[0]  # without particles m is 0


DECAY = McKeanVlasov(decay, moments=njit(lambda t, x: (1.0 + x * x, 1.0 + x)))


def test_a_coefficient_that_raises_on_the_way():
    x0 = np.linspace(0, 1, 10)
    with pytest.warns(RuntimeWarning, match=r"^failed at t = 0.6: ValueError: no drift so late$"):
        run = solvers.solve(DECAY, x0, 0.0, 1.0, 10)
    assert run.status == "failed"
    for mean in run.mean:
        np.testing.assert_allclose(mean, x0.mean(), rtol=1e-14)
        x0 = x0 - 0.1 * 0.5 * x0 * np.mean(1 + x0) / np.mean(1 + x0**2)
    assert len(run.mean) == 7
    assert run.final_time == run.times[-1] == pytest.approx(0.6)
    with pytest.raises(TypeError, match=r"^drift failed on the first particle: ValueError: no drift so late$"):
        solvers.solve(DECAY, np.ones(10), 0.55, 1.0, 10)


@pytest.mark.parametrize("broken", ["statistic", "field"])
def test_whatever_of_the_user_raises_on_the_way_keeps_the_records(broken):
    def late(t, x):
        if t > 0.45 and broken == "statistic":
            raise KeyError("late")
        return t

    class Late(ExternalField):
        def at(self, t):
            if t > 0.45 and broken == "field":
                raise KeyError("late")
            return super().at(t)

    with pytest.warns(RuntimeWarning, match=r"^failed at t = 0.5: .*KeyError: 'late'"):
        run = solvers.solve(DRIVEN, np.zeros(10), 0.0, 1.0, 10, field=Late(1.0), save=[late])
    assert run.status == "failed"
    np.testing.assert_allclose(run.late, np.arange(len(run.late)) / 10)
    assert len(run.late) == (5 if broken == "statistic" else 6)
    np.testing.assert_allclose(run.final_particles, run.final_time)


def test_an_error_in_the_first_step_is_an_error():
    """There is nothing to keep; the particle that fails is none of those tried."""
    x0 = np.ones(5000)
    x0[4321] = -1.0
    with pytest.raises(RuntimeError, match=r"^the first step failed: ValueError: outside$"):
        solvers.solve(DECAY, x0, 0.0, 1.0, 10)


# what is refused --------------------------------------------------------------------------------------------


def plain(t, x, m):
    return x


@njit
def fails(t, x, m):
    raise ValueError("not here")


@njit
def undefined(t, x, m):
    return nothing_of_this_name + x  # noqa: F821


number = njit(lambda t, x, m: x)
psi = njit(lambda t, x: x)
pair = njit(lambda t, x, m: (1.0, 2.0))
triple = njit(lambda t, x, m: (1.0, 2.0, 3.0))
numbers = njit(lambda t, x: (1.0, 2.0, 3.0))
with_field = njit(lambda t, x, m, field: field * x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"drift": plain},
            "drift must be compiled with numba.njit, got the function plain; decorate it with @njit, or",
        ),
        ({"drift": 3.0}, "drift must be compiled with numba.njit, got 3.0"),
        ({"drift": 3.0, "vectorized": True}, "drift must be a function, got 3.0"),
        ({"drift": psi}, r"drift must take \(t, x, m\[, field\]\[, args\]\), got \(t, x\)"),
        ({"drift": number, "moments": with_field}, r"moments must take \(t, x\[, args\]\), got \(t, x, m, field\)"),
        (
            {"drift": number, "noise": "white"},
            "noise must be one of additive, diagonal, .* got 'white'",
        ),
        ({"drift": number, "noise": "general"}, 'noise="general" needs a diffusion matrix'),
        ({"drift": number, "noise": "mean_field"}, 'noise="mean_field" needs moments or covariance'),
        ({"drift": number, "covariance": psi}, "covariance belongs to noise=\"mean_field\", got noise='diagonal'"),
        ({"moments": psi}, "an equation needs at least one of drift, diffusion, common and interaction"),
        ({"drift": number, "vectorized": 1}, "vectorized must be True or False, got 1"),
    ],
)
def test_bad_equations(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message) as error:
        McKeanVlasov(**arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("equation", "message"),
    [
        ({"drift": fails}, "drift failed on the first particle: ValueError: not here"),
        ({"drift": undefined}, "drift failed on the first particle: .*nothing_of_this_name"),
        ({"drift": pair}, r"drift must return a number a particle, got numbers of shape \(2,\)"),
        ({"diffusion": pair}, r"diffusion must return a number a particle, got numbers of shape \(2,\)"),
        ({"diffusion": number, "noise": "additive"}, 'diffusion depends on x, so it is not noise="additive"; use'),
        ({"diffusion": pair, "noise": "general"}, "a matrix of 1 rows is needed for each particle"),
        ({"drift": number, "moments": njit(lambda t, x: np.ones((2, 2)))}, "moments must return a number or M numbers"),
        ({"moments": numbers, "noise": "mean_field"}, "moments must return a number a particle"),
        ({"drift": with_field}, r"drift takes one argument more than \(t, x, m\): pass field= or args="),
        ({"interaction": njit(lambda x, y: (x, y))}, r"interaction must return a number a particle"),
        ({"common": pair}, "a matrix of 1 rows is needed for each particle"),
        ({"drift": lambda t, x, m: np.ones(3), "vectorized": True}, "must have a last axis of length 1"),
    ],
)  # fmt: skip
def test_coefficients_that_do_not_fit_the_particles(equation, message):
    with pytest.raises((TypeError, ValueError), match=message) as error:
        solvers.solve(McKeanVlasov(**equation), np.ones(10), 0, 1, 5)
    assert "\n" not in str(error.value)


def test_coefficients_in_the_plane_must_return_two_numbers():
    with pytest.raises(ValueError, match=r"drift must return numbers of shape \(2,\) a particle, got n.* \(3"):
        solvers.solve(McKeanVlasov(triple), np.ones((10, 2)), 0, 1, 5)
    with pytest.raises(ValueError, match=r"drift must return numbers of shape \(2,\) a particle, got a number"):
        solvers.solve(McKeanVlasov(njit(lambda t, x, m: 1.0)), np.ones((10, 2)), 0, 1, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"equation": 3}, "equation must be a solvers.McKeanVlasov, got int"),
        ({"x0": np.ones((2, 2, 2))}, r"x0 must have shape \(N,\) for numbers or \(N, D\) for vectors, got \(2, 2, 2\)"),
        ({"x0": 1.0}, r"x0 must have shape \(N,\) for numbers"),
        ({"x0": []}, "x0 must not be empty"),
        ({"x0": [1.0, np.nan]}, r"x0 must be finite, got nan at index \(1\)"),
        ({"x0": ["a"]}, "x0 must be an array of real numbers"),
        ({"x0": normal}, "x0 is a sampler, so the number of particles is needed: pass particles="),
        ({"x0": lambda rng: 1, "particles": 5}, r"x0 failed as a function of \(generator, n\): TypeError"),
        ({"x0": lambda rng, n: np.ones(3), "particles": 5}, r"x0\(generator, n\) must return shape \(n,\) or \(n, D\)"),
        ({"particles": 7}, "x0 holds 4 particles, but particles=7; leave it out"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": 2.5}, "steps must be an integer, got 2.5"),
        ({"t1": 0.0}, "t0 and t1 must differ, got 0.0 for both"),
        ({"t1": np.inf}, "t1 must be finite, got inf"),
        ({"t0": "now"}, "t0 must be a number, got 'now'"),
        ({"scheme": "euler"}, "scheme must be one of euler_maruyama, .*, sra1, got 'euler'"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"noise_steps": 15}, r"noise_steps must be a multiple of steps \(10\), got 15"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"save_at": [0.5, 1.5]}, "save_at must lie between t0 = 0 and t1 = 1, got 1.5"),
        ({"save_at": [[0.5]]}, "save_at must be a list of times"),
        ({"save": ["median"]}, "save must be one of mean, variance, covariance, quantiles, particles, got 'median'"),
        ({"save": {"times": "mean"}}, "a saved quantity cannot be called 'times'; choose another name"),
        ({"save": {"x": 3}}, r"save must hold names, statistics or functions of \(t, x\), got 3"),
        ({"save": [lambda t, x: 1.0]}, "give <function .* a name: save={'name': function}"),
        ({"save": {"x": lambda t, x: 1j}}, "the value of x must be an array of real numbers"),
        ({"save": {"x": lambda t, x: {}["a"]}}, "x failed at t = 0: KeyError: 'a'"),
        ({"save": {"x": solvers.particles([9])}}, "x failed at t = 0: IndexError"),
        ({"field": 2.0}, "field was given, but no coefficient takes it as one more argument"),
    ],
)
def test_bad_solves(change, message):
    arguments = {"equation": GEOMETRIC, "x0": np.ones(4), "t0": 0.0, "t1": 1.0, "steps": 10} | change
    with pytest.raises((TypeError, ValueError), match=message) as error:
        solvers.solve(**arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (ExternalField(np.ones(3), per_particle=True), "field has values for 3 particles, but there are 4"),
        (ExternalField([1.0, 2.0], times=[0.0, 0.5]), "field covers times 0 to 0.5, but the solve goes outside"),
        ([1.0, 2.0], "drift must return a number a particle|drift failed on the first particle"),
    ],
)
def test_fields_that_do_not_fit_the_solve(field, message):
    with pytest.raises((TypeError, ValueError), match=message):
        solvers.solve(McKeanVlasov(with_field), np.ones(4), 0, 1, 5, field=field)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": np.ones((2, 2))}, r"field must have the axes \(\) and at most one more, got shape \(2, 2\)"),
        ({"values": 1.0, "per_particle": True}, r"field must have the axes \(particles\)"),
        ({"values": [1.0, np.nan]}, "field must be finite"),
        ({"values": [1.0, 2.0], "times": [0.0, 0.0]}, "need as many distinct times"),
        ({"values": [1.0, 2.0], "times": [0.0]}, "need as many distinct times"),
    ],
)
def test_bad_fields(arguments, message):
    with pytest.raises(ValueError, match=message):
        ExternalField(**arguments)


def test_milstein_is_refused_where_it_would_need_levy_areas():
    general = McKeanVlasov(diffusion=njit(lambda t, x, m: ((x,),)), noise="general")
    common = McKeanVlasov(diffusion=number, common=number)
    for equation in (general, common):
        with pytest.raises(
            ValueError, match='scheme="milstein" needs noise="additive" or "diagonal" and no common noise'
        ):
            solvers.solve(equation, np.ones(4), 0, 1, 5, scheme="milstein")


def test_a_run_that_does_not_fit_in_memory_is_refused_with_numbers():
    with pytest.raises(MemoryError, match=r"needs .* GB and .* GB are available; use fewer particles"):
        solvers.solve(GEOMETRIC, lambda rng, n: np.ones((n, 4)), 0, 1, 5, particles=10**12)


@pytest.mark.parametrize("moments", [lambda t, x: np.cos(x), lambda t, x: np.stack([np.cos(x), x])])
def test_moments_reach_every_coefficient(moments):
    """Means that are a number or an array; compiled they do so in test_scheme_objects and test_schemes."""
    x0, steps = np.linspace(0, 1, 100), 5
    first = np.atleast_1d
    equation = McKeanVlasov(
        lambda t, x, m: first(m)[0] + 0 * x, lambda t, x, m: 1.0 + first(m)[0] ** 2, moments,
        common=lambda t, x, m: 0.5 * first(m)[-1], vectorized=True,
    )  # fmt: skip
    dw = solvers.BrownianMotion(0, 1, steps).increments(slice(0, 100))[:, :, 0]
    shared = solvers.BrownianMotion(0, 1, steps, stream=solvers.Stream.COMMON).increments()[:, 0, 0]
    x = x0
    for step in range(steps):
        m = np.atleast_1d(np.mean(moments(0, x), axis=-1))
        x = x + m[0] / steps + (1 + m[0] ** 2) * dw[step] + 0.5 * m[-1] * shared[step]
    np.testing.assert_allclose(solvers.solve(equation, x0, 0, 1, steps).final_particles, x, rtol=0, atol=1e-13)


# what users do that is easily got wrong -----------------------------------------------------------------------


@pytest.mark.parametrize("vectorized", [False, True])
def test_an_interrupted_heun_step_leaves_time_and_particles_together(vectorized):
    """dX = dt from 0, so the particles are at the time; the field interrupts between the two stages."""
    equation = McKeanVlasov(lambda t, x, m, c: c, vectorized=True) if vectorized else DRIVEN

    class Interrupting(ExternalField):
        def at(self, t):
            if 0.55 < t < 0.75:  # at other times the trial reads it as well
                raise KeyboardInterrupt
            return super().at(t)

    with pytest.warns(RuntimeWarning, match="interrupted"):
        run = solvers.solve(equation, np.zeros(10), 0.0, 1.0, 10, scheme="heun", field=Interrupting(1.0))
    assert run.final_time == 0.5
    np.testing.assert_allclose(run.final_particles, 0.5)


def interrupt(scheme, times):
    """Send Ctrl-C at random moments of runs of dX = dt from 0, in two threads; return how often it was let through."""
    escaped, options = 0, {"scheme": scheme, "threads": 2, "field": 1.0, "save": []}
    solvers.solve(DRIVEN, np.zeros(100_000), 0.0, 1.0, 2, **options)
    # the clock is the work of this process, so that it does not matter what else the machine does
    before = signal.signal(signal.SIGPROF, lambda *_: signal.raise_signal(signal.SIGINT))
    rng = np.random.default_rng(0)
    try:
        for delay in rng.uniform(0.1, 0.15, times):
            try:
                signal.setitimer(signal.ITIMER_PROF, delay)
                run = solvers.solve(DRIVEN, np.zeros(100_000), 0.0, 1.0, 100_000, **options)
            except KeyboardInterrupt:  # before the first step or after the last
                escaped += 1
                continue
            assert run.status == "interrupted"
            np.testing.assert_allclose(run.final_particles, run.final_time, rtol=0, atol=1e-9)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return escaped


@pytest.mark.filterwarnings("ignore:interrupted")
@pytest.mark.parametrize("scheme", ["euler_maruyama", "heun"])
def test_ctrl_c_at_any_moment_leaves_a_whole_solution(scheme):
    assert interrupt(scheme, 8) <= 2


def test_a_run_that_diverges_before_the_first_record_keeps_its_fields():
    equation = McKeanVlasov(lambda t, x, m: 1e3 * x**3, vectorized=True)
    with pytest.warns(RuntimeWarning, match="diverged"):
        run = solvers.solve(equation, np.full(5, 2.0), 0, 1, 10, save_at=[1.0], save=["quantiles", "particles"])
    assert run.quantiles.shape == (0, 5)
    assert run.particles.shape == (0, 5)
    np.testing.assert_array_equal(run.quantiles_quantile_level, [0.05, 0.25, 0.5, 0.75, 0.95])


def test_coefficients_are_not_called_where_no_particle_is():
    """Not beyond the edge, nor with the means of no particles, in either stage."""
    run = solvers.solve(DECAY, [0.0, 1.0, 2.0], 0.0, 0.5, 100, scheme="heun")
    assert run.status == "completed"
    assert run.final_particles[0] == 0.0
    assert run.final_particles[2] < 1.9


@pytest.mark.parametrize("particles", [1, 4, 2049])
def test_a_field_of_vectors_has_the_same_shape_in_every_block(particles):
    field = ExternalField(np.arange(2.0 * particles).reshape(-1, 2), per_particle=True)

    def drift(t, x, m, f):
        assert f.shape == x.shape
        return f

    run = solvers.solve(McKeanVlasov(drift, vectorized=True), np.zeros((particles, 2)), 0.0, 1.0, 4, field=field)
    np.testing.assert_allclose(run.final_particles, field.values)


def test_a_wrong_promise_of_additive_noise_does_not_change_euler():
    """s = 30 for x < 200, where the promise is tried; Euler evaluates it for every particle anyway."""
    x0 = np.array([1.0, 10.0, 180.0])
    runs = [
        solvers.solve(
            McKeanVlasov(diffusion=lambda t, x, m: np.where(x < 200.0, 30.0, 90.0), noise=noise, vectorized=True),
            x0, 0, 1, 10,
        ).final_particles for noise in ("additive", "diagonal")
    ]  # fmt: skip
    np.testing.assert_array_equal(*runs)
    step = njit(lambda t, x, m: 1.0 if x < 5 else 3.0)
    with pytest.raises(ValueError, match="diffusion depends on x"):
        solvers.solve(McKeanVlasov(diffusion=step, noise="additive"), x0, 0, 1, 10)


def test_nothing_can_write_into_the_particles():
    def centre(t, x):
        x -= x.mean()
        return x.std()

    with pytest.raises(TypeError, match="centre failed at t = 0: ValueError: output array is read-only"):
        solvers.solve(GEOMETRIC, np.ones(10), 0, 1, 5, save=[centre])

    def drift(t, x, m):
        x -= m
        return x

    with pytest.raises(TypeError, match=r"drift failed on the first particle: .*read-only"):
        solvers.solve(McKeanVlasov(drift, vectorized=True), np.ones(10), 0, 1, 5)


def test_numbers_of_numpy_are_numbers(tmp_path):
    run = solvers.solve(GEOMETRIC, np.ones(10), np.float32(0), np.int64(1), np.int64(10), seed=np.uint8(3))
    assert solvers.load(run.save(tmp_path / "run.nc")).settings["steps"] == 10


@pytest.mark.parametrize(
    ("save", "message"),
    [
        ([solvers.quantiles([0.1]), solvers.quantiles([0.9])], "two entries of save are called 'quantiles'"),
        ({"status": "mean"}, "a saved quantity cannot be called 'status'"),
        ({"data": "mean"}, "a saved quantity cannot be called 'data'"),
        ({"_a": "mean"}, "a saved quantity cannot be called '_a'"),
        ({"args": "mean"}, "a saved quantity cannot be called 'args'"),
        ({"args_k": "mean"}, "a saved quantity cannot be called 'args_k'"),
        ({"resets": "mean"}, "a saved quantity cannot be called 'resets'"),
        (
            {"a": solvers.trajectories(1), "a_times": "mean"},
            "cannot be called 'a_times', the times of 'a'",
        ),
        (5, "save must hold names, statistics or functions"),
        (None, "save must hold names, statistics or functions"),
    ],
)
def test_saved_quantities_that_would_be_lost(save, message):
    with pytest.raises((TypeError, ValueError), match=message):
        solvers.solve(GEOMETRIC, np.ones(10), 0, 1, 5, save=save)
    with pytest.raises(ValueError, match="labels belong to the first of the axes"):
        solvers.Statistic(lambda t, x: x, "x", labels=np.ones(3))


def test_a_sampler_is_not_the_generator_of_the_same_seed():
    run = solvers.solve(GEOMETRIC, lambda rng, n: rng.standard_normal(n), 0, 1, 1, particles=3, save="particles")
    assert not np.isin(run.particles[0], np.random.default_rng(0).standard_normal(3)).any()


def test_a_value_that_changes_its_length_is_refused():
    """As in a step; that an error there ends a run is above."""

    @njit
    def shrinks(t, x, m):
        return np.zeros(1) if t > 0.3 else np.zeros(2)

    equation = McKeanVlasov(shrinks)
    trial = Trial(equation, 0.0, np.ones((2, 10)), False)
    drift = coefficient_functions(equation, trial.form()).drift
    np.testing.assert_array_equal(drift(0.2, trial.x, np.zeros(0), trial.field, ()), np.zeros((2, 10)))
    with pytest.raises(ValueError, match="a coefficient returns another number of components than at the start"):
        drift(0.4, trial.x, np.zeros(0), trial.field, ())


def test_a_tuple_of_several_types_says_what_to_write():
    with pytest.raises(TypeError, match=r"drift must return numbers of one type, so write 0.0 instead of 0"):
        solvers.solve(McKeanVlasov(njit(lambda t, x, m: (x[1], 0))), np.ones((10, 2)), 0, 1, 10)
    with pytest.raises(TypeError, match="drift must return numbers, got None"):
        solvers.solve(McKeanVlasov(njit(lambda t, x, m: None)), np.ones(10), 0, 1, 10)


def test_solves_at_the_same_time_agree_and_give_blas_its_threads_back():
    def limits():
        return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]

    before = limits()
    with ThreadPoolExecutor(4) as pool:
        solve = partial(solvers.solve, ORNSTEIN_UHLENBECK, normal, 0, 1, 20, particles=65_000, threads=2)
        runs = [future.result() for future in [pool.submit(solve) for _ in range(8)]]
    assert limits() == before
    for run in runs:
        np.testing.assert_array_equal(run.final_particles, runs[0].final_particles)


def test_milstein_at_the_edge_of_the_square_root():
    """dX = dt + 2 √X dW, a squared Bessel process of dimension 1 at its edge: E X = X_0 + t."""
    cut, strict = lambda t, x, m: 2 * np.sqrt(np.maximum(x, 0)), lambda t, x, m: 2 * np.sqrt(x)
    for diffusion in (cut, strict):
        equation = McKeanVlasov(lambda t, x, m: 1.0 + 0 * x, diffusion, vectorized=True)
        run = solvers.solve(equation, np.zeros(1000), 0.0, 0.1, 1, scheme="milstein")
        np.testing.assert_allclose(run.final_particles, 0.1, atol=1e-12)


def test_times_that_were_added_up_cover_the_interval():
    """The field 2 t, whose tables are at every third step."""
    times = np.cumsum([0.0] + [0.1] * 10)
    run = solvers.solve(
        DRIVEN, np.zeros(3), 0.0, 1.0, 30, field=ExternalField(2 * times, times=times), save="particles"
    )
    exact = np.cumsum(np.concatenate([[0.0], 2 * run.times[:-1] / 30]))
    np.testing.assert_allclose(run.particles, np.stack([exact] * 3, axis=1), rtol=0, atol=1e-13)
