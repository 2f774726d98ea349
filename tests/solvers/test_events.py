"""What happens after each step: boundaries, jumps, resets and the condition to stop at, against exact answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from scipy.integrate import quad
from scipy.special import erfcx

import solvers
from solvers import Absorbing, ExternalField, Jumps, McKeanVlasov, Periodic, Reflecting, Reset
from solvers.schemes import BAOAB
from solvers.sde import walk
from solvers.sde.events.crossing import chance
from solvers.sde.events.jumps import count_candidates
from solvers.sde.events.periodic import wrap
from solvers.sde.events.reflecting import fold, project
from solvers.sde.schemes import _SHORT_NAMES
from tests.conftest import MARGIN
from tests.solvers.equations import BROWNIAN

ONES = McKeanVlasov(diffusion=njit(lambda t, x, m: 1.0), noise="additive")
DECAYING = McKeanVlasov(lambda t, x, m: -x, lambda t, x, m: 0.5, lambda t, x: x, noise="additive", vectorized=True)
STILL = McKeanVlasov(lambda t, x, m: 0.0 * x, vectorized=True)
NUMBERS = st.floats(-50, 50)


def constant(value):
    return lambda t, x, m: np.full(np.shape(x)[-1:], value)


def folded(x, low, high):
    """Reflection at both ends as the triangle wave that it is."""
    y = np.mod(x - low, 2 * (high - low))
    return low + np.minimum(y, 2 * (high - low) - y)


# the maps ---------------------------------------------------------------------------------------------------------


@settings(deadline=None)  # the first call compiles
@given(x=st.lists(NUMBERS, min_size=1, max_size=6), low=NUMBERS, size=st.floats(0.1, 20))
def test_folding_wrapping_and_projection(x, low, size):
    box = np.array([[low], [low + size]])
    for work, exact in (
        (fold, folded(np.array(x), low, low + size)),
        (wrap, low + np.mod(np.array(x) - low, size)),
        (project, np.clip(x, low, low + size)),
    ):
        moved = np.array([x])
        work(moved, box)
        inside = (np.array(x) >= low) & (np.array(x) <= low + size)
        away = np.abs(moved[0] - exact)
        away = np.minimum(away, size - away) if work is wrap else away  # rounding may take it to the other end
        assert (away[~inside] < 1e-12 * (1 + 50 + abs(low))).all()
        if work is not wrap:
            np.testing.assert_array_equal(moved[0][inside], np.array(x)[inside])
        assert ((moved >= low) & (moved <= low + size)).all()


def test_one_end_reflects_and_none_does_nothing():
    moved = np.array([[-3.0, 2.0], [5.0, 7.0], [1.0, -9.0]])
    fold(moved, np.array([[-1.0, -np.inf, -np.inf], [np.inf, 6.0, np.inf]]))
    np.testing.assert_array_equal(moved, [[1.0, 2.0], [5.0, 5.0], [1.0, -9.0]])


@settings(deadline=None)
@given(u=st.lists(st.floats(1e-9, 1 - 1e-9), min_size=1, max_size=20), mean=st.floats(0.01, 20))
def test_candidates_have_the_law_of_poisson(u, mean):
    from scipy.stats import poisson

    counts = np.zeros(len(u), np.int64)
    largest = count_candidates(counts, np.array(u), mean)
    assert largest == counts.max()
    for p, number in zip(u, counts, strict=True):
        assert poisson.cdf(number, mean) >= p - 1e-9
        assert number == 0 or poisson.cdf(number - 1, mean) < p + 1e-9


def test_the_chance_of_a_bridge_to_cross():
    """Of bridges of 2,000 steps from 0.3 to 0.5 over a unit of time, against a level at 0; and what has none."""
    exact = math.exp(-2 * 0.3 * 0.5)
    assert chance(0.3, 0.5, 0.0, 1.0) == pytest.approx(exact, rel=1e-15)
    assert chance(1.3, 1.5, 1.0, 1.0) == pytest.approx(exact, rel=1e-14)
    assert chance(0.3, 0.5, 0.0, 0.0) == chance(0.3, 0.5, -np.inf, 1.0) == 0.0
    dw = np.random.default_rng(0).normal(0, math.sqrt(1 / 2000), (4000, 2000))
    w = np.cumsum(dw, axis=1)
    t = np.arange(1, 2001) / 2000
    bridge = 0.3 + w + t * (0.2 - w[:, -1:])
    found = (bridge.min(axis=1) < 0).mean()
    # looking at 2,000 times misses crossings, by 0.58 √dt of the way to the level
    missed = exact * 2 * (0.3 + 0.5) * 0.5826 * math.sqrt(1 / 2000)
    assert abs(found + missed - exact) < MARGIN * math.sqrt(exact * (1 - exact) / 4000)


# boundaries -------------------------------------------------------------------------------------------------------


def reflected_mean(x, t):
    """E X of reflected Brownian motion on [0, 1], by its cosine series."""
    k = np.arange(1, 200, 2)
    return 0.5 - 4 * np.sum(np.cos(k * np.pi * x) * np.exp(-((k * np.pi) ** 2) * t / 2) / (k * np.pi) ** 2)


@pytest.mark.parametrize("steps", [5, 40])
def test_reflected_brownian_motion_is_exact_by_folding(steps):
    """Folding a Brownian step is exact in law, where only one end is near; .1960 at t = .05 from 0.1."""
    exact = reflected_mean(0.1, 0.05)
    assert exact == pytest.approx(0.1960, abs=5e-5)
    run = solvers.solve(BROWNIAN, np.full(40_000, 0.1), 0, 0.05, steps, boundary=Reflecting(0, 1))
    assert abs(run.mean[-1] - exact) < MARGIN * math.sqrt(run.variance[-1] / 40_000)
    assert 0 <= run.final_particles.min() < run.final_particles.max() <= 1


def test_projection_sticks_to_the_end():
    """Its weak order is ½: the mean is less than by folding, by about 0.58 √dt times the local time's share."""
    lags = []
    for steps in (25, 100, 400):
        runs = [
            solvers.solve(BROWNIAN, np.full(40_000, 0.1), 0, 0.05, steps, boundary=Reflecting(0, 1, method=method))
            for method in ("folding", "projection")
        ]
        lags.append(runs[0].mean[-1] - runs[1].mean[-1])
    ratios = np.array(lags[:-1]) / lags[1:]
    np.testing.assert_allclose(ratios, 2.0, rtol=0.15)  # √4, and the next order of the error


