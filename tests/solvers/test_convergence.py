"""Measured orders of convergence: the known ones are found, and faults are seen."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from numba import njit
from scipy.stats import t as student

import solvers
from solvers import McKeanVlasov
from solvers.sde.convergence import _study
from solvers.sde.schemes import get_scheme
from tests.conftest import MARGIN
from tests.solvers.equations import GEOMETRIC, MU, ORNSTEIN_UHLENBECK, SIGMA, THETA, A, S

# fine enough that the next order of the error, a factor 1 + O(step), bends the fit less than its noise
FINE = (64, 128, 256, 512)

# runs of a study, most of whose time goes into the trials before them
RUNS = 8


def normal(rng, n):
    return 1.0 + 0.5 * rng.standard_normal(n)


def four_errors(study, replicates):
    """Four standard errors of the order, of which half a 95 % interval is Student's quantile."""
    half = (study.interval[1] - study.interval[0]) / 2
    return MARGIN * half / student.ppf(0.975, replicates - 1)


def agrees(study, order, replicates=RUNS):
    """Whether the order lies within four standard errors, and these are small enough to tell ½ from 1."""
    return abs(study.order - order) < four_errors(study, replicates) < 0.25


def geometric_path(x0, w):
    """The exact solution of dX = μ X dt + σ X dW at t = 1."""
    return x0 * np.exp(MU - SIGMA**2 / 2 + SIGMA * w[-1, :, 0])


@pytest.mark.parametrize(
    ("equation", "scheme", "exact", "order"),
    [
        (GEOMETRIC, "euler_maruyama", geometric_path, 0.5),
        (GEOMETRIC, "euler_maruyama", None, 0.5),
        (GEOMETRIC, "milstein", geometric_path, 1.0),
        (ORNSTEIN_UHLENBECK, "euler_maruyama", None, 1.0),
    ],
    ids=["multiplicative", "multiplicative, no exact path", "Milstein", "additive"],
)
def test_strong_order(equation, scheme, exact, order):
    study = solvers.strong_order(
        equation, normal, 0, 1, FINE, exact=exact, scheme=scheme, particles=500, replicates=RUNS
    )
    assert agrees(study, order), str(study)
    assert study.resolved.all()
    assert get_scheme(scheme).strong_order(equation) == order


def test_strong_order_of_heun_on_the_stratonovich_equation():
    study = solvers.strong_order(
        GEOMETRIC, normal, 0, 1, FINE, exact=lambda x0, w: x0 * np.exp(MU + SIGMA * w[-1, :, 0]), scheme="heun",
        particles=500, replicates=RUNS,
    )  # fmt: skip
    assert agrees(study, 1.0), str(study)
    assert get_scheme("heun").strong_order(GEOMETRIC) == 1.0


def cubic(diffusion, noise="diagonal"):
    return McKeanVlasov(njit(lambda t, x, m: x - x**3 + m / 2), diffusion, njit(lambda t, x: x), noise=noise)


CUBIC = cubic(njit(lambda t, x, m: 0.5), "additive")
CUBIC_MULTIPLICATIVE = cubic(njit(lambda t, x, m: x))


@pytest.mark.parametrize(
    ("equation", "levels", "order"),
    [(CUBIC, FINE, 1.0), (CUBIC_MULTIPLICATIVE, tuple(16 * n for n in FINE), 0.5)],
    ids=["additive", "multiplicative"],
)
def test_strong_order_of_tamed_euler(equation, levels, order):
    """With multiplicative noise the next order of the error falls half a power faster, so levels are finer."""
    study = solvers.strong_order(equation, normal, 0, 1, levels, scheme="tamed_euler", particles=500, replicates=RUNS)
    assert agrees(study, order), str(study)
    assert get_scheme("tamed_euler").strong_order(equation) == order


def test_weak_order_of_tamed_euler():
    study = solvers.weak_order(
        CUBIC, normal, 0, 1, FINE, function=np.square, scheme="tamed_euler", particles=4000, replicates=RUNS
    )
    assert agrees(study, 1.0), str(study)
    assert get_scheme("tamed_euler").weak_order(CUBIC) == 1.0


