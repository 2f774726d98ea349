"""The figures of the papers: at sizes of a few seconds, what is drawn is what is written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

pytest.importorskip("torch")

import flds
from flds.cli.commands import app
from solvers.results.solution import Variable
from tests.conftest import MARGIN
from tests.flds.test_datasets import write_cifar10
from tests.validation.test_rates import planted_errors
from validation import closed_forms, figures, rates
from validation.figures import feature_learning, hidden_width, residual_scale, two_layer
from validation.problems import random_pairs

RUNNER = CliRunner()

TINY = {
    "activation_order": {"width": 32, "depths": (2, 4), "seeds": 2, "steps": 20, "train": 60, "test": 30},
    "convergence": {
        "stages": (0, 1), "depths": (2, 4), "deepest": 8, "widths": (32, 64), "wide": 128, "replicates": 3,
    },
    "learning_rates": {"rates": (0.2, 1.0, 1000.0), "seeds": 2, "steps": 10, "train": 60, "particles": 200},
}  # fmt: skip

TINY_UNITS = {
    "trajectories": {"depths": (2, 32), "units": 64},
    "errors": {"grid": (1, 4, 16), "sets": 3, "seeds": 4, "units": 256, "steps": 3},
    "weights": {"depths": 5, "units": 64},
}  # fmt: skip

TINY_SCALES = {
    "phases": {
        "dimensions": (4, 8), "points": 5, "units": 128, "steps": 2, "depth": 8, "hidden_width": 8, "seeds": 3,
    },
    "fluctuations": {
        "dimensions": (4, 8), "points": 9, "depth": 40, "hidden_width": 10, "seeds": 4, "steps": 2, "travel_steps": 3,
    },
}  # fmt: skip


TINY_BRANCHES = {
    "movement": {"depths": (2, 4), "particles": 200, "seeds": 2, "dense_depths": (2,), "width": 32, "networks": 2},
}


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(feature_learning, "SIZES", {"quick": TINY, "full": TINY})
    monkeypatch.setattr(hidden_width, "SIZES", {"quick": TINY_UNITS, "full": TINY_UNITS})
    monkeypatch.setattr(rates, "_RESAMPLES", 100)  # of fits to networks this small nothing is expected
    monkeypatch.setattr(residual_scale, "SIZES", {"quick": TINY_SCALES, "full": TINY_SCALES})
    monkeypatch.setattr(two_layer, "SIZES", {"quick": TINY_BRANCHES, "full": TINY_BRANCHES})


def test_data_are_refused_where_there_are_none_to_choose(tmp_path):
    done = RUNNER.invoke(app, ["reproduce", "hidden-width/fig1", "--data", "cifar10:here", "--out", str(tmp_path)])
    assert str(done.exception) == "hidden-width/fig1 trains on data of its own: leave out --data"


def reproduce(name, out):
    """Run the command that the README gives for a figure; return its numbers and the lines before the files."""
    done = RUNNER.invoke(app, ["reproduce", name, "--seed", "3", "--out", str(out)])
    assert done.exit_code == 0, done.exception
    *lines, picture, numbers = done.stdout.splitlines()
    paths = [Path(picture), Path(numbers)]
    assert [path.name for path in paths] == [f"{name.replace('/', '-')}{end}" for end in (".png", ".nc")]
    assert paths[0].read_bytes()[:4] == b"\x89PNG"
    return flds.load(paths[1]), lines


def test_activation_order(tiny, tmp_path):
    found, lines = reproduce("feature-learning/fig1", tmp_path)
    assert len(lines) == 4
    np.testing.assert_array_equal(found.predicted_pre_4, closed_forms.feature_variance("relu", 1.0, 1.0, 4))
    assert found.norms_post_4.shape == (2, 5)
    # width 32 fluctuates by 1/sqrt(32) and grows over depth
    np.testing.assert_allclose(found.norms_post_4.mean(0), found.predicted_post_4, rtol=0.8)
    assert np.all(found.loss_pre_2[:, -1] < found.loss_pre_2[:, 0])  # at the best of five rates


def test_convergence(tiny, tmp_path):
    found, lines = reproduce("feature-learning/fig2", tmp_path)
    assert [line.split(":")[0] for line in lines[:4]] == [f"tied weights, {q}, k = {k}" for k in (0, 1) for q in "hg"]
    assert found.tied_h_total.shape == (3, 2, 2, 2)
    # both kinds of weights are one network before the first step, in the forward pass
    np.testing.assert_array_equal(found.tied_h_total[:, 0], found.independent_h_total[:, 0])
    assert np.all(found.tied_h_total[:, 1] != found.independent_h_total[:, 1])
    assert found.settings["reference"] == [128, 8]
    assert "NaN where the errors do not identify" in found.data["independent_g_exponents"].attrs["long_name"]


def test_exponents_that_are_not_identified_are_not_saved():
    errors = planted_errors(faint=True)  # in depth
    law = errors.joint_law("h", 5)
    laws = dict.fromkeys([(quantity, 5) for quantity in "hgf"], law)
    saved = feature_learning._error_fields(errors, laws, "tied")["tied_h_exponents"].values
    assert saved.shape == (1, 2, 3)
    assert np.isnan(saved[0, 0]).all()
    assert saved[0, 1].tolist() == [law.width_exponent, *law.width_interval]


def test_learning_rates(tiny, tmp_path):
    found, lines = reproduce("feature-learning/fig3", tmp_path)
    assert found.loss.shape == (3, 2, 3, 2)
    assert np.isfinite(found.limit_loss[:2]).all()
    assert lines[-3].startswith("limit at rate 1e+03")
    assert lines[-1].startswith("best rate by test accuracy: limit ")
    # at 1000 training blows up: the loss is missing or beyond that of a network that outputs zero
    assert not found.limit_loss[2] < np.log(10)


def test_two_layers(tiny, tmp_path):
    """A larger inner rate moves features farther."""
    found, lines = reproduce("feature-learning/two-layer", tmp_path)
    assert len(lines) == 1
    assert found.depths.tolist() == [2, 4]
    assert found.larger_inner_rate_tied.shape == (2, 2)
    assert np.all(found.larger_inner_rate_tied > found.root_tied)
    assert found.dense_complete_independent.shape == (2, 1)
    assert found.settings["target"] == 0.02


def test_trajectories_come_closer_to_the_limit(tiny, tmp_path):
    found, lines = reproduce("hidden-width/fig1", tmp_path)
    assert len(lines) == 2
    assert found.states_32.shape == (3, 33)
    away = [np.mean((getattr(found, f"states_{depth}")[:, -1] - found.limit[-1]) ** 2) for depth in (2, 32)]
    assert away[1] < away[0]


def test_error_law(tiny, tmp_path):
    found, lines = reproduce("hidden-width/fig2", tmp_path)
    assert found.squared_error.shape == (3, 4, 3, 3)
    # L = M = 16 against L = M = 1: errors are 16 times as small, and every network of 12 is closer
    assert found.squared_error[:, :, 0, 0].min() > found.squared_error[:, :, -1, -1].max()
    # what is printed is the mean of the data sets, each of its own, and the scatter among them
    each = found.data_set_constants
    assert len(np.unique(each[:, 1])) == 3
    for name, index, line in (("a", 0, lines[-2]), ("b", 1, lines[-1])):
        mean, deviation = each[:, index].mean(), each[:, index].std(ddof=1)
        assert line.startswith(f"{name} = {mean:.3f} ± {deviation:.3f} (paper ")
        assert (found.constants[index], found.constants_deviation[index]) == pytest.approx((mean, deviation))
    away = abs(found.constants[1] - 0.22) / found.constants_deviation[1]
    assert f"paper 0.22, {away:.1f} deviations away; notebook" in lines[-1]


def test_error_law_is_found():
    depths, widths = np.array([4, 16, 64]), np.array([4, 16])
    exact = (0.3 / depths[:, None] + 0.5 / np.sqrt(depths[:, None] * widths)) ** 2
    law = hidden_width.fit_error_law(np.repeat(exact[None], 3, axis=0), depths, widths)
    np.testing.assert_allclose(law, (0.3, 0.5), atol=1e-7)


def test_weights_travel(tiny, tmp_path):
    found, _ = reproduce("hidden-width/fig3", tmp_path)
    assert found.path.shape == (101, 5, 10)
    assert np.all(found.path[0] == found.path[0, 0])
    assert found.loss[-1] < 0.1 * found.loss[0]


def test_phases(tiny, tmp_path):
    found, lines = reproduce("hidden-width/fig4", tmp_path)
    # the first gradient of u is linear in v, so with the same draws travel is proportional to min(α, 1/α), Theorem 3
    scaled = found.travel_first / np.minimum(found.alpha, 1 / found.alpha)
    np.testing.assert_allclose(scaled, np.broadcast_to(scaled.mean(1, keepdims=True), scaled.shape), rtol=1e-10)
    np.testing.assert_allclose(found.boundary, (4, 8**0.5), rtol=1e-15)  # √(LM/D)
    assert [line.split(" where σ_v")[0] for line in lines] == [
        f"D = {dimension}, L = 8, M = 8: from α = 1 to α = {at}," for dimension, at in ((4, "4"), (8, "2.83"))
    ]
    # the first pass of a network is off by a sum over v, linear in α but for what earlier layers change in later ones
    away = found.distance_first / found.alpha
    np.testing.assert_allclose(away[:, 1], away[:, 0], rtol=2 * found.alpha[1] / found.boundary.min())
    # inside the boundary networks and limit agree, and far beyond it they do not
    inside, beyond = found.alpha < 0.5, found.alpha > 10 * found.boundary.max()
    assert np.all(found.distance_last[:, inside] < 0.3)
    assert np.all(found.distance_last[:, beyond] > 3)
    ratio = found.network_change / found.change
    assert np.all(ratio[:, beyond] > 3 * ratio[:, inside].max())


def test_untrained_networks_leave_the_limit_like_the_root_of_their_units():
    """To first order in σ_v an entry of f is off by σ_v/√(LM) times the root of the mean of tanh², H-(30)."""
    sizes = {"depth": 16, "hidden_width": 16, "seeds": 40, "units": 16, "steps": 2}
    dimension, alpha = 8, 0.1
    x = random_pairs(3, dimension).x
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    squares = np.tanh(np.sqrt((x**2).mean(axis=1))[:, None] * nodes) ** 2 @ weights / weights.sum()
    found = dict(zip(residual_scale._SCALES, residual_scale._scales(dimension, alpha, sizes, 3), strict=True))
    expected = alpha * np.sqrt(dimension / 16**2) * np.sqrt(squares.mean())
    # of 40 seeds and 8 independent entries at least; the next order is below α
    error = 1 / np.sqrt(2 * 40 * 8)
    assert found["distance_first"] == pytest.approx(expected, rel=MARGIN * error + alpha * np.sqrt(dimension) / 16)


def test_fluctuations(tiny, tmp_path):
    found, lines = reproduce("hidden-width/fig5", tmp_path)
    assert found.fluctuation.shape == (2, 9)
    assert found.travel.shape == (4, 2, 9)
    assert found.loss.shape == (2, 9, 4)
    assert found.constants.shape == (3,)
    assert found.settings["travel_steps"] == 3
    # √(LM/D)/3 is 3.3 and 2.4: nothing is fitted at α = 10 and, for D = 8, at 3.2
    fitted = np.isfinite(found.travel_ratio)
    assert [row.sum() for row in fitted] == [6, 5]
    moved = found.travel.mean(0)
    small, large = moved[:, :3], found.alpha[5] * moved[0, 5]
    np.testing.assert_allclose(found.travel_constants[0], (small.mean(), small.min(), small.max()), rtol=1e-12)
    np.testing.assert_allclose(found.travel_constants[1], large, rtol=1e-12)
    mean, low, high = found.travel_constants[0]
    assert lines[-2] == (
        f"travel of u at k = 3: {mean:.2f} (points {low:.2f} to {high:.2f}) where α ≤ 0.1, "
        f"{large:.2f}/α (points {large:.2f} to {large:.2f}) where α ≥ 3"
    )
    least, most = found.travel_ratio[fitted].min(), found.travel_ratio[fitted].max()
    assert re.fullmatch(
        rf"points are {least:.2f} \(.*\) to {most:.2f} \(.*\) times 3 min\(1, 1/α\), the paper's at k = 50", lines[-1]
    )
    assert lines[-4].startswith("fluctuation · √(LM) at k = 2: ")


ALPHAS, DIMENSIONS = np.array([0.1, 1.0, 10.0]), np.array([10, 40])
EXACT = 0.3 * ALPHAS * np.sqrt(DIMENSIONS)[:, None] + 0.05 * np.sqrt(DIMENSIONS)[:, None] + 0.4


def test_the_law_of_the_fluctuation_is_found():
    constants, error = residual_scale.fit_fluctuations(EXACT, ALPHAS, DIMENSIONS)
    np.testing.assert_allclose(constants, (0.3, 0.05, 0.4), atol=1e-7)
    np.testing.assert_allclose(error, 0, atol=1e-6)


def test_the_error_of_a_law_contains_its_misfit():
    """Points that lie off the law by 5 %, each its own way: constants scatter like the error that each fit states."""
    generator, alphas = np.random.default_rng(0), np.logspace(-2, 1, 7)
    exact = residual_scale._columns(alphas, DIMENSIONS) @ (0.3, 0.1, 0.3)
    off = 1 + 0.05 * generator.standard_normal((300, *exact.shape))
    found, errors = np.moveaxis([residual_scale.fit_fluctuations(exact * one, alphas, DIMENSIONS) for one in off], 1, 0)
    ratio = (errors**2).mean(axis=0) / found.var(axis=0, ddof=1)
    # the jackknife's variance is too large by about 3 constants in 14 points; that of 300 is known to √(2/300)
    np.testing.assert_allclose(ratio, 1 + 3 / 14, atol=MARGIN * np.sqrt(2 / 300) * (1 + 3 / 14))


def test_asymptotes_of_the_travel():
    alphas = np.array([0.01, 0.1, 1.0, 10.0, 100.0])
    travel = np.array([[2.0, 2.2, 3.0, 0.31, 0.03], [2.1, 2.3, 3.0, 0.35, np.nan]])
    found = residual_scale.travel_asymptotes(travel, alphas)
    np.testing.assert_allclose(found, [[2.15, 2.0, 2.3], [(3.1 + 3.0 + 3.5) / 3, 3.0, 3.5]], rtol=1e-12)
    assert residual_scale._described(found) == (
        "2.15 (points 2.00 to 2.30) where α ≤ 0.1, 3.20/α (points 3.00 to 3.50) where α ≥ 3"
    )
    travel[:, 3:] = np.nan
    missing = residual_scale.travel_asymptotes(travel, alphas)
    assert np.isnan(missing[1]).all()
    assert residual_scale._described(missing).endswith("none fitted where α ≥ 3")
    shown = residual_scale._extremes(travel, alphas, np.array([10, 31]))
    assert shown == "2.00 (D = 10, α = 0.01) to 3.00 (D = 10, α = 1)"


def test_the_papers_own_data(tiny, tmp_path, monkeypatch):
    write_cifar10(tmp_path)
    monkeypatch.chdir(tmp_path)
    command = ["reproduce", "feature-learning/fig1", "--data", f"cifar10:{tmp_path}", "--out", "new/figures"]
    done = RUNNER.invoke(app, command)
    assert done.exit_code == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "new/figures/feature-learning-fig1.nc"
    assert flds.load("new/figures/feature-learning-fig1.nc").settings["scale"] == "quick"


def test_figures_are_listed_and_unknown_ones_refused(tmp_path):
    listed = RUNNER.invoke(app, ["reproduce", "--list"]).stdout
    expected = [*(f"feature-learning/fig{i}" for i in (1, 2, 3)), "feature-learning/two-layer"]
    expected += [f"hidden-width/fig{i}" for i in (1, 2, 3, 4, 5)]
    assert [line.split()[0] for line in listed.splitlines()] == expected
    with pytest.raises(ValueError, match="figure must be one of feature-learning/fig1"):
        figures.reproduce("fig9", dataset=flds.load_digits, out=tmp_path)
    plain = flds.Dataset("mine", np.ones((4, 2)), np.zeros(4))
    with pytest.raises(ValueError, match="data must have classes and a test set for this figure, got 'mine'"):
        figures.reproduce("feature-learning/fig1", dataset=lambda: plain, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def drawn(monkeypatch):
    """A figure that takes no time."""
    variable = Variable(("x",), np.ones(2), "a number")
    monkeypatch.setattr(
        figures, "_function", lambda name: lambda request: figures.Drawing(Figure(), {"y": variable}, {})
    )
    return {"dataset": lambda: None, "say": lambda line: None}


def test_files_in_the_way_are_found_before_the_work(tmp_path, monkeypatch):
    def work(name):
        pytest.fail("nothing may be computed")

    monkeypatch.setattr(figures, "_function", work)
    Figure().savefig(tmp_path / "hidden-width-fig1.png")
    with pytest.raises(ValueError, match=r"the picture '.*hidden-width-fig1.png' was not written by flds"):
        figures.reproduce("hidden-width/fig1", dataset=lambda: None, out=tmp_path)
    (tmp_path / "hidden-width-fig2.nc").write_text("mine")
    with pytest.raises(ValueError, match=r"hidden-width-fig2.nc' exists and is not a results file"):
        figures.reproduce("hidden-width/fig2", dataset=lambda: None, out=tmp_path)


def test_files_of_earlier_runs_are_replaced(drawn, tmp_path):
    (tmp_path / f".hidden-width-fig1.nc.{2**70}.abcdefgh.part").write_text("half, by a run that was killed")
    for _ in range(2):
        files = figures.reproduce("hidden-width/fig1", out=tmp_path, **drawn)
    assert sorted(tmp_path.iterdir()) == sorted(files)


def test_numbers_are_kept_where_a_picture_fails(drawn, tmp_path, monkeypatch, capsys):
    def fail(*arguments, **rest):
        raise OSError("no space left")

    monkeypatch.setattr(Figure, "savefig", fail)
    (numbers,) = figures.reproduce("hidden-width/fig1", out=tmp_path, **drawn)
    assert capsys.readouterr().err == "warning: no picture: no space left\n"
    assert flds.load(numbers).y.tolist() == [1, 1]
