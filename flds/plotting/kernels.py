"""Kernels over depth and training, and the law of the particles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import solvers.results.solution
from flds.plotting.curves import over_steps
from flds.results.kernels import step_kernel
from solvers import checks
from solvers.plotting.style import density, few, legend, logarithmic, new_axes, styled

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

    from flds.results.solution import Solution

# Name, letter, and the layer whose kernel sums up the pass: Σ before the last layer, Θ after the first.
_KERNELS = {
    "feature_kernel": ("Feature kernel", "Σ", -1),
    "gradient_kernel": ("Gradient kernel", "Θ", 0),
    "test_feature_kernel": ("Test samples' feature kernel", "Σ", -1),
}
# Eigenvalues below this share of the largest are rounding.
_ROUNDING = 1e-14


@styled
def plot_kernel(
    solution: Solution,
    name: str = "feature_kernel",
    *,
    step: int | Sequence[int] | None = None,
    layer: int | Sequence[int] | None = None,
    order: ArrayLike | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw Σ_t or Θ_t as heat maps across samples, steps side by side and layers below each other.

    Parameters
    ----------
    solution : Solution
        With ``record_kernels=True``.
    name : str
        "feature_kernel", "gradient_kernel" or "test_feature_kernel".
    step : int or sequence of int, optional
        Recorded steps; by default up to four, from the first to the last.
    layer : int or sequence of int, optional
        Indices in the kernel's first axis; by default the last one of Σ and the first one of Θ.
    order : (samples,) array, optional
        What the samples are sorted by, such as their classes: a number or name for each training sample, or for each
        test sample. Lines part those that are equal. The batch of every step is sorted by itself.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into, else new ones, of two columns for more than two steps; all maps share them and their colours.

    Returns
    -------
    matplotlib.axes.Axes
        Rows that are left white belong to samples whose gradient was not needed.

    Raises
    ------
    AttributeError
        If the solution has no kernels.
    ValueError, IndexError
        If there is no such kernel, step or layer, or `order` has another length.
    """
    kernels = step_kernel(solution, name)
    title, letter, default = _KERNELS[name]
    steps = _steps(solution, step)
    layers = np.atleast_1d(default if layer is None else checks.numeric("layer", layer, "an index or several"))
    if layers.dtype.kind not in "iu":
        raise ValueError(f"layer must be an index or several, got {layer}")
    maps = np.array([[kernels.sel(step=one).values[index] for one in steps] for index in layers])
    batch = maps.shape[-1]
    if np.isnan(maps).all():
        raise ValueError("the kernel is empty: no gradient was needed at these steps")
    sortings = [_sorting(solution, kernels, one, order, batch) for one in steps]
    maps = np.stack([maps[:, column][:, rows][:, :, rows] for column, (rows, _) in enumerate(sortings)], axis=1)
    ax = new_axes(ax, 1 if len(steps) < 3 else 2)
    gap = max(1, round(batch / 12))
    image = ax.imshow(_mosaic(maps, gap), interpolation="nearest", **_colours(maps))
    centres = (
        np.arange(len(steps)) * (batch + gap) + (batch - 1) / 2,
        np.arange(len(layers)) * (batch + gap) + (batch - 1) / 2,
    )
    depths = [f"t = {kernels.t.values[index]:.4g}" for index in layers]
    ax.set_xticks(centres[0], [str(one) for one in steps])
    ax.set_yticks(centres[1], depths if len(layers) > 1 else [""])
    ax.tick_params(length=0)
    for row in range(len(layers)):
        for column, (_, parts) in enumerate(sortings):
            for part in parts:
                ax.plot(*_cross(column * (batch + gap), row * (batch + gap), part, batch), color="0.2", linewidth=0.6)
    place = "" if len(layers) > 1 else f", {depths[0]}"
    ax.set(xlabel=f"training step, {batch} samples each", ylabel="depth t" if len(layers) > 1 else "sample")
    ax.set(title=f"{title} {letter}{place}")
    ax.spines[:].set_visible(False)
    ax.figure.colorbar(image, cax=ax.inset_axes((1.02, 0.0, 0.035, 1.0)))
    return ax


def _steps(solution: Solution, step: int | Sequence[int] | None) -> list[int]:
    """Return the steps to be shown, all of them recorded."""
    recorded = solution.steps.tolist()
    if step is None:
        return [recorded[index] for index, _ in few(len(recorded))]
    steps = [int(one) for one in np.atleast_1d(checks.numeric("step", step))]
    for one in steps:
        if one not in recorded:
            raise ValueError(f"step must be recorded, one of {', '.join(map(str, recorded))}, got {one}")
    return steps


def _sorting(
    solution: Solution, kernels: xarray.DataArray, step: int, order: ArrayLike | None, batch: int
) -> tuple[NDArray[Any], list[int]]:
    """Return the places of the batch of a step in their order, and where one part ends and another begins."""
    if order is None:
        return np.arange(batch), []
    problem, tests = solution.extra["problem"], "test_sample" in kernels.dims
    kind, count = ("test", batch) if tests else ("training", problem["inputs"]["shape"][0])
    labels = np.asarray(order)
    if labels.shape != (count,):
        raise ValueError(f"order must have a value for each of the {count} {kind} samples, got shape {labels.shape}")
    here = labels
    if "sample" in kernels.coords:
        samples = kernels.coords["sample"]
        here = labels[(samples.sel(step=step) if "step" in samples.dims else samples).values]
    elif not tests and (batch != count or not isinstance(problem["batch_order"], str)):
        raise ValueError("order needs to know which samples are in the batches, which files of version 0.1 do not say")
    sorting = np.argsort(here, kind="stable")
    return sorting, (np.flatnonzero(here[sorting][1:] != here[sorting][:-1]) + 1).tolist()


