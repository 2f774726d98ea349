"""Kernels over depth and training, and the law of the particles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

import solvers.results.solution
from flds.plotting.curves import TRAINING, few, new_axes, over_steps
from solvers import checks

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer

    from flds.results.solution import Solution

# Name, letter, and the layer whose kernel sums up the pass: Σ before the last layer, Θ after the first.
_KERNELS = {"feature_kernel": ("Feature kernel", "Σ", -1), "gradient_kernel": ("Gradient kernel", "Θ", 0)}
_TICKS = 8
# Eigenvalues below this share of the largest are rounding.
_ROUNDING = 1e-14


def plot_kernel(
    solution: Solution, name: str = "feature_kernel", layer: int | None = None, ax: Axes | None = None
) -> list[Artist]:
    """Draw Σ_t or Θ_t across recorded steps and batch samples as a heat map.

    Parameters
    ----------
    solution : Solution
        With ``record_kernels=True``.
    name : str
        "feature_kernel" or "gradient_kernel".
    layer : int, optional
        Index in the kernel's first axis; by default the last one of Σ and the first one of Θ.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into.

    Returns
    -------
    list of matplotlib.artist.Artist
        The image. Rows that are left white belong to samples whose gradient was not needed.

    Raises
    ------
    AttributeError
        If the solution has no kernels.
    ValueError, IndexError
        If there is no such kernel or layer.
    """
    blocks, place = _kernel(solution, name, layer)
    records, batch = blocks.shape[:2]
    kernel = blocks.reshape(records * batch, -1)
    if np.isnan(kernel).all():
        raise ValueError("the kernel is empty: no gradient was needed at these steps")
    ax = new_axes(ax)
    low, high = np.nanmin(kernel), np.nanmax(kernel)
    signed = low < -1e-3 * high
    bound = max(-low, high)
    limits = {"vmin": -bound, "vmax": bound, "cmap": "PuOr_r"} if signed else {"vmin": 0.0, "vmax": high}
    image = ax.imshow(kernel, interpolation="nearest", **limits)
    shown = np.arange(0, records, -(-records // _TICKS))
    places, steps = shown * batch + (batch - 1) / 2, solution.steps[shown]
    ax.set(xticks=places, yticks=places, xticklabels=steps, yticklabels=steps)
    title, letter, _ = _KERNELS[name]
    of_batch = f", {batch} samples each" if batch > 1 else ""
    ax.set(xlabel=f"recorded step{of_batch}", ylabel="recorded step", title=f"{title} {letter}, {place}")
    ax.figure.colorbar(image, ax=ax)
    return [image]


def plot_kernel_movement(solution: Solution, name: str = "feature_kernel", ax: Axes | None = None) -> list[Artist]:
    """Draw the relative movement ‖K^(k) − K^(0)‖/‖K^(0)‖ of Σ_t or Θ_t across the samples, at up to five depths.

    A frozen kernel stays at 0. Norms are Frobenius norms over pairs of samples at one step.

    Parameters
    ----------
    solution : Solution
        With ``record_kernels=True``, of a problem that trains on all samples at every step.
    name : str
        "feature_kernel" or "gradient_kernel".
    ax : matplotlib.axes.Axes, optional
        Axes to draw into.

    Returns
    -------
    list of matplotlib.artist.Artist

    Raises
    ------
    AttributeError
        If the solution has no kernels.
    ValueError
        If batches differ from step to step, or there is no such kernel.
    """
    layers = len(getattr(solution, checks.choice("name", name, tuple(_KERNELS))))
    problem = solution.extra["problem"]
    samples = problem["inputs"]["shape"][0]
    if not (isinstance(problem["batch_order"], str) and problem["batch_size"] in (None, samples)):
        raise ValueError("the movement of a kernel needs the same batch at every step: leave out batch_size")
    title, letter, _ = _KERNELS[name]
    ax = over_steps(solution, ax)
    artists: list[Artist] = []
    for layer, colour in few(layers):
        blocks, place = _kernel(solution, name, layer)
        diagonal = _at_one_step(blocks)
        moved = np.sqrt(np.nansum((diagonal - diagonal[0]) ** 2, axis=(1, 2)) / np.nansum(diagonal[0] ** 2))
        artists += ax.plot(solution.steps, moved, color=colour, label=place)
    ax.set(ylabel=f"relative change of {letter}", title=f"{title} against initialisation")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize="small")
    return artists


def plot_spectrum(
    solution: Solution, name: str = "feature_kernel", layer: int | None = None, ax: Axes | None = None
) -> list[Artist]:
    """Draw the eigenvalues of Σ_t or Θ_t across the batch of one step, at up to five steps, in descending order.

    Parameters and errors are those of `plot_kernel`. Eigenvalues that are rounding are left out.

    Returns
    -------
    list of matplotlib.artist.Artist
    """
    from matplotlib.ticker import MaxNLocator

    blocks, place = _kernel(solution, name, layer)
    ax = new_axes(ax)
    artists: list[Artist] = []
    at_one_step = _at_one_step(blocks)
    for record, colour in few(len(solution.steps)):
        block = at_one_step[record]
        known = ~np.isnan(np.diagonal(block))
        values = np.linalg.eigvalsh(block[np.ix_(known, known)])[::-1]
        values = values[values > _ROUNDING * values.max(initial=0.0)]
        index = np.arange(1, len(values) + 1)
        artists += ax.plot(
            index, values, color=colour, marker="o", markersize=3, label=f"step {solution.steps[record]}"
        )
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="index", ylabel="eigenvalue", yscale="log", title=f"Spectrum of {_KERNELS[name][1]}, {place}")
    ax.legend(frameon=False, fontsize="small")
    return artists


def plot_particles(
    solution: solvers.results.solution.Solution, sample: int = 0, bins: int = 80, ax: Axes | None = None
) -> list[Artist]:
    """Draw a histogram of the particles next to the Gaussian of the same mean and variance.

    Parameters
    ----------
    solution : Solution
        Of `solve_forward` (h_T) or `solve_backward` (g_0), or of a training solver with ``keep_state=True``, whose
        features h_T after training are shown, those of the first replicate.
    sample : int
        Place in the last batch, after training.
    bins : int
        Number of bars.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into.

    Returns
    -------
    list of matplotlib.artist.Artist

    Raises
    ------
    ValueError
        If the solution has no particles.
    IndexError
        If there is no such sample.
    """
    if "final_particles" in solution.variables:
        values, quantity = solution.final_particles, solution.variables["final_particles"].long_name
    elif solution.groups and "last_states" in solution.groups["state_0"]:
        values = solution.groups["state_0"]["last_states"].values[sample]
        quantity = f"features $h_T$ after {solution.steps[-1]} steps"
    else:
        raise ValueError(
            "the solution has no particles: use solve_forward or solve_backward, or solve_flds or "
            "simulate_resnet with keep_state=True"
        )
    ax = new_axes(ax)
    mean, deviation = float(np.mean(values, dtype=float)), float(np.std(values, dtype=float))
    _, edges, bars = ax.hist(
        values, bins=bins, density=True, color=TRAINING, alpha=0.5, label=f"{values.size} particles"
    )
    x = np.linspace(edges[0], edges[-1], 400)
    deviation = max(deviation, np.finfo(float).tiny)  # of particles that are all the same
    density = np.exp(-((x - mean) ** 2) / (2 * deviation**2)) / (deviation * np.sqrt(2 * np.pi))
    line = ax.plot(x, density, color="black", linewidth=1.2, label="Gaussian")
    ax.set(xlabel=quantity, ylabel="density", title="Law of the particles")
    ax.legend(frameon=False, fontsize="small")
    return [*cast("BarContainer", bars), *line]


def _kernel(solution: Solution, name: str, layer: int | None) -> tuple[NDArray[Any], str]:
    """Return the kernel of a layer as (records, batch, records, batch), and its depth in words."""
    default = _KERNELS[checks.choice("name", name, tuple(_KERNELS))][2]
    layer = default if layer is None else layer
    kernel, records = getattr(solution, name)[layer], len(solution.steps)
    batch = len(kernel) // records
    # Σ_t is that before the layer, Θ_t that after it
    grid = solution.depth_grid[:-1] if name == "feature_kernel" else solution.depth_grid[1:]
    return kernel.reshape(records, batch, records, batch), f"t = {grid[layer]:.2g}"


def _at_one_step(blocks: NDArray[Any]) -> NDArray[Any]:
    """Return the kernel across samples at each recorded step, (records, batch, batch)."""
    return np.array([blocks[record, :, record] for record in range(len(blocks))])
