"""Schemes for stiff and rough equations: their laws, orders and faults; and times between those of the grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import njit

import solvers
from solvers import BrownianMotion, ExternalField, McKeanVlasov, Reflecting
from solvers.schemes import BAOAB, SRA1, DriftImplicitEuler, Scheme, Stage, Trapezoidal, euler_terms
from solvers.sde import walk
from solvers.sde.schemes import get_scheme
from tests.conftest import MARGIN
from tests.solvers.equations import BROWNIAN, CARRIED, GEOMETRIC, ORNSTEIN_UHLENBECK, PLANAR_SHARED
from tests.solvers.test_convergence import RUNS, agrees, normal

K, SPREAD = 100.0, 0.7
STIFF = McKeanVlasov(lambda t, x, m: -K * x, lambda t, x, m: SPREAD, noise="additive", vectorized=True)
WAVY = McKeanVlasov(
    lambda t, x, m: np.sin(2 * x) + np.cos(2 * t) + m, lambda t, x, m: 0.5 + 0.4 * np.sin(2 * t),
    lambda t, x: np.cos(x), noise="additive", vectorized=True,
)  # fmt: skip
# those of test_convergence as functions of arrays, since nothing is compiled for them
CUBIC = McKeanVlasov(
    lambda t, x, m: x - x**3 + m / 2, lambda t, x, m: 0.5, lambda t, x: x, noise="additive", vectorized=True
)
GROWING = McKeanVlasov(lambda t, x, m: 0.3 * x, lambda t, x, m: 0.8 * x, vectorized=True)
# two components that turn, one of which is stiff, and their Jacobian
TURNING = McKeanVlasov(
    lambda t, x, m: np.stack([-K * x[0] ** 3 + x[1], m[0] - x[0] - x[1] + 5 * t]),
    lambda t, x, m: np.stack([0.3 + 0 * x[0], 0.2 * x[1]]), lambda t, x: x[:1], vectorized=True,
)  # fmt: skip


def turning_jacobian(t, x, m):
    one = np.ones_like(x[0])
    return np.stack([np.stack([-3 * K * x[0] ** 2, one]), np.stack([-one, -one])])


# implicit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "exact", "steps"),
    [("drift_implicit_euler", SPREAD**2 / (K * (2 + K)), 12), ("trapezoidal", SPREAD**2 / (2 * K), 400)],
)
def test_stationary_variances_of_a_stiff_equation(scheme, exact, steps):
    """At k dt = 100, where Euler–Maruyama grows by 99 a step; both forget the start, by 1/101 and 49/51 a step."""
    n = 20_000
    run = solvers.solve(STIFF, np.zeros(n), 0, steps, steps, scheme=scheme)
    assert abs(run.variance[-1] - exact) < MARGIN * exact * math.sqrt(2 / n)
    with pytest.warns(RuntimeWarning, match="diverged"):
        solvers.solve(STIFF, np.ones(10), 0, 100, 100)


@pytest.mark.parametrize("scheme", [DriftImplicitEuler, Trapezoidal])
def test_a_step_solves_its_equation(scheme):
    x0 = np.random.default_rng(0).normal(size=(3000, 2))
    dw = BrownianMotion(0, 0.1, 1, 2).increments(slice(0, 3000))[0].T
    x, m = x0.T, x0[:, :1].mean(axis=0)
    b, s = TURNING.drift, TURNING.diffusion
    ends = [
        solvers.solve(TURNING, x0, 0, 0.1, 1, scheme=scheme(jacobian)).final_particles.T
        for jacobian in (None, turning_jacobian)
    ]
    for y in ends:
        implicit = 1.0 if scheme is DriftImplicitEuler else 0.5
        change = 0.1 * ((1 - implicit) * b(0, x, m) + implicit * b(0.1, y, m)) + s(0, x, m) * dw
        np.testing.assert_allclose(y - x, change, rtol=0, atol=1e-8)
    np.testing.assert_allclose(ends[0], ends[1], rtol=0, atol=1e-9)


def test_the_jacobian_is_used_and_a_wrong_one_does_no_harm_in_silence():
    """With one that is off by half, Newton's method is slower and still solves the equation; by much, it does not."""
    x0 = np.random.default_rng(0).normal(size=(50, 2))
    right = solvers.solve(TURNING, x0, 0, 0.01, 1, scheme=DriftImplicitEuler(turning_jacobian)).final_particles
    near = DriftImplicitEuler(lambda t, x, m: 1.3 * turning_jacobian(t, x, m))
    np.testing.assert_allclose(
        solvers.solve(TURNING, x0, 0, 0.01, 1, scheme=near).final_particles, right, rtol=0, atol=1e-8
    )
    far = DriftImplicitEuler(lambda t, x, m: -5 * turning_jacobian(t, x, m))
    with pytest.raises(RuntimeError, match=r"the first step failed: .* implicit step was not solved"):
        solvers.solve(TURNING, x0, 0, 1, 1, scheme=far)