@pytest.mark.parametrize("t1", [1.0, -1.0])
def test_a_period_changes_nothing_but_whole_turns(t1):
    equation = McKeanVlasov(lambda t, x, m: np.sin(x), lambda t, x, m: 1.0, noise="additive", vectorized=True)
    x0 = np.linspace(0, 6, 500)
    free = solvers.solve(equation, x0, 0, t1, 50).final_particles
    kept = solvers.solve(equation, x0, 0, t1, 50, boundary=Periodic(0, 2 * np.pi)).final_particles
    turns = (free - kept) / (2 * np.pi)
    np.testing.assert_allclose(turns, np.rint(turns), atol=1e-12)
    assert ((kept >= 0) & (kept < 2 * np.pi)).all()
    assert np.abs(turns).max() > 0.5


@pytest.mark.parametrize("bridge", [True, False])
def test_mean_passage_times(bridge):
    """E τ = x (1 − x) from x in [0, 1]; each is told at the end of its step, half a step late; without a bridge √dt."""
    times = {}
    for steps in (50, 200):
        run = solvers.solve(
            BROWNIAN, np.full(20_000, 0.3), 0, 6, 6 * steps, boundary=Absorbing(0, 1, bridge=bridge), save=[]
        )
        assert np.isfinite(run.hitting_times).all()
        times[steps] = run.hitting_times.mean() - 0.21 - 0.5 / steps
        error = MARGIN * run.hitting_times.std() / math.sqrt(20_000)
        ends = run.final_particles
        assert set(np.unique(ends)) == {0.0, 1.0}
        assert abs((ends == 1.0).mean() - 0.3) < MARGIN * math.sqrt(0.21 / 20_000) + 0.6 * (not bridge) / math.sqrt(
            steps
        )
        # the end is beyond the interval by 0.58 √dt where nobody looks in between: x (1 − x) with both moved
        shift = 0.5826 / math.sqrt(steps)
        wide = (0.3 + shift) * (0.7 + shift) - 0.21
        assert abs(times[steps] - (0.0 if bridge else wide)) < error
    assert bridge or times[50] > times[200] + error


