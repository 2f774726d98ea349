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
from flds.plotting import transfer
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
        "batch_loss": Variable(("every_step",), 1.1 * np.exp(-np.arange(16) / 10), "loss"),
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
    kept = {"state_0": {"last_states": Variable(("batch", "particle"), states, "states")}}
    fields["travel_u"] = fields["feature_variance"]
    settings = {"solver": "solve_flds", "particles": 500, "depth": LAYERS}
    return flds.Solution(fields, "completed", {}, 0, settings, extra={"problem": problem}, groups=kept)


def depths() -> flds.Sweep:
    found = grid("limit")
    found.settings["grid"] = ["depth"]
    found.variables["depth"] = found.variables.pop("learning_rate")._replace(dims=("depth",))
    for name in ("status", "loss", "loss_standard_error"):
        item = found.variables[name]
        found.variables[name] = item._replace(dims=("depth", *item.dims[1:]))
    return found


def others_data() -> flds.Sweep:
    found = grid("limit")
    found.settings["fixed"] = {"inputs": "sha256 other"}
    return found


def diverged(kind: str = "limit", rates: int = 5) -> flds.Sweep:
    """A sweep in which the runs of the first so many rates diverged."""
    found = grid(kind)
    found.variables["status"].values[:rates] = "diverged"
    return found


def other_problem() -> flds.Sweep:
    found = grid("limit")
    found.settings["fixed"] |= {"activation": "'relu'"}
    return found


def of_rates(rates: list[float]) -> flds.Sweep:
    found = grid("limit")
    found.variables["learning_rate"].values[:] = rates
    return found


def wider(solution: flds.Solution, solver: str = "simulate_resnet") -> flds.Solution:
    solution.settings["solver"] = solver
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
    "gradient_kernel": lambda s, ax: plotting.plot_kernel(
        s, "gradient_kernel", step=[0, 15], layer=[2, 4], order=[1, 0, 1], ax=ax
    ),
    "movement": lambda s, ax: plotting.plot_kernel_movement(s, ax=ax),
    "spectrum": lambda s, ax: plotting.plot_spectrum(s, ax=ax),
    "particles": lambda s, ax: plotting.plot_particles(s, ax=ax),
    "travel": lambda s, ax: plotting.plot_travel(s, ax),
    "transfer": lambda s, ax: plotting.plot_transfer(grid("width"), grid("limit"), ax=ax),
    "phases": lambda s, ax: plotting.plot_phase_diagram(flds.residual_regime(100, 48, 40, sigma_v=3.0), ax),
}


def grid(kind: str) -> flds.Sweep:
    """A sweep of formulas: parabolas in the logarithm of the rate, with errors of the limit."""
    rates, widths = np.array([0.1, 0.2, 0.4, 0.8, 1.6]), np.array([64, 256])
    names = ["learning_rate", "width"] if kind == "width" else ["learning_rate"]
    bent = 0.1 + (np.log2(rates / 0.5)[:, None] + (0.3 if kind == "width" else 0.0)) ** 2 * np.array([0.03, 0.02])
    bent = (bent if kind == "width" else bent[:, :1].reshape(5))[..., None] * np.ones(2)
    dims = (*names, "step")
    fields = {
        "learning_rate": Variable(("learning_rate",), rates, "rate"),
        "width": Variable(("width",), widths, "width"),
        "status": Variable(tuple(names), np.full(bent.shape[:-1], "completed"), "end"),
        "steps": Variable(("step",), np.array([0, 9]), "step"),
        "loss": Variable(dims, bent, "loss"),
        "loss_standard_error": Variable(dims, 0.01 + 0 * bent, "error"),
    }
    if kind == "limit":
        del fields["width"]
    settings = {"solver": "sweep", "of": "solve_flds", "grid": names, "fixed": {"inputs": "sha256 mine"}}
    return flds.Sweep(fields, "completed", {}, 0, settings)