@pytest.mark.parametrize("vectorized", [True, False])
def test_an_equation_without_a_solution_fails_the_run_with_the_particle(vectorized):
    """y = x + 0.1 y² has a solution up to x = 2.5, where particle 41 arrives first, on the way up to infinity."""
    square = (lambda t, x, m: x * x) if vectorized else njit(lambda t, x, m: x * x)
    x0 = np.zeros(100)
    x0[41] = 0.5
    with pytest.warns(RuntimeWarning, match=r"^failed at t = .*at particle 41, the equation of the implicit step was"):
        run = solvers.solve(McKeanVlasov(square, vectorized=vectorized), x0, 0, 5, 50, scheme="drift_implicit_euler")
    assert run.status == "failed"
    x, steps = 0.5, 0
    while x <= 2.5:
        x, steps = (1 - math.sqrt(1 - 0.4 * x)) / 0.2, steps + 1
    assert run.final_time == pytest.approx(0.1 * steps)
    assert run.final_particles[41] == pytest.approx(x, rel=1e-9)
    assert run.times[-1] == run.final_time


@pytest.mark.parametrize("scheme", ["drift_implicit_euler", "trapezoidal"])
def test_orders_of_implicit_schemes(scheme):
    for equation, order in ((CUBIC, 1.0), (GROWING, 0.5)):
        study = solvers.strong_order(
            equation, normal, 0, 1, (32, 64, 128, 256), scheme=scheme, particles=400, replicates=RUNS
        )
        assert study.claimed == get_scheme(scheme).strong_order(equation) == order
        assert agrees(study, order), str(study)
    pulled = McKeanVlasov(lambda t, x, m: m - 2 * x, lambda t, x, m: 0.7, lambda t, x: x, "additive", vectorized=True)
    weak = solvers.weak_order(pulled, np.ones(100), 0, 1, (64, 128, 256), scheme=scheme, replicates=RUNS)
    assert weak.claimed == 1.0
    assert agrees(weak, 1.0), str(weak)


def test_a_run_with_a_jacobian_goes_on_with_it():
    run = solvers.solve(TURNING, np.ones((3, 2)), 0, 1, 10, scheme=Trapezoidal(turning_jacobian))
    assert run.settings["scheme"] == "trapezoidal(jacobian=turning_jacobian)"
    with pytest.raises(ValueError, match=r"^scheme must be given again"):
        solvers.resume(TURNING, run, 2, 10)
    whole = solvers.solve(TURNING, np.ones((3, 2)), 0, 2, 20, scheme=Trapezoidal(turning_jacobian))
    rest = solvers.resume(TURNING, run, 2, 10, scheme=Trapezoidal(turning_jacobian))
    np.testing.assert_array_equal(rest.final_particles, whole.final_particles)