def test_tamed_euler_completes_where_euler_maruyama_explodes():
    start = np.linspace(-30, 30, 500)
    with pytest.warns(RuntimeWarning, match="diverged"):
        assert solvers.solve(CUBIC, start, 0, 5, 100).status == "diverged"
    run = solvers.solve(CUBIC, start, 0, 5, 100, scheme="tamed_euler")
    assert run.status == "completed"
    fine = solvers.solve(CUBIC, start, 0, 5, 20_000, scheme="euler_maruyama")
    # the wells at ±1; a tenth is left by steps of 0.05, whose way from 30 takes 1 a step
    assert abs(np.mean(np.abs(run.final_particles)) - np.mean(np.abs(fine.final_particles))) < 0.1
    assert np.abs(run.final_particles).max() < 3


def test_taming_has_no_overflow_and_hides_none():
    run = solvers.solve(cubic(None), np.array([1e90, -1e90]), 0.0, 0.01, 1, scheme="tamed_euler")
    assert run.status == "completed"
    np.testing.assert_array_equal(run.final_particles, [1e90, -1e90])  # a way of 1, in steps of rounding
    blown = McKeanVlasov(njit(lambda t, x, m: np.exp(x)), noise="diagonal")
    with pytest.warns(RuntimeWarning, match="diverged"):
        assert solvers.solve(blown, np.array([1.0, 800.0]), 0.0, 1.0, 1, scheme="tamed_euler").status == "diverged"


def test_weak_order_without_interaction():
    study = solvers.weak_order(
        GEOMETRIC, normal, 0, 1, (4, 8, 16, 32), exact=geometric_path, particles=20_000, replicates=16
    )
    assert agrees(study, 1.0, 16), str(study)
    assert get_scheme("euler_maruyama").weak_order(GEOMETRIC) == 1.0


def euler_moments(steps):
    """E X and E X² of the scheme for the Ornstein–Uhlenbeck equation at t = 1."""
    h, mean, second = 1 / steps, 1.0, 1.25
    for _ in range(steps):
        pull = A * THETA * h * mean
        second = (1 - A * h) ** 2 * second + 2 * (1 - A * h) * pull * mean + pull**2 + S**2 * h
        mean *= 1 - A * (1 - THETA) * h
    return np.array([mean, second])


@pytest.mark.parametrize(("moment", "function"), [(0, lambda x: x), (1, np.square)], ids=["mean", "square"])
def test_weak_order_with_interaction(moment, function):
    study = solvers.weak_order(
        ORNSTEIN_UHLENBECK, normal, 0, 1, FINE, function=function, particles=4000, replicates=RUNS
    )
    exact = np.array([(euler_moments(n) - euler_moments(2 * n))[moment] for n in FINE])
    assert np.all(np.abs(study.errors - np.abs(exact)) < MARGIN * study.standard_errors)
    # 1.004 and 0.971 at these steps, 1 in the limit
    order = np.polyfit(np.log(study.levels), np.log(np.abs(exact)), 1)[0]
    assert 0.96 < order < 1.01
    assert agrees(study, order), str(study)


def test_propagation_of_chaos():
    """Noise that is not called additive needs no trial of it, of which there would be hundreds."""
    equation = McKeanVlasov(
        lambda t, x, m: -A * (x - THETA * m), lambda t, x, m: S + 0 * x, lambda t, x: x, vectorized=True
    )
    study = solvers.particle_order(equation, normal, 0, 1, 16, replicates=48, threads=1)
    assert abs(study.order - 1.0) < four_errors(study, 48) < 0.5, str(study)
    # the coupled mean-square difference is E (a θ ∫ e^{…} (m_N − m_2N))², of order Var/2N, not zero
    assert np.all(study.errors > 0)


def test_a_wrong_exact_path_has_no_order():
    """Faults must be seen: without Itô's correction the errors stop falling."""
    study = solvers.strong_order(
        GEOMETRIC, normal, 0, 1, FINE, exact=lambda x0, w: x0 * np.exp(MU + SIGMA * w[-1, :, 0]), particles=500,
        replicates=RUNS,
    )  # fmt: skip
    assert study.interval[1] < 0.1


def test_an_equation_without_interaction_has_no_particle_error():
    study = solvers.particle_order(GEOMETRIC, normal, 0, 1, 4, (16, 32, 64), replicates=3)
    np.testing.assert_array_equal(study.errors, 0)
    assert np.isnan(study.order)
    assert study.interval == (-np.inf, np.inf)