def test_the_absorbed_stay_and_count():
    equation = McKeanVlasov(
        lambda t, x, m: np.ones_like(x), moments=lambda t, x: np.stack([x[0], x[1] >= 1.0]), vectorized=True
    )
    x0 = np.array([[0.0, 1e-9], [5.0, 0.55], [-3.0, 1.0], [0.0, -2.0]])
    run = solvers.solve(equation, x0, 0, 2, 20, boundary=Absorbing([-np.inf, -5.0], [np.inf, 1.0]), save="particles")
    np.testing.assert_allclose(run.hitting_times, [1.0, 0.5, 0.0, np.nan], atol=1e-9)
    np.testing.assert_array_equal(run.final_particles[:3, 1], 1.0)
    np.testing.assert_allclose(run.final_particles[:, 0], [1.0, 5.5, -3.0, 2.0])
    np.testing.assert_allclose(run.moments[-1], [(1.0 + 5.5 - 3.0 + 2.0) / 4, 0.75])
    assert run.data["hitting_times"].dims == ("final_particle",)


def test_weak_orders_at_a_barrier():
    for bridge, claim in ((True, 1.0), (False, 0.5)):
        boundary = Absorbing(0, 1, bridge=bridge)
        study = solvers.weak_order(
            BROWNIAN,
            np.full(20_000, 0.3),
            0,
            1,
            (16, 32, 64),
            boundary=boundary,
            function="hitting_times",
            replicates=6,
        )
        assert study.claimed == claim
        half = (study.interval[1] - study.interval[0]) / 2
        assert abs(study.order - claim) < max(2 * half, 0.1), str(study)
        assert half < 0.2
    with pytest.raises(ValueError, match=r'^function is "resets", which this solve does not have; pass boundary= or'):
        solvers.weak_order(BROWNIAN, np.ones(10), 0, 1, (2, 4, 8), function="resets", replicates=3)


def test_particles_with_momenta_bounce():
    """Free Langevin dynamics in a box: q stays uniform, and p turns; put on the end they would stick to it."""
    free = McKeanVlasov(lambda t, x, m: 0 * x[0], vectorized=True)
    rng, n = np.random.default_rng(0), 20_000
    x0 = np.stack([rng.uniform(0, 1, n), rng.normal(size=n)], axis=1)
    box = [0, -np.inf], [1, np.inf]
    run = solvers.solve(free, x0, 0, 2, 50, scheme=BAOAB(1.0, 1.0), boundary=Reflecting(*box))
    # of a uniform law the fourth central moment is 1/80
    assert abs(run.variance[-1, 0] - 1 / 12) < MARGIN * math.sqrt((1 / 80 - 1 / 144) / n)
    assert abs(run.variance[-1, 1] - 1) < MARGIN * math.sqrt(2 / n)
    one = solvers.solve(free, [[0.9, 3.0]], 0, 0.1, 1, scheme=BAOAB(1e-9, 0.0), boundary=Reflecting(*box))
    np.testing.assert_allclose(one.final_particles, [[0.8, -3.0]], rtol=1e-6)
    with pytest.raises(TypeError, match=r"particles \(q, p\) stick to an end where they are projected; use folding"):
        solvers.solve(free, x0, 0, 2, 5, scheme=BAOAB(1.0, 1.0), boundary=Reflecting(*box, method="projection"))


def test_strong_errors_on_a_circle_are_the_short_way_round():
    equation = McKeanVlasov(
        lambda t, x, m: 0.3 * np.sin(2 * np.pi * x), lambda t, x, m: 1.0, noise="additive", vectorized=True
    )
    options = {"steps": (32, 64, 128), "replicates": 4}
    free = solvers.strong_order(equation, np.zeros(300), 0, 1, **options)
    turned = solvers.strong_order(equation, np.zeros(300), 0, 1, boundary=Periodic(0, 1), **options)
    np.testing.assert_allclose(turned.errors, free.errors, rtol=1e-9)
    assert turned.claimed == free.claimed == 1.0


# jumps ------------------------------------------------------------------------------------------------------------


