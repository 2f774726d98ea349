"""Estimates of the limit: coverage of the exact answer, agreement between sizes, errors that are told, files."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binom

import flds
from flds.limit.extrapolation import Plan, extrapolate, plan_round, run_round
from flds.limit.intervals import bias_allowance
from flds.limit.populations import DenseEnsemble, LazyParticles, MatchedParticles, Sizes, Spread, cheapest
from flds.training.method import decide
from flds.training.network import Network
from flds.training.train import train
from tests.conftest import MARGIN, one_sample, three_samples
from validation import closed_forms
from validation.coverage import coverage, exact_limit

# One small round, as fast as an estimate can be.
SMALL = {"particles": 200, "depth": 2, "replicates": 4}
WEIGHTS = ("tied", "independent")


def small(problem: flds.TrainingProblem | None = None, **options) -> flds.LimitEstimate:
    """One round, and none of the warnings that a budget which allows no more brings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return flds.estimate_limit(problem or three_samples(), **{"budget_seconds": 1e-3, **SMALL, **options})


@pytest.fixture(scope="module")
def estimate() -> flds.LimitEstimate:
    return small()


@pytest.mark.parametrize("weights", WEIGHTS)
def test_exact_limit_is_the_closed_form(weights):
    exact, error = exact_limit(one_sample("identity", rate=0.2, steps=3), weights)
    # the closed form at a depth of 10^7 is off by a relative 1e-7
    first = closed_forms.identity_first_output(0.2, 1.0, 1.0, 10**7, weights)
    assert exact[1, 0] == pytest.approx(first, abs=1e-5)
    assert error.max() < 1e-3  # half widths in the tests of coverage are 30 times as large and more


@pytest.mark.parametrize(("problem", "weights"), [
    (one_sample("identity", rate=0.2, steps=2), "tied"),
    (three_samples("identity", steps=2), "independent"),
])  # fmt: skip
def test_intervals_contain_the_exact_limit(problem, weights):
    """Training as a whole: a bias that most intervals miss. Shares are the next test's, and of `flds validate`."""
    runs = 8
    found = coverage(runs, problem, weights, budget_seconds=1e-3, **SMALL)
    assert np.all(found.exact_error < 0.1 * found.half_width)
    # at 95 % a count below this has a probability of 1e-4; the outputs of a run are too dependent to be pooled
    assert found.inside.min() >= binom.ppf(1e-4, runs, 0.95)


def runs_of_formulas(monkeypatch, over_depth=0.0, curved=0.0, over_particles=0.0, spread=0.0):
    """Let each run give 2 + a/L + c/L² + b/N + s z, where z is the mean of draws of its N particles."""

    def train(problem, settings, seed, first, sign, gate):
        count, depth = settings.particles, settings.depth
        z = np.random.default_rng(seed).standard_normal((first + count, problem.samples, 1))[first:].mean(axis=0)
        outputs = 2.0 + over_depth / depth + curved / depth**2 + over_particles / count + spread * z
        record = SimpleNamespace(step=0, outputs=outputs, test_outputs=np.empty((0, 1)))
        return SimpleNamespace(settings=settings, records=[record], status="completed", unmatched=False)

    monkeypatch.setattr("flds.limit.extrapolation._train_one", train)


@pytest.mark.parametrize(("over_depth", "over_particles"), [(0.0, 0.0), (3.0, 40.0)])
def test_shares_of_intervals_that_contain_the_limit(over_depth, over_particles, monkeypatch):
    """Draws in place of training, each with 200 independent outputs; 4 replicates, so Student's quantile matters."""
    rounds, outputs, particles = 10, 200, 100
    problem = flds.TrainingProblem(np.ones((outputs, 1)), np.ones(outputs), steps=0)
    runs_of_formulas(monkeypatch, over_depth, over_particles=over_particles, spread=10.0)
    plan = plan_round(problem, (particles, 4, 4), {}, LazyParticles())
    found = [run_round(problem, plan, list(range(4 * n, 4 * n + 4)), 1, False) for n in range(rounds)]
    off = np.abs([one.estimate - 2.0 for one in found])
    half = np.array([one.half_width for one in found])
    statistical = np.array([one.statistical for one in found])
    margin = MARGIN * np.sqrt(0.95 * 0.05 / off.size)
    assert abs((off <= statistical).mean() - 0.95) < margin
    # what is taken off is allowed for as well, so more than the nominal share is inside
    assert (off <= half).mean() > 0.95 - margin
    # what a fault would give: 79 % with half the width, 86 % with the quantile of the Gaussian
    for fault in (statistical / 2, statistical * 1.96 / found[0].quantile):
        assert (off <= fault).mean() < 0.95 - 2 * margin


