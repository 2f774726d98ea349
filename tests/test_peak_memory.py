"""What runs are predicted to take is within 20 % of what they take, and refuses them before they start."""

from __future__ import annotations

import numpy as np
import pytest

import flds
import flds.training.method
import flds.training.options
import solvers
from flds.cli import training as runs
from solvers.memory import INTERPRETER_BYTES
from tests.conftest import one_sample, three_samples
from tests.peak_memory import measured
from tests.solvers.equations import GEOMETRIC

# Allocators round and libraries differ; `tests/benchmarks/bench_memory.py` measures all runs.
WITHIN = 0.2


@pytest.mark.parametrize(
    "name",
    [
        "by_law",
        "mean_ode_states_and_features",
        "mean_ode_adam",
        pytest.param("muon", marks=pytest.mark.slow),
        pytest.param("two_layers", marks=pytest.mark.slow),
        pytest.param("kernels_of_test_samples", marks=pytest.mark.slow),
        pytest.param("adam_of_vectors", marks=pytest.mark.slow),
        pytest.param("kernels_of_matrices", marks=pytest.mark.slow),
        pytest.param("particles", marks=pytest.mark.slow),
        pytest.param("mean_ode_features", marks=pytest.mark.slow),
        pytest.param("forward", marks=pytest.mark.slow),
    ],
)
def test_the_predicted_memory_is_what_a_run_takes(name):
    peak, predicted = measured(name)
    assert abs(predicted - peak) < WITHIN * peak


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"operator": "dense", "sampling": "law", "record_kernels": True},
        {"keep_state": True, "replicates": 3, "dtype": "float32"},
        {"operator": "lazy", "rank_budget": (3, 2)},
    ],
)
def test_an_estimate_is_the_number_that_a_run_is_refused_by(monkeypatch, options):
    asked = []
    monkeypatch.setattr("flds.training.method.require_memory", lambda needed, *rest: asked.append(needed))
    estimate = flds.estimate_cost(three_samples(), particles=500, depth=3, **options)
    assert asked == []
    rest = {name: value for name, value in options.items() if name != "sampling"}
    flds.training.method.decide(three_samples(), 500, 3, options.get("sampling", "matched"), rest)
    assert asked == [estimate.memory]


def test_an_estimate_says_what_a_run_that_does_not_fit_is_missing(monkeypatch):
    monkeypatch.setattr("flds.training.method.memory_of_rank", lambda *_: 1e9)
    small = flds.estimate_cost(three_samples(), particles=1000, depth=4, threads=1)
    assert small.fits
    assert "available" not in str(small)
    large = flds.estimate_cost(three_samples(), particles=10**9, depth=4, threads=1)
    assert not large.fits
    assert large.memory > 1e9 == large.available
    assert "GB, more than the 1 GB available" in str(large)
    assert flds.estimate_cost(three_samples(), particles=50, depth=1, noise_depth=2**40, threads=1).seconds > 86_400


def arrays(problem=None, **options):
    """Predicted bytes beside the interpreter's."""
    options = {"particles": 1000, "depth": 4, "operator": "lazy", "sampling": "law"} | options
    return flds.estimate_cost(problem or one_sample(steps=1000), **options).memory - INTERPRETER_BYTES


@pytest.mark.parametrize(
    "more",
    [
        {"replicates": 10}, {"record_kernels": True}, {"keep_state": True}, {"depth": 8}, {"particles": 2000},
        {"sampling": "matched_all"}, {"backward_weights": "independent", "operator": "dense"},
    ],
)  # fmt: skip
def test_everything_that_grows_counts(more):
    assert arrays(**more) > 1.2 * arrays()


@pytest.mark.parametrize("more", [{"steps": 2000}, {"test_inputs": np.ones((1000, 1)), "test_targets": np.ones(1000)}])
def test_steps_and_test_samples_count(more):
    assert arrays(one_sample(**{"steps": 1000} | more)) > 1.2 * arrays()


TIMES = np.arange(10**6) / 10**6
MEAN = flds.MeanFieldProblem(np.ones((2, 2)), np.ones((2, 2)), steps=10**9)