def test_a_compound_poisson_process_beside_noise():
    """E X = λ t E z, Var X = t + λ t E z²; with a normal mark, Var is as large, and skewness none."""
    n, rate = 40_000, 3.0
    run = solvers.solve(BROWNIAN, np.zeros(n), 0, 1, 10, jumps=Jumps(constant(rate), constant(0.5), 4.0))
    assert abs(run.mean[-1] - 1.5) < MARGIN * math.sqrt(1.75 / n)
    assert abs(run.variance[-1] - 1.75) < MARGIN * 1.75 * math.sqrt(2.3 / n)
    normal = Jumps(constant(rate), lambda t, x, m, z: 0.5 * z, 4.0, marks="normal")
    run = solvers.solve(BROWNIAN, np.zeros(n), 0, 1, 10, jumps=normal)
    assert abs(run.mean[-1]) < MARGIN * math.sqrt(1.75 / n)
    assert abs(run.variance[-1] - 1.75) < MARGIN * 1.75 * math.sqrt(2.5 / n)
    uniform = Jumps(constant(rate), lambda t, x, m, z: z, 3.0, marks="uniform")
    run = solvers.solve(STILL, np.zeros(n), 0, 1, 10, jumps=uniform)
    assert abs(run.mean[-1] - 1.5) < MARGIN * math.sqrt(1.0 / n)
    assert abs(run.variance[-1] - 1.0) < MARGIN * math.sqrt((0.6 + 2.0) / n)  # κ₄ = λ E z⁴ = 3/5


def test_births_at_a_rate_that_depends_on_where_a_step_starts():
    """Yule's process, births at rate x: E X = e^t, and by rates where a step starts (1 + dt)^n."""
    births = Jumps(lambda t, x, m: x, constant(1.0), 64.0)
    for steps in (5, 40):
        run = solvers.solve(STILL, np.ones(40_000), 0, 0.7, steps, jumps=births)
        assert abs(run.mean[-1] - (1 + 0.7 / steps) ** steps) < MARGIN * math.sqrt(run.variance[-1] / 40_000)
    assert abs(run.mean[-1] - math.exp(0.7)) < 0.05


def test_merton_jump_diffusion():
    """dX = a X dt + b X dW + X (e^z − 1) dN: E X = exp(a + λ (e^{s²/2} − 1)), by its logarithm in one step's rule."""
    a, b, rate, s = 0.1, 0.2, 1.0, 0.3
    equation = McKeanVlasov(lambda t, x, m: a * x, lambda t, x, m: b * x, vectorized=True)
    jumps = Jumps(constant(rate), lambda t, x, m, z: x * np.expm1(s * z), rate, marks="normal")
    run = solvers.solve(equation, np.ones(40_000), 0, 1, 50, jumps=jumps)
    growth = a + rate * math.expm1(s * s / 2)
    assert abs(run.mean[-1] - (1 + growth / 50) ** 50) < MARGIN * math.sqrt(run.variance[-1] / 40_000)


def test_jumps_on_other_grids_are_the_same():
    options = {"noise_steps": 64, "jumps": Jumps(constant(2.0), constant(1.0), 5.0)}
    ends = [solvers.solve(STILL, np.zeros(3000), 0, 1, steps, **options).final_particles for steps in (4, 16, 64)]
    assert 1.5 < ends[0].mean() < 2.5
    np.testing.assert_array_equal(ends[0], ends[1])
    np.testing.assert_array_equal(ends[0], ends[2])


# resets -----------------------------------------------------------------------------------------------------------


def passage_time(drive, spread, threshold, value):
    """Siegert's formula for dV = (drive − V) dt + spread dW."""
    low, high = ((v - drive) / spread for v in (value, threshold))
    return math.sqrt(math.pi) * quad(lambda u: erfcx(-u), low, high)[0]


@pytest.mark.parametrize("bridge", [True, False])
def test_the_firing_rate_of_integrate_and_fire(bridge):
    drive, spread, steps, n = 1.2, 0.5, 100, 1000
    equation = McKeanVlasov(lambda t, x, m: drive - x, lambda t, x, m: spread, noise="additive", vectorized=True)
    reset, x0 = Reset(1.0, 0.0, bridge=bridge), np.linspace(-0.5, 0.9, n)
    first = solvers.solve(equation, x0, 0, 4, 4 * steps, reset=reset)
    run = solvers.resume(equation, first, 24, 20 * steps, reset=reset)
    counts = run.resets - first.resets
    # each interval ends half a step late
    exact = 20 / (passage_time(drive, spread, 1.0, 0.0) + 0.5 / steps)
    error = MARGIN * counts.std() / math.sqrt(n)
    assert error < 0.02 * exact
    if bridge:
        assert abs(counts.mean() - exact) < error
    else:  # thresholds are seen 0.58 σ √dt too late
        late = 20 / (passage_time(drive, spread, 1.0 + 0.5826 * spread / math.sqrt(steps), 0.0) + 0.5 / steps)
        assert abs(counts.mean() - late) < error + 0.01 * late
        assert counts.mean() < exact - error
    assert run.final_particles.max() < 1.0