def test_extrapolation_is_exact_for_two_powers():
    depths = np.array([5.0, 10.0, 20.0])
    best, difference = extrapolate(3.0 + 2.0 / depths - 7.0 / depths**2)
    assert best == pytest.approx(3.0, rel=1e-14)
    # R_2 of the same expansion has the error 7 / (2 · 10²)
    assert difference == pytest.approx(-7.0 / 200, rel=1e-12)


def test_a_depth_error_makes_the_interval_wider():
    problem = one_sample("identity", rate=0.1)
    shallow = small(problem, particles=4000, depth=2, replicates=8)
    exact = exact_limit(problem)[0][1, 0]
    assert shallow.depth_error[1, 0] > 0
    assert abs(shallow.outputs[1, 0] - exact) < shallow.outputs_half_width[1, 0]


def test_different_seeds_and_sizes_agree():
    first, second = small(replicates=8), small(particles=400, depth=4, replicates=8, seed=1)
    apart = np.abs(first.outputs - second.outputs)[1:]
    assert np.all(apart <= (first.outputs_half_width + second.outputs_half_width)[1:])
    assert np.all(first.statistical_error[1:] > 0)


def test_results_do_not_depend_on_threads(estimate):
    other = small(threads=3)
    assert set(other.variables) == set(estimate.variables)
    for name, item in estimate.variables.items():
        np.testing.assert_array_equal(other.variables[name].values, item.values)


def test_an_expansion_that_does_not_hold_yet_is_told():
    """Growth by e^4 and more: at these depths |d| alone is ten times smaller than the error."""
    base = three_samples("identity")
    problem = flds.TrainingProblem(
        base.x, base.y[:, 0], activation="identity", horizon=4.0, learning_rate=0.08, steps=3
    )  # fmt: skip
    exact, error = exact_limit(problem, "independent")
    with pytest.warns(RuntimeWarning) as caught:
        found = flds.estimate_limit(
            problem, backward_weights="independent", budget_seconds=1e-3, particles=1000, depth=8, replicates=4
        )
    messages = " ".join(str(warning.message) for warning in caught)
    assert "depth 8 is too small for the intervals to be relied upon" in messages
    # D sees at least half of what is missing
    assert np.all(np.abs(found.outputs - exact) < 2 * found.outputs_half_width + error)


@pytest.mark.parametrize("sampling", ["matched", "law"])
def test_halves_follow_the_whole(sampling):
    """What halves and the whole have in common cancels in their difference, which halves with other noise show."""
    seeds, differences, others = range(1, 13), [], []
    settings = replace(plan_round(three_samples(), (400, 4, 12), {}).whole[-1][0], sampling=sampling)
    half = replace(settings, particles=200)

    def outputs(settings, seed, first=0):
        return train(Network(three_samples(), settings, seed, first)).records[-1].outputs[0, 0]

    for seed in seeds:
        whole, second = outputs(settings, seed), outputs(half, seed, 200)
        differences.append((outputs(half, seed) + second) / 2 - whole)
        others.append((outputs(half, seed + 100) + second) / 2 - whole)
    # standard deviations are known to 1/sqrt(24), 20 %
    assert np.std(differences) < 0.5 * np.std(others)


@pytest.mark.parametrize("particles", [100, 101])
def test_the_bias_that_halves_show_is_taken_off_or_allowed_for(particles, monkeypatch):
    problem = one_sample("relu", rate=0.4, steps=4)
    found = small(problem, particles=particles)
    monkeypatch.setattr(Plan, "coupled", False)
    plain = small(problem, particles=particles)
    bias = plain.outputs - found.outputs
    np.testing.assert_allclose(np.abs(bias), found.particle_error, rtol=1e-9, atol=1e-15)
    assert np.all(plain.particle_error <= np.abs(bias).max() * (1 + 1e-9))  # what of it is noise is not allowed for
    assert any("the intervals are wider by particle_error instead" in note for note in plain.notes)
    assert not any("particle_error" in note for note in found.notes)


def test_noise_of_a_bias_is_not_allowed_for():
    """A bias of 3 in all of 400 outputs with noise 1 to 8, which outputs alone show in few; and none."""
    rng = np.random.default_rng(0)
    for noise in (1.0, 4.0, 8.0):
        seen = 3.0 + noise * rng.standard_normal((1, 400, 1))
        found = np.sqrt(np.mean(bias_allowance(seen, np.full_like(seen, noise), 2.0) ** 2))
        # the mean square of the noise is known to √(2/400); its cross product with the bias, to 2 · 3 · noise/√400
        margin = 4 * np.hypot(noise**2 * np.sqrt(2 / 400), 6 * noise / 20)
        assert 9.0 - margin < found**2
        blurred = bias_allowance(seen - 3.0, np.full_like(seen, noise), 4.5)
        assert np.all(blurred**2 < 4 * noise**2 * np.sqrt(2 / 400))


