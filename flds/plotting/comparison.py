"""Networks of one's own beside a limit."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from flds.results.comparison import Comparison
from solvers.plotting.style import INTERVALS, TEST, TRAINING, legend, new_axes, panels, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def plot_comparison(comparison: Comparison, ax: Axes | None = None) -> Axes:
    """Draw the distance of the mean of networks from the limit, and the spread of one network, against the step.

    Parameters
    ----------
    comparison : Comparison
        Of `flds.compare`.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError
        If it is no comparison.
    """
    from matplotlib.ticker import MaxNLocator

    ax = _axes_for(comparison, ax)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("training step")
    ax.set_ylabel("root mean square over samples")
    steps, finite = comparison.steps, np.isfinite(comparison.interval).all(axis=1)
    low, high = comparison.interval[finite].T
    ax.fill_between(steps[finite], low, high, color=TRAINING, alpha=0.25, linewidth=0, label=INTERVALS)
    ax.plot(steps, comparison.distance, color=TRAINING, marker="o", label="mean of the networks from the limit")
    ax.plot(steps, comparison.spread, color=TEST, marker="s", label="one network from the mean")
    ax.set_ylim(0, 1.3 * ax.get_ylim()[1])  # room for the legend
    legend(ax)
    return ax


@styled
def plot_scores(comparison: Comparison, ax: Axes | None = None) -> Axes:
    """Draw how many outputs differ from the limit by so many standard errors, beside the normal law.

    Parameters
    ----------
    comparison : Comparison
        Of `flds.compare`.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError
        If it is no comparison.
    """
    ax = _axes_for(comparison, ax)
    scores = comparison.scores[np.isfinite(comparison.scores)]
    reach = max(4.0, float(np.abs(scores).max(initial=0.0)))
    edges = np.linspace(-reach, reach, 33)
    ax.hist(
        scores,
        edges.tolist(),
        density=True,
        color=TRAINING,
        alpha=0.5,
        label="outputs of all steps and samples,\nwhich depend on each other",
    )
    z = np.linspace(-reach, reach, 201)
    ax.plot(z, np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi), color="0.2", label="normal law")
    ax.set_xlabel("mean less limit, in standard errors")
    ax.set_ylabel("density")
    ax.set_ylim(0, 1.3 * ax.get_ylim()[1])
    legend(ax)
    return ax


def _axes_for(comparison: Comparison, ax: Axes | None) -> Axes:
    if not isinstance(comparison, Comparison):
        raise TypeError(f"comparison must be that of flds.compare, got {type(comparison).__name__}")
    return new_axes(ax)


def comparison_overview(comparison: Comparison) -> Figure:
    """Return a figure with the distances and the scores of a `comparison`."""
    return panels([partial(plot_comparison, comparison), partial(plot_scores, comparison)], comparison.summary())