def draw(name: str, solution: flds.Solution, path: Path):
    """Draw without text, whose pixels depend on fonts."""
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=(3, 2.2))
        ax = figure.subplots()
        drawn = DRAWINGS[name](solution, ax)
        for one in figure.axes:
            one.set(xticks=[], yticks=[], xlabel="", ylabel="", title="")
            one.minorticks_off()
            if one.get_legend():
                one.get_legend().remove()
            for label in one.texts:
                label.set_visible(False)
        figure.savefig(path, dpi=60)
    return drawn


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
    assert DRAWINGS[name](made_up(), ax) is ax
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
    (image,) = plotting.plot_kernel(solution, step=[3], ax=Figure().subplots()).images
    np.testing.assert_array_equal(image.get_array(), solution.feature_kernel[-1][9:, 9:])
    order = ["b", "a", "b"]
    ax = plotting.plot_kernel(
        solution, "gradient_kernel", step=[0, 2], layer=[1, 3], order=order, ax=Figure().subplots()
    )
    whole, sorting = ax.images[0].get_array(), [1, 0, 2]
    for row, layer in enumerate((1, 3)):
        for column, step in enumerate((0, 2)):
            block = solution.gradient_kernel[layer][3 * step : 3 * step + 3, 3 * step : 3 * step + 3]
            found = whole[4 * row : 4 * row + 3, 4 * column : 4 * column + 3]
            np.testing.assert_array_equal(found, block[np.ix_(sorting, sorting)])
    assert whole.mask[3].all()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["t = 0.5", "t = 1"]
    curves = plotting.plot_kernel_movement(solution, "gradient_kernel", Figure().subplots()).lines
    first = solution.gradient_kernel[0].reshape(4, 3, 4, 3)
    moved = [np.linalg.norm(first[k, :, k] - first[0, :, 0]) / np.linalg.norm(first[0, :, 0]) for k in range(4)]
    np.testing.assert_allclose(curves[0].get_ydata(), moved, rtol=1e-12)
    assert moved[0] == 0 < moved[1]
    inactive = solution.feature_kernel.copy()
    inactive[:, 9] = inactive[:, :, 9] = np.nan  # sample 0 at the last step
    fields = solution.variables | {"feature_kernel": solution.variables["feature_kernel"]._replace(values=inactive)}
    curves = plotting.plot_spectrum(dataclasses.replace(solution, variables=fields), ax=Figure().subplots()).lines
    assert [len(curve.get_ydata()) for curve in curves] == [3, 3, 3, 2]
    curves = plotting.plot_spectrum(solution, layer=1, ax=Figure().subplots()).lines
    expected = np.linalg.eigvalsh(solution.feature_kernel[1].reshape(4, 3, 4, 3)[3, :, 3])[::-1]
    np.testing.assert_allclose(curves[-1].get_ydata(), expected, rtol=1e-12)


def test_particles_are_those_of_the_solution(solution):
    smooth, gaussian = plotting.plot_particles(solution, sample=2, ax=Figure().subplots()).lines
    values = solution.states[0]["last_states"].values[2]
    for line in (smooth, gaussian):
        x, density = line.get_data()
        step, mass = x[1] - x[0], density / density.sum()
        assert 0.98 < density.sum() * step < 1.001  # 1 in 1,000 particles is cut off on either side, and smoothed
        assert np.sum(mass * x) == pytest.approx(values.mean(), abs=0.02)
        # of a kernel estimate by the square of its width, 0.9 n^-1/5, about 0.07 of the variance
        assert np.sum(mass * (x - values.mean()) ** 2) == pytest.approx(values.var(), rel=0.1)
    forward = flds.solve_forward(particles=1000, depth=4)
    assert plotting.plot_particles(forward, ax=Figure().subplots()).lines
    same = dataclasses.replace(forward, variables={"final_particles": Variable(("particle",), np.ones(5), "h")})
    assert (
        plotting.plot_particles(same, ax=Figure().subplots()).get_legend().texts[0].get_text().endswith("all the same")
    )


def test_an_overview_has_the_kernels_where_they_are_recorded(solution, tmp_path):
    titles = [ax.get_title() for ax in solution.plot(tmp_path / "run.png").axes]
    assert "Rank of the bases" in titles
    assert "Feature kernel Σ, t = 0.75" in titles
    assert "Spectrum of Σ, t = 0.75" in titles
    assert (tmp_path / "run.png").stat().st_size > 10_000


def test_new_axes_are_made_where_none_are_given(solution):
    with mpl.rc_context({"backend": "agg"}):
        import matplotlib.pyplot as plt

        ax = plotting.plot_loss(solution)
        assert ax.figure.get_size_inches()[0] == plotting.ONE_COLUMN
        assert ax.title.get_fontsize() == plotting.STYLE["axes.titlesize"]
        assert plotting.plot_transfer(grid("width")).figure.get_size_inches()[0] == plotting.TWO_COLUMNS
        plt.close("all")


def test_a_dense_run_shows_no_ranks():
    dense = flds.simulate_resnet(three_samples(), width=20, depth=2, operator="dense")
    assert "Rank of the bases" not in [ax.get_title() for ax in dense.plot().axes]


