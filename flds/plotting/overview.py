"""All of a solution in one figure."""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING, Any

from flds.plotting.curves import plot_accuracy, plot_loss, plot_outputs, plot_rank, plot_travel, plot_variance
from flds.plotting.kernels import plot_kernel, plot_spectrum
from flds.results.mean_ode import MeanFieldSolution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from flds.results.solution import Solution


def overview(solution: Solution) -> Figure:
    """Return a figure with loss, accuracy or outputs, feature and gradient norms over depth, and rank.

    With ``record_kernels=True`` there are also heat maps of Σ and Θ, and the spectrum of Σ.
    """
    from matplotlib.figure import Figure

    recorded = len(solution.steps) > 0  # otherwise it ended before the first record
    rows = 3 if recorded and "feature_kernel" in solution.variables else 2
    figure = Figure(figsize=(11, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, 3).ravel()
    _text(axes[5], solution.summary().splitlines(), 44 if rows == 2 else 38)
    if not recorded:
        for ax in axes[:5]:
            ax.axis("off")
        return figure
    plot_loss(solution, ax=axes[0])
    if "accuracy" in solution.variables:
        plot_accuracy(solution, axes[1])
    else:
        plot_outputs(solution, axes[1])
    plot_rank(solution, axes[2])
    plot_variance(solution, "feature_variance", axes[3])
    plot_variance(solution, "gradient_variance", axes[4])
    if rows == 3:
        plot_kernel(solution, "feature_kernel", ax=axes[6])
        plot_kernel(solution, "gradient_kernel", ax=axes[7])
        plot_spectrum(solution, "feature_kernel", ax=axes[8])
    return figure


def mean_field_overview(solution: MeanFieldSolution) -> Figure:
    """Return a figure with the loss against the step and the travel of the units over depth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=(1, 1, 1.2))
    _text(axes[2], solution.summary().splitlines(), 44)
    if not len(solution.steps):
        for ax in axes[:2]:
            ax.axis("off")
        return figure
    plot_loss(solution, "log", axes[0])
    plot_travel(solution, axes[1])
    return figure


def _text(ax: Axes, lines: list[str], width: int) -> None:
    wrapped = [part for line in lines for part in textwrap.wrap(line, width, subsequent_indent=" " * 11) or [""]]
    ax.axis("off")
    ax.text(0, 1, "\n".join(wrapped), va="top", family="monospace", fontsize=7.5)


def picture(solution: Any, path: str | os.PathLike[str] | None = None) -> Figure:
    """Return the overview of a solution of either kind; save it if there is a path."""
    figure = mean_field_overview(solution) if isinstance(solution, MeanFieldSolution) else overview(solution)
    if path is not None:
        save_picture(figure, path)
    return figure


def save_picture(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure; a PNG is marked as ours, which lets a later run replace it."""
    png = str(path).lower().endswith(".png")
    figure.savefig(path, dpi=150, metadata={"Software": "flds"} if png else None)
