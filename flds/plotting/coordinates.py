"""Sizes and changes of activations against the width of a network."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from solvers.plotting.style import SCREEN, legend, logarithmic, new_axes, new_figure, shades, sizes_axis, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of more layers some have names in the legend, from the first to the last.
_NAMED = 8
# The axis covers at least this factor.
_LEAST = 10.0


@styled
def plot_coordinate_check(check: Any, change: bool = True, ax: Axes | None = None) -> Axes:
    """Draw how far the outputs of every layer have moved, or how large they were, against width.

    Points are geometric means over seeds, bars reach from the least to the largest; verdicts are in the legend.

    Parameters
    ----------
    check : CoordinateCheck
        Of `flds.nn.coordinate_check`.
    change : bool
        Whether changes are drawn, or sizes before training.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = new_axes(ax)
    layers = check.layers
    named = set(np.linspace(0, len(layers) - 1, min(len(layers), _NAMED)).round().astype(int))
    for number, (layer, colour) in enumerate(zip(layers, shades(len(layers)), strict=True)):
        values = layer.change if change else layer.size
        typical = np.exp(np.log(np.where(values > 0, values, np.nan)).mean(axis=1))
        reach = np.abs(np.array([values.min(axis=1), values.max(axis=1)]) - typical)
        label = f"{layer.name}, {layer.verdict}" if number in named else None
        ax.errorbar(check.widths, typical, reach, color=colour, marker="o", markersize=3, capsize=2, label=label)
    sizes_axis(ax, "x", check.widths)
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    if high < _LEAST * low:  # less would show scatter as a trend
        middle = (low * high) ** 0.5
        ax.set_ylim(middle / _LEAST**0.5, middle * _LEAST**0.5)
    logarithmic(ax, "y")
    ax.set_xlabel("width")
    steps = f"{check.steps} step" + ("" if check.steps == 1 else "s")
    ax.set_ylabel(f"change after {steps}" if change else "size before training")
    return ax


@styled
def coordinate_overview(check: Any) -> Figure:
    """Return a figure of sizes and changes of a `flds.nn.CoordinateCheck`, with one legend."""
    figure, axes = new_figure(2, 1, width=SCREEN)
    for draw, ax in zip((partial(plot_coordinate_check, check, change) for change in (False, True)), axes, strict=True):
        draw(ax=ax)
    legend(axes[1], beside=True)
    return figure