def test_bands_and_targets_have_names(solution):
    labels = plotting.plot_outputs(solution, Figure().subplots()).get_legend_handles_labels()[1]
    assert labels[-1] == "target"
    assert labels.count("± 2 standard errors") == 1
    ax = plotting.plot_outputs(solution, Figure().subplots())
    dotted = sorted(line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == ":" and len(line.get_ydata()))
    assert dotted == [-1.0, 0.5, 1.0]
    estimate = flds.estimate_limit(three_samples(steps=1), target_error=0.5, particles=300, depth=2, replicates=2)
    labels = plotting.plot_outputs(estimate, Figure().subplots()).get_legend_handles_labels()[1]
    assert "95 % intervals" in labels


def test_a_blow_up_is_seen():
    problem = flds.TrainingProblem(np.eye(3), [1.0, -1.0, 2.0], learning_rate=30.0, steps=30)
    with pytest.warns(RuntimeWarning, match="diverged"):
        wild = flds.simulate_resnet(problem, width=50, depth=2)
    ax = plotting.plot_loss(wild, ax=Figure().subplots())
    assert ax.get_yscale() == "log"
    assert ax.get_ylim()[1] > np.nanmax(wild.loss)
    assert f"diverged after step {len(wild.batch_loss) - 1}" in ax.get_legend_handles_labels()[1]
    assert wild.plot().axes


@pytest.mark.parametrize(("errors", "narrow"), [(None, False), (0.001, True)])
def test_the_optimum_is_that_of_the_parabola(errors, narrow):
    rates = np.array([0.1, 0.2, 0.4, 0.8, 1.6])
    losses = 1 + np.log(rates / 0.5) ** 2
    found = transfer.optimum(rates, losses, None if errors is None else np.full(5, errors))
    assert (found.rate, found.loss) == pytest.approx((0.5, 1.0), rel=1e-12)
    assert found.sampled == narrow
    assert found.low <= 0.5 <= found.high
    assert (found.high / found.low < 1.05) == narrow
    assert transfer.optimum(rates, -losses, None, largest=True).rate == pytest.approx(0.5, rel=1e-12)
    bent = transfer.optimum(rates, 1e-3 * np.exp(losses - 1), np.exp(losses) * (errors or 0.0), logarithmic=True)
    assert (bent.rate, bent.loss, bent.sampled) == pytest.approx((0.5, 1e-3, narrow), rel=1e-12)
    for ended in ([3, 2, 1, np.nan, np.nan], [1, 2, 3, 4, 5], [np.nan, 1, np.nan, np.nan, np.nan]):
        assert transfer.optimum(rates, np.array(ended), np.full(5, 0.01)) is None


def test_rates_that_diverge_are_seen_and_ends_are_no_optimum():
    """Losses over four decades: exp(3 log(rate / 0.5)²) / 100 has its least at 0.5, and its axis is logarithmic."""
    networks, limit = grid("width"), grid("limit")
    rates = networks.variables["learning_rate"].values
    losses = 0.01 * np.exp(3 * np.log(rates / 0.5) ** 2)
    networks.variables["loss"].values[...] = losses[:, None, None] * np.array([1.0, 2.0])[:, None]
    networks.variables["status"].values[3:, 1] = "diverged"
    networks.variables["status"].values[1, 0] = "failed"
    limit.variables["loss"].values[...] = losses[:, None]
    ax = plotting.plot_transfer(networks, limit, ax=Figure().subplots())
    assert ax.get_yscale() == "log"
    stars = [line.get_xydata()[0] for line in ax.lines if line.get_marker() == "*"]
    assert np.array(stars) == pytest.approx(np.full((2, 2), (0.5, 0.01)), rel=1e-9)  # none for the curve that ends
    crosses = [line.get_xdata() for line in ax.lines if line.get_marker() == "x"]
    assert [one.tolist() for one in crosses] == [[0.8, 1.6]]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels[:3] == ["width 64", "width 256", "limit"]
    assert "diverged" in labels
    ax.figure.draw_without_rendering()
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0.1", "0.2", "0.4", "0.8", "1.6"]
    failed = [line for line in ax.lines if line.get_marker() == "+"]
    assert [line.get_xdata().tolist() for line in failed] == [[0.2]]
    assert failed[0].get_label() == "failed"
    limit.settings["of"] = "simulate_resnet"
    with pytest.raises(ValueError, match=r"plot_transfer\(networks, limit\)"):
        plotting.plot_transfer(networks, limit)


