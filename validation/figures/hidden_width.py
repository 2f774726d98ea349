"""Figures 1 to 3 of paper H (Chizat), with the Neural Mean ODE itself as the limit."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

import flds
from flds.mean_ode.regimes import DEPTH_ERROR
from solvers.ensemble.random import replicate_seed
from solvers.plotting.style import PALETTE
from solvers.results.solution import Variable
from validation.figures.drawing import Drawing, Request
from validation.problems import random_pairs
from validation.unit_networks import train_units

Array = NDArray[np.float64]

# Sizes of a first look, and the paper's.
SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {
        "trajectories": {"depths": (4, 16, 64, 256), "units": 1024},
        "errors": {"grid": (1, 4, 16, 64), "sets": 8, "seeds": 6, "units": 2048, "steps": 100},
        "weights": {"depths": 33, "units": 1024},
    },
    "full": {
        "trajectories": {"depths": (10, 32, 100, 316, 1000), "units": 8192},
        "errors": {
            "grid": (1, 2, 4, 7, 13, 24, 46, 88, 167, 316),
            "sets": 10,
            "seeds": 10,
            "units": 16384,
            "steps": 100,
        },
        "weights": {"depths": 101, "units": 8192},
    },
}


def trajectories(request: Request) -> Drawing:
    """Paper H, Fig. 1: forward passes of trained networks with M = 1 come closer to the limit as L grows.

    K = 100 steps, D = 10; one input, one coordinate of the state.
    """
    sizes, problem = request.pick(SIZES, "trajectories"), random_pairs(request.seed)
    limit = flds.solve_mean_ode(
        problem, units=sizes["units"], depth=16, seed=request.seed, record_every=100, record_features=True
    )
    coordinate = int(np.argmax(np.abs(limit.features[-1, -1, 0] - limit.features[-1, 0, 0])))
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    ax = figure.subplots()
    fields = {"limit_grid": Variable(("s",), limit.depth_grid, "depth s")}
    fields["limit"] = Variable(("s",), limit.features[-1, :, 0, coordinate], "state of the limit")
    shades = np.linspace(0.75, 0.2, len(sizes["depths"]))
    for depth, shade in zip(sizes["depths"], shades, strict=True):
        runs = train_units(problem, hidden_width=1, depth=depth, seeds=3, seed=replicate_seed(request.seed, depth))
        states = runs.states[:, :, 0, coordinate]
        grid = np.linspace(0, 1, depth + 1)
        for index, path in enumerate(states):
            label = f"L = {depth}" if index == 0 else None
            ax.plot(grid, path, color=str(shade), linewidth=1, label=label)
        fields[f"grid_{depth}"] = Variable((f"point_{depth}",), grid, f"depth s of networks with L = {depth}")
        fields[f"states_{depth}"] = Variable(("seed", f"point_{depth}"), states, f"states of networks with L = {depth}")
        error = float(np.sqrt(np.mean((states[:, -1] - limit.outputs[-1, 0, coordinate]) ** 2)))
        request.say(f"L = {depth}: distance {error:.3f} at the output")
    ax.plot(limit.depth_grid, fields["limit"].values, color="#D55E00", linewidth=2, label="Mean ODE")
    ax.set(xlabel="depth s", ylabel=f"coordinate {coordinate} of h(s)", title="Trained networks, M = 1, K = 100")
    ax.legend(frameon=False, fontsize="small")
    return Drawing(figure, fields, {**sizes, "coordinate": coordinate})


def _reached(depths: Array, widths: Array) -> NDArray[np.bool_]:
    """Where the error is close to its law, (L, M)."""
    return np.asarray((depths[:, None] >= 4) & (depths[:, None] * widths >= 16))


def fit_error_law(squares: Array, depths: Array, widths: Array) -> Array:
    """Return a and b of a/L + b/√(LM), fitted to the roots of mean squares over seeds with equal relative weights.

    Parameters
    ----------
    squares : (seeds, L, M) array
        Mean-square errors.
    depths, widths : (L,), (M,) arrays
        L and M; only those are fitted at which the law is reached.
    """
    used = _reached(depths, widths)
    columns = [np.broadcast_to(1 / depths[:, None], used.shape)[used], 1 / np.sqrt(depths[:, None] * widths)[used]]
    design = np.stack(columns, axis=1) / np.sqrt(squares.mean(axis=0))[used][:, None]
    return np.asarray(lsq_linear(design, np.ones(len(design)), (0, np.inf)).x)


def errors(request: Request) -> Drawing:
    """Paper H, Fig. 2: error of the outputs against L and against M after 100 steps, with a/L + b/√(LM) fitted.

    a and b are fitted to every data set alone, where L ≥ 4 and LM ≥ 16; points and lines are means over data sets, with
    the standard deviation among them, of which the seeds are a part.
    The paper states a = 0.15 and b = 0.22; its notebook draws b = 0.22 √D.
    """
    sizes, squares, laws = request.pick(SIZES, "errors"), [], []
    grid = np.array(sizes["grid"])
    for index in range(sizes["sets"]):
        seed = replicate_seed(request.seed, index)
        problem = random_pairs(seed, steps=sizes["steps"])
        squares.append(_output_errors(problem, grid, sizes["seeds"], sizes["units"], seed))
        laws.append(fit_error_law(squares[-1], grid, grid))
        request.say(f"data set {index + 1} of {sizes['sets']}: a = {laws[-1][0]:.3f}, b = {laws[-1][1]:.3f}")
    (a, b), (spread_a, spread_b) = np.mean(laws, axis=0), np.std(laws, axis=0, ddof=1)
    notebook = 0.22 * np.sqrt(problem.dimension)
    request.say(
        f"mean ± standard deviation among {len(laws)} data sets of {sizes['seeds']} seeds, k = {problem.steps}:"
    )
    request.say(f"a = {a:.3f} ± {spread_a:.3f} (paper {DEPTH_ERROR})")
    away = [f"{abs(b - other) / spread_b:.1f} deviations away" for other in (0.22, notebook)]
    request.say(f"b = {b:.3f} ± {spread_b:.3f} (paper 0.22, {away[0]}; notebook 0.22 √D = {notebook:.3f}, {away[1]})")
    roots = np.sqrt(np.mean(squares, axis=1))  # (data sets, L, M)
    title = (
        f"k = {problem.steps}, {len(laws)} data sets: ({a:.2f} ± {spread_a:.2f})/L + ({b:.2f} ± {spread_b:.2f})/√(LM)"
    )
    figure = _draw_errors(grid, roots, a, b, f"{title}, fitted to full circles")
    fields = {
        "depth": Variable(("depth",), grid, "L"),
        "width": Variable(("width",), grid, "M"),
        "squared_error": Variable(
            ("data_set", "seed", "depth", "width"), np.array(squares), "mean-square error of the outputs"
        ),
        "data_set_constants": Variable(
            ("data_set", "constant"), np.array(laws), "a and b of a/L + b/√(LM), of each data set"
        ),
        "constants": Variable(("constant",), np.array([a, b]), "mean of a and b over data sets"),
        "constants_deviation": Variable(
            ("constant",), np.array([spread_a, spread_b]), "standard deviation of a and b among data sets"
        ),
        "paper_constants": Variable(("constant",), np.array([DEPTH_ERROR, 0.22]), "a and b of paper H"),
    }
    return Drawing(figure, fields, {**sizes, "notebook_constant": notebook})


def _output_errors(problem: flds.MeanFieldProblem, grid: NDArray[Any], seeds: int, units: int, seed: int) -> Array:
    """Mean-square distance of networks of every depth and width from the limit at the last step, (seeds, L, M)."""
    limit = flds.solve_mean_ode(problem, units=units, depth=32, replicates=2, seed=seed, record_every=problem.steps)
    squares = np.empty((seeds, len(grid), len(grid)))
    for (i, j), (depth, width) in zip(np.ndindex(len(grid), len(grid)), product(grid, grid), strict=True):
        own = replicate_seed(seed, 1000 * int(depth) + int(width))
        runs = train_units(problem, hidden_width=int(width), depth=int(depth), seeds=seeds, seed=own)
        squares[:, i, j] = np.mean((runs.outputs[:, -1] - limit.outputs[-1]) ** 2, axis=(1, 2))
    return squares


def _draw_errors(grid: NDArray[Any], roots: Array, a: float, b: float, title: str) -> Figure:
    """Errors of every data set, (data sets, L, M), as mean ± standard deviation, with the law."""
    figure = Figure(figsize=(8.4, 3.8), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    chosen = np.unique(np.linspace(0, len(grid) - 1, 4).round().astype(int))
    mean, spread, reached = roots.mean(axis=0), roots.std(axis=0, ddof=1), _reached(grid, grid)
    for side, ax in enumerate(figure.subplots(1, 2, sharey=True)):
        for colour, other in zip(PALETTE, chosen, strict=False):
            at = (slice(None), other) if side == 0 else (other, slice(None))
            label = f"{'M' if side == 0 else 'L'} = {grid[other]}"
            ax.plot([], [], color=colour, marker="o", markersize=4, linewidth=1, label=label)
            for picked, face in ((reached[at], colour), (~reached[at], "white")):
                points = (values[picked] for values in (grid, mean[at], spread[at]))
                ax.errorbar(*points, color=colour, fmt="o", markersize=4, capsize=2, markerfacecolor=face)
            depths, widths = (grid, grid[other]) if side == 0 else (grid[other], grid)
            ax.plot(grid, a / depths + b / np.sqrt(depths * widths), color=colour, linewidth=1)
        ax.set(xscale="log", yscale="log", xlabel="depth L" if side == 0 else "hidden width M")
        ax.legend(frameon=False, fontsize="small")
        if side == 0:
            ax.set(ylabel="root mean square error of f")
    return figure


def weights(request: Request) -> Drawing:
    """Paper H, Fig. 3: training loss, and how one unit's input weights travel, by depth.

    The unit starts at the same place at every depth and follows the limit.
    """
    sizes, problem = request.pick(SIZES, "weights"), random_pairs(request.seed)
    limit = flds.solve_mean_ode(problem, units=sizes["units"], depth=16, seed=request.seed, record_features=True)
    depths = np.linspace(0, 1, sizes["depths"])
    start = [
        {name: np.repeat(a, len(depths), axis=0) for name, a in z.items()}
        for z in flds.draw_units(problem, 1, 1, request.seed, "iid")
    ]
    path = flds.follow_units(problem, limit, start, depths)[0]["u"][..., 0]  # (steps + 1, depths, D)
    figure = Figure(figsize=(9, 3.3), layout="constrained")
    axes = figure.subplots(1, 3)
    axes[0].plot(limit.steps, limit.loss, color=PALETTE[0])
    axes[0].set(xlabel="training step k", ylabel="loss", yscale="log", title="Mean ODE")
    import matplotlib as mpl

    colours = mpl.colormaps["cool"](depths)
    for ax, (i, j) in zip(axes[1:], ((0, 1), (2, 3)), strict=True):
        for index, colour in enumerate(colours):
            ax.plot(path[:, index, i], path[:, index, j], color=colour, linewidth=0.8)
        ax.plot(*path[0, 0, [i, j]], "k.", markersize=8)
        ax.set(xlabel=f"$U_k$, coordinate {i}", ylabel=f"$U_k$, coordinate {j}", title="One unit, all depths")
        ax.set_aspect("equal", adjustable="datalim")
    bar = figure.colorbar(mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), "cool"), ax=axes[2])
    bar.set_label("depth s")
    fields = {
        "steps": limit.variables["steps"],
        "loss": limit.variables["loss"],
        "depth_grid": Variable(("depth",), depths, "depth s"),
        "path": Variable(("step", "s", "dimension"), path, "input weights of one unit"),
    }
    return Drawing(figure, fields, dict(sizes))