@pytest.mark.parametrize(
    "call",
    [
        lambda: flds.solve_flds(one_sample(steps=10**9), particles=50, depth=1),
        lambda: flds.solve_flds(one_sample(steps=10**9), particles=50, depth=1, record_every=10**9),
        lambda: flds.simulate_resnet(one_sample(), width=1, depth=2**40),
        lambda: flds.solve_flds(one_sample(), particles=50, depth=1, replicates=10**12),
        lambda: flds.solve_mean_ode(MEAN, units=2, depth=2),
        lambda: flds.solve_backward(particles=10**6, depth=10**6),
        lambda: solvers.solve(GEOMETRIC, np.ones(10**5), 0, 1, 10**6, save="particles", save_at=TIMES),
    ],
)  # fmt: skip
def test_runs_beyond_memory_are_refused_before_they_start(call):
    with pytest.raises(MemoryError, match=r"^this run needs .* GB and .* GB are available; "):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda grid: flds.solve_flds(one_sample(), particles=50, depth=1, noise_depth=grid),
        lambda grid: flds.simulate_resnet(one_sample(), width=50, depth=1, operator="dense", noise_depth=grid),
        lambda grid: flds.solve_forward(particles=10, depth=1, noise_depth=grid),
        lambda grid: flds.solve_backward(particles=10, depth=1, noise_depth=grid),
        lambda grid: solvers.solve(GEOMETRIC, np.ones(4), 0.0, 1.0, 2, noise_steps=grid),
        lambda grid: solvers.BrownianMotion(0.0, 1.0, 2, noise_steps=grid).increments(),
    ],
)
def test_noise_that_takes_more_than_a_day_is_refused(call):
    with pytest.raises(ValueError, match=r"noise_(depth|steps) must be smaller: its noise alone would take .* days"):
        call(2**40)
    call(8)


def test_the_default_run_is_the_same_on_every_machine(monkeypatch):
    problem, options, found = three_samples(steps=20), {"operator": "auto"}, set()
    for free, rate, threads in ((20e9, 1e10, 1), (1e9, 1e8, 2), (0.3e9, 1e12, 64)):
        for module in ("solvers.memory", "solvers.ranks"):
            monkeypatch.setattr(f"{module}.available_memory", lambda free=free: free)
        monkeypatch.setattr("flds.training.speed.multiply_adds_per_second", lambda *sizes, rate=rate: rate)
        given = options | {"threads": threads}
        chosen = runs.affordable_particles(problem, 8, "matched", given)
        method = flds.training.method.plan(problem, chosen, 8, "matched", given)
        rng = np.random.default_rng(0)
        many = flds.TrainingProblem(rng.standard_normal((500, 4)), rng.standard_normal(500), steps=100, batch_size=10)
        monkeypatch.setattr("flds.training.method.memory_of_rank", lambda *_, free=free: free / 1e6)
        large = flds.training.method.plan(many, 600, 8, "law", given)
        found.add((chosen, method.settings.operator, method.settings.sampling, large.settings.operator))
        monkeypatch.undo()
    assert {one[3] for one in found} == {"dense"}
    assert len(found) == 1


def test_a_default_run_that_does_not_fit_names_the_option_that_does(monkeypatch):
    monkeypatch.setattr("flds.training.method.memory_of_rank", lambda *_: 0.3e9)
    options = {"threads": 1, "replicates": 1}
    with pytest.raises(MemoryError, match="are available; --fit chooses fewer, or give --particles"):
        runs.run(three_samples(), None, None, 8, "matched", options, fit=False, quiet=True)


def test_a_run_that_is_to_fit_takes_less_where_less_memory_is_free(monkeypatch):
    problem, options = three_samples(), {"threads": 1}
    found = []
    for free in (20e9, 1e9, 0.4e9, 0.26e9):
        monkeypatch.setattr("solvers.memory.available_memory", lambda free=free: free)
        monkeypatch.setattr("flds.training.method.memory_of_rank", lambda *_, free=free: free)
        monkeypatch.setattr("flds.training.speed.multiply_adds_per_second", lambda *sizes: 1e12)  # time is no matter
        found.append(runs.affordable_particles(problem, 64, "matched", options, fit=True))
        needed = flds.estimate_cost(problem, particles=found[-1], depth=64, **options).memory
        assert needed <= min(runs.DEFAULT_BYTES, runs.DEFAULT_SHARE * free)
    assert found == sorted(found, reverse=True)
    assert found[0] > found[1] > found[2] > found[3]


def test_bases_grow_no_further_than_memory_allows(monkeypatch):
    problem, options = one_sample(steps=10_000), {"particles": 10_000, "depth": 8, "operator": "lazy"}
    for free in (1e9, 2e9):
        monkeypatch.setattr("flds.training.method.memory_of_rank", lambda *_, free=free: free)
        settings = flds.training.method.decide(problem, 10_000, 8, "law", {"operator": "lazy"}).settings
        asked = flds.training.method.decide(problem, 10_000, 8, "law", {"rank_budget": (7000, 5)}).settings
        assert 100 < settings.rank_budget[0] < 10_000
        assert asked.rank_budget == (settings.rank_budget[0], 5)
        load = dict(rank_budget=settings.rank_budget, **options)
        assert flds.estimate_cost(problem, sampling="law", **load).memory < free