def _mosaic(maps: NDArray[Any], gap: int) -> NDArray[Any]:
    """Return (rows, columns, batch, batch) maps as one picture, parted by NaN."""
    rows, columns, batch, _ = maps.shape
    size = batch + gap
    whole = np.full((rows * size - gap, columns * size - gap), np.nan)
    for row in range(rows):
        for column in range(columns):
            whole[row * size : row * size + batch, column * size : column * size + batch] = maps[row, column]
    return whole


def _colours(maps: NDArray[Any]) -> dict[str, Any]:
    """Return limits and colours: from 0 up, or around 0 where there are negative numbers."""
    low, high = np.nanmin(maps), np.nanmax(maps)
    if low < -1e-3 * high:
        bound = max(-low, high)
        return {"vmin": -bound, "vmax": bound, "cmap": "PuOr_r"}
    return {"vmin": 0.0, "vmax": high, "cmap": "viridis"}


def _cross(left: float, top: float, part: int, batch: int) -> tuple[list[float], list[float]]:
    """Return a line across and a line down one map, before the place `part`."""
    x, y, end = left + part - 0.5, top + part - 0.5, batch - 0.5
    return [left - 0.5, left + end, np.nan, x, x], [y, y, np.nan, top - 0.5, top + end]


@styled
def plot_kernel_movement(solution: Solution, name: str = "feature_kernel", ax: Axes | None = None) -> Axes:
    """Draw the relative movement ‖K^(k) − K^(0)‖/‖K^(0)‖ of Σ_t or Θ_t across samples, at up to four depths.

    A frozen kernel stays at 0. Norms are Frobenius norms over pairs of samples at one step.

    Parameters
    ----------
    solution : Solution
        With ``record_kernels=True``, of a problem that trains on all samples at every step, but for test samples.
    name : str
        "feature_kernel", "gradient_kernel" or "test_feature_kernel".
    ax : matplotlib.axes.Axes, optional
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    AttributeError
        If the solution has no kernels.
    ValueError
        If batches differ from step to step, or there is no such kernel.
    """
    kernels = step_kernel(solution, name)
    problem = solution.extra["problem"]
    samples = problem["inputs"]["shape"][0]
    whole = isinstance(problem["batch_order"], str) and problem["batch_size"] in (None, samples)
    if not (whole or name == "test_feature_kernel"):
        raise ValueError("the movement of a kernel needs the same batch at every step: leave out batch_size")
    title, letter, _ = _KERNELS[name]
    ax = over_steps(solution, ax)
    for layer, colour in few(kernels.sizes["t"]):
        one = kernels.values[:, layer]
        moved = np.sqrt(np.nansum((one - one[0]) ** 2, axis=(1, 2)) / np.nansum(one[0] ** 2))
        ax.plot(solution.steps, moved, color=colour, label=f"t = {kernels.t.values[layer]:.4g}")
    ax.set(ylabel=f"relative change of {letter}", title=f"{title} against initialisation")
    ax.set_ylim(bottom=0)
    legend(ax)
    return ax


@styled
def plot_spectrum(
    solution: Solution, name: str = "feature_kernel", layer: int | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the eigenvalues of Σ_t or Θ_t across samples at one step, at up to four steps, in descending order.

    Parameters and errors are those of `plot_kernel`, with one layer. Eigenvalues that are rounding are left out.

    Returns
    -------
    matplotlib.axes.Axes
    """
    from matplotlib.ticker import MaxNLocator

    kernels = step_kernel(solution, name)
    layer = _KERNELS[name][2] if layer is None else layer
    ax = new_axes(ax)
    for record, colour in few(len(solution.steps)):
        block = kernels.values[record, layer]
        known = ~np.isnan(np.diagonal(block))
        values = np.linalg.eigvalsh(block[np.ix_(known, known)])[::-1]
        values = values[values > _ROUNDING * values.max(initial=0.0)]
        index = np.arange(1, len(values) + 1)
        ax.plot(index, values, color=colour, marker="o", markersize=3, label=f"step {solution.steps[record]}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    place = f"t = {kernels.t.values[layer]:.4g}"
    ax.set(xlabel="index", ylabel="eigenvalue", title=f"Spectrum of {_KERNELS[name][1]}, {place}")
    logarithmic(ax, "y")
    legend(ax)
    return ax


@styled
def plot_particles(
    solution: solvers.results.solution.Solution, sample: int = 0, component: int = 0, ax: Axes | None = None
) -> Axes:
    """Draw the density of the particles next to the Gaussian of the same mean and variance.

    Parameters
    ----------
    solution : Solution
        Of `solve_forward` (h_T) or `solve_backward` (g_0), of `solvers.solve`, or of a training solver with
        ``keep_state=True``, whose features h_T after training are shown, those of the first replicate.
    sample : int
        Place in the last batch, after training.
    component : int
        Of particles in several dimensions, or the input of several that were solved jointly.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If the solution has no particles, or none that is finite.
    IndexError
        If there is no such sample or component.
    """
    if "final_particles" in solution.variables:
        values, quantity = solution.final_particles, solution.variables["final_particles"].long_name
        values = values[:, component] if values.ndim == 2 else values
    elif solution.groups and "last_states" in solution.groups["state_0"]:
        values = solution.groups["state_0"]["last_states"].values[sample]
        quantity = f"features $h_T$ after {solution.steps[-1]} steps"
    else:
        raise ValueError(
            "the solution has no particles: use solve_forward or solve_backward, or solve_flds or "
            "simulate_resnet with keep_state=True"
        )
    ax = new_axes(ax)
    density(ax, values, quantity, f"{len(values)} particles")
    ax.set(title="Law of the particles")
    legend(ax)
    return ax