def test_what_implicit_schemes_refuse():
    with pytest.raises(ValueError, match=r"^jacobian must return numbers of shape \(2, 2\) a particle, got a number$"):
        solvers.solve(TURNING, np.ones((4, 2)), 0, 1, 4, scheme=Trapezoidal(lambda t, x, m: -200.0))
    with pytest.raises(ValueError, match=r'^scheme="trapezoidal" needs a drift, which it is implicit in'):
        solvers.solve(BROWNIAN, np.ones(4), 0, 1, 4, scheme="trapezoidal")
    with pytest.raises(TypeError, match=r"^jacobian must be a function of \(t, x, m\), got 3$"):
        DriftImplicitEuler(3)
    with pytest.raises(TypeError, match=r"^jacobian must be compiled with numba\.njit"):
        solvers.solve(ORNSTEIN_UHLENBECK, np.ones(4), 0, 1, 4, scheme=Trapezoidal(lambda t, x, m: 1.0))
    with pytest.raises(ValueError, match=r"^jacobian must return numbers of shape \(2, 2\) a particle, got .*\(2,\)"):
        solvers.solve(TURNING, np.ones((4, 2)), 0, 1, 4, scheme=Trapezoidal(lambda t, x, m: x))


# SRA1 -------------------------------------------------------------------------------------------------------------


def test_strong_order_of_sra1():
    """1.5 and neither 1 nor 2, with a spread that changes in time and means in the drift, forward and backward."""
    for ends in ((0, 1), (1, 0)):
        study = solvers.strong_order(
            WAVY, normal, *ends, (64, 128, 256, 512), scheme="sra1", particles=500, replicates=RUNS
        )
        assert study.claimed == 1.5
        assert agrees(study, 1.5), str(study)
    assert SRA1().weak_order(WAVY) == 2.0


def test_a_spread_that_depends_on_the_means_is_rough_as_they_are():
    """Means of N particles move like N^-½ dW, which is noise that depends on x: what is of order ½ falls like N^-½."""
    equation = McKeanVlasov(
        lambda t, x, m: np.sin(x), lambda t, x, m: 0.3 + m, lambda t, x: np.cos(x), noise="additive", vectorized=True
    )
    errors = [
        solvers.strong_order(
            equation, normal, 0, 1, (32, 64, 128), scheme="sra1", particles=particles, replicates=RUNS
        ).errors[-1]
        for particles in (100, 1600)
    ]
    assert 3 < errors[0] / errors[1] < 5


def test_integrals_of_the_motions():
    """(dW, dZ) has the covariance [[h, h²/2], [h²/2, h³/3]], and coarse values are made of fine ones."""
    seen = {}

    def reading(equation, coefficients, form):
        def read(out, s):
            seen.setdefault("dw", []).append(s.dw.copy())
            seen.setdefault("dz", []).append(s.dz.copy())

        yield read
        yield from euler_terms(equation, coefficients, form)

    class Reading(Scheme):
        stages = (Stage(reading, motions="integrals"),)

    n, found = 30_000, {}
    for steps in (2, 8):
        seen.clear()
        solvers.solve(BROWNIAN, np.zeros(n), 0, 1, steps, noise_steps=8, scheme=Reading(), threads=1, save=[])
        found[steps] = [np.concatenate(seen[name], axis=1).reshape(steps, n) for name in ("dw", "dz")]
        h = 1 / steps
        cov = np.cov(found[steps][0][0], found[steps][1][0])
        exact = np.array([[h, h**2 / 2], [h**2 / 2, h**3 / 3]])
        error = np.sqrt((exact**2 + np.outer(np.diag(exact), np.diag(exact))) / n)
        assert (np.abs(cov - exact) < MARGIN * error).all()
    (coarse_w, coarse_z), (fine_w, fine_z) = found[2], found[8]
    w = np.cumsum(fine_w[:4], axis=0) - fine_w[:4]
    np.testing.assert_allclose(coarse_w[0], fine_w[:4].sum(axis=0), rtol=0, atol=1e-14)
    np.testing.assert_allclose(coarse_z[0], (fine_z[:4] + w / 8).sum(axis=0), rtol=0, atol=1e-14)
    seen.clear()
    solvers.solve(BROWNIAN, np.zeros(n), 1, 0, 2, noise_steps=8, scheme=Reading(), threads=1, save=[])
    backward = [np.concatenate(seen[name], axis=1).reshape(2, n)[1] for name in ("dw", "dz")]
    np.testing.assert_array_equal(backward[0], coarse_w[0])
    np.testing.assert_allclose(backward[1], coarse_w[0] / 2 - coarse_z[0], rtol=0, atol=1e-14)


