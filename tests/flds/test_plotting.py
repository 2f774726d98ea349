"""Pictures show what they are named after: their data, labels and, for drawings of fixed numbers, their pixels.

`python -m tests.flds.test_plotting` draws the kept pictures anew.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.testing.compare import compare_images

import flds
from flds import plotting
from solvers.results.solution import Variable
from tests.conftest import three_samples

KEPT = Path(__file__).parent / "pictures"
# Antialiasing differs by up to about one grey level of 256 between versions; a curve that is missing moves the root
# mean square over pixels by more than five.
TOLERANCE = 3.0
RECORDS, SAMPLES, LAYERS = 4, 3, 6


def made_up() -> flds.Solution:
    """A solution of formulas instead of a solver, the same on every machine."""
    k, s, t = np.arange(RECORDS), np.arange(SAMPLES), np.linspace(0, 1, LAYERS + 1)
    outputs = np.tanh(0.5 * k[:, None]) * np.cos(2 * s)
    angles = 0.4 * k[:, None] + 2 * s
    both = np.add.outer(k, k).repeat(SAMPLES, 0).repeat(SAMPLES, 1)
    kernel = np.cos(angles.ravel()[:, None] - angles.ravel()) * np.exp(0.3 * both * t[1:, None, None])
    spread = 0.1 * np.arange(-2, 3)[:, None, None]
    record, depth = ("step",), ("step", "t")
    passes = ("layer", "pass", "other_pass")
    fields = {
        "steps": Variable(record, 5 * k, "training step"),
        "recorded_samples": Variable(("sample",), 10 * s, "index"),
        "outputs": Variable(("step", "sample"), outputs, "outputs"),
        "outputs_standard_error": Variable(("step", "sample"), 0.03 + 0 * outputs, "error"),
        "replicate_outputs": Variable(("replicate", "step", "sample"), outputs + spread, "outputs"),
        "loss": Variable(record, np.exp(-k / 2.0), "loss"),
        "loss_standard_error": Variable(record, 0.05 * np.exp(-k / 2.0), "error"),
        "test_loss": Variable(record, 0.3 + np.exp(-k / 2.0), "loss"),
        "batch_loss": Variable(("step",), 1.1 * np.exp(-np.arange(16) / 10), "loss"),
        "accuracy": Variable(record, 1 - 0.5 * np.exp(-k / 1.0), "accuracy"),
        "depth_grid": Variable(("t",), t, "depth"),
        "feature_variance_standard_error": Variable(depth, 0.1 + np.outer(0.0 * k, t), "error"),
        "rank_by_step_standard_error": Variable(("step", "side"), np.full((RECORDS, 2), 0.2), "error"),
        "travel_u_standard_error": Variable(depth, 0.1 + np.outer(0.0 * k, t), "error"),
        "feature_variance": Variable(depth, np.exp(np.outer(0.3 * k, t)), "variance"),
        "gradient_variance": Variable(depth, np.exp(np.outer(0.3 * k, 1 - t)), "variance"),
        "rank_by_step": Variable(("step", "side"), np.stack([3 + k, 2 + 2 * k], 1), "rank"),
        "feature_kernel": Variable(passes, kernel, "kernel"),
        "gradient_kernel": Variable(passes, np.abs(kernel)[::-1], "kernel"),
    }
    problem = {
        "batch_size": None,
        "batch_order": "sequential",
        "inputs": {"shape": [SAMPLES, 2]},
        "learning_rates": {"u": 1},
    }
    states = np.sort(np.sinh(np.linspace(-2, 2, 500)))[None]
    fields["travel_u"] = fields["feature_variance"]
    return flds.Solution(
        fields, "completed", {}, 0, {"particles": 500, "depth": LAYERS}, extra={"problem": problem},
        groups={"state_0": {"last_states": Variable(("batch", "particle"), states, "states")}},
    )  # fmt: skip


def wider(solution: flds.Solution) -> flds.Solution:
    solution.variables["outputs"] = solution.variables["outputs"]._replace(values=1.2 * solution.outputs)
    return solution


DRAWINGS = {
    "loss": lambda s, ax: plotting.plot_loss(s, ax=ax),
    "accuracy": lambda s, ax: plotting.plot_accuracy(s, ax),
    "features": lambda s, ax: plotting.plot_variance(s, ax=ax),
    "gradients": lambda s, ax: plotting.plot_variance(s, "gradient_variance", ax),
    "rank": lambda s, ax: plotting.plot_rank(s, ax),
    "outputs": lambda s, ax: plotting.plot_outputs(s, ax),
    "replicates": lambda s, ax: plotting.plot_replicates(s, 1, ax=ax),
    "limit": lambda s, ax: plotting.plot_against_limit(s, [wider(made_up())], 2, ax=ax),
    "feature_kernel": lambda s, ax: plotting.plot_kernel(s, ax=ax),
    "gradient_kernel": lambda s, ax: plotting.plot_kernel(s, "gradient_kernel", 2, ax),
    "movement": lambda s, ax: plotting.plot_kernel_movement(s, ax=ax),
    "spectrum": lambda s, ax: plotting.plot_spectrum(s, ax=ax),
    "particles": lambda s, ax: plotting.plot_particles(s, bins=20, ax=ax),
    "travel": lambda s, ax: plotting.plot_travel(s, ax),
}


def draw(name: str, solution: flds.Solution, path: Path) -> list:
    """Draw without text, whose pixels depend on fonts."""
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=(3, 2.2))
        ax = figure.subplots()
        artists = DRAWINGS[name](solution, ax)
        for one in figure.axes:
            one.set(xticks=[], yticks=[], xlabel="", ylabel="", title="")
            one.minorticks_off()
            if one.get_legend():
                one.get_legend().remove()
        figure.savefig(path, dpi=60)
    return artists


@pytest.mark.parametrize("name", DRAWINGS)
def test_pictures_are_the_kept_ones(name, tmp_path):
    assert draw(name, made_up(), tmp_path / f"{name}.png")
    assert compare_images(KEPT / f"{name}.png", tmp_path / f"{name}.png", TOLERANCE) is None


def test_another_picture_is_noticed(tmp_path):
    solution = made_up()
    solution.variables["test_loss"] = solution.variables["test_loss"]._replace(values=0.1 + solution.test_loss)
    draw("loss", solution, tmp_path / "loss.png")
    assert compare_images(KEPT / "loss.png", tmp_path / "loss.png", TOLERANCE) is not None


@pytest.mark.parametrize("name", DRAWINGS)
def test_axes_are_labelled(name):
    ax = Figure().subplots()
    artists = DRAWINGS[name](made_up(), ax)
    assert isinstance(artists, list)
    assert all(hasattr(artist, "set_zorder") for artist in artists)
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    assert ax.get_title()


@pytest.fixture(scope="module")
def solution():
    options = {"record_kernels": True, "keep_state": True, "replicates": 2}
    return flds.solve_flds(
        three_samples(test_inputs=np.eye(5), test_targets=np.ones(5)), particles=400, depth=4, **options
    )


def test_kernels_are_drawn_as_they_are(solution):
    (image,) = plotting.plot_kernel(solution, ax=Figure().subplots())
    np.testing.assert_array_equal(image.get_array(), solution.feature_kernel[-1])
    curves = plotting.plot_kernel_movement(solution, "gradient_kernel", Figure().subplots())
    first = solution.gradient_kernel[0].reshape(4, 3, 4, 3)
    moved = [np.linalg.norm(first[k, :, k] - first[0, :, 0]) / np.linalg.norm(first[0, :, 0]) for k in range(4)]
    np.testing.assert_allclose(curves[0].get_ydata(), moved, rtol=1e-12)
    assert moved[0] == 0 < moved[1]
    inactive = solution.feature_kernel.copy()
    inactive[:, 9] = inactive[:, :, 9] = np.nan  # sample 0 at the last step
    fields = solution.variables | {"feature_kernel": solution.variables["feature_kernel"]._replace(values=inactive)}
    curves = plotting.plot_spectrum(dataclasses.replace(solution, variables=fields), ax=Figure().subplots())
    assert [len(curve.get_ydata()) for curve in curves] == [3, 3, 3, 2]
    curves = plotting.plot_spectrum(solution, layer=1, ax=Figure().subplots())
    expected = np.linalg.eigvalsh(solution.feature_kernel[1].reshape(4, 3, 4, 3)[3, :, 3])[::-1]
    np.testing.assert_allclose(curves[-1].get_ydata(), expected, rtol=1e-12)


def test_particles_are_those_of_the_solution(solution):
    *bars, line = plotting.plot_particles(solution, sample=2, bins=10, ax=Figure().subplots())
    values = solution.states[0]["last_states"].values[2]
    np.testing.assert_allclose([bar.get_height() for bar in bars], np.histogram(values, 10, density=True)[0])
    x, density = line.get_data()
    # the Gaussian has the mass that lies within the histogram, all but a few hundredths
    assert 0.97 < density.mean() * (x[-1] - x[0]) < 1.0
    forward = flds.solve_forward(particles=1000, depth=4)
    assert plotting.plot_particles(forward, ax=Figure().subplots())


def test_an_overview_has_the_kernels_where_they_are_recorded(solution, tmp_path):
    titles = [ax.get_title() for ax in solution.plot(tmp_path / "run.png").axes]
    assert "Feature kernel Σ, t = 0.75" in titles
    assert "Spectrum of Σ, t = 0.75" in titles
    assert (tmp_path / "run.png").stat().st_size > 10_000


def test_new_axes_are_made_where_none_are_given(solution):
    with mpl.rc_context({"backend": "agg"}):
        import matplotlib.pyplot as plt

        line, *_ = plotting.plot_loss(solution)
        assert line.axes.figure.get_size_inches().tolist() == [4.5, 3.2]
        plt.close("all")


def test_what_a_solution_does_not_have_is_named(solution):
    bare = flds.simulate_resnet(three_samples(batch_size=1), width=20, depth=2)
    others = flds.simulate_resnet(three_samples(batch_size=1), width=20, depth=2, recorded_samples=[1, 2])
    batches = flds.simulate_resnet(three_samples(batch_size=1), width=20, depth=2, record_kernels=True)
    with pytest.warns(RuntimeWarning, match="diverged"):
        early = flds.simulate_resnet(flds.TrainingProblem([[1e200]], [1.0], activation="identity"), width=20, depth=2)
    assert not len(early.steps)
    ax = Figure().subplots()
    for draws, error, message in (
        (lambda: plotting.plot_accuracy(bare, ax), AttributeError, "no variable 'accuracy'; it has steps"),
        (lambda: plotting.plot_replicates(bare, ax=ax), AttributeError, "no variable 'replicate_outputs'"),
        (lambda: plotting.plot_kernel(bare, ax=ax), AttributeError, "no variable 'feature_kernel'"),
        (lambda: plotting.plot_kernel(solution, "kernel", ax=ax), ValueError, "name must be one of feature_kernel"),
        (lambda: plotting.plot_variance(solution, "variance", ax), ValueError, "name must be one of feature_variance"),
        (lambda: plotting.plot_kernel_movement(batches, ax=ax), ValueError, "leave out batch_size"),
        (
            lambda: plotting.plot_particles(bare, ax=ax),
            ValueError,
            "use solve_forward or solve_backward",
        ),
        (lambda: plotting.plot_replicates(solution, 7, ax=ax), IndexError, "out of bounds"),
        (lambda: plotting.plot_travel(solution, ax), ValueError, "no travel: it must be of the Mean ODE"),
        (lambda: plotting.plot_against_limit(bare, [solution], ax=ax), ValueError, "of the problem of the limit"),
        (lambda: plotting.plot_against_limit(bare, [others], ax=ax), ValueError, r"recorded sample 0, got \[1, 2\]"),
        (
            lambda: plotting.plot_kernel_movement(flds.solve_forward(particles=50, depth=2)),
            AttributeError,
            "no variable",
        ),
        (lambda: plotting.plot_loss(flds.solve_forward(particles=50, depth=2)), AttributeError, "no variable 'loss'"),
        *(
            (lambda draw=draw: draw(early, ax=ax), ValueError, "it ended before the first one")
            for draw in (plotting.plot_loss, plotting.plot_outputs, plotting.plot_rank, plotting.plot_variance)
        ),
    ):
        with pytest.raises(error, match=message):
            draws()


if __name__ == "__main__":
    KEPT.mkdir(exist_ok=True)
    for drawing in DRAWINGS:
        draw(drawing, made_up(), KEPT / f"{drawing}.png")
