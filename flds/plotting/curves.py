"""Curves over training steps and over depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from solvers import checks
from solvers.plotting.style import (
    BACKWARD,
    ERRORS,
    FORWARD,
    INTERVALS,
    PALETTE,
    TEST,
    TRAINING,
    curve,
    few,
    from_zero,
    legend,
    logarithmic,
    new_axes,
    shades,
    styled,
)
from solvers.results.solution import Solution as SavedSolution

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from flds.results.limit import LimitEstimate
    from flds.results.mean_ode import MeanFieldSolution
    from flds.results.solution import Solution

# A loss that changes by more is drawn on a logarithmic axis, and outputs of so many samples are drawn.
_DECADES, _SAMPLES = 100.0, 6


def over_steps(solution: Solution | LimitEstimate, ax: Axes | None) -> Axes:
    """Return axes for curves over training steps; refuse a solution that has none."""
    from matplotlib.ticker import MaxNLocator

    require_records(solution)
    ax = new_axes(ax)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("training step")
    return ax


def require_records(solution: Solution | LimitEstimate) -> None:
    """Refuse a solution that ended before its first record, or that is a sweep."""
    if "grid" in solution.settings:
        raise TypeError("a sweep has many runs: draw it by its plot(), or by plot_transfer")
    if not len(solution.steps):
        raise ValueError("the solution has no records: it ended before the first one")


def _band(solution: Solution | LimitEstimate) -> str:
    return INTERVALS if "outputs_half_width" in solution.variables else ERRORS


def _error(solution: Solution | LimitEstimate, name: str) -> NDArray[Any] | None:
    item = solution.variables.get(f"{name}_standard_error")
    half_width = solution.variables.get(f"{name}_half_width")  # of a LimitEstimate
    if item is None and half_width is not None:
        return half_width.values / 2
    return None if item is None else item.values


def _training_and_test(ax: Axes, solution: Solution | LimitEstimate, name: str) -> None:
    for field, colour, marker, label in ((name, TRAINING, "o", "training"), (f"test_{name}", TEST, "s", "test")):
        if field in solution.variables:
            y, error = solution.variables[field].values, _error(solution, field)
            marked = marker if len(y) <= 30 else None
            curve(ax, solution.steps, y, error, color=colour, marker=marked, markersize=3, label=label)


@styled
def plot_loss(solution: Solution | LimitEstimate, scale: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw training loss, test loss, and the loss of every batch against the step.

    Parameters
    ----------
    solution : Solution or LimitEstimate
        Of a training problem or of the Mean ODE.
    scale : str, optional
        That of the loss, "linear" or "log"; by default logarithmic where it changes by more than a factor 100, as where
        training diverges, whose last step is marked.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    AttributeError
        If the solution has no loss.
    ValueError
        If there is no such scale, or the solution ended before its first record.
    """
    solution.loss  # noqa: B018  names the variables there are
    ax = over_steps(solution, ax)
    shown = [solution.variables[name].values for name in ("loss", "test_loss") if name in solution.variables]
    if "batch_loss" in solution.variables and len(solution.batch_loss) > len(solution.steps):
        steps = np.arange(len(solution.batch_loss))
        ax.plot(steps, _finite(solution.batch_loss), color="0.7", linewidth=1, label="batch")
        shown.append(solution.batch_loss)
    _training_and_test(ax, solution, "loss")
    if solution.status == "diverged":
        last = len(solution.batch_loss) - 1 if "batch_loss" in solution.variables else solution.steps[-1]
        ax.axvline(last, color=BACKWARD, linestyle=":", label=f"diverged after step {last}")
    ax.set(ylabel="loss", title="Loss")
    values = np.concatenate([_finite(part) for part in shown])
    positive = values[values > 0]
    wide = positive.size and (solution.status == "diverged" or positive.max() > _DECADES * positive.min())
    chosen = ("log" if wide else "linear") if scale is None else checks.choice("scale", scale, ("linear", "log"))
    if chosen == "log":
        logarithmic(ax, "y")
    else:
        from_zero(ax)
    legend(ax)
    return ax


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    """Return numbers with NaN where they are too large for an axis."""
    return np.where(np.abs(values) < 1e300, values, np.nan)


def chance(solution: Solution | LimitEstimate) -> float:
    """Return the accuracy of a guess."""
    return 1 / solution.outputs.shape[-1] if solution.outputs.ndim >= 3 else 0.5


