"""Pictures of solutions. Functions draw into the axes they are given and return the artists."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from flds.mean_ode.solution import MeanFieldSolution
    from flds.solution import Solution

# Okabe and Ito's palette, told apart with any colour vision.
TRAINING, TEST, FORWARD, BACKWARD = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
_CURVES_OVER_DEPTH = 5


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(4.5, 3.2), layout="constrained")[1]


def _curve(ax: Axes, x: NDArray[Any], solution: Solution, name: str, **style: Any) -> list[Artist]:
    """Draw a field against x, with a band of ± 2 standard errors where there are replicates."""
    y = getattr(solution, name)
    artists: list[Artist] = list(ax.plot(x, y, **style))
    error = solution.fields.get(f"{name}_standard_error")
    if error is not None:
        low, high = y - 2 * error.values, y + 2 * error.values
        artists.append(ax.fill_between(x, low, high, color=style.get("color"), alpha=0.25, linewidth=0))
    return artists


def plot_loss(solution: Solution, ax: Axes | None = None) -> list[Artist]:
    """Draw training loss, test loss, and the loss of every batch against the step."""
    ax = _axes(ax)
    artists: list[Artist] = []
    if len(solution.batch_loss) > len(solution.steps):
        steps = np.arange(len(solution.batch_loss))
        artists += ax.plot(steps, solution.batch_loss, color="0.7", linewidth=1, label="batch")
    artists += _curve(ax, solution.steps, solution, "loss", color=TRAINING, marker="o", markersize=3, label="training")
    if "test_loss" in solution.fields:
        artists += _curve(ax, solution.steps, solution, "test_loss", color=TEST, marker="s", markersize=3, label="test")
    ax.set(xlabel="training step", ylabel="loss", title="Loss")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
    return artists


def plot_accuracy(solution: Solution, ax: Axes | None = None) -> list[Artist]:
    """Draw training and test accuracy against the step, with chance for comparison."""
    ax = _axes(ax)
    artists = _curve(
        ax, solution.steps, solution, "accuracy", color=TRAINING, marker="o", markersize=3, label="training"
    )
    if "test_accuracy" in solution.fields:
        artists += _curve(
            ax, solution.steps, solution, "test_accuracy", color=TEST, marker="s", markersize=3, label="test"
        )
    outputs = solution.outputs.shape[2] if solution.outputs.ndim == 3 else 2
    artists.append(ax.axhline(1 / outputs, color="0.5", linestyle=":", label=f"chance (1/{outputs})"))
    ax.set(xlabel="training step", ylabel="accuracy", title="Accuracy", ylim=(0, 1.02))
    ax.legend(frameon=False, loc="center right")
    return artists


def plot_variance(solution: Solution, name: str, ax: Axes | None = None) -> list[Artist]:
    """Draw `feature_variance` or `gradient_variance` over depth, one curve for each of a few steps."""
    import matplotlib as mpl

    ax = _axes(ax)
    symbol = {"feature_variance": "h", "gradient_variance": "g"}[name]
    records = np.unique(np.linspace(0, len(solution.steps) - 1, _CURVES_OVER_DEPTH).round().astype(int))
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(records)))
    artists: list[Artist] = []
    for record, colour in zip(records, colours, strict=True):
        y = getattr(solution, name)[record]
        artists += ax.plot(solution.depth_grid, y, color=colour, label=f"step {solution.steps[record]}")
    title = "Features over depth" if symbol == "h" else "Gradients over depth"
    ax.set(xlabel="depth t", ylabel=f"mean square  E ${symbol}_t^2$", title=title)
    ax.legend(frameon=False, fontsize="small")
    return artists


def plot_rank(solution: Solution, ax: Axes | None = None) -> list[Artist]:
    """Draw the mean rank of the forward and backward bases against the step."""
    ax = _axes(ax)
    artists: list[Artist] = []
    for side, (label, colour) in enumerate((("forward", FORWARD), ("backward", BACKWARD))):
        artists += ax.plot(solution.steps, solution.rank_by_step[:, side], color=colour, marker="o", markersize=3,
                           label=label)  # fmt: skip
    ax.set(xlabel="training step", ylabel="rank, mean over depth", title="Rank of the bases")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
    return artists


def plot_outputs(solution: Solution, ax: Axes | None = None) -> list[Artist]:
    """Draw the outputs of up to ten recorded samples against the step."""
    ax = _axes(ax)
    outputs = solution.outputs if solution.outputs.ndim == 2 else solution.outputs[:, :, 0]
    artists: list[Artist] = list(ax.plot(solution.steps, outputs[:, :10], marker="o", markersize=3))
    ax.set(xlabel="training step", ylabel="output f", title="Outputs")
    return artists


def overview(solution: Solution) -> Figure:
    """Return a figure with loss, accuracy or outputs, feature and gradient norms over depth, and rank."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.4), layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    _text(axes[5], summary_lines(solution))
    if not len(solution.steps):  # ended before the first record
        for ax in axes[:5]:
            ax.axis("off")
        return figure
    plot_loss(solution, axes[0])
    if "accuracy" in solution.fields:
        plot_accuracy(solution, axes[1])
    else:
        plot_outputs(solution, axes[1])
    plot_rank(solution, axes[2])
    plot_variance(solution, "feature_variance", axes[3])
    plot_variance(solution, "gradient_variance", axes[4])
    return figure