def test_the_interval_of_an_optimum_contains_it():
    """200 noisy parabolas whose errors are known; 95 % is expected and four standard errors are 6.2 %."""
    rates, rng, inside = np.geomspace(0.1, 1.6, 5), np.random.default_rng(0), 0
    for _ in range(200):
        noise = 0.05 * rng.standard_normal(5)
        found = transfer.optimum(rates, np.log(rates / 0.45) ** 2 + noise, np.full(5, 0.05))
        inside += found.low <= 0.45 <= found.high
    assert 0.888 < inside / 200 < 1.0


def test_batches_in_another_order_are_sorted_by_the_samples_in_them():
    problem = flds.TrainingProblem(np.eye(4), [1.0, -1.0, 2.0, 0.5], steps=2, batch_order=[[2, 0, 1, 3], [3, 1, 0, 2]])
    run = flds.simulate_resnet(problem, width=30, depth=2, record_kernels=True)
    labels = np.array([0, 0, 1, 1])
    ax = plotting.plot_kernel(run, step=[0, 1], order=labels, ax=Figure().subplots())
    whole = ax.images[0].get_array()
    for column, batch in enumerate(([2, 0, 1, 3], [3, 1, 0, 2])):
        places = np.argsort(labels[batch], kind="stable")
        block = run.feature_kernel[-1][4 * column : 4 * column + 4, 4 * column : 4 * column + 4]
        np.testing.assert_array_equal(whole[:, 5 * column : 5 * column + 4], block[np.ix_(places, places)])


def test_wide_losses_are_logarithmic_and_seeds_that_did_not_complete_leave_no_mean():
    wide = grid("width")
    wide.variables["loss"].values[-1] = 1e3
    assert plotting.plot_transfer(wide, ax=Figure().subplots()).get_yscale() == "log"
    assert plotting.plot_transfer(grid("width"), ax=Figure().subplots()).get_yscale() == "linear"
    seeds = grid("width")
    for name in ("loss", "status", "loss_standard_error"):
        item = seeds.variables[name]
        dims = tuple("seed" if dim == "width" else dim for dim in item.dims)
        seeds.variables[name] = item._replace(dims=dims)
    seeds.variables["seed"] = seeds.variables.pop("width")._replace(dims=("seed",))
    seeds.settings["grid"] = ["learning_rate", "seed"]
    seeds.variables["status"].values[4, 0] = "diverged"
    ((_, (_rates, losses, errors, ended, _failed)),) = transfer._curves(seeds, None).items()
    assert np.isnan(losses).tolist() == ended.tolist() == [False] * 4 + [True]
    expected = seeds.loss[:4, :, -1]
    np.testing.assert_allclose(losses[:4], expected.mean(1))
    np.testing.assert_allclose(errors[:4], expected.std(1, ddof=1) / np.sqrt(2))


def test_an_interval_says_what_it_is():
    labels = plotting.plot_transfer(grid("width"), grid("limit"), ax=Figure().subplots()).get_legend_handles_labels()[1]
    assert labels.count("95 % interval of the limit's optimum") == 1
    bare = grid("limit")
    del bare.variables["loss_standard_error"]
    labels = plotting.plot_transfer(grid("width"), bare, ax=Figure().subplots()).get_legend_handles_labels()[1]
    assert "rates beside the limit's optimum" in labels