def test_the_cheapest_population_is_taken():
    """Matched noise for few samples; dense networks where every step brings new directions."""
    rng = np.random.default_rng(0)
    problem = flds.TrainingProblem(
        rng.standard_normal((400, 16)), np.ones(400), activation="tanh", batch_size=16, batch_order="random", steps=20
    )
    assert isinstance(cheapest(three_samples(), {"threads": 1}), MatchedParticles)
    assert isinstance(cheapest(problem, {"threads": 1}), DenseEnsemble)
    found = small(problem, particles=64, replicates=3, record_every=20, recorded_samples=2)
    assert "an ensemble of dense networks is the cheapest here" in found.notes[0]
    assert (found.settings["operator"], found.settings["sampling"]) == ("dense", "matched")
    assert found.settings["networks"] == 2 * found.settings["replicates"] == 6
    asked = small(problem, particles=64, replicates=3, record_every=20, recorded_samples=2, operator="dense")
    np.testing.assert_array_equal(asked.outputs, found.outputs)
    assert not any("cheapest" in note for note in asked.notes)


def test_rules_that_need_matrices_whole_are_estimated_by_ensembles():
    base = three_samples()
    problem = flds.TrainingProblem(base.x, base.y, optimizer=flds.Adam(), learning_rate=0.01, steps=2)
    assert small(problem, particles=40).settings["operator"] == "dense"
    with pytest.raises(ValueError, match='operator="lazy" needs steps of low rank'):
        small(problem, operator="lazy")


def test_pairs_of_networks_narrow_the_spread():
    """Orthonormal U and v, and opposite matrices, against networks in law: 3.3 times less variance with digits."""
    problem, depth, width, networks = three_samples(), 4, 64, 400

    def outputs(sampling, sign, seed):
        settings = decide(problem, width, depth, sampling, {"operator": "dense", "threads": 1}).settings
        return train(Network(problem, settings, seed, sign=sign)).records[-1].outputs[:, 0]

    law = np.array([outputs("law", 1.0, seed) for seed in range(networks)])
    pairs = np.array([[outputs("matched", sign, seed) for sign in (1.0, -1.0)] for seed in range(networks)])
    ratio = law.var(axis=0, ddof=1).mean() / (2 * pairs.mean(axis=1).var(axis=0, ddof=1).mean())
    # the logarithm of the ratio of two variances, each of so many networks or pairs, is known to 2/√networks
    assert np.log(ratio) > MARGIN * 2 / np.sqrt(networks)
    assert np.abs(pairs[:, 0] - pairs[:, 1]).min() > 0


def test_a_seed_of_an_ensemble_is_the_mean_of_its_pair(monkeypatch):
    """Fluctuations that change their sign with the matrices cancel, whichever seed they have."""

    def train(problem, settings, seed, first, sign, gate):
        z = np.random.default_rng(seed).standard_normal((problem.samples, 1))
        record = SimpleNamespace(step=0, outputs=2.0 + sign * z, test_outputs=np.empty((0, 1)))
        return SimpleNamespace(settings=settings, records=[record], status="completed", unmatched=False)

    monkeypatch.setattr("flds.limit.extrapolation._train_one", train)
    plan = plan_round(three_samples(), (40, 4, 5), {}, DenseEnsemble())
    found = run_round(three_samples(), plan, list(range(5)), 1, False)
    np.testing.assert_allclose(found.estimate, 2.0, rtol=1e-14)
    np.testing.assert_allclose(found.standard_error, 0.0, atol=1e-14)
    assert found.seeds == list(range(5))
    assert not found.coupled


def test_an_ensemble_grows_in_pairs_or_in_width():
    """Sizes for a target by the formula for half widths: noise · √(n R / n' R') + bias n/n' below its share."""
    ensemble = DenseEnsemble()
    for bias in (0.0, 0.05, 0.5):
        last = Spread(Sizes(256, 4, 8), 0.2, bias)
        found = list(ensemble.enough(last, 0.1))
        assert found
        for sizes in found:
            wider = sizes.particles / 256
            assert sizes.replicates >= 8
            assert bias / wider < 0.1
        widths = [sizes.particles for sizes in found]
        assert widths == sorted(set(widths))
        assert (min(widths) > 256) == (bias >= 0.1)
    narrow, wide = (next(ensemble.enough(Spread(Sizes(256, 4, 8), noise, 0.0), 0.1)) for noise in (0.2, 0.4))
    assert 3.0 < wide.replicates / narrow.replicates < 4.5  # four, but for the margin, which is smaller with more


def test_the_bias_is_that_of_outputs_at_depth_2L(monkeypatch):
    """Runs whose outputs are c + b/N, for any depth and seed, have the limit c."""
    runs_of_formulas(monkeypatch, over_particles=5.0)
    for particles in (100, 101):
        plan = plan_round(one_sample(), (particles, 4, 2), {})
        found = run_round(one_sample(), plan, [1, 2], 1, False)
        assert found.coupled
        np.testing.assert_allclose(found.estimate, 2.0, rtol=1e-12)
        np.testing.assert_allclose(found.particle_error, 5.0 / particles, rtol=1e-12)


