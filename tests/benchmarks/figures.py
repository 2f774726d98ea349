"""Figures of the page of benchmarks."""

from __future__ import annotations

from solvers.plotting.style import PALETTE, TWO_COLUMNS, styled

MARKS = "osD^"


@styled
def draw_error_per_second(curves, path):
    """Draw seconds against error for every way to the limit, a panel for each problem."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(curves), figsize=(TWO_COLUMNS, 2.8), squeeze=False)
    for ax, one in zip(panels[0], curves, strict=True):
        for (way, seconds), colour, mark in zip(one["seconds"].items(), PALETTE, MARKS, strict=False):
            ax.loglog(one["errors"], seconds, color=colour, marker=mark, markevery=6, label=way)
        ax.set_title(one["name"])
        ax.set_xlabel("root mean square error of outputs")
        ax.set_ylabel("seconds")
    panels[0, 0].legend()
    figure.savefig(path)
    plt.close(figure)
