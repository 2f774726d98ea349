"""How a search for the limit goes: which rounds it makes, for a target or a budget, in the memory there is."""

from __future__ import annotations

import re
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import flds
from flds.limit.extrapolation import plan_round, run_round
from flds.limit.populations import MatchedParticles, Sizes, Spread
from flds.limit.search import Search
from flds.training.network import Network
from tests.conftest import one_sample, three_samples
from tests.flds.test_limit import SMALL, runs_of_formulas, small

pytestmark = pytest.mark.usefixtures("steady_speed")


def test_a_target_is_met_with_more_particles():
    target = 0.01
    found = flds.estimate_limit(one_sample(), target_error=target, **SMALL)
    rounds = found.settings["rounds"]
    assert found.status == "completed"
    assert found.outputs_half_width.max() <= target
    assert len(rounds) > 1
    assert rounds[-1]["particles"] > rounds[0]["particles"]
    assert rounds[0]["half_width"] > target >= rounds[-1]["half_width"] == found.outputs_half_width.max()
    seeds = found.settings["seeds"]
    assert len(set(seeds)) == 4
    assert 0 not in seeds  # the first round's first seed


def test_depth_grows_where_its_error_matters(monkeypatch):
    for curved in (0.0, 1.0):
        runs_of_formulas(monkeypatch, curved=curved, spread=1.0)
        found = flds.estimate_limit(one_sample(), target_error=0.02, **SMALL)
        assert found.outputs_half_width.max() <= 0.02
        assert (found.settings["depth"] > 2) == (curved > 0)
        assert found.settings["depths"] == [found.settings["depth"] // 2 * m for m in (1, 2, 4, 8)]


def test_nothing_is_left_to_narrow_without_training():
    found = flds.estimate_limit(one_sample(steps=0), budget_seconds=60.0, **SMALL)
    assert len(found.settings["rounds"]) == 1
    np.testing.assert_allclose(found.outputs, 0.0, atol=1e-7)  # in float32


@pytest.fixture
def clock(monkeypatch):
    """A clock that rounds alone move on: by what the cost model says, times what the test says by the first seed."""
    now, slower = [0.0], [lambda seed: 1.0]

    def timed(problem, plan, seeds, threads, progress):
        seconds = plan.seconds(threads) * slower[0](seeds[0])
        now[0] += seconds
        return replace(run_round(problem, plan, seeds, threads, progress), seconds=seconds)

    monkeypatch.setattr("flds.limit.search.run_round", timed)
    monkeypatch.setattr("flds.limit.search.time", SimpleNamespace(perf_counter=lambda: now[0]))
    return slower


def test_a_budget_is_used_and_kept(clock, monkeypatch):
    runs_of_formulas(monkeypatch, spread=1.0)
    found = flds.estimate_limit(one_sample(), budget_seconds=6.0, threads=1, **SMALL)
    assert found.status == "completed"
    assert len(found.settings["rounds"]) > 1
    assert "would exceed budget_seconds" in found.notes[0]
    spent = sum(one["seconds"] for one in found.settings["rounds"])
    assert found.timings["solve"] == pytest.approx(spent)
    assert 1.0 < spent < 6.0


def search_after(seconds, budget, particles=2000, problem=None) -> Search:
    """A search with rounds of so many seconds behind it, each of twice as many particles as the one before."""
    search = Search(problem or one_sample(), {"threads": 1}, MatchedParticles(), 1, None, budget, False)
    for number, each in enumerate(seconds):
        sizes = Sizes(particles << number, 4, 4)
        search.modelled.append(plan_round(search.problem, sizes, search.options).seconds(1))
        search.rounds.append(SimpleNamespace(depth=4, seconds=each, spread=Spread(sizes, 0.0, 0.0)))
    search.timings["solve"] = sum(seconds)
    return search


def test_a_round_is_planned_for_the_time_that_is_left():
    search = search_after([10.0], 60.0, 50_000)
    more = search._affordable(1)
    plan = plan_round(search.problem, search._grown(more, 1), search.options)
    assert 30.0 < search._seconds(plan) <= 0.8 * 50.0
    assert search_after([10.0], 16.0)._affordable(1) is None
    assert search_after([10.0], 5.0)._affordable(1) is None
    # rounds that took longer than the model says let expect more of the same, shorter ones no less than the model
    slow, fast = (search_after(times, 60.0, 25_000) for times in ([3.0, 10.0], [9.0, 10.0]))
    assert slow._seconds(plan) > search._seconds(plan)
    assert slow._affordable(1) < fast._affordable(1)


def test_another_operator_is_foreseen():
    """Weights held as matrices at first, then bases: the second takes less than so many times more particles say."""
    rng = np.random.default_rng(0)
    problem = flds.TrainingProblem(
        rng.standard_normal((100, 20)), np.ones(100), activation="tanh", batch_size=16, steps=5
    )  # fmt: skip
    search = search_after([10.0], 100.0, 100, problem)
    plan = plan_round(problem, (600, 4, 4), search.options)
    assert search.rounds[0].spread.sizes.particles * 6 == plan.whole[0][0].particles
    operators = [plan_round(problem, (n, 4, 4), search.options).whole[0][0].operator for n in (100, 600)]
    assert operators == ["dense", "lazy"]
    assert search._seconds(plan) < 0.9 * 6 * 10.0


def test_a_round_that_took_too_long_is_told(clock, monkeypatch):
    runs_of_formulas(monkeypatch, spread=1.0)
    clock[0] = lambda seed: 100.0 if seed else 1.0  # the first seed of the first round is 0
    options = {"threads": 1, "seed": 0}
    first = plan_round(one_sample(), (50, 2, 2), options).seconds(1)
    # room for a larger round, not for 100 of them
    search = Search(one_sample(), options, MatchedParticles(), 1, None, 20 * first, False)
    search.run(Sizes(50, 2, 2))
    assert re.search(r"round 2 took .* s where .* s were expected, so all 2 took", " ".join(search.warned))


@pytest.mark.parametrize("operator", ["lazy", "dense"])
def test_a_target_that_nothing_can_meet_ends_with_what_there_is(operator):
    with pytest.warns(RuntimeWarning) as caught:  # the last round may also take longer than was expected
        found = flds.estimate_limit(
            one_sample(),
            target_error=1e-300,
            budget_seconds=0.5,
            operator=operator,
            particles=64,
            depth=2,
            replicates=4,
        )
    assert any("above target_error 1e-300" in str(warning.message) for warning in caught)
    assert found.status == "completed"
    assert np.isfinite(found.outputs).all()


def test_too_few_neurons_are_told():
    with pytest.warns(
        RuntimeWarning, match="8 neurons are too few for the intervals to be relied upon: take 64 or more"
    ):
        flds.estimate_limit(one_sample(), target_error=50.0, operator="dense", particles=8, depth=2, replicates=4)


def test_a_target_begins_small_with_a_budget_too():
    found = flds.estimate_limit(one_sample(), target_error=0.5, budget_seconds=100.0)
    assert (found.settings["particles"], found.settings["depth"]) == (500, 4)


def test_a_tiny_budget_still_gives_one_round():
    with pytest.warns(RuntimeWarning) as caught:
        found = flds.estimate_limit(one_sample(), budget_seconds=1e-3, target_error=1e-6, **SMALL)
    messages = " ".join(str(warning.message) for warning in caught)
    assert "longer than budget_seconds 0.001" in messages
    assert "above target_error 1e-06; budget_seconds of about" in messages
    assert found.status == "completed"
    assert len(found.settings["rounds"]) == 1
    assert found.outputs.shape == found.outputs_half_width.shape == (2, 1)


def interrupt_after(monkeypatch, calls: int) -> None:
    update, counted = Network.update, []

    def interrupted(self, *arguments):
        counted.append(None)
        if len(counted) > calls:
            raise KeyboardInterrupt
        update(self, *arguments)

    monkeypatch.setattr(Network, "update", interrupted)


def test_an_interrupt_keeps_the_last_finished_round(monkeypatch):
    expected = small(one_sample()).outputs
    interrupt_after(monkeypatch, calls=26)  # a round has 4 seeds, 6 runs of each and one update
    with pytest.warns(RuntimeWarning, match="interrupted in round 2; round 1 is reported"):
        found = flds.estimate_limit(one_sample(), target_error=1e-4, **SMALL)
    assert found.status == "interrupted"
    assert found.settings["particles"] == 200
    np.testing.assert_array_equal(found.outputs, expected)


def test_an_interrupt_of_the_first_round_is_raised(monkeypatch):
    interrupt_after(monkeypatch, calls=3)
    with pytest.raises(KeyboardInterrupt):
        flds.estimate_limit(one_sample(), target_error=1e-4, **SMALL)


def test_a_round_that_does_not_fit_in_memory_is_not_begun(monkeypatch):
    # a first round passes, and a larger one does not
    import flds.training.method

    require = flds.training.method.require_memory
    limit = 1.01 * max(cost.memory for _, cost in plan_round(one_sample(), tuple(SMALL.values()), {}).whole)
    monkeypatch.setattr(
        "flds.training.method.require_memory",
        lambda needed, remedy, *rest: require(needed if needed < limit else 1e18, remedy),
    )
    with pytest.warns(RuntimeWarning, match="above target_error"):
        found = flds.estimate_limit(one_sample(), target_error=1e-5, **SMALL)
    assert any("this run needs" in note for note in found.notes)
    assert found.status == "completed"


@pytest.mark.parametrize("replicates", [10**9, 2**40, 2**63 - 1])
def test_replicates_that_do_not_fit_in_memory_are_refused_before_they_are_listed(replicates, monkeypatch):
    def listed(*rest):
        raise AssertionError("replicates are listed")

    monkeypatch.setattr("flds.limit.search.replicate_seed", listed)
    with pytest.raises(MemoryError, match=r"^this run needs .* GB are available; lower replicates") as error:
        flds.estimate_limit(three_samples(), replicates=replicates)
    assert "\n" not in str(error.value)


def test_the_memory_of_replicates_is_foreseen():
    problem, options = three_samples(steps=1), {"threads": 1}
    plan = plan_round(problem, (20, 2, 2), options)
    run_round(problem, plan, [1, 2], 1, False)  # what is loaded once
    held = []
    for seeds in (range(5), range(15)):
        tracemalloc.start()
        run_round(problem, plan, list(seeds), 1, False)
        held.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    foreseen = replace(plan, replicates=15).memory(problem) - replace(plan, replicates=5).memory(problem)
    assert held[1] - held[0] < foreseen < 2 * (held[1] - held[0])