def test_the_share_that_fired_is_the_last_of_the_means():
    """Each particle moves up by 0.25 a step from its own place, and is put back to 0 at 1."""
    equation = McKeanVlasov(lambda t, x, m: np.ones_like(x), moments=lambda t, x: x, vectorized=True)
    x0 = np.array([0.0, 0.25, 0.5, 0.75])
    run = solvers.solve(equation, x0, 0, 2, 8, reset=Reset(1.0, 0.0))
    np.testing.assert_allclose(run.moments[:, 1], [0.0] + [0.25] * 8)
    np.testing.assert_allclose(run.moments[:, 0], 0.375)
    np.testing.assert_array_equal(run.resets, 2.0)
    np.testing.assert_array_equal(np.sort(run.last_resets), [0, 0, 0, 1])
    seen = []
    pulled = McKeanVlasov(lambda t, x, m: seen.append(m.shape) or 1.0 + 0 * m[0], vectorized=True)
    solvers.solve(pulled, x0, 0, 1, 4, reset=Reset(1.0, 0.0))
    assert set(seen) == {(1,)}


# when to stop -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vectorized", [False, True])
def test_a_condition_on_the_means_stops_the_run(vectorized, monkeypatch):
    functions = [lambda t, x, m: 1.0, lambda t, x: x, lambda t, m: m > 0.305]
    drift, moments, stop = functions if vectorized else map(njit, functions)
    equation = McKeanVlasov(drift, moments=moments, vectorized=vectorized)
    run = solvers.solve(equation, np.zeros(5000), 0, 1, 100, stop=stop, scheme="heun")
    assert run.status == "stopped"
    assert run.final_time == pytest.approx(0.31)
    np.testing.assert_allclose(run.final_particles, 0.31)
    assert run.times[-1] == run.final_time
    on = solvers.resume(equation, run, 1.0, 69)
    assert on.status == "completed"
    np.testing.assert_allclose(on.final_particles, 1.0)
    if not vectorized:
        monkeypatch.setattr(walk, "March", walk.StepByStep)
        assert solvers.solve(equation, np.zeros(5000), 0, 1, 100, stop=stop, scheme="heun").final_time == run.final_time


# invariances ------------------------------------------------------------------------------------------------------

SPREAD = McKeanVlasov(
    lambda t, x, m, k: -k * x, lambda t, x, m, k: 1.0 + 0.1 * np.cos(x), lambda t, x, k: x, vectorized=True
)
EVENTS = {
    "folding": {"boundary": Reflecting(-1.0, 1.0)},
    "projection": {"boundary": Reflecting(-1.0, np.inf, method="projection")},
    "period": {"boundary": Periodic(-1.0, 1.0)},
    "absorption": {"boundary": Absorbing(-1.0, 1.0)},
    "jumps": {"jumps": Jumps(lambda t, x, m, k: k + 0 * x, lambda t, x, m, z, k: 0.2 * z, 3.0, marks="normal")},
    "resets": {"reset": Reset(1.0, -0.5)},
    "all": {
        "boundary": Reflecting(-1.5, np.inf),
        "jumps": Jumps(lambda t, x, m: 1.0 + 0 * x, constant(0.3), 1.0),
        "reset": Reset(1.0, -0.5),
    },
    "absorption and jumps": {
        "boundary": Absorbing(-1.0, 1.5),
        "jumps": Jumps(lambda t, x, m: 1.0 + 0 * x, constant(0.3), 1.0),
    },
}
VARIABLES = ("final_particles", "hitting_times", "resets", "last_resets")


def same(run, other, count=None):
    for name in VARIABLES:
        assert (name in run.variables) == (name in other.variables)
        if name in run.variables:
            np.testing.assert_array_equal(run.variables[name].values, other.variables[name].values[:count])


