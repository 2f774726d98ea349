"""Parameters of an equation: they reach every coefficient, are not compiled again, and go where the run goes."""

from __future__ import annotations

import csv
from collections import namedtuple

import matplotlib.pyplot as plt
import numpy as np
import pytest
from numba import njit

import solvers
from solvers import ExternalField, McKeanVlasov
from solvers.sde.schemes.passes import _pass

Pull = namedtuple("Pull", "rate spread levels")

PULL = Pull(1.5, 0.7, [0.4, 1.0])


def drift(t, x, m, args):
    return -args.rate * (x - args.levels[0] * m)


def diffusion(t, x, m, args):
    return args.spread


def moments(t, x, args):
    return args.levels[1] * x


NAMED = McKeanVlasov(njit(drift), njit(diffusion), njit(moments), noise="additive")
NAMED_ARRAYS = McKeanVlasov(drift, diffusion, moments, noise="additive", vectorized=True)
PLAIN = McKeanVlasov(
    lambda t, x, m: -1.5 * (x - 0.4 * m), lambda t, x, m: 0.7, lambda t, x: x, noise="additive", vectorized=True
)
# a number for every coefficient that there is
EVERYWHERE = McKeanVlasov(
    njit(lambda t, x, m, c: c * m), njit(lambda t, x, m, c: 0.1 * c), njit(lambda t, x, c: c + x), "mean_field",
    njit(lambda t, x, c: 1.0 + c * x * x), njit(lambda t, x, m, c: 0.2 * c), njit(lambda x, y, c: c * (y - x)),
)  # fmt: skip
EVERYWHERE_WRITTEN_IN = McKeanVlasov(
    lambda t, x, m: 0.5 * m, lambda t, x, m: 0.05, lambda t, x: 0.5 + x, "mean_field",
    lambda t, x: 1.0 + 0.5 * x * x, lambda t, x, m: 0.1, lambda x, y: 0.5 * (y - x), vectorized=True,
)  # fmt: skip
LINEAR = McKeanVlasov(lambda t, x, m, k: -k * x, lambda t, x, m, k: 1.0, noise="additive", vectorized=True)


def test_parameters_are_those_that_would_be_written_in():
    x0 = np.random.default_rng(0).normal(size=3000)
    ends = [solvers.solve(e, x0, 0, 1, 10, args=PULL).final_particles for e in (NAMED, NAMED_ARRAYS)]
    plain = solvers.solve(PLAIN, x0, 0, 1, 10).final_particles
    np.testing.assert_array_equal(ends[0], ends[1])
    np.testing.assert_allclose(ends[0], plain, rtol=0, atol=1e-14)


def test_every_coefficient_takes_them():
    x0 = np.random.default_rng(0).normal(size=200)
    end = solvers.solve(EVERYWHERE, x0, 0, 1, 5, args=0.5).final_particles
    written_in = solvers.solve(EVERYWHERE_WRITTEN_IN, x0, 0, 1, 5).final_particles
    np.testing.assert_allclose(end, written_in, rtol=0, atol=1e-13)


@pytest.mark.parametrize("args", [0.5, np.array([0.5, 2.0])], ids=["number", "array"])
@pytest.mark.parametrize("own", [False, True], ids=["shared field", "own field"])
def test_the_field_comes_before_them(args, own):
    x0 = np.linspace(0, 1, 50)
    field = ExternalField(np.linspace(1, 2, 50), per_particle=True) if own else 3.0
    values = np.linspace(1, 2, 50) if own else 3.0
    equation = McKeanVlasov(lambda t, x, m, c, a: c * np.sum(a), vectorized=True)
    run = solvers.solve(equation, x0, 0, 1, 4, field=field, args=args)
    np.testing.assert_allclose(run.final_particles, x0 + values * np.sum(args), rtol=1e-14)


def test_new_values_are_not_compiled_again():
    x0 = np.ones(10)
    solvers.solve(NAMED, x0, 0, 1, 4, args=PULL)
    misses, compiled = _pass.cache_info().misses, None
    for rate in (1, 2.5, np.float32(3)):
        other = Pull(rate, np.int64(1), np.array([0.1, 0.2], np.float32))
        run = solvers.solve(NAMED, x0, 0, 1, 4, args=other)
        compiled = run.timings["compile"]
    assert _pass.cache_info().misses == misses
    assert compiled < 0.5  # seconds, where it takes ten


def test_two_named_tuples_with_one_name_are_told_apart():
    """Their kernels take the same plain tuples, so the class must be part of what they are known by."""
    one, other = (namedtuple("Args", names) for names in ("a b", "b a"))
    equation = McKeanVlasov(njit(lambda t, x, m, args: args.a))
    ends = [solvers.solve(equation, np.zeros(3), 0, 1, 2, args=kind(1.0, 2.0)).mean[-1] for kind in (one, other)]
    assert ends == [1.0, 2.0]