@styled
def plot_accuracy(solution: Solution, ax: Axes | None = None) -> Axes:
    """Draw training and test accuracy against the step, with chance for comparison; return the axes.

    Raises AttributeError if the problem has no classes.
    """
    accuracy = solution.accuracy
    ax = over_steps(solution, ax)
    _training_and_test(ax, solution, "accuracy")
    guess = chance(solution)
    ax.axhline(guess, color="0.5", linestyle=":", label=f"chance (1/{1 / guess:.0f})")
    ax.set(ylabel="accuracy", title="Accuracy", ylim=(0, max(1.02, accuracy.max(initial=0))))
    legend(ax)
    return ax


@styled
def plot_variance(solution: Solution, name: str = "feature_variance", ax: Axes | None = None) -> Axes:
    """Draw `feature_variance` or `gradient_variance` over depth at up to four steps; return the axes.

    Raises ValueError for another name, or if the solution ended before its first record.
    """
    symbols = {"feature_variance": ("h", "Features"), "gradient_variance": ("g", "Gradients")}
    symbol, title = symbols[checks.choice("name", name, tuple(symbols))]
    values, error = getattr(solution, name), _error(solution, name)
    require_records(solution)
    ax = new_axes(ax)
    for record, colour in few(len(solution.steps)):
        one = None if error is None else error[record]
        label = f"step {solution.steps[record]}"
        curve(ax, solution.depth_grid, values[record], one, color=colour, label=label)
    ax.set(xlabel="depth t", ylabel=f"mean square  E ${symbol}_t^2$", title=f"{title} over depth")
    legend(ax)
    return ax


@styled
def plot_rank(solution: Solution, ax: Axes | None = None) -> Axes:
    """Draw the mean rank of the forward and backward bases against the step; return the axes."""
    rank, error = solution.rank_by_step, _error(solution, "rank_by_step")
    ax = over_steps(solution, ax)
    for side, (label, colour, line) in enumerate((("forward", FORWARD, "-"), ("backward", BACKWARD, "--"))):
        one = None if error is None else error[:, side]
        curve(
            ax, solution.steps, rank[:, side], one, color=colour, linestyle=line, marker="o", markersize=3, label=label
        )
    ax.set(ylabel="rank, mean over depth", title="Rank of the bases")
    from_zero(ax)
    legend(ax)
    return ax


@styled
def plot_outputs(solution: Solution | LimitEstimate, ax: Axes | None = None) -> Axes:
    """Draw the first output of up to six recorded samples against the step; return the axes.

    Where the loss is a square, dotted lines are the targets.
    """
    ax = over_steps(solution, ax)
    targets = _targets(solution)
    for place, colour in zip(range(min(solution.outputs.shape[1], _SAMPLES)), PALETTE, strict=False):
        y, error = _trajectory(solution, place, 0)
        label = f"sample {_name(solution, place)}"
        curve(ax, solution.steps, y, error, _band(solution), color=colour, marker="o", markersize=3, label=label)
        if targets is not None:
            ax.axhline(targets[place, 0], color=colour, linestyle=":", linewidth=1)
    if targets is not None:
        ax.plot([], [], color="0.3", linestyle=":", linewidth=1, label="target")
    samples = solution.outputs.shape[1]
    part = f", {_SAMPLES} of {samples} samples" if samples > _SAMPLES else ""
    ax.set(ylabel="output f" if solution.outputs.ndim == 2 else "first output", title="Outputs" + part)
    legend(ax)
    return ax


def _targets(solution: Solution | LimitEstimate) -> NDArray[Any] | None:
    """Return the targets of recorded samples, (samples, outputs), where outputs are to come near and they were kept."""
    problem = solution.extra.get("problem", {})
    name = next((name for name in ("problem_targets", "targets") if name in solution.variables), None)
    if name is None or problem.get("loss") not in ("squared", "mean_squared"):
        return None
    rows = getattr(solution, name)
    recorded = [_name(solution, place) for place in range(solution.outputs.shape[1])]
    return np.asarray(rows[recorded].reshape(len(recorded), -1))


def _draw_target(ax: Axes, solution: Solution | LimitEstimate, sample: int, output: int) -> None:
    targets = _targets(solution)
    if targets is not None:
        ax.axhline(targets[sample, output], color="0.3", linestyle=":", linewidth=1, label="target")


@styled
def plot_replicates(solution: Solution, sample: int = 0, output: int = 0, ax: Axes | None = None) -> Axes:
    """Draw one output of every replicate against the step, and their mean ± 2 standard errors; return the axes.

    Raises AttributeError if the solution has one replicate only, IndexError if there is no such sample or output.
    """
    every = np.array([_pick(one, sample, output) for one in solution.replicate_outputs])
    ax = over_steps(solution, ax)
    lines = ax.plot(solution.steps, every.T, color="0.65", linewidth=0.8)
    lines[0].set_label(f"{len(every)} replicates")
    y, error = _trajectory(solution, sample, output)
    curve(ax, solution.steps, y, error, color=TRAINING, linewidth=2, label="mean")
    _draw_target(ax, solution, sample, output)
    ax.set(ylabel="output f", title=f"Replicates, sample {_name(solution, sample)}")
    legend(ax)
    return ax