@settings(max_examples=30, deadline=None)
@given(
    events=st.sampled_from(sorted(EVENTS)),
    scheme=st.sampled_from([name for name in _SHORT_NAMES if name != "sra1"]),
    particles=st.sampled_from([1, 7, 2049, 5000]),
    args=st.floats(0.1, 2.5),
    seed=st.integers(0, 2**60),
)
def test_bits_of_threads_nesting_and_going_on(events, scheme, particles, args, seed):
    x0 = np.random.default_rng(seed).uniform(-0.99, 0.99, particles)
    alone = McKeanVlasov(SPREAD.drift, SPREAD.diffusion, vectorized=True)
    options = {"scheme": scheme, "seed": seed, "args": args, "save": [], **EVENTS[events]}
    whole = solvers.solve(SPREAD, x0, 0, 0.5, 6, threads=1, **options)
    same(solvers.solve(SPREAD, x0, 0, 0.5, 6, threads=2, **options), whole)
    half = solvers.solve(SPREAD, x0, 0, 0.25, 3, **options)
    more = {name: value for name, value in options.items() if name not in ("seed", "args")}
    same(solvers.resume(SPREAD, half, 0.5, 3, **more), whole)
    # without means, the first particles of a larger run are those of a smaller one
    few = solvers.solve(alone, x0[: max(1, particles // 2)], 0, 0.5, 6, **options)
    same(few, solvers.solve(alone, x0, 0, 0.5, 6, **options), len(few.final_particles))


COMPILED = McKeanVlasov(
    njit(lambda t, x, m, k: (-k * x[0], x[0] - x[1])), njit(lambda t, x, m, k: (1.0, 0.5 + 0.1 * m[0])),
    njit(lambda t, x, k: (x[0] * x[1],)),
)  # fmt: skip
COMPILED_EVENTS = {
    "absorption, jumps": {
        "boundary": Absorbing([-1.0, -2.0], [1.0, np.inf]),
        "jumps": Jumps(
            njit(lambda t, x, m, k: k * abs(x[0])), njit(lambda t, x, m, z, k: (0.1 * z, k)), 30.0, marks="uniform"
        ),
    },
    "folding, resets": {"boundary": Reflecting(-1.0, [5.0, 1.0]), "reset": Reset(0.9, 0.0), "scheme": "heun"},
}


@pytest.mark.parametrize("case", COMPILED_EVENTS)
def test_compiled_events_one_step_at_a_time_and_as_arrays(case, monkeypatch):
    x0 = np.random.default_rng(0).uniform(-0.8, 0.8, (17 * 2048 + 3, 2))
    options = {"args": 1.5, "save": ["mean"], **COMPILED_EVENTS[case]}
    runs = [solvers.solve(COMPILED, x0, 0, 0.5, 5, threads=threads, **options) for threads in (1, 3)]
    same(*runs)
    np.testing.assert_array_equal(runs[0].moments, runs[1].moments)
    monkeypatch.setattr(walk, "March", walk.StepByStep)
    same(solvers.solve(COMPILED, x0, 0, 0.5, 5, **options), runs[0])
    arrays = McKeanVlasov(
        lambda t, x, m, k: np.stack([-k * x[0], x[0] - x[1]]),
        lambda t, x, m, k: np.stack([np.ones_like(x[0]), 0.5 + 0.1 * m[0] + 0 * x[0]]),
        lambda t, x, k: (x[0] * x[1])[None],
        vectorized=True,
    )
    if "jumps" in options:
        options["jumps"] = Jumps(
            lambda t, x, m, k: k * abs(x[0]),
            lambda t, x, m, z, k: np.stack([0.1 * z, k + 0 * z]),
            30.0,
            marks="uniform",
        )
    run = solvers.solve(arrays, x0, 0, 0.5, 5, **options)
    np.testing.assert_allclose(run.final_particles, runs[0].final_particles, rtol=0, atol=1e-12)


def test_noise_of_every_kind_may_cross_a_barrier():
    """Each has the same law as dX = √2 dW, whose mean passage time from 0.3 in [0, 1] is half as long."""
    root = math.sqrt(2.0)
    matrix = lambda t, x, m: np.stack([np.ones_like(x), np.ones_like(x)])[None]  # noqa: E731
    cases = {
        "diagonal": McKeanVlasov(diffusion=lambda t, x, m: root + 0 * x, vectorized=True),
        "general": McKeanVlasov(diffusion=matrix, noise="general", vectorized=True),
        "mean_field": McKeanVlasov(covariance=lambda t, x: root + 0 * x, noise="mean_field", vectorized=True),
    }
    for name, equation in cases.items():
        run = solvers.solve(equation, np.full(8000, 0.3), 0, 2, 60, boundary=Absorbing(0, 1), save=[])
        times = np.where(np.isnan(run.hitting_times), 2.0, run.hitting_times)
        assert abs(times.mean() - 0.105 - 1 / 60) < MARGIN * times.std() / math.sqrt(8000), name


def test_common_noise_may_cross_a_barrier():
    """One path for all: where they are absorbed is the same up to what bridges add of their own."""
    equation = McKeanVlasov(common=lambda t, x, m: 1.0, vectorized=True)
    run = solvers.solve(equation, np.full(500, 0.3), 0, 3, 300, boundary=Absorbing(0, 1), save=[], seed=4)
    assert len(np.unique(run.final_particles)) <= 2
    assert np.ptp(run.hitting_times) < 0.5


# what is refused, and what fails on the way -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Reflecting(1, 0), "^low must be below high, got 1 and 0$"),
        (lambda: Reflecting(0, 0), "^low must be below high"),
        (lambda: Reflecting(0, "a"), "^high of a boundary must be"),
        (lambda: Reflecting(0, np.nan), "^high of a boundary must be a number or one for each component"),
        (lambda: Reflecting([0, 1], [1, 2, 3]), r"^low and high must have as many components, got \(2,\) and \(3,\)$"),
        (lambda: Reflecting([0, 3], [1, 2]), "^low must be below high, got 3 and 2$"),
        (lambda: Reflecting(0, 1, method="mirror"), "^method must be one of folding, projection, got 'mirror'$"),
        (lambda: Periodic(0, np.inf), "^a period needs two ends"),
        (lambda: Absorbing(0, 1, bridge=1), "^bridge must be True or False, got 1$"),
        (lambda: Jumps(1.0, constant(1.0), 1.0), "^rate of jumps must be a function, got 1.0$"),
        (lambda: Jumps(constant(1.0), constant(1.0), 0.0), "^rate_bound must be a finite number above 0, got 0$"),
        (
            lambda: Jumps(constant(1.0), constant(1.0), 1.0, marks="gamma"),
            "^marks must be one of none, uniform, normal",
        ),
        (lambda: Reset(1.0, 1.0), "^value must be below threshold, got 1 and 1$"),
        (lambda: Reset("a", 1.0), "^threshold of a reset must be a number, got 'a'$"),
        (lambda: Reset(1.0, 0.0, component=-1), "^component of a reset must be at least 0, got -1$"),
    ],
)
def test_bad_events(make, message):
    with pytest.raises((TypeError, ValueError), match=message) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boundary": 3}, "^boundary must be a solvers.Reflecting or solvers.Periodic or solvers.Absorbing, got 3$"),
        ({"boundary": Reset(1.0, 0.0)}, "^boundary must be a solvers.Reflecting"),
        ({"jumps": Reflecting(0, 1)}, "^jumps must be a solvers.Jumps, got"),
        (
            {"boundary": Reflecting(0, 2), "reset": Reset(1, -1)},
            "^value of the reset must lie within the boundary, from 0",
        ),
        ({"boundary": Reflecting(0, 2), "reset": Reset(3, 1)}, "^threshold of the reset must lie within the boundary"),
        ({"stop": True}, r"^stop must be a function of \(t, m\), got True$"),
        ({"stop": lambda t: True}, r"^stop must take \(t, m\[, args\]\), got \(t\)$"),
        ({"stop": lambda t, m: m}, r"^stop must return True or False, got 0\.0$"),
        ({"stop": lambda t, m: 1 / 0}, r"^stop failed at t = 0: ZeroDivisionError"),
        ({"boundary": Reflecting(0.5, 1)}, "^x0 must lie within the boundary, from 0.5 to 1, got 0.1 at particle 0$"),
        ({"boundary": Reflecting([0, 0], 1)}, "^low of the boundary has 2 components, but particles have 1$"),
        ({"reset": Reset(0.2, 0.0)}, r"^x0 must be below the threshold 0\.2, got 0\.3 at particle 1$"),
        ({"reset": Reset(1, 0, component=1)}, "^component of a reset must be below 1, got 1$"),
        (
            {"jumps": Jumps(lambda t, x: 1.0, constant(1.0), 1.0)},
            r"^rate of jumps must take \(t, x, m\[, field\]\[, args\]",
        ),
        (
            {"jumps": Jumps(constant(1.0), lambda t, x, m: np.stack([x, x]), 1.0)},
            "^size of jumps must return a number a p",
        ),
        (
            {"jumps": Jumps(lambda t, x, m: x.mean() + 0 * x, constant(1.0), 9.0)},
            "^rate of jumps gives a particle another",
        ),
        (
            {"jumps": Jumps(constant(1.0), constant(1.0), 500.0)},
            "^rate_bound times a step must be at most 20, got 50; take",
        ),
        (
            {"jumps": Jumps(constant(1.0), constant(1.0), 2.0), "t1": -1.0},
            "^Jumps goes forward in time, but t1 is before",
        ),
        ({"reset": Reset(1.0, 0.0), "t1": -1.0}, "^Reset goes forward in time"),
        (
            {"boundary": Absorbing(0, 1), "save_at": [0.55]},
            "^save_at must hold times of the grid of 10 steps with Absorbi",
        ),
    ],
)
def test_bad_uses_of_events(options, message):
    arguments = {"equation": BROWNIAN, "x0": np.array([0.1, 0.3]), "t0": 0.0, "t1": 1.0, "steps": 10} | options
    with pytest.raises((TypeError, ValueError), match=message) as error:
        solvers.solve(**arguments)
    assert "\n" not in str(error.value)


