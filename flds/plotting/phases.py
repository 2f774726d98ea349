"""The phase diagram of paper H with a configuration in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from solvers.plotting.style import PALETTE, legend, logarithmic, new_axes, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_REGIMES = ("semi-complete", "complete", "lazy ODE", "beyond the ODE")
_COLOURS = ("#E8F1F8", "#CDE8DD", "#FBE3D3", "#E4E4E4")


@styled
def plot_phase_diagram(regime: Any, ax: Axes | None = None) -> Axes:
    """Draw the regimes as regions over σ_v/√D and √(LM/D), and mark where a configuration lies.

    Parameters
    ----------
    regime : Regime
        Of `residual_regime`.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes
        Regimes meet where scales agree up to a factor that the theory leaves open; a factor of 3 is drawn.

    References
    ----------
    Paper H, Fig. 4.
    """
    ax = new_axes(ax)
    low, high, beyond = regime.boundaries
    x = regime.alpha if regime.alpha > 0 else 1e-2
    left, right = min(1e-2, x / 3), max(1e3, 3 * x, 3 * beyond)
    bottom, top = min(1.0, beyond / 3), max(1e2, 3 * beyond)
    ax.set(xlim=(left, right), ylim=(bottom, top))
    height = np.geomspace(bottom, top, 200)
    edges = [np.full_like(height, left), *(np.minimum(one, height) for one in (low, high)), height]
    edges.append(np.full_like(height, right))
    for name, colour, start, end in zip(_REGIMES, _COLOURS, edges, edges[1:], strict=False):
        ax.fill_betweenx(height, start, end, color=colour, linewidth=0)
        middle = np.sqrt(start[150] * end[150])
        ax.text(middle, height[150], name.replace(" ", "\n"), ha="center", va="center", fontsize=7)
    label = f"D = {regime.dimension}, L = {regime.depth}, M = {regime.hidden_width}"
    ax.plot(x, beyond, marker="*", markersize=12, linestyle="", color=PALETTE[1], markeredgecolor="white", label=label)
    logarithmic(ax, "x", "y")
    ax.set(xlabel=r"$\sigma_v/\sqrt{D}$", ylabel=r"$\sqrt{LM/D}$", title=f"Regime: {regime.name}")
    legend(ax, loc="lower left")
    return ax