# BAOAB ------------------------------------------------------------------------------------------------------------


def test_langevin_moments():
    """A harmonic force: averages over q are exact at any step, E p² to the second order, (1 − dt²/4) T."""
    equation, n, dt = McKeanVlasov(lambda t, x, m: -x[0], vectorized=True), 40_000, 0.5
    run = solvers.solve(equation, np.zeros((n, 2)), 0, 20, 40, scheme=BAOAB(1.0, 0.5))
    np.testing.assert_allclose(run.variance[-1], [0.5, 0.5 * (1 - dt**2 / 4)], rtol=MARGIN * math.sqrt(2 / n))
    assert run.settings["scheme"] == "baoab(friction=1.0, temperature=0.5)"


def test_configurational_error_of_baoab():
    """U = q²/2 + q⁴/4 from a bounded start: E q² against quadrature falls by a fourth from dt = 0.4 to 0.2."""
    q = np.linspace(-6, 6, 4001)
    weight = np.exp(-(q**2) / 2 - q**4 / 4)
    exact = (q**2 * weight).sum() / weight.sum()
    equation = McKeanVlasov(lambda t, x, m: -x[0] - x[0] ** 3, moments=lambda t, x: x[0] ** 2, vectorized=True)
    errors = {}
    for dt in (0.2, 0.4):
        x0, steps = np.random.default_rng(0).uniform(-1, 1, (20_000, 2)), round(160 / dt)
        run = solvers.solve(
            equation, x0, 0, 160, steps, scheme=BAOAB(1.0, 1.0), save=[], save_at=np.arange(20, 160, 2 * dt)
        )
        blocks = run.moments[:175, 0].reshape(7, -1).mean(axis=1) - exact
        errors[dt] = blocks.mean(), blocks.std(ddof=1) / math.sqrt(7)
    (small, e1), (large, e2) = errors[0.2], errors[0.4]
    assert large < -MARGIN * e2
    assert abs(small - large / 4) < MARGIN * math.hypot(e1, e2 / 4)
    assert abs(small - large) > MARGIN * math.hypot(e1, e2)