def mean_field_overview(solution: MeanFieldSolution) -> Figure:
    """Return a figure with the loss against the step and the travel of the units over depth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=(1, 1, 1.2))
    _text(axes[2], solution.summary().splitlines())
    if not len(solution.steps):
        for ax in axes[:2]:
            ax.axis("off")
        return figure
    _curve(axes[0], solution.steps, solution, "loss", color=TRAINING, label="training")
    if "test_loss" in solution.fields:
        _curve(axes[0], solution.steps, solution, "test_loss", color=TEST, label="test")
    axes[0].set(xlabel="training step", ylabel="loss", title="Loss", yscale="log")
    axes[0].legend(frameon=False)
    for name in solution.extra["problem"]["learning_rates"]:
        axes[1].plot(solution.depth_grid, getattr(solution, f"travel_{name}")[-1], label=name)
    axes[1].set(xlabel="depth s", ylabel="root mean square", title=f"Travel after {solution.steps[-1]} steps")
    axes[1].set_ylim(bottom=0)
    axes[1].legend(frameon=False)
    return figure


def _text(ax: Axes, lines: list[str]) -> None:
    width = 52
    wrapped = [part for line in lines for part in textwrap.wrap(line, width, subsequent_indent=" " * 11) or [""]]
    ax.axis("off")
    ax.text(0, 1, "\n".join(wrapped), va="top", family="monospace", fontsize=7.5)


def summary_lines(solution: Solution) -> list[str]:
    """Return the settings and results of a solution as lines of plain text."""
    settings, problem = solution.settings, solution.extra["problem"]
    lines = [
        f"solver     {settings['solver']}, {settings['backward_weights']} backward weights",
        f"network    {settings['particles']} particles, depth {settings['depth']}, "
        f"{problem['activation']}, horizon {problem['horizon']:g}",
        f"method     {settings['operator']} operator, sampling by {settings['sampling']}, {settings['dtype']}",
        f"tolerance  {settings['tolerance']:.3g}, seed {solution.seed}, replicates {settings['replicates_completed']}",
    ]
    if settings["operator"] == "lazy" and len(solution.rank):
        rank, dropped = solution.rank.max(axis=0), solution.truncation.max(axis=0)
        lines.append(f"rank       {rank[0]:g} forward, {rank[1]:g} backward (largest over depth)")
        lines.append(f"dropped    {dropped[0]:.1e} forward, {dropped[1]:.1e} backward (share of the mass)")
    if len(solution.steps):
        lines.append(f"step       {solution.steps[-1]} of {problem['steps']}")
        for prefix, label, samples in (("", "training", solution.outputs.shape[1]), ("test_", "test", None)):
            if f"{prefix}loss" not in solution.fields:
                continue
            count = samples or solution.test_outputs.shape[1]
            result = f"{problem['loss']} loss {_last(solution, f'{prefix}loss')}"
            if f"{prefix}accuracy" in solution.fields:
                result += f", accuracy {_last(solution, f'{prefix}accuracy', percent=True)}"
            lines.append(f"{label:10} {result} on {count} samples")
    lines.append(f"time       {solution.timings['compile']:.1f} s compile, {solution.timings['solve']:.1f} s solve")
    lines.append(f"status     {solution.status}")
    return lines + [f"note       {note}" for note in solution.notes]


def _last(solution: Solution, name: str, percent: bool = False) -> str:
    value = getattr(solution, name)[-1]
    error = solution.fields.get(f"{name}_standard_error")
    if percent:
        return f"{value:.1%}" + ("" if error is None else f" ± {error.values[-1]:.1%}")
    return f"{value:.4g}" + ("" if error is None else f" ± {error.values[-1]:.2g}")