def test_intervals_cover_the_order_of_synthetic_errors():
    """Log-normal noise of 20 % in each replicate; the exponent 0.7 is covered in about 95 of 100 studies."""
    rng = np.random.default_rng(0)
    levels = 2.0 ** -np.arange(3, 8)
    covered = 0
    for _ in range(400):
        found = levels**1.4 * (1 + 0.2 * rng.standard_normal((16, 5)))
        study = _study("strong", levels, found, root=True)
        covered += study.interval[0] <= 0.7 <= study.interval[1]
    # binomial: 380 expected, standard deviation 4.4
    assert abs(covered - 380) < 4 * 4.4


def test_an_unresolved_level_leaves_the_order_open():
    rng = np.random.default_rng(0)
    levels = 2.0 ** -np.arange(3, 8)
    study = _study("weak", levels, levels + 0.03 * rng.standard_normal((16, 5)))
    assert not study.resolved.all()
    assert np.isnan(study.order)
    assert study.interval == (-np.inf, np.inf)
    ax = study.plot()
    assert ax.get_legend().get_texts()[0].get_text() == "measured"
    plt.close(ax.figure)


def test_an_exact_path_sees_every_motion():
    """dX = X (0.3, 0.4)·dW has X_T = exp(0.3 W¹ + 0.4 W² − ⅛)."""
    equation = McKeanVlasov(
        diffusion=lambda t, x, m: np.stack([0.3 * x, 0.4 * x])[None], noise="general", vectorized=True
    )
    study = solvers.strong_order(
        equation, np.ones(1000), 0, 1, FINE, exact=lambda x0, w: x0 * np.exp(w[-1] @ np.array([0.3, 0.4]) - 0.125),
        replicates=RUNS,
    )  # fmt: skip
    assert agrees(study, 0.5), str(study)


def test_particle_order_with_frequencies_of_their_own():
    rng = np.random.default_rng(0)
    field = solvers.ExternalField(rng.standard_normal(1024), per_particle=True)
    study = solvers.particle_order(
        solvers.equations.kuramoto(3.0), lambda rng, n: rng.uniform(0, 6, n), 0, 1, 20, (64, 128, 256, 512),
        field=field, replicates=32,
    )  # fmt: skip
    assert abs(study.order - 1.0) < four_errors(study, 32) < 0.5, str(study)


def test_plot():
    levels = 2.0 ** -np.arange(3, 8)
    found = levels**2 * (1 + 0.05 * np.random.default_rng(0).standard_normal((8, 5)))
    study = _study("strong", levels, found, root=True)
    ax = study.plot()
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert ax.get_xlabel() == "step length"
    assert ax.get_legend().get_texts()[0].get_text().startswith("measured, order 1.0")
    np.testing.assert_allclose(ax.containers[0][0].get_ydata(), study.errors)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), levels, rtol=0.05)
    plt.close(ax.figure)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": (8, 16)}, r"steps must be at least three numbers, each twice the one before, got \[8, 16\]"),
        ({"steps": (8, 16, 24)}, "steps must be at least three numbers, each twice the one before"),
        ({"steps": 16}, "steps must be at least three numbers, each twice the one before, got 16"),
        ({"steps": (8, 16, 32.5)}, "an entry of steps must be an integer, got 32.5"),
        ({"replicates": 2}, "replicates must be at least 3, got 2"),
        ({"exact": lambda x0, w: w}, r"exact must return particles of shape \(20,\), got \(33, 20, 1\)"),
        ({"function": lambda x: x.mean()}, r"function must return one number for each particle, got shape \(\)"),
    ],
)
def test_bad_studies(change, message):
    study = solvers.weak_order if "function" in change else solvers.strong_order
    arguments = {"steps": (8, 16, 32), "replicates": 3} | change
    with pytest.raises((TypeError, ValueError), match=message):
        study(GEOMETRIC, np.ones(20), 0, 1, **arguments)


def test_studies_that_cannot_be_done():
    with pytest.raises(ValueError, match="x0 must hold 128 particles, twice the largest number, got 100"):
        solvers.particle_order(ORNSTEIN_UHLENBECK, np.ones(100), 0, 1, 4, (16, 32, 64), replicates=3)
    explosive = McKeanVlasov(lambda t, x, m: x**3, vectorized=True)
    with pytest.warns(RuntimeWarning), pytest.raises(ValueError, match="a run of 64 steps did not complete: diverged"):
        solvers.strong_order(explosive, np.full(5, 3.0), 0, 1, (64, 128, 256))