def test_force_of_two_positions_and_what_baoab_refuses():
    force = njit(lambda t, x, m: (-x[0], -4.0 * x[1]))
    x0 = np.random.default_rng(0).normal(size=(2000, 4))
    arrays = McKeanVlasov(lambda t, x, m: np.stack([-x[0], -4.0 * x[1]]), vectorized=True)
    ends = [
        solvers.solve(e, x0, 0, 1, 10, scheme=BAOAB(1.0, 1.0)).final_particles for e in (McKeanVlasov(force), arrays)
    ]
    np.testing.assert_allclose(ends[0], ends[1], rtol=0, atol=1e-13)
    for equation, x0, message in (
        (arrays, np.ones((3, 3)), r"^particles must be \(q, p\), with as many positions as momenta, got 3 components$"),
        (
            BROWNIAN,
            np.ones(4),
            "^BAOAB needs a drift, which is the force, and moments at most beside it, got",
        ),
        (
            McKeanVlasov(lambda t, x, m: x, vectorized=True),
            np.ones((3, 2)),
            "^drift must return a number a particle, got",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            solvers.solve(equation, x0, 0, 1, 4, scheme=BAOAB(1.0, 1.0))
    with pytest.raises(ValueError, match=r"goes forward in time, but t1 is before t0"):
        solvers.solve(arrays, np.ones((3, 4)), 1, 0, 4, scheme=BAOAB(1.0, 1.0))
    with pytest.raises(ValueError, match=r"^friction must be a finite number above 0, got 0$"):
        BAOAB(0.0, 1.0)
    with pytest.raises(ValueError, match=r"^temperature must be a finite number of at least 0, got -1$"):
        BAOAB(1.0, -1.0)


# stages between the ends of a step --------------------------------------------------------------------------------


def middle_terms(equation, coefficients, form):
    drift = coefficients.drift

    def middle(out, s):
        out += s.dt * drift(s.t, s.x, s.m, s.field, s.args) - 0.5 * s.dt * drift(s.t0, s.x, s.m0, s.field0, s.args)

    yield middle


def half_terms(equation, coefficients, form):
    drift = coefficients.drift
    yield lambda out, s: np.add(out, 0.5 * s.dt * drift(s.t, s.x, s.m, s.field, s.args), out)


class Middle(Scheme):
    """The midpoint rule for drifts that do not depend on x."""

    stages = (Stage(half_terms), Stage(middle_terms, time=0.5))


def test_a_stage_has_the_time_and_field_of_its_share_of_the_step():
    """dX = c(t) dt with c = 3 t² by a field between 0, 1, 2 … of the grid: time and field at the middle are exact."""
    at = lambda t, x, m: 2 * t + 0 * x  # noqa: E731
    run = solvers.solve(McKeanVlasov(at, vectorized=True), np.zeros(3), 0, 2, 4, scheme=Middle())
    np.testing.assert_allclose(run.final_particles, 4.0)
    times = np.linspace(0, 2, 5)
    for own in (False, True):
        values = np.outer(2 * times, [1.0, 2.0, 3.0]) if own else 2 * times
        field = ExternalField(values, times, per_particle=own)
        equation = McKeanVlasov(lambda t, x, m, c: c + 0 * x, vectorized=True)
        run = solvers.solve(equation, np.zeros(3), 0, 2, 4, scheme=Middle(), field=field)
        np.testing.assert_allclose(run.final_particles, 4.0 * np.array([1, 2, 3]) if own else 4.0)


def weighted_terms(equation, coefficients, form, weight):
    drift = coefficients.drift
    yield lambda out, s: np.add(out, weight * s.dt * drift(s.t, s.x, s.m, s.field, s.args), out)


def test_a_last_stage_may_start_where_the_step_does():
    stages = Stage(weighted_terms, settings=(0.0,)), Stage(weighted_terms, settings=(1.0,), time=0.5)
    scheme = type("Back", (Scheme,), {"stages": (*stages, Stage(weighted_terms, settings=(0.0,), time=0.0))})()
    for drift, vectorized in ((lambda t, x, m, c: c + 0 * x, True), (njit(lambda t, x, m, c: c), False)):
        run = solvers.solve(
            McKeanVlasov(drift, vectorized=vectorized), np.zeros(3), 0, 1, 10, scheme=scheme,
            field=ExternalField([0.0, 1.0], [0.0, 1.0]),
        )  # fmt: skip
        np.testing.assert_allclose(run.final_particles, 0.5)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Stage(half_terms, time=1.5), "^time of a stage of the scheme Wrong must be a share from 0 to 1, got 1.5$"),
        (Stage(half_terms, time="a"), "^time of a stage of the scheme Wrong must be a number"),
        (
            Stage(half_terms, motions="all"),
            "^motions of a stage of the scheme Wrong must be one of equation",
        ),
    ],
)
def test_bad_stages(stage, message):
    Wrong = type("Wrong", (Scheme,), {"stages": (Stage(half_terms), stage)})
    with pytest.raises((TypeError, ValueError), match=message):
        solvers.solve(STIFF, np.ones(3), 0, 1, 4, scheme=Wrong())
    late = type("Late", (Scheme,), {"stages": (Stage(half_terms, time=0.5),)})
    with pytest.raises(ValueError, match=r"^the first stage of the scheme Late starts where the step does"):
        solvers.solve(STIFF, np.ones(3), 0, 1, 4, scheme=late())