def test_functions_of_events_that_are_not_compiled():
    with pytest.raises(TypeError, match=r"^rate of jumps must be compiled with numba\.njit"):
        solvers.solve(ONES, np.ones(3), 0, 1, 4, jumps=Jumps(constant(1.0), njit(lambda t, x, m: 1.0), 1.0))
    with pytest.raises(TypeError, match=r"^stop must be compiled with numba\.njit"):
        solvers.solve(ONES, np.ones(3), 0, 1, 4, stop=lambda t, m: False)


@pytest.mark.parametrize(
    ("rate", "why"),
    [
        (lambda t: 4 * t, "above rate_bound"),
        (lambda t: 1 - 2 * t, "negative"),
        (lambda t: np.sqrt(0.4 - t), "not a num"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_rate_out_of_bounds_fails_the_run_with_the_particle(rate, why):
    """Of particles 0 … 4999 only one has a rate beyond its bounds, from t = 0.5 on."""
    place = 3333

    def rates(t, x, m, c):
        return np.where(c == 1.0, rate(t), 0.5)

    field = ExternalField((np.arange(5000) == place).astype(float), per_particle=True)
    with pytest.warns(RuntimeWarning, match=f"^failed at t = 0.(45|5|55):.*at particle {place}, the rate .*{why}"):
        run = solvers.solve(
            STILL, np.zeros(5000), 0, 1, 20, jumps=Jumps(rates, constant(1.0), 2.0), field=field, threads=2
        )
    assert run.status == "failed"
    assert run.final_time == pytest.approx(0.5, abs=0.051)
    assert run.times[-1] == run.final_time


def test_a_compiled_rate_out_of_bounds_keeps_the_steps_before_it():
    jumps = Jumps(njit(lambda t, x, m: 4.0 * t if x > 0 else 0.0), njit(lambda t, x, m: 0.0), 2.0)
    x0 = np.full(5000, -1e9)
    x0[4000] = 1e9
    with pytest.warns(RuntimeWarning, match=r"step from t = 0\.55, at particle 4000, the rate of jumps is above"):
        run = solvers.solve(ONES, x0, 0, 1, 20, jumps=jumps, threads=2)
    np.testing.assert_array_equal(
        run.final_particles, solvers.solve(ONES, x0, 0, 0.55, 11, jumps=jumps).final_particles
    )
    always = Jumps(njit(lambda t, x, m: 3.0), njit(lambda t, x, m: 0.0), 2.0)
    with pytest.raises(RuntimeError, match=r"^the first step failed: .* at particle 0, the rate of jumps is above"):
        solvers.solve(ONES, x0, 0, 1, 20, jumps=always)


def test_a_run_goes_on_with_its_own_events_only():
    run = solvers.solve(DECAYING, np.zeros(10), 0, 1, 10, boundary=Reflecting(-1, 1))
    with pytest.raises(ValueError, match=r"^boundary must be that of the run, .*, got None; pass that one$"):
        solvers.resume(DECAYING, run, 2, 10)
    with pytest.raises(ValueError, match=r"^boundary must be that of the run, .*, got Reflecting\(low=-2.0"):
        solvers.resume(DECAYING, run, 2, 10, boundary=Reflecting(-2, 1))
    with pytest.raises(ValueError, match=r"^reset must be that of the run, None, got Reset\(.*; leave it out$"):
        solvers.resume(DECAYING, run, 2, 10, boundary=Reflecting(-1, 1), reset=Reset(1.0, 0.0))
    assert solvers.resume(DECAYING, run, 2, 10, boundary=Reflecting(-1.0, 1.0)).status == "completed"