def test_a_run_keeps_its_parameters_and_goes_on_with_them(tmp_path):
    x0 = np.random.default_rng(0).normal(size=100)
    for equation, args in ((NAMED, PULL), (LINEAR, 2.0)):
        half = solvers.solve(equation, x0, 0, 1, 10, args=args)
        again = solvers.load(half.save(tmp_path / "half.nc"))
        whole = solvers.solve(equation, x0, 0, 2, 20, args=args)
        for run in (half, again):
            np.testing.assert_array_equal(solvers.resume(equation, run, 2, 10).final_particles, whole.final_particles)
        changed = solvers.resume(equation, again, 2, 10, args=PULL._replace(rate=0.1) if args is PULL else 3.0)
        assert np.abs(changed.final_particles - whole.final_particles).max() > 0.01
    assert half.args == 2.0
    kept = solvers.solve(NAMED, x0, 0, 1, 2, args=PULL)
    assert kept.args_rate == 1.5
    np.testing.assert_array_equal(kept.args_levels, [0.4, 1.0])


def test_what_is_done_to_an_array_later_changes_nothing():
    args = np.array([1.0, 2.0])

    class Late(ExternalField):
        def at(self, t):
            args[:] = 100.0
            return super().at(t)

    equation = McKeanVlasov(lambda t, x, m, c, a: a[0] + 0 * c, vectorized=True)
    assert solvers.solve(equation, np.zeros(5), 0, 1, 4, field=Late(1.0), args=args).mean[-1] == 1.0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (None, r"^drift takes one argument more than \(t, x, m\): pass field= or args=$"),
        ((1.0, 2.0), "^args must be a number, an array or a named tuple of these, got .*; make a collections.namedtup"),
        ({"k": 1.0}, "^args must be a number, an array or a named tuple"),
        ("a", "^args must be an array of real numbers"),
        (np.nan, "^args must be finite, got nan"),
        ([], r"^args must not be empty, got shape \(0,\)"),
        (Pull(1.0, 2.0, "a"), r"^args\.levels must be an array of real numbers"),
        (True, "^args must be an array of real numbers, got True"),
    ],
)
def test_bad_parameters(args, message):
    with pytest.raises((TypeError, ValueError), match=message) as error:
        solvers.solve(LINEAR, np.ones(4), 0, 1, 4, args=args)
    assert "\n" not in str(error.value)


def test_bad_uses_of_parameters():
    plain = McKeanVlasov(lambda t, x, m: -x, vectorized=True)
    with pytest.raises(TypeError, match=r"^args was given, but no coefficient takes it as its last argument$"):
        solvers.solve(plain, np.ones(4), 0, 1, 4, args=1.0)
    with pytest.raises(TypeError, match="which may be the field or args: as both are given, let it take both, or neit"):
        solvers.solve(LINEAR, np.ones(4), 0, 1, 4, args=1.0, field=1.0)
    both = McKeanVlasov(lambda t, x, m, c, k: c * k, vectorized=True)
    with pytest.raises(TypeError, match=r"^drift takes two arguments more than \(t, x, m\): pass field=$"):
        solvers.solve(both, np.ones(4), 0, 1, 4, args=1.0)
    beyond = McKeanVlasov(njit(lambda t, x, m, k: k[2]))
    with pytest.raises(ValueError, match=r"drift reads beyond the end of an array at t = 0: .*; .* args has 2$"):
        solvers.solve(beyond, np.ones(4), 0, 1, 4, args=[1.0, 2.0])

    def writes(t, x, m, k):
        k[0] += 1.0
        return x

    with pytest.raises(ValueError, match=r"^drift writes into its argument args, which all particles share"):
        solvers.solve(McKeanVlasov(writes, vectorized=True), np.ones(4), 0, 1, 4, args=[1.0, 2.0])


# many runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("particles", [50, 5000])
def test_many_runs_have_the_bits_of_each(particles, tmp_path):
    x0, values, seeds = np.ones(particles), [0.5, 1.0, 2.0], [3, 4, 5]
    for threads in (1, 2):
        runs = solvers.solve_many(LINEAR, x0, 0, 1, 10, args=values, seed=seeds, threads=threads)
        for number, (value, seed) in enumerate(zip(values, seeds, strict=True)):
            one = solvers.solve(LINEAR, x0, 0, 1, 10, args=value, seed=seed)
            np.testing.assert_array_equal(runs.mean[number], one.mean)
            np.testing.assert_array_equal(runs.final_particles[number], one.final_particles)
    assert runs.settings["statuses"] == ["completed"] * 3
    np.testing.assert_array_equal(runs.args, values)
    np.testing.assert_array_equal(runs.seeds, seeds)
    rows = list(csv.DictReader(runs.to_csv(tmp_path / "runs.csv").read_text().splitlines()))
    assert [float(row["mean[2]"]) for row in rows] == runs.mean[2].tolist()
    assert [float(row["times"]) for row in rows] == runs.times.tolist()
    assert runs.data["mean"].dims == ("run", "time")