# times between those of the grid ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)])
def test_a_path_between_times_is_that_of_a_finer_grid(ends):
    wanted = [k / 64 for k in (1, 5, 33, 16, 63)]
    runs = [
        solvers.solve(BROWNIAN, np.zeros(3000), *ends, steps, noise_steps=64, save_at=wanted, save="particles")
        for steps in (4, 64)
    ]
    np.testing.assert_allclose(runs[0].particles, runs[1].particles, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(runs[0].times, runs[1].times)


def test_the_law_between_times_and_other_times_asked_for():
    n, times = 30_000, [0.3, 0.05, 0.31, 0.6, 0.25]
    run = solvers.solve(BROWNIAN, np.zeros(n), 0, 1, 4, save_at=times, save=["particles", "variance"])
    cov = np.cov(run.particles)
    exact = np.minimum.outer(times, times)
    assert (np.abs(cov - exact) < MARGIN * np.sqrt((exact**2 + np.outer(times, times)) / n)).all()
    alone = solvers.solve(BROWNIAN, np.zeros(n), 0, 1, 4, save_at=[0.31], save="particles", threads=1)
    np.testing.assert_array_equal(alone.particles[0], run.particles[2])
    plain = solvers.solve(BROWNIAN, np.zeros(n), 0, 1, 4, save=[])
    np.testing.assert_array_equal(plain.final_particles, run.final_particles)


def test_common_noise_between_times_is_not_that_of_the_first_particle():
    own = McKeanVlasov(diffusion=lambda t, x, m: 1.0, noise="additive", vectorized=True)
    shared = McKeanVlasov(common=lambda t, x, m: 1.0, vectorized=True)
    gained = []
    for seed in range(400):
        runs = [
            solvers.solve(e, np.zeros(1), 0, 1, 1, save_at=[0.5, 1.0], save="particles", seed=seed)
            for e in (own, shared)
        ]
        gained.append([run.particles[0, 0] - run.particles[1, 0] / 2 for run in runs])  # of the bridge alone
    gained = np.array(gained)
    assert abs(np.corrcoef(gained.T)[0, 1]) < MARGIN / 20
    np.testing.assert_allclose(gained.var(axis=0), 0.25, rtol=MARGIN * math.sqrt(2 / 400))


@pytest.mark.parametrize("scheme", ["euler_maruyama", "heun", "drift_implicit_euler"])
def test_particles_between_times_are_a_part_of_a_step(scheme):
    """A step from the last time of the grid, of the length that is left; with means, common noise and a field."""
    run = solvers.solve(
        ORNSTEIN_UHLENBECK, normal(np.random.default_rng(0), 500), 0, 1, 10, scheme=scheme, save_at=[0.1, 0.137, 0.2],
        save="particles",
    )  # fmt: skip
    fine = solvers.solve(
        ORNSTEIN_UHLENBECK,
        normal(np.random.default_rng(0), 500),
        0,
        1,
        1000,
        scheme=scheme,
        save_at=[0.137],
        save="mean",
    )
    assert abs(run.particles[1].mean() - fine.mean[0]) < MARGIN * math.sqrt(0.7**2 * 0.137 / 500)
    assert run.particles[0].std() < run.particles[2].std() * 1.2


def test_between_times_with_all_there_is(monkeypatch):
    x0 = np.random.default_rng(1).normal(size=(300, 2))
    options = {"save_at": [0.33, 0.5, 0.71], "save": "particles", "scheme": "heun"}
    runs = [solvers.solve(PLANAR_SHARED, x0, 0, 1, 4, threads=threads, **options) for threads in (1, 2)]
    np.testing.assert_array_equal(runs[0].particles, runs[1].particles)
    np.testing.assert_array_equal(runs[0].moments, runs[1].moments)
    monkeypatch.setattr(walk, "March", walk.StepByStep)
    stepped = solvers.solve(PLANAR_SHARED, x0, 0, 1, 4, **options)
    np.testing.assert_array_equal(stepped.particles, runs[0].particles)
    field = ExternalField(np.linspace(1, 2, 300), per_particle=True)
    kept = solvers.solve(
        CARRIED, np.zeros(300), 0, 1, 4, field=field, save_at=[0.4], save="particles", boundary=Reflecting(-0.1, 0.1)
    )
    assert np.abs(kept.particles).max() <= 0.1


def test_records_between_times_of_a_run_that_goes_on(tmp_path):
    x0, options = np.ones(50), {"save_at": [0.07, 0.52], "save": "particles"}
    whole = solvers.solve(GEOMETRIC, x0, 0, 1, 10, **options)
    half = solvers.solve(GEOMETRIC, x0, 0, 0.5, 5, save=[])
    rest = solvers.resume(GEOMETRIC, half, 1, 5, save_at=[0.52], save="particles")
    np.testing.assert_array_equal(rest.particles[0], whole.particles[1])
    with pytest.raises(ValueError, match=r'^save_at must hold times .* with scheme="sra1", got 0\.07'):
        solvers.solve(WAVY, x0, 0, 1, 10, scheme="sra1", **options)


# what is saved ----------------------------------------------------------------------------------------------------


def test_trajectories_at_all_times(tmp_path):
    run = solvers.solve(
        BROWNIAN, np.zeros(3000), 0, 1, 25, save=["mean", solvers.trajectories([7, 2500])], save_at=[1.0]
    )
    every = solvers.solve(BROWNIAN, np.zeros(3000), 0, 1, 25, save="particles")
    np.testing.assert_array_equal(run.trajectories, every.particles[:, [7, 2500]])
    np.testing.assert_array_equal(run.trajectories_times, every.times)
    assert run.mean.shape == (1,)
    assert run.data["trajectories"].dims == ("trajectories_time", "trajectories_particle")
    again = solvers.load(run.save(tmp_path / "run.nc"))
    assert set(again.variables) == set(run.variables)
    np.testing.assert_array_equal(
        again.data["trajectories"].sel(trajectories_time=0.4, trajectories_particle=2500), every.particles[10, 2500]
    )
    with pytest.raises(TypeError, match="trajectories failed at t = 0: IndexError: there is no particle 3000"):
        solvers.solve(BROWNIAN, np.zeros(3000), 0, 1, 25, save=[solvers.trajectories([3000])])
    with pytest.raises(ValueError, match=r"^indices of particles must be integers of at least 0"):
        solvers.trajectories([-1])


def test_densities_are_those_of_histograms():
    x0 = np.random.default_rng(0).normal(size=(5000, 3))
    edges, others = np.linspace(-2, 2, 9), np.linspace(-1, 1, 4)
    save = {"one": solvers.density(edges, component=1), "two": solvers.density([edges, others], component=1)}
    run = solvers.solve(McKeanVlasov(lambda t, x, m: 0 * x, vectorized=True), x0, 0, 1, 1, save=save)
    inside = ((x0[:, 1] >= -2) & (x0[:, 1] <= 2)).mean()
    expected = np.histogram(x0[:, 1], edges, density=True)[0] * inside
    np.testing.assert_allclose(run.one[0], expected, rtol=1e-12)
    joint = np.histogram2d(x0[:, 1], x0[:, 2], [edges, others])[0] / 5000 / (0.5 * 2 / 3)
    np.testing.assert_allclose(run.two[0], joint, rtol=1e-12)
    np.testing.assert_allclose(run.one_bin, 0.5 * (edges[1:] + edges[:-1]))
    np.testing.assert_allclose(run.two_other_bin, 0.5 * (others[1:] + others[:-1]))
    assert run.data["two"].dims == ("time", "two_bin", "two_other_bin")
    for arguments, message in (
        (([0.0],), "^edges must be at least two numbers in ascending order"),
        (([1.0, 0.0],), "^edges must be at least two numbers in ascending order"),
        (([0.0, 1.0], -1), "^component must be at least 0, got -1$"),
    ):
        with pytest.raises(ValueError, match=message):
            solvers.density(*arguments)
    with pytest.raises(TypeError, match=r"one failed at t = 0: IndexError: there are no components 3 to 3 among 3"):
        solvers.solve(STIFF, x0, 0, 1, 1, save={"one": solvers.density(edges, component=3)})
