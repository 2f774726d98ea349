"""The five figures of paper H (Chizat), with the Neural Mean ODE itself as the limit."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

import flds
from flds.mean_ode.regimes import DEPTH_ERROR, FLUCTUATION, TRAVEL
from flds.plotting.curves import PALETTE
from solvers.ensemble.random import replicate_seed
from solvers.results.solution import Variable
from validation.claims import mean_and_error
from validation.figures.drawing import Drawing, Request
from validation.problems import random_pairs
from validation.unit_networks import train_units

Array = NDArray[np.float64]

# Sizes of a first look, and the paper's.
SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {
        "trajectories": {"depths": (4, 16, 64, 256), "units": 1024},
        "errors": {"grid": (1, 4, 16, 64), "seeds": 6, "units": 4096, "steps": 100},
        "weights": {"depths": 33, "units": 1024},
        "phases": {"dimensions": (10, 31, 100), "points": 9, "units": 512, "steps": 10},
        "fluctuations": {"dimensions": (10, 31), "points": 7, "depth": 100, "seeds": 8, "steps": 10, "long": 10},
    },
    "full": {
        "trajectories": {"depths": (10, 32, 100, 316, 1000), "units": 8192},
        "errors": {"grid": (1, 2, 4, 7, 13, 24, 46, 88, 167, 316), "seeds": 10, "units": 16384, "steps": 100},
        "weights": {"depths": 101, "units": 8192},
        "phases": {"dimensions": (10, 31, 100), "points": 17, "units": 2048, "steps": 50},
        "fluctuations": {"dimensions": (10, 31, 100), "points": 9, "depth": 1000, "seeds": 10, "steps": 10, "long": 50},
    },
}


def _sizes(request: Request, name: str) -> dict[str, Any]:
    return SIZES["full" if request.full else "quick"][name]


def trajectories(request: Request) -> Drawing:
    """Paper H, Fig. 1: forward passes of trained networks with M = 1 come closer to the limit as L grows.

    K = 100 steps, D = 10; one input, one coordinate of the state.
    """
    sizes, problem = _sizes(request, "trajectories"), random_pairs(request.seed)
    limit = flds.solve_mean_ode(
        problem, units=sizes["units"], depth=16, seed=request.seed, record_every=100, record_features=True
    )
    coordinate = int(np.argmax(np.abs(limit.features[-1, -1, 0] - limit.features[-1, 0, 0])))
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    ax = figure.subplots()
    fields = {"limit_grid": Variable(("node",), limit.depth_grid, "depth s")}
    fields["limit"] = Variable(("node",), limit.features[-1, :, 0, coordinate], "state of the limit")
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


class ErrorLaw(NamedTuple):
    """Root mean square errors a/L + b/√(LM), with bootstrap standard errors of a and b."""

    a: float
    b: float
    a_error: float
    b_error: float


def fit_error_law(squares: Array, depths: Array, widths: Array, seed: int = 0) -> ErrorLaw:
    """Fit a/L + b/√(LM) to the roots of mean squares over seeds, with equal relative weights.

    Parameters
    ----------
    squares : (seeds, L, M) array
        Mean-square errors.
    depths, widths : (L,), (M,) arrays
        L and M; only L ≥ 4 and LM ≥ 16 are fitted, below which the law is not reached.
    seed : int
        Of the bootstrap over seeds.
    """
    used = (depths[:, None] >= 4) & (depths[:, None] * widths >= 16)
    columns = np.stack([np.broadcast_to(1 / depths[:, None], used.shape), 1 / np.sqrt(depths[:, None] * widths)])[
        :, used
    ]

    def fit(sample: Array) -> Array:
        roots = np.sqrt(sample.mean(axis=0))[used]
        return np.asarray(lsq_linear((columns / roots).T, np.ones(len(roots)), (0, np.inf)).x)

    generator = np.random.default_rng(seed)
    drawn = [fit(squares[generator.integers(len(squares), size=len(squares))]) for _ in range(200)]
    (a, b), (a_error, b_error) = fit(squares), np.std(drawn, axis=0)
    return ErrorLaw(float(a), float(b), float(a_error), float(b_error))


def errors(request: Request) -> Drawing:
    """Paper H, Fig. 2: error of the outputs against L and against M after 100 steps, with a/L + b/√(LM) fitted.

    The paper states a = 0.15 and b = 0.22; its notebook draws b = 0.22 √D.
    """
    sizes, problem = _sizes(request, "errors"), random_pairs(request.seed, steps=_sizes(request, "errors")["steps"])
    grid = np.array(sizes["grid"])
    limit = flds.solve_mean_ode(
        problem, units=sizes["units"], depth=32, replicates=4, seed=request.seed, record_every=problem.steps
    )
    squares = np.empty((sizes["seeds"], len(grid), len(grid)))
    for i, depth in enumerate(grid):
        for j, width in enumerate(grid):
            seed = replicate_seed(request.seed, 1000 * int(depth) + int(width))
            runs = train_units(problem, hidden_width=int(width), depth=int(depth), seeds=sizes["seeds"], seed=seed)
            squares[:, i, j] = np.mean((runs.outputs[:, -1] - limit.outputs[-1]) ** 2, axis=(1, 2))
        request.say(f"L = {depth} of {grid[-1]}")
    law = fit_error_law(squares, grid, grid)
    root = np.sqrt(problem.dimension)
    request.say(
        f"a = {law.a:.3f} ± {law.a_error:.3f} (paper {DEPTH_ERROR}), b = {law.b:.3f} ± {law.b_error:.3f} "
        f"(paper 0.22, notebook 0.22 √D = {0.22 * root:.3f})"
    )
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    for side, ax in enumerate(figure.subplots(1, 2, sharey=True)):
        chosen = np.unique(np.linspace(0, len(grid) - 1, 4).round().astype(int))
        for colour, other in zip(PALETTE, chosen, strict=False):
            found = squares[:, :, other] if side == 0 else squares[:, other, :]
            mean, error = np.sqrt(found.mean(0)), found.std(0, ddof=1) / np.sqrt(len(found))
            label = f"{'M' if side == 0 else 'L'} = {grid[other]}"
            ax.errorbar(
                grid, mean, error / mean, color=colour, marker="o", linestyle="", markersize=4, capsize=2, label=label
            )
            depths, widths = (grid, grid[other]) if side == 0 else (grid[other], grid)
            ax.plot(grid, law.a / depths + law.b / np.sqrt(depths * widths), color=colour, linewidth=1)
        ax.set(xscale="log", yscale="log", xlabel="depth L" if side == 0 else "hidden width M")
        ax.legend(frameon=False, fontsize="small")
        if side == 0:
            ax.set(ylabel="root mean square error of f")
        ax.set_title(f"lines: {law.a:.2f}/L + {law.b:.2f}/√(LM)", fontsize="medium")
    fields = {
        "depth": Variable(("depth",), grid, "L"),
        "width": Variable(("width",), grid, "M"),
        "squared_error": Variable(("seed", "depth", "width"), squares, "mean-square error of the outputs"),
        "constants": Variable(("constant",), np.array(law[:2]), "a and b of a/L + b/√(LM)"),
        "constants_standard_error": Variable(("constant",), np.array(law[2:]), "standard errors of a and b"),
        "paper_constants": Variable(("constant",), np.array([DEPTH_ERROR, 0.22]), "a and b of paper H"),
    }
    return Drawing(figure, fields, {**sizes, "notebook_constant": 0.22 * root})


def weights(request: Request) -> Drawing:
    """Paper H, Fig. 3: training loss, and how one unit's input weights travel, by depth.

    The unit starts at the same place at every depth and follows the limit.
    """
    sizes, problem = _sizes(request, "weights"), random_pairs(request.seed)
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
        "path": Variable(("record", "depth", "dimension"), path, "input weights of one unit"),
    }
    return Drawing(figure, fields, dict(sizes))


def phases(request: Request) -> Drawing:
    """Paper H, Fig. 4: the phase diagram in σ_v, with the measured travel and change of the output over it.

    Rates are those of Theorem 3, η_u = D min(1, D/σ_v²) and η_v = D.
    """
    sizes = _sizes(request, "phases")
    alphas = np.logspace(-2, 2, sizes["points"])
    names = {"first": "after one step", "last": f"after {sizes['steps']} steps"}
    travel = {name: np.empty((len(sizes["dimensions"]), len(alphas))) for name in names}
    change = np.empty((len(sizes["dimensions"]), len(alphas)))
    for i, dimension in enumerate(sizes["dimensions"]):
        for j, alpha in enumerate(alphas):
            problem = random_pairs(request.seed, dimension, sigma_v=alpha * np.sqrt(dimension), steps=sizes["steps"])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a run that diverged keeps its steps
                found = flds.solve_mean_ode(problem, units=sizes["units"], depth=8, seed=request.seed)
            travel["first"][i, j] = found.travel_u[1].mean() if len(found.steps) > 1 else np.nan
            travel["last"][i, j] = found.travel_u[-1].mean() if found.status == "completed" else np.nan
            change[i, j] = np.sqrt(np.mean((found.outputs[min(1, len(found.steps) - 1)] - found.outputs[0]) ** 2))
        request.say(f"D = {dimension} done")
    figure = Figure(figsize=(11, 3.5), layout="constrained")
    axes = figure.subplots(1, 3, sharex=True)
    panels = (
        (travel["first"], f"travel of u {names['first']}"),
        (travel["last"], f"travel of u {names['last']}"),
        (change, "change of the output in one step"),
    )
    for ax, (values, title) in zip(axes, panels, strict=True):
        for colour, dimension, curve in zip(PALETTE, sizes["dimensions"], values, strict=False):
            ax.plot(alphas, curve, "o-", color=colour, markersize=3.5, label=f"D = {dimension}")
        ax.set(xscale="log", yscale="log", xlabel="$\\sigma_v/\\sqrt{D}$", title=title)
        for first, last, shade, name in (
            (1e-2, 1 / 3, "#eaf3fb", "semi-complete"),
            (1 / 3, 3, "#e9f7ef", "complete"),
            (3, 1e2, "#fdf1e6", "lazy ODE"),
        ):
            ax.axvspan(first, last, color=shade, zorder=0)
            ax.text(
                np.sqrt(first * last),
                0.98,
                name,
                ha="center",
                va="top",
                fontsize="x-small",
                transform=ax.get_xaxis_transform(),
            )
        ax.margins(y=0.15)
    axes[0].plot(
        alphas, np.minimum(alphas, 1 / alphas) * _typical(travel["first"], alphas), "k:", label="c min(α, 1/α)"
    )
    axes[1].plot(alphas, TRAVEL * np.minimum(1, 1 / alphas), "k:", label="paper: 3 min(1, 1/α)")
    axes[0].set_ylabel("root mean square")
    for ax in axes[:2]:
        ax.legend(frameon=False, fontsize="x-small", loc="lower center")
    fields = {
        "alpha": Variable(("alpha",), alphas, "σ_v/√D"),
        "dimension": Variable(("dimension",), np.array(sizes["dimensions"]), "D"),
        "travel_first": Variable(("dimension", "alpha"), travel["first"], "travel of u after one step"),
        "travel_last": Variable(("dimension", "alpha"), travel["last"], "travel of u at the end"),
        "change": Variable(("dimension", "alpha"), change, "change of the output in one step"),
    }
    return Drawing(figure, fields, dict(sizes))


def _typical(travel: Array, alphas: Array) -> float:
    """The constant c of c min(α, 1/α), by the mean of logarithms."""
    return float(np.exp(np.nanmean(np.log(travel / np.minimum(alphas, 1 / alphas)))))


def fit_fluctuations(scaled: Array, alphas: Array, dimensions: Array) -> Array:
    """Fit a α√D + b√D + c, with equal relative weights and constants of at least zero, to (D, α) fluctuations."""
    root = np.sqrt(dimensions)[:, None]
    columns = [root * alphas, np.broadcast_to(root, scaled.shape), np.ones(scaled.shape)]
    keep = np.isfinite(scaled)
    design = np.stack([column[keep] / scaled[keep] for column in columns], axis=1)
    return np.asarray(lsq_linear(design, np.ones(len(design)), (0, np.inf)).x)


def fluctuations(request: Request) -> Drawing:
    """Paper H, Fig. 5: fluctuation of the output against α and D, travel of the input weights, and losses.

    M = 10. Where α exceeds √(LM/D)/3, marked by crosses, fluctuations are no longer small and nothing is fitted.
    """
    sizes, width = _sizes(request, "fluctuations"), 10
    dimensions, alphas = np.array(sizes["dimensions"]), np.logspace(-2, 2, sizes["points"])
    depth, seeds = sizes["depth"], sizes["seeds"]
    outputs: list[list[Array]] = []
    travel = np.empty((seeds, len(dimensions), len(alphas)))
    losses = np.empty((len(dimensions), len(alphas), sizes["long"] + 1))
    for i, dimension in enumerate(dimensions):
        outputs.append([])
        for j, alpha in enumerate(alphas):
            problem = random_pairs(
                request.seed, int(dimension), sigma_v=alpha * np.sqrt(dimension), steps=sizes["long"]
            )
            runs = train_units(
                problem,
                hidden_width=width,
                depth=depth,
                seeds=seeds,
                record_every=1,
                seed=replicate_seed(request.seed, 100 * int(dimension) + j),
            )
            outputs[-1].append(runs.outputs[:, sizes["steps"]])
            travel[:, i, j], losses[i, j] = runs.travel("u"), runs.loss.mean(0)
        request.say(f"D = {dimension} done")
    inside = alphas < np.sqrt(depth * width / dimensions)[:, None] / 3
    spread, constants, error = _fluctuation_law(outputs, inside, alphas, dimensions, depth * width, request.seed)
    slopes = np.exp(np.mean(np.log((travel / np.minimum(1, 1 / alphas))[:, inside]), axis=1))
    slope, slope_error = mean_and_error(slopes)
    shown = ", ".join(f"{v:.3f} ± {e:.3f} (paper {p})" for v, e, p in zip(constants, error, FLUCTUATION, strict=True))
    request.say(f"fluctuation · √(LM) = a α√D + b√D + c with a, b, c = {shown}")
    request.say(
        f"travel = ({slope:.3f} ± {slope_error:.3f}) min(1, 1/α) after {sizes['long']} steps (paper {TRAVEL:g})"
    )
    figure = _draw_fluctuations(
        spread, constants, travel.mean(0), slope, losses, inside, alphas, dimensions, depth * width
    )
    fields = {
        "alpha": Variable(("alpha",), alphas, "σ_v/√D"),
        "dimension": Variable(("dimension",), dimensions, "D"),
        "fluctuation": Variable(("dimension", "alpha"), spread, "standard deviation of the outputs over seeds"),
        "travel": Variable(("seed", "dimension", "alpha"), travel, "root mean square travel of u"),
        "loss": Variable(("dimension", "alpha", "step"), losses, "training loss, mean over seeds"),
        "constants": Variable(("constant",), constants, "a, b, c of (a α√D + b√D + c)/√(LM)"),
        "constants_standard_error": Variable(("constant",), error, "standard errors of a, b, c"),
        "paper_constants": Variable(("constant",), np.array(FLUCTUATION), "a, b, c of paper H"),
        "travel_constant": Variable((), np.array(slope), "c of c min(1, 1/α)"),
        "travel_constant_standard_error": Variable((), np.array(slope_error), "standard error of c"),
    }
    return Drawing(figure, fields, {**sizes, "hidden_width": width})


def _fluctuation_law(
    outputs: list[list[Array]], inside: NDArray[np.bool_], alphas: Array, dimensions: Array, effective: int, seed: int
) -> tuple[Array, Array, Array]:
    """Fluctuations (D, α), the fitted constants and their standard errors by a bootstrap over seeds."""

    def spread(pick: NDArray[np.intp] | slice) -> Array:
        return np.array([[np.sqrt(np.mean(np.var(one[pick], axis=0, ddof=1))) for one in row] for row in outputs])

    def fit(values: Array) -> Array:
        scaled = np.where(inside, values * np.sqrt(effective), np.nan)
        return fit_fluctuations(scaled, alphas, dimensions)

    generator, count = np.random.default_rng(seed), len(outputs[0][0])
    found = spread(slice(None))
    drawn = [fit(spread(generator.integers(count, size=count))) for _ in range(100)]
    return found, fit(found), np.std(drawn, axis=0)


def _draw_fluctuations(
    spread: Array,
    constants: Array,
    travel: Array,
    slope: float,
    losses: Array,
    inside: NDArray[np.bool_],
    alphas: Array,
    dimensions: Array,
    effective: int,
) -> Figure:
    figure = Figure(figsize=(11, 3.5), layout="constrained")
    axes = figure.subplots(1, 3)
    a, b, c = constants
    for colour, dimension, i in zip(PALETTE, dimensions, range(len(dimensions)), strict=False):
        root = np.sqrt(dimension)
        for ax, values in zip(axes[:2], (spread[i], travel[i]), strict=True):
            ax.plot(alphas[inside[i]], values[inside[i]], "o", color=colour, markersize=4, label=f"D = {dimension}")
            ax.plot(alphas[~inside[i]], values[~inside[i]], "x", color=colour, markersize=5)
        axes[0].plot(alphas, (a * alphas * root + b * root + c) / np.sqrt(effective), color=colour, linewidth=1)
        for j, curve in enumerate(losses[i]):
            style = "-" if inside[i, j] else ":"
            axes[2].plot(curve, style, color=colour, linewidth=0.8, label=f"D = {dimension}" if j == 0 else None)
    axes[1].plot(alphas, slope * np.minimum(1, 1 / alphas), "k", linewidth=1, label=f"{slope:.2f} min(1, 1/α)")
    axes[0].set(
        xscale="log",
        yscale="log",
        xlabel="α",
        ylabel="standard deviation of f over seeds",
        title=f"({a:.2f} α√D + {b:.2f} √D + {c:.2f})/√(LM)",
    )
    axes[1].set(xscale="log", yscale="log", xlabel="α", ylabel="root mean square travel of u", title="Travel")
    axes[2].set(yscale="log", xlabel="training step k", ylabel="loss", title="Loss, all α; dotted: α > √(LM/D)/3")
    finite = losses[np.isfinite(losses)]
    axes[2].set_ylim(max(1e-6, finite.min() / 2), 10)
    for ax in axes:
        ax.legend(frameon=False, fontsize="small")
    return figure
