"""All of a solution in one figure, and its settings and results in words."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from flds.plotting.curves import plot_accuracy, plot_loss, plot_outputs, plot_rank, plot_travel, plot_variance
from flds.plotting.kernels import plot_kernel, plot_spectrum
from flds.training.divergence import completed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from flds.results.mean_ode import MeanFieldSolution
    from flds.results.solution import Solution


def overview(solution: Solution) -> Figure:
    """Return a figure with loss, accuracy or outputs, feature and gradient norms over depth, and rank.

    With ``record_kernels=True`` there are also heat maps of Σ and Θ, and the spectrum of Σ.
    """
    from matplotlib.figure import Figure

    recorded = len(solution.steps) > 0  # otherwise it ended before the first record
    rows = 3 if recorded and "feature_kernel" in solution.fields else 2
    figure = Figure(figsize=(11, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, 3).ravel()
    _text(axes[5], summary_lines(solution), 44 if rows == 2 else 38)
    if not recorded:
        for ax in axes[:5]:
            ax.axis("off")
        return figure
    plot_loss(solution, ax=axes[0])
    if "accuracy" in solution.fields:
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


def summary_lines(solution: Solution) -> list[str]:
    """Return the settings and results of a solution as lines of plain text."""
    settings, problem = solution.settings, solution.extra["problem"]
    lines = [
        f"solver     {settings['solver']}, {settings['backward_weights']} backward weights",
        f"network    {settings['particles']} particles, depth {settings['depth']}, "
        f"{problem['activation']}, horizon {problem['horizon']:g}",
        f"method     {settings['operator']} operator, sampling by {settings['sampling']}, {settings['dtype']}",
        f"tolerance  {settings['tolerance']:.3g}, seed {solution.seed}, {completed(settings)}",
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
