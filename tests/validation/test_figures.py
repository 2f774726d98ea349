"""The figures of the papers: at sizes of a few seconds, what is drawn is what is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

pytest.importorskip("torch")

import flds
from flds.cli.commands import app
from solvers.results.solution import Variable
from tests.flds.test_datasets import write_cifar10
from validation import closed_forms, figures
from validation.figures import feature_learning, hidden_width

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
    "errors": {"grid": (1, 4, 16), "seeds": 4, "units": 256, "steps": 3},
    "weights": {"depths": 5, "units": 64},
    "phases": {"dimensions": (4, 8), "points": 5, "units": 128, "steps": 2},
    "fluctuations": {"dimensions": (4, 8), "points": 5, "depth": 10, "seeds": 4, "steps": 2, "long": 3},
}  # fmt: skip


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(feature_learning, "SIZES", {"quick": TINY, "full": TINY})
    monkeypatch.setattr(hidden_width, "SIZES", {"quick": TINY_UNITS, "full": TINY_UNITS})


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
    found, _ = reproduce("feature-learning/fig2", tmp_path)
    assert found.tied_h_total.shape == (3, 2, 2, 2)
    # both kinds of weights are one network before the first step, in the forward pass
    np.testing.assert_array_equal(found.tied_h_total[:, 0], found.independent_h_total[:, 0])
    assert np.all(found.tied_h_total[:, 1] != found.independent_h_total[:, 1])
    assert found.settings["reference"] == [128, 8]


def test_learning_rates(tiny, tmp_path):
    found, lines = reproduce("feature-learning/fig3", tmp_path)
    assert found.loss.shape == (3, 2, 3, 2)
    assert np.isfinite(found.limit_loss[:2]).all()
    assert lines[-3].startswith("limit at rate 1e+03")
    assert lines[-1].startswith("best rate by test accuracy: limit ")
    # at 1000 training blows up: the loss is missing or beyond that of a network that outputs zero
    assert not found.limit_loss[2] < np.log(10)


def test_trajectories_come_closer_to_the_limit(tiny, tmp_path):
    found, lines = reproduce("hidden-width/fig1", tmp_path)
    assert len(lines) == 2
    assert found.states_32.shape == (3, 33)
    away = [np.mean((getattr(found, f"states_{depth}")[:, -1] - found.limit[-1]) ** 2) for depth in (2, 32)]
    assert away[1] < away[0]


def test_error_law(tiny, tmp_path):
    found, lines = reproduce("hidden-width/fig2", tmp_path)
    assert found.squared_error.shape == (4, 3, 3)
    assert found.squared_error.mean(0)[0, 0] > found.squared_error.mean(0)[-1, -1]
    assert found.constants.shape == (2,)
    assert "notebook" in lines[-1]
    # constants that are there are found, with no noise to spread them
    depths, widths = np.array([4, 16, 64]), np.array([4, 16])
    exact = (0.3 / depths[:, None] + 0.5 / np.sqrt(depths[:, None] * widths)) ** 2
    law = hidden_width.fit_error_law(np.repeat(exact[None], 3, axis=0), depths, widths)
    np.testing.assert_allclose(law, (0.3, 0.5, 0, 0), atol=1e-7)


def test_weights_travel(tiny, tmp_path):
    found, _ = reproduce("hidden-width/fig3", tmp_path)
    assert found.path.shape == (101, 5, 10)
    assert np.all(found.path[0] == found.path[0, 0])
    assert found.loss[-1] < 0.1 * found.loss[0]


def test_phases(tiny, tmp_path):
    found, _ = reproduce("hidden-width/fig4", tmp_path)
    # the first gradient of u is linear in v, so with the same draws travel is proportional to min(α, 1/α), Theorem 3
    scaled = found.travel_first / np.minimum(found.alpha, 1 / found.alpha)
    np.testing.assert_allclose(scaled, np.broadcast_to(scaled.mean(1, keepdims=True), scaled.shape), rtol=1e-10)


def test_fluctuations(tiny, tmp_path):
    found, lines = reproduce("hidden-width/fig5", tmp_path)
    assert found.fluctuation.shape == (2, 5)
    assert found.loss.shape == (2, 5, 4)
    assert found.constants.shape == (3,)
    assert "paper" in lines[-1]
    alphas, dimensions = np.array([0.1, 1.0, 10.0]), np.array([10, 40])
    exact = 0.3 * alphas * np.sqrt(dimensions)[:, None] + 0.05 * np.sqrt(dimensions)[:, None] + 0.4
    np.testing.assert_allclose(hidden_width.fit_fluctuations(exact, alphas, dimensions), (0.3, 0.05, 0.4), atol=1e-7)


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
    expected = [f"feature-learning/fig{i}" for i in (1, 2, 3)] + [f"hidden-width/fig{i}" for i in (1, 2, 3, 4, 5)]
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