def test_many_runs_of_one_seed_follow_the_same_paths(tmp_path):
    runs = solvers.solve_many(LINEAR, np.zeros(20), 0, 1, 10, args=[1e-9, 2e-9])
    np.testing.assert_allclose(*runs.final_particles, atol=1e-8)
    again = solvers.load(runs.save(tmp_path / "runs.nc"))
    figure = again.plot()
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert [label for label in labels if "args" in label] == ["args = 1e-09", "args = 2e-09"]
    plt.close(figure)
    np.testing.assert_array_equal(again.final_particles, runs.final_particles)
    seeds = solvers.solve_many(LINEAR, np.zeros(20), 0, 1, 10, args=[1.0, 1.0], seed=[0, 1])
    assert np.abs(np.subtract(*seeds.final_particles)).min() > 1e-6


def test_a_run_that_ends_early_leaves_the_others():
    grows = McKeanVlasov(lambda t, x, m, k: k * x**3, vectorized=True)
    with pytest.warns(RuntimeWarning, match=r"^run 1: diverged: at t = "):
        runs = solvers.solve_many(
            grows,
            np.ones(5),
            0,
            1,
            50,
            args=[-1.0, 40.0, 0.1],
            save=["mean", solvers.trajectories(2)],
            save_at=[1.0, 0.5],
        )
    assert runs.status == "diverged"
    assert runs.settings["statuses"] == ["completed", "diverged", "completed"]
    np.testing.assert_array_equal(runs.times, [1.0, 0.5])
    assert np.isfinite(runs.mean).all(axis=1).tolist() == [True, False, True]
    assert np.isfinite(runs.trajectories[1, :3]).all()
    assert np.isnan(runs.trajectories[1, -1]).all()
    assert runs.final_time[1] < 0.5 < runs.final_time[0]
    with pytest.warns(RuntimeWarning, match=r"^run 1: did not begin: .*ValueError: beyond$"):
        runs = solvers.solve_many(
            McKeanVlasov(fails_beyond_one, vectorized=True), np.ones(5), 0, 1, 4, args=[0.5, 2.0, 0.7]
        )
    assert runs.settings["statuses"] == ["completed", "failed", "completed"]


def test_runs_that_stop_at_different_times():
    equation = McKeanVlasov(lambda t, x, m, k: k + 0 * x, moments=lambda t, x: x, vectorized=True)
    options = {"args": [3.0, 0.4, 1.0], "stop": lambda t, m: m > 0.505}
    runs = solvers.solve_many(equation, np.zeros(5), 0, 1, 100, save_at=[0.1, 0.1, 1.0], save="mean", **options)
    np.testing.assert_allclose(runs.mean, [[0.3, 0.3, np.nan], [0.04, 0.04, 0.4], [0.1, 0.1, np.nan]])
    assert runs.settings["statuses"] == ["stopped", "completed", "stopped"]
    runs = solvers.solve_many(equation, np.zeros(5), 0, 1, 100, save_at=[0.0], save=solvers.trajectories(1), **options)
    assert np.isfinite(runs.trajectories[..., 0]).sum(axis=1).tolist() == [18, 101, 52]


def fails_beyond_one(t, x, m, k):
    if k > 1 and x.size > 1 and (x == 1).all():
        raise ValueError("beyond")
    return -k * x


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "^solve_many needs several args or several seeds$"),
        ({"args": 1.0}, "^args must be a list of parameters, one for each run, got 1.0$"),
        ({"args": PULL}, "^args must be a list of parameters"),
        ({"args": []}, "^args and seed must not be empty$"),
        ({"args": [1.0, [1.0, 2.0]]}, r"^args must be of one kind for all runs, got 1.0, and for run 1 array"),
        ({"args": [1.0, 2.0], "seed": [1, 2, 3]}, "^args must have one entry for each of 3 runs, got 2$"),
        ({"args": [1.0], "seed": [1, -2]}, "^seed must be at least 0, got -2$"),
        (
            {"args": [1.0], "checkpoint": "a"},
            "^solve_many makes runs in one process and does not keep them",
        ),
        ({"args": [1.0], "scheme": "euler"}, "^scheme must be one of"),
        ({"args": [1.0], "threads": 0}, "^threads must be at least 1"),
    ],
)
def test_bad_runs(options, message):
    with pytest.raises((TypeError, ValueError), match=message) as error:
        solvers.solve_many(LINEAR, np.ones(4), 0, 1, 4, **options)
    assert "\n" not in str(error.value)
