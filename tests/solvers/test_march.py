"""Many steps in one compiled call, against the same steps one at a time between functions of Python."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from numba import njit

import solvers
from solvers import ExternalField, McKeanVlasov
from solvers.ensemble.atomic import APART, fetch_add
from solvers.sde import walk
from tests.solvers.equations import (
    CARRIED,
    GEOMETRIC,
    ORNSTEIN_UHLENBECK,
    PLANAR,
    PLANAR_GENERAL,
    PLANAR_SHARED,
)

# Three groups of two shares each, the last one short.
MANY = 16 * 2048 + 1000
STEPS = 12

CORRELATED = McKeanVlasov(
    drift=njit(lambda t, x, m: (-x[0], x[0] - x[1])),
    covariance=njit(lambda t, x: (x[0], 1.0 + x[1])),
    noise="mean_field",
)
PAIRS = McKeanVlasov(drift=njit(lambda t, x, m: -x), interaction=njit(lambda x, y: np.sin(y - x)), noise="additive")


@pytest.fixture
def one_at_a_time(monkeypatch):
    """Let the steps be driven from Python, as those of functions of arrays are."""

    def switch():
        monkeypatch.setattr(walk, "March", walk.StepByStep)

    return switch


def start(dimension, particles):
    x = np.random.default_rng(5).standard_normal((particles, dimension))
    return x[:, 0] if dimension == 1 else x


def solve(equation, dimension, particles=MANY, threads=2, **options):
    options = {"scheme": "euler_maruyama", "seed": 3, "save_at": [1.0], "save": ["mean"]} | options
    return solvers.solve(equation, start(dimension, particles), 0.0, 1.0, STEPS, threads=threads, **options)


# every kind of noise, of dependence on the law and of field
CASES = {
    "additive noise and means": (ORNSTEIN_UHLENBECK, 1, {}),
    "diagonal noise, Heun": (GEOMETRIC, 1, {"scheme": "heun"}),
    "diagonal noise, Milstein, a finer path": (GEOMETRIC, 1, {"scheme": "milstein", "noise_steps": 4 * STEPS}),
    "two components": (PLANAR, 2, {}),
    "a matrix, Heun": (PLANAR_GENERAL, 2, {"scheme": "heun"}),
    "common noise": (PLANAR_SHARED, 2, {}),
    "mean-field noise, Heun": (CORRELATED, 2, {"scheme": "heun"}),
    "pairs": (PAIRS, 1, {"particles": 300}),
    "a field for all": (CARRIED, 1, {"field": 0.7}),
    "a field along a path, Heun": (CARRIED, 1, {"field": ExternalField([0.0, 5.0], [0.0, 1.0]), "scheme": "heun"}),
    "a field of each particle": (CARRIED, 1, {"field": ExternalField(start(1, MANY), per_particle=True)}),
    "a path of each particle, Heun": (
        CARRIED,
        1,
        {
            "field": ExternalField(np.outer([1.0, 2.0, -1.0], start(1, MANY)), [0.0, 0.4, 1.0], per_particle=True),
            "scheme": "heun",
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_same_bits_as_one_step_at_a_time(case, one_at_a_time):
    equation, dimension, options = CASES[case]
    runs = [solve(equation, dimension, threads=threads, **options) for threads in (1, 2, 5)]
    one_at_a_time()
    plain = solve(equation, dimension, **options)
    for run in runs:
        np.testing.assert_array_equal(run.final_particles, plain.final_particles)
        np.testing.assert_array_equal(run.mean, plain.mean)


@pytest.mark.parametrize("most", [1, 5])
def test_the_same_bits_whatever_the_length_of_a_march(most, monkeypatch):
    whole = solve(PLANAR_SHARED, 2)
    monkeypatch.setattr(walk, "_MOST", most)
    cut = solve(PLANAR_SHARED, 2)
    np.testing.assert_array_equal(cut.final_particles, whole.final_particles)


def test_backward_in_time_and_going_on(one_at_a_time):
    def there_and_on():
        x0 = start(1, MANY)
        run = solvers.solve(ORNSTEIN_UHLENBECK, x0, 1.0, 0.5, STEPS, seed=4, save_at=[0.5])
        return solvers.resume(ORNSTEIN_UHLENBECK, run, 0.0, STEPS, save_at=[0.0]).final_particles

    marched = there_and_on()
    one_at_a_time()
    np.testing.assert_array_equal(marched, there_and_on())


@njit
def raises_late(t, x, m):
    if t > 0.52 and x > 0.0:
        raise ValueError("too late")
    return 1.0


@pytest.mark.parametrize("scheme", ["euler_maruyama", "heun"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_step_that_fails_leaves_those_before_it(scheme, threads):
    """dX = dt, from a little above −½ on, is positive where t > 0.52: the step from 0.525 on fails, for every share."""
    x0 = np.full(MANY, -0.5 + 1e-3)
    with pytest.warns(RuntimeWarning, match="failed at t = .*: ValueError: too late"):
        run = solvers.solve(
            McKeanVlasov(raises_late), x0, 0.0, 1.0, 40, scheme=scheme, threads=threads, save_at=[0.25, 0.75]
        )
    assert run.status == "failed"
    # Heun also asks where the step ends
    assert run.final_time == pytest.approx(0.5 if scheme == "heun" else 0.525)
    np.testing.assert_allclose(run.final_particles, x0 + run.final_time, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(run.times, [0.25])


def test_nobody_waits_for_a_thread_that_failed(monkeypatch):
    """One share raises; those who have done the others must not wait for the next step."""

    def together(self, work, size, shares):
        errors = []

        def one():
            try:
                work()
            except ValueError as error:
                errors.append(error)

        team = [threading.Thread(target=one, daemon=True) for _ in range(3)]
        for thread in team:
            thread.start()
        for thread in team:
            thread.join(20)
        assert not any(thread.is_alive() for thread in team)
        for error in errors:
            raise error

    monkeypatch.setattr(walk.ThreadParticles, "together", together)
    x0 = np.full(MANY, -2.0)
    x0[5] = 0.0
    with pytest.warns(RuntimeWarning, match="failed at t = .*: ValueError: too late"):
        run = solvers.solve(McKeanVlasov(raises_late), x0, 0.0, 1.0, 40, threads=3, save_at=[1.0])
    np.testing.assert_allclose(run.final_particles, x0 + 0.525, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scheme", ["euler_maruyama", "heun"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_particle_that_is_lost_on_the_way(scheme, threads, one_at_a_time):
    grows = McKeanVlasov(njit(lambda t, x, m: 1e12 * x if x > 0 else 0.0))
    x0 = np.zeros(MANY)
    x0[-1] = 1.0

    def run():
        with pytest.warns(RuntimeWarning, match="diverged"):
            return solvers.solve(grows, x0, 0.0, 1.0, 40, scheme=scheme, threads=threads, save_at=[1.0])

    marched = run()
    one_at_a_time()
    plain = run()
    assert marched.status == plain.status == "diverged"
    assert 0.0 < marched.final_time == plain.final_time < 1.0
    np.testing.assert_array_equal(marched.final_particles, plain.final_particles)


def test_threads_may_come_late_or_not_at_all(monkeypatch):
    alone = solve(PLANAR, 2, threads=1)
    come = []

    def together(self, work, size, shares):
        late = threading.Timer(0.002 * len(come), lambda: (work(), come.append(1)))
        late.start()
        work()
        late.join()

    monkeypatch.setattr(walk.ThreadParticles, "together", together)
    monkeypatch.setattr(walk, "_MOST", 4)
    run = solve(PLANAR, 2, threads=2)
    assert len(come) >= STEPS // 4
    np.testing.assert_array_equal(run.final_particles, alone.final_particles)


def test_sums_of_several_threads_are_whole():
    @njit(nogil=True)
    def count(words, times):
        for _ in range(times):
            fetch_add(words, 0, 1)
            fetch_add(words, APART, -3)

    words, times = np.zeros(2 * APART, np.int64), 200_000
    count(words, 0)
    threads = [threading.Thread(target=count, args=(words, times)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (words[0], words[APART]) == (4 * times, -12 * times)