@styled
def plot_against_limit(
    limit: Solution | LimitEstimate,
    networks: Sequence[Solution],
    sample: int = 0,
    output: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw one output of finite networks and of the limit against the step.

    Parameters
    ----------
    limit : Solution or LimitEstimate
        Of `solve_flds` or `estimate_limit`; anything else is called by its name in the legend.
    networks : sequence of Solution
        Of `simulate_resnet`, dense training or `solve_frozen`, of the same problem; the legend gives width and depth.
    sample, output : int
        Place among the recorded samples of the limit, and among the outputs.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    IndexError
        If there is no such sample or output.
    ValueError, TypeError
        If a network is of another problem, or did not record the sample, there are none, or something is no solution.
    """
    if not isinstance(limit, SavedSolution) or isinstance(networks, SavedSolution):
        given = f"{type(limit).__name__} and {type(networks).__name__}"
        raise TypeError(f"plot_against_limit takes (limit, networks), a solution and a list of them, got {given}")
    if not len(networks):
        raise ValueError("networks must have at least one solution")
    index = _name(limit, sample)
    for network in networks:
        if not isinstance(network, SavedSolution):
            raise TypeError(f"networks must be solutions, got {type(network).__name__}")
        if network.extra.get("problem") != limit.extra.get("problem"):
            raise ValueError("networks must be solutions of the problem of the limit")
        if "particles" not in network.settings:
            raise ValueError(f"networks must be of simulate_resnet or dense training, got {network.settings['solver']}")
        if index not in network.recorded_samples:
            raise ValueError(f"networks must have recorded sample {index}, got {network.recorded_samples.tolist()}")
    ax = over_steps(limit, ax)
    for network, colour in zip(networks, shades(len(networks))[::-1], strict=True):
        label = _called(network)
        place = int(np.flatnonzero(network.recorded_samples == index)[0])
        y, error = _trajectory(network, place, output)
        curve(ax, network.steps, y, error, color=colour, label=label)
    y, error = _trajectory(limit, sample, output)
    curve(ax, limit.steps, y, error, _band(limit), color="black", linestyle="--", linewidth=1.5, label=_called(limit))
    _draw_target(ax, limit, sample, output)
    ax.set(ylabel="output f", title=f"Networks and limit, sample {index}")
    legend(ax)
    return ax


def _called(solution: Solution | LimitEstimate) -> str:
    """Return what a solution is called in a legend: width and depth of a network, or the kind of a limit."""
    settings = solution.settings
    solver = settings.get("solver")
    if solver == "solve_frozen":
        return "frozen kernel"
    if solver in ("solve_flds", "estimate_limit") or "particles" not in settings:
        independent = settings.get("backward_weights") == "independent"
        return "limit" + ", independent backward weights" * independent
    return f"n = {settings['particles']}, L = {settings['depth']}"


@styled
def plot_travel(solution: MeanFieldSolution, ax: Axes | None = None) -> Axes:
    """Draw how far the units of the Mean ODE have moved at the last record, over depth, for each parameter.

    Returns the axes; raises ValueError if the solution has no travel.
    """
    names = [name for name in solution.variables if name.startswith("travel_") and not name.endswith("_standard_error")]
    if not (names and len(solution.steps)):
        raise ValueError("the solution has no travel: it must be of the Mean ODE, with a record")
    ax = new_axes(ax)
    for name, colour in zip(names, PALETTE, strict=False):
        y, error = getattr(solution, name)[-1], _error(solution, name)
        last, label = None if error is None else error[-1], name.removeprefix("travel_")
        curve(ax, solution.depth_grid, y, last, color=colour, label=label)
    ax.set(xlabel="depth s", ylabel="root mean square", title=f"Travel after {solution.steps[-1]} steps")
    from_zero(ax)
    legend(ax)
    return ax


def _pick(outputs: NDArray[Any], sample: int, output: int) -> NDArray[Any]:
    """Return one output over the records, from (records, samples[, …, outputs])."""
    return outputs[:, sample].reshape(len(outputs), -1)[:, output]


def _trajectory(
    solution: Solution | LimitEstimate, sample: int, output: int
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    error = _error(solution, "outputs")
    return _pick(solution.outputs, sample, output), None if error is None else _pick(error, sample, output)


def _name(solution: Solution | LimitEstimate, sample: int) -> int:
    """Return the index in the training set of a recorded sample."""
    recorded = solution.variables.get("recorded_samples")
    return int(sample if recorded is None else recorded.values[sample])