def test_matrices_that_are_held_have_no_halves():
    """A rank that comes near N: the halves of a dense matrix are other matrices."""
    rng = np.random.default_rng(0)
    problem = flds.TrainingProblem(rng.standard_normal((30, 20)), np.ones(30), activation="tanh", batch_size=15)
    found = small(problem, particles=41, depth=2, replicates=2)
    assert found.settings["operator"] == "dense"
    assert any("what 41 neurons are off by could not be told" in note for note in found.notes)


def test_diverged_training_keeps_what_is_finite():
    problem = one_sample("identity", rate=1e6, steps=40)
    with pytest.warns(RuntimeWarning, match=r"training diverged after step \d+ of seed \d at depth \d"):
        found = flds.estimate_limit(problem, budget_seconds=100.0, **SMALL)
    assert found.status == "diverged"
    assert 0 < len(found.steps) < 41
    assert np.isfinite(found.outputs[:2]).all()


def test_notes_of_the_solver_are_carried_on():
    with pytest.warns(RuntimeWarning) as caught:
        found = flds.estimate_limit(three_samples(), budget_seconds=1e-3, particles=10, depth=2, replicates=2)
    assert found.settings["sampling"] == "law"
    assert "this is a dense network of width 10, with the fluctuations of one" in str(caught[0].message)


def test_bases_without_room_for_matched_noise_are_told():
    with pytest.warns(RuntimeWarning, match="matched noise needs at least"):
        found = flds.estimate_limit(
            three_samples(), operator="lazy", budget_seconds=100.0, target_error=50.0, **SMALL | {"particles": 10}
        )
    assert (found.settings["operator"], found.settings["sampling"]) == ("lazy", "law")


def test_several_outputs_and_test_data(classes):
    found = small(classes, particles=600, replicates=2)
    assert found.outputs.shape == found.outputs_half_width.shape == found.depth_error.shape == (6, 7, 3)
    assert found.test_outputs.shape == found.test_outputs_half_width.shape == (6, 3, 3)
    assert found.loss.shape == found.test_loss.shape == found.accuracy.shape == (6,)
    assert found.summary().count("sample ") == 7


def test_the_interval_is_the_sum_of_its_parts(estimate):
    from scipy.stats import t

    parts = t.ppf(0.975, 3) * estimate.statistical_error + estimate.depth_error + estimate.particle_error
    np.testing.assert_allclose(estimate.outputs_half_width, parts, rtol=1e-14)
    np.testing.assert_allclose(
        estimate.loss, 0.5 * ((estimate.outputs - [1.0, -1.0, 0.5]) ** 2).mean(axis=1), rtol=1e-14
    )


def test_a_fresh_process_loads_what_was_saved(estimate, tmp_path):
    path = estimate.save(tmp_path / "limit.nc")
    code = f"import flds; e = flds.load({str(path)!r}); print(type(e).__name__); print(e.summary())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    name, summary = done.stdout.split("\n", 1)
    assert name == "LimitEstimate"
    assert summary.strip() == estimate.summary()
    assert summary.count(" ± ") == 4  # the heading and three samples
    assert flds.load(path).settings == json.loads(json.dumps(estimate.settings))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_error": 0.0}, "target_error must be a finite number above 0, got 0"),
        ({"target_error": "small"}, "target_error must be a number, got 'small'"),
        ({"budget_seconds": -1.0}, "budget_seconds must be a finite number above 0, got -1"),
        ({"replicates": 1}, "replicates must be at least 2, got 1"),
        ({"particles": 1}, "particles must be at least 2, got 1"),
        ({"depth": 3}, "depth must be even, since half of it is trained as well, got 3"),
        ({"depth": 2.5}, "depth must be an integer, got 2.5"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"backward_weights": "shared"}, "backward_weights must be one of tied, independent, got 'shared'"),
        ({"recorded_samples": [3]}, "recorded_samples must be sample indices from 0 to 2, got 3 to 3"),
    ],
)
def test_bad_arguments_give_one_line_before_any_work(options, message):
    with pytest.raises((ValueError, TypeError), match=message) as error:
        flds.estimate_limit(three_samples(), **options)
    assert "\n" not in str(error.value)


def test_something_else_than_a_problem():
    with pytest.raises(TypeError, match=r"problem must be a flds.TrainingProblem, got dict"):
        flds.estimate_limit({})


def test_threads_that_the_system_does_not_start_are_told(monkeypatch):
    def limited(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(ValueError, match=r"^threads must be fewer than the system starts, got 9: can't start new"):
        small(threads=9)
