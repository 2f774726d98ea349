"""A solution of `solvers` in one figure: what was saved over time, and the law of the particles at the end."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from solvers.plotting.events import ends_of, event_panels, free
from solvers.plotting.style import FAR, PALETTE, curve, density, legend, panels, save
from solvers.results.solution import Solution, Variable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Panels over time, curves in each, and components whose laws are drawn.
_PANELS, _CURVES, _LAWS = 4, 5, 3
_NOT_DRAWN = ("times", "depth_grid", "external_field_times", "moments")


def overview(solution: Solution) -> Figure:
    """Return a figure of what changes with time, or with depth, the density of the particles, and the settings."""
    axis, label = ("t", "depth t") if "depth_grid" in solution.variables else ("time", "time t")
    draws = [partial(_over_time, solution, name, axis, label) for name in _drawn(solution, axis)]
    draws += [partial(draw, solution) for draw in event_panels(solution)]
    particles = solution.variables.get("final_particles")
    if particles is not None and np.all(np.any(np.abs(_in_columns(particles)[free(solution)]) < FAR, axis=0)):
        end = f"at t = {np.max(solution.final_time):g}" if "final_time" in solution.variables else "at the end"
        draws.append(partial(_laws, solution, particles, end))
    return panels(draws, solution.summary())


def picture(solution: Solution, path: str | os.PathLike[str] | None = None) -> Figure:
    """Return the overview of a solution; save it if there is a path."""
    figure = overview(solution)
    if path is not None:
        save(figure, path)
    return figure


def _drawn(solution: Solution, axis: str) -> list[str]:
    """Return the names of what is drawn over time: numbers, or few of them."""
    found = []
    for name, item in solution.variables.items():
        own, bins = f"{name}_time", f"{name}_bin"  # of what is saved at other times, and of densities
        over_time = item.dims[:1] in ((axis,), (own,)) or item.dims in (("run", axis), ("run", axis, bins))
        if over_time and item.values.dtype.kind in "iuf" and name not in _NOT_DRAWN and item.values.size:
            found.append(name)
    if "mean" in found and "variance" in found and len(found) > _PANELS:
        found.remove("variance")  # it is the band of the mean
    return found[:_PANELS]


def _over_time(solution: Solution, name: str, axis: str, label: str, ax: Axes) -> None:
    item = solution.variables[name]
    if f"{name}_bin" in item.dims:
        _density(solution, name, ax)
        return
    times = solution.depth_grid if axis == "t" else solution.times
    if f"{name}_time" in item.dims:
        times = solution.variables[f"{name}_times"].values
    values = _in_columns(item)
    spread = _deviation(solution, name, values)
    marker = "o" if len(times) == 1 else None
    for column in range(min(values.shape[1], _CURVES)):
        error = None if spread is None else spread[:, column] / 2
        tag = _tag(solution, item, column) if values.shape[1] > 1 else None
        curve(
            ax, times, values[:, column], error, "± standard deviation", color=PALETTE[column], label=tag, marker=marker
        )
    part = f", {_CURVES} of {values.shape[1]}" if values.shape[1] > _CURVES else ""
    ax.set(xlabel=label, title=_title(item) + part)
    legend(ax)


def _density(solution: Solution, name: str, ax: Axes) -> None:
    """Draw densities against position: at some times, of some runs at the last, or jointly of two components then."""
    item, times = solution.variables[name], solution.times
    bins, last = solution.variables[f"{name}_bin"].values, f"at t = {times[-1]:g}"
    title = _title(item)
    if f"{name}_other_bin" in item.dims:
        others, values = solution.variables[f"{name}_other_bin"].values, item.values[-1]
        mesh = ax.pcolormesh(bins, others, values.T, shading="nearest")
        ax.figure.colorbar(mesh, ax=ax, label="density")
        ax.set(xlabel="position", ylabel="next component", title=f"Joint density {last}")
        return
    between = 0.5 * (bins[1:] + bins[:-1])
    ends = (2 * bins[:1] - between[:1], 2 * bins[-1:] - between[-1:]) if len(bins) > 1 else (bins - 0.5, bins + 0.5)
    edges, several = np.concatenate([ends[0], between, ends[1]]), item.dims[0] == "run"
    rows = item.values[:, -1] if several else item.values
    places = np.unique(np.linspace(0, len(rows) - 1, min(_CURVES, len(rows))).astype(int))
    for colour, place in zip(PALETTE, places, strict=False):
        label = _tag(solution, item, place) if several else f"t = {times[place]:g}"
        ax.stairs(rows[place], edges, color=colour, label=label)
    ax.set(xlabel="position", ylabel="density", title=f"{title} {last}" if several else title)
    legend(ax)


def _title(item: Variable) -> str:
    return item.long_name[:1].upper() + item.long_name[1:]


def _in_columns(item: Variable) -> NDArray[Any]:
    """Return values over time or over particles in columns: of one run, or of several one run in each."""
    if item.dims[0] == "run":
        return np.moveaxis(item.values, 0, -1).reshape(item.values.shape[1], -1)
    return item.values.reshape(len(item.values), -1)


def _deviation(solution: Solution, name: str, values: NDArray[Any]) -> NDArray[Any] | None:
    """Return the standard deviations of the particles, for their mean."""
    if name != "mean" or "variance" not in solution.variables:
        return None
    return np.sqrt(np.maximum(_in_columns(solution.variables["variance"]), 0.0))


def _tag(solution: Solution, item: Variable, column: int) -> str:
    """Return what a column stands for: the value of its axis, or its place."""
    if item.dims[0] == "run":
        args = solution.variables.get("args")
        return f"run {column}" if args is None or args.dims != ("run",) else f"args = {args.values[column]:g}"
    last = item.dims[-1]
    if len(item.dims) == 2 and last in solution.variables:
        value = f"{solution.variables[last].values[column]:g}"
        return f"particle {value}" if last.endswith("_particle") else value
    if len(item.dims) > 2:
        return str(tuple(map(int, np.unravel_index(column, item.values.shape[1:]))))
    return f"{last.replace('_', ' ')} {column}"


def _laws(solution: Solution, particles: Variable, end: str, ax: Axes) -> None:
    every = _in_columns(particles)
    values = every[free(solution)]
    for column in range(min(values.shape[1], _LAWS)):
        label = f"{len(values)} particles" if values.shape[1] == 1 else f"component {column}"
        component = column
        if particles.dims == ("run", "final_particle"):
            label, component = _tag(solution, particles, column), 0
        density(ax, values[:, column], "position", label, PALETTE[column], ends_of(solution, component))
    legend(ax)
    absorbed = len(every) - len(values)
    ax.set(title=f"Law of the particles {end}" + f", {absorbed} absorbed" * bool(absorbed))