def test_logarithmic_axes_have_few_labels():
    for low, high in ((0.011, 0.09), (1e-6, 1e3), (2.0, 3e4), (5e-9, 4e-8)):
        ax = Figure().subplots()
        ax.plot([low, high], [low, high])
        plotting.logarithmic(ax, "x", "y")
        shown = [label.get_text() for label in ax.get_yticklabels() if label.get_text()]
        inside = [tick for tick in ax.yaxis.get_majorticklocs() if ax.get_ylim()[0] <= tick <= ax.get_ylim()[1]]
        assert 1 <= len(inside) <= 7, (low, high, inside)
        assert not any(label.get_text() for label in ax.get_yticklabels(minor=True))
        assert shown


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
        (
            lambda: plotting.plot_kernel(bare, ax=ax),
            AttributeError,
            "no feature_kernel, which takes record_kernels=True",
        ),
        (lambda: plotting.plot_kernel(solution, "kernel", ax=ax), ValueError, "name must be one of feature_kernel"),
        (
            lambda: plotting.plot_kernel(solution, step=7, ax=ax),
            ValueError,
            "step must be recorded, one of 0, 1, 2, 3, got",
        ),
        (lambda: plotting.plot_kernel(solution, layer=9, ax=ax), IndexError, "out of bounds"),
        (lambda: plotting.plot_kernel(solution, order=[1, 2], ax=ax), ValueError, "each of the 3 training samples"),
        (lambda: plotting.plot_kernel(solution, layer=0.5, ax=ax), ValueError, "layer must be an index or several"),
        (lambda: plotting.plot_loss(grid("limit"), ax=ax), TypeError, "draw it by its plot"),
        (lambda: plotting.plot_transfer(grid("limit"), others_data(), ax=ax), ValueError, "but differ in inputs"),
        (lambda: plotting.plot_transfer(grid("width"), other_problem(), ax=ax), ValueError, "but differ in activation"),
        (lambda: plotting.plot_transfer(of_rates([0, 1, 2, 3, 4]), ax=ax), ValueError, "must be positive for a log"),
        (lambda: plotting.plot_transfer(diverged(), ax=ax), ValueError, "no run has completed"),
        (lambda: plotting.plot_loss(solution, "cubic", ax), ValueError, "scale must be one of linear, log"),
        (lambda: solution.plot("picture.xyz"), ValueError, "Format 'xyz' is not supported"),
        (lambda: plotting.plot_transfer(solution, ax=ax), TypeError, "must be results of flds.sweep, got Solution"),
        (lambda: plotting.plot_transfer(depths(), ax=ax), ValueError, "must vary learning_rate, but varies depth"),
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
        (lambda: plotting.plot_against_limit([bare], bare, ax=ax), TypeError, r"takes \(limit, networks\), .*list and"),
        (lambda: plotting.plot_against_limit(bare, bare, ax=ax), TypeError, "got Solution and Solution"),
        (lambda: plotting.plot_against_limit(bare, [], ax=ax), ValueError, "at least one solution"),
        (lambda: plotting.plot_against_limit(bare, [bare.outputs], ax=ax), TypeError, "solutions, got ndarray"),
        (
            lambda: plotting.plot_kernel_movement(flds.solve_forward(particles=50, depth=2)),
            AttributeError,
            "no variable|no feature_kernel",
        ),
        (lambda: plotting.plot_loss(flds.solve_forward(particles=50, depth=2)), AttributeError, "no variable 'loss'"),
        *(
            (lambda draw=draw: draw(early, ax=ax), ValueError, "it ended before the first one")
            for draw in (plotting.plot_loss, plotting.plot_outputs, plotting.plot_rank, plotting.plot_variance)
        ),
    ):
        with pytest.raises(error, match=message):
            draws()


def test_all_that_decides_a_problem_is_compared():
    named = {item.name for item in dataclasses.fields(flds.TrainingProblem) if item.init}
    assert named == {"learning_rate", "divergence_factor", *transfer.PROBLEM}


def test_legends_say_what_a_curve_is():
    frozen = wider(made_up(), "solve_frozen")
    ax = plotting.plot_against_limit(made_up(), [wider(made_up()), frozen], ax=Figure().subplots())
    assert [line.get_label() for line in ax.lines[:3]] == ["n = 500, L = 6", "frozen kernel", "limit"]
    independent = made_up()
    independent.settings["backward_weights"] = "independent"
    ax = plotting.plot_against_limit(independent, [wider(made_up())], ax=Figure().subplots())
    assert ax.lines[1].get_label() == "limit, independent backward weights"
    networks, limit = grid("width"), grid("limit")
    networks.settings["fixed"] = {"activation": "'tanh'", "depth": "4"}
    limit.settings["fixed"] = {"activation": "'tanh'", "depth": "2", "backward_weights": "'independent'"}
    labels = plotting.plot_transfer(networks, limit, ax=Figure().subplots()).get_legend_handles_labels()[1]
    assert "limit, depth 2, independent backward weights" in labels


if __name__ == "__main__":
    KEPT.mkdir(exist_ok=True)
    for drawing in DRAWINGS:
        draw(drawing, made_up(), KEPT / f"{drawing}.png")


def test_a_summary_ends_with_its_figure():
    """In the narrowest place there is: the last column, which legends and bars of colours push to the right."""
    problem = flds.TrainingProblem(np.eye(6), np.ones(6), steps=2)
    run = flds.solve_flds(problem, particles=300, depth=2, record_kernels=True, replicates=2)
    figure = run.plot()
    figure.draw_without_rendering()
    (summary,) = (text for ax in figure.axes for text in ax.texts if "status" in text.get_text())
    width = figure.get_figwidth() * figure.dpi
    assert summary.get_window_extent().x1 <= width
    summary.set_text("sampling by matched, float64" + 40 * " and")
    assert summary.get_window_extent().x1 > width  # which this would notice
