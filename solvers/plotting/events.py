"""What boundaries and events leave in the picture of a solution: ends of the positions, absorption and resets."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from solvers.plotting.style import PALETTE, Ends, from_zero
from solvers.results.solution import Solution

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Ends in the settings of a solution: a number, or one for each component.
_BOX = re.compile(r"(\w+)\(low=(\([^)]*\)|[^,]+), high=(\([^)]*\)|[^,)]+)")
_RESET = re.compile(r"Reset\(threshold=([^,]+), .*component=(\d+)")
# Resets beyond so many are drawn together with these.
_MOST = 12


def ends_of(solution: Solution, component: int) -> Ends:
    """Return the ends of a component's positions, which are infinite where there are none."""
    low, high, periodic = -np.inf, np.inf, False
    if box := _BOX.match(solution.settings.get("boundary", "")):
        low, high = (_number(text, component) for text in box.groups()[1:])
        periodic = box[1] == "Periodic" and np.isfinite(low)
    reset = _RESET.match(solution.settings.get("reset", ""))
    if reset and int(reset[2]) == component:
        high = min(high, float(reset[1]))
    return Ends(low, high, periodic)


def _number(text: str, component: int) -> float:
    """Return the end of a component."""
    parts = text.strip("()").split(",")
    return float(parts[component if text.startswith("(") else 0])


def free(solution: Solution) -> NDArray[np.bool_] | slice:
    """Return which particles have a density where the solve ended: those that were not absorbed."""
    item = solution.variables.get("hitting_times")
    return slice(None) if item is None or item.dims != ("final_particle",) else np.isnan(item.values)


def event_panels(solution: Solution) -> list[Callable[..., Any]]:
    """Return what draws the events of a solution, with itself and axes as arguments."""
    drawn = {"hitting_times": _absorption, "resets": _resets}
    items = ((solution.variables.get(name), draw) for name, draw in drawn.items())
    return [draw for item, draw in items if item is not None and item.dims == ("final_particle",)]


def _absorption(solution: Solution, ax: Axes) -> None:
    """Draw how many of the particles have been absorbed by each time."""
    times = solution.hitting_times
    met = np.sort(times[np.isfinite(times)])
    start, end = float(solution.settings["t0"]), float(solution.final_time)
    met = met if start <= end else met[::-1]
    share = np.arange(len(met) + 1) / len(times)
    ax.step([start, *met, end], [*share, share[-1]], where="post", color=PALETTE[0])
    ax.set(xlabel="time t", title="Share of the particles absorbed")
    from_zero(ax)


def _resets(solution: Solution, ax: Axes) -> None:
    """Draw how many of the particles were reset how often."""
    counts = np.minimum(solution.resets, _MOST).astype(int)
    share = np.bincount(counts) / len(counts)
    ax.bar(np.arange(len(share)), share, color=PALETTE[0], alpha=0.6)
    ax.set(xlabel="resets" + f", {_MOST} or more together" * bool((counts == _MOST).any()))
    ax.set_title("Share of the particles by resets")
    ax.set_xticks(np.arange(0, len(share), max(1, len(share) // 6)))
