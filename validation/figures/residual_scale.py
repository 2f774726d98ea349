"""Figures 4 and 5 of paper H (Chizat): what the residual scale σ_v = α√D changes, in the limit and in networks."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

import flds
from flds.mean_ode.regimes import FLUCTUATION, TRAVEL
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
        "phases": {
            "dimensions": (10, 31, 100),
            "points": 9,
            "units": 512,
            "steps": 10,
            "depth": 100,
            "hidden_width": 100,
            "seeds": 4,
        },
        "fluctuations": {
            "dimensions": (10, 31),
            "points": 9,
            "depth": 300,
            "hidden_width": 10,
            "seeds": 6,
            "steps": 10,
            "travel_steps": 50,
        },
    },
    "full": {
        "phases": {
            "dimensions": (10, 31, 100),
            "points": 17,
            "units": 2048,
            "steps": 50,
            "depth": 1000,
            "hidden_width": 10,
            "seeds": 4,
        },
        "fluctuations": {
            "dimensions": (10, 31, 100),
            "points": 9,
            "depth": 1000,
            "hidden_width": 10,
            "seeds": 10,
            "steps": 10,
            "travel_steps": 50,
        },
    },
}
# The travel of the limit is a function of α², because v and −v have the same law. So beyond these α it is off its
# asymptotes, c and c/α, by about 1/100 and 1/10 of itself.
SMALL, LARGE = 0.1, 3.0


# Figure 4


def phases(request: Request) -> Drawing:
    """Paper H, Fig. 4: the phase diagram in σ_v, with travel and output of the limit and of networks that leave it.

    Rates are those of Theorem 3, η_u = D min(1, D/σ_v²) and η_v = D. The limit knows nothing of L and M, so the fourth
    regime, σ_v ≥ √(LM), is that of networks: the fluctuation of their first pass, of order σ_v/√(LM) by H-(30), is no
    longer small, and they leave the limit.
    """
    sizes = request.pick(SIZES, "phases")
    alphas, dimensions = np.logspace(-2, 2, sizes["points"]), np.array(sizes["dimensions"])
    effective = sizes["depth"] * sizes["hidden_width"]
    measured = np.empty((len(_SCALES), len(dimensions), len(alphas)))
    for i, dimension in enumerate(dimensions):
        for j, alpha in enumerate(alphas):
            measured[:, i, j] = _scales(int(dimension), alpha, sizes, request.seed)
        edge = np.sqrt(effective / dimension)
        here, there = ([_between(at, alphas, row[i]) for row in measured[-2:]] for at in (1.0, edge))
        request.say(
            f"D = {dimension}, L = {sizes['depth']}, M = {sizes['hidden_width']}: from α = 1 to α = {edge:.3g}, where "
            f"σ_v = √(LM), networks' distance from the limit grows from {here[0]:.1g} to {there[0]:.1g}, untrained, "
            f"and from {here[1]:.1g} to {there[1]:.1g} after {sizes['steps']} steps"
        )
    found = dict(zip(_SCALES, measured, strict=True))
    fields = {
        "alpha": Variable(("alpha",), alphas, "σ_v/√D"),
        "dimension": Variable(("dimension",), dimensions, "D"),
        "boundary": Variable(("dimension",), np.sqrt(effective / dimensions), "α at which σ_v = √(LM)"),
    }
    fields |= {name: Variable(("dimension", "alpha"), found[name], text) for name, text in _SCALES.items()}
    return Drawing(_draw_phases(found, alphas, dimensions, sizes), fields, dict(sizes))


_SCALES = {
    "travel_first": "travel of u after one step, limit",
    "travel_last": "travel of u at the last step, limit",
    "change": "change of the output in one step, limit",
    "network_travel_first": "travel of u after one step, networks",
    "network_travel_last": "travel of u at the last step, networks",
    "network_change": "change of the output in one step, networks",
    "distance_first": "root mean square distance of the outputs of networks from the limit, untrained",
    "distance_last": "root mean square distance of the outputs of networks from the limit at the last step",
}


def _scales(dimension: int, alpha: float, sizes: dict[str, Any], seed: int) -> list[float]:
    """Measure all of `_SCALES` at one D and α; NaN where training diverged.

    Networks of one D start from the same draws, scaled with α.
    """
    steps, problems = sizes["steps"], {}
    for count in (1, steps):
        problems[count] = random_pairs(seed, dimension, sigma_v=alpha * np.sqrt(dimension), steps=count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a run that diverged keeps its steps
        limit = flds.solve_mean_ode(problems[steps], units=sizes["units"], depth=8, seed=seed)
    outputs, travel = np.full((3, *limit.outputs.shape[1:]), np.nan), np.full(2, np.nan)
    for index, step in enumerate((0, 1, steps)):
        if step < len(limit.steps):
            outputs[index], travel[index - 1] = limit.outputs[step], limit.travel_u[step].mean()
    options = {"depth": sizes["depth"], "hidden_width": sizes["hidden_width"], "seeds": sizes["seeds"]}
    first, last = (train_units(problems[k], seed=replicate_seed(seed, dimension), **options) for k in (1, steps))
    return [
        *travel,
        _size(outputs[1] - outputs[0]),
        _size(first.travel("u")),
        _size(last.travel("u")),
        _size(first.outputs[:, 1] - first.outputs[:, 0]),
        _size(first.outputs[:, 0] - outputs[0]),
        _size(last.outputs[:, -1] - outputs[2]),
    ]


def _between(at: float, alphas: Array, values: Array) -> float:
    """A value between those measured, which are close to powers of α."""
    return float(np.exp(np.interp(np.log(at), np.log(alphas), np.log(values))))


def _size(array: Array) -> float:
    return float(np.sqrt(np.mean(array**2)))


def _draw_phases(found: dict[str, Array], alphas: Array, dimensions: NDArray[Any], sizes: dict[str, Any]) -> Figure:
    steps, effective = sizes["steps"], sizes["depth"] * sizes["hidden_width"]
    figure = Figure(figsize=(10, 7.4), layout="constrained")
    axes = figure.subplots(2, 2).ravel()
    panels = (
        ("travel_first", "Travel of u after one step"),
        ("travel_last", f"Travel of u after {steps} steps"),
        ("change", "Change of the output in one step"),
    )
    for ax, (name, title) in zip(axes, panels, strict=False):
        for colour, dimension, *curves in zip(PALETTE, dimensions, found[name], found[f"network_{name}"], strict=False):
            ax.plot(alphas, curves[0], "o-", color=colour, markersize=3.5, label=f"limit, D = {dimension}")
            ax.plot(alphas, curves[1], "x", color=colour, markersize=6)
            ax.axvline(np.sqrt(effective / dimension), color=colour, linewidth=0.8, linestyle="--")
        ax.plot([], [], "kx", label=f"networks, L = {sizes['depth']}, M = {sizes['hidden_width']}")
        ax.plot([], [], "k--", linewidth=0.8, label="$\\sigma_v = \\sqrt{LM}$")
        ax.set(xscale="log", yscale="log", xlabel="α = $\\sigma_v/\\sqrt{D}$", ylabel="root mean square", title=title)
        _shade(ax, alphas, np.sqrt(effective / dimensions))
    typical = _typical(found["travel_first"], alphas)
    axes[0].plot(alphas, np.minimum(alphas, 1 / alphas) * typical, "k:", label=f"{typical:.2f} min(α, 1/α)")
    axes[1].plot(alphas, TRAVEL * np.minimum(1, 1 / alphas), "k:", label="paper, k = 50: 3 min(1, 1/α)")
    _draw_distance(axes[3], found, alphas, dimensions, effective, steps)
    for ax, place in zip(axes, ("lower center", "lower left", "center left", "upper left"), strict=True):
        ax.legend(frameon=False, fontsize="x-small", loc=place)
    return figure


def _shade(ax: Axes, alphas: Array, boundaries: Array) -> None:
    """Name the four regimes; between the boundaries of different D, the last two overlap."""
    low, high = boundaries.min(), boundaries.max()
    for first, last, shade, name in (
        (alphas[0] / 1.5, 1 / 3, "#eaf3fb", "semi-complete"),
        (1 / 3, 3, "#e9f7ef", "complete"),
        (3, low, "#fdf1e6", "lazy ODE"),
        (low, high, "#fdf0f0", ""),
        (high, alphas[-1] * 1.5, "#fbe3e3", "beyond\nthe ODE"),
    ):
        ax.axvspan(first, last, color=shade, zorder=0)
        place = ax.get_xaxis_transform()
        ax.text(np.sqrt(first * last), 0.98, name, ha="center", va="top", fontsize="x-small", transform=place)
    ax.margins(x=0, y=0.15)


def _draw_distance(
    ax: Axes, found: dict[str, Array], alphas: Array, dimensions: NDArray[Any], effective: int, steps: int
) -> None:
    """The distance of networks from the limit against σ_v/√(LM), in which networks of all D agree before training."""
    for colour, dimension, before, after in zip(
        PALETTE, dimensions, found["distance_first"], found["distance_last"], strict=False
    ):
        scale = alphas * np.sqrt(dimension / effective)
        ax.plot(scale, before, "x--", color=colour, markersize=6, linewidth=0.8)
        ax.plot(scale, after, "x-", color=colour, markersize=6, linewidth=0.8, label=f"D = {dimension}")
    ax.plot([], [], "k--", linewidth=0.8, label="untrained")
    ax.plot([], [], "k-", linewidth=0.8, label=f"after {steps} steps")
    high = ax.get_xlim()[1]
    ax.axvspan(1, high, color="#fbe3e3", zorder=0)
    place = ax.get_xaxis_transform()
    ax.text(np.sqrt(high), 0.02, "beyond the ODE", ha="center", va="bottom", fontsize="x-small", transform=place)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="$\\sigma_v/\\sqrt{LM}$",
        ylabel="root mean square distance",
        title="Outputs of networks from the limit",
    )
    ax.margins(x=0)


def _typical(travel: Array, alphas: Array) -> float:
    """The constant c of c min(α, 1/α), by the mean of logarithms."""
    return float(np.exp(np.nanmean(np.log(travel / np.minimum(alphas, 1 / alphas)))))


# Figure 5


def fluctuations(request: Request) -> Drawing:
    """Paper H, Fig. 5: fluctuation of the output against α and D, travel of the input weights, and losses.

    M = 10, one data set for each D. Where α exceeds √(LM/D)/3, marked by crosses, fluctuations are no longer small and
    nothing is fitted. The travel has a constant of its own on either side of α = 1, and both change with the step.
    """
    sizes = request.pick(SIZES, "fluctuations")
    dimensions, alphas = np.array(sizes["dimensions"]), np.logspace(-2, 2, sizes["points"])
    effective, steps, last = sizes["depth"] * sizes["hidden_width"], sizes["steps"], sizes["travel_steps"]
    spread, travel, losses = _trained(request, sizes, dimensions, alphas)
    inside = alphas < np.sqrt(effective / dimensions)[:, None] / 3
    scaled, moved = (np.where(inside, values, np.nan) for values in (spread * np.sqrt(effective), travel.mean(0)))
    constants, error = fit_fluctuations(scaled, alphas, dimensions)
    law = _columns(alphas, dimensions) @ constants
    asymptotes, ratio = travel_asymptotes(moved, alphas), moved / (TRAVEL * np.minimum(1, 1 / alphas))
    shown = ", ".join(f"{v:.3f} ± {e:.3f} (paper {p})" for v, e, p in zip(constants, error, FLUCTUATION, strict=True))
    request.say(f"fluctuation · √(LM) at k = {steps}: a α√D + b√D + c with a, b, c = {shown}")
    request.say(f"points are {_extremes(scaled / law, alphas, dimensions)} times this law")
    request.say(f"travel of u at k = {last}: {_described(asymptotes)}")
    request.say(
        f"points are {_extremes(ratio, alphas, dimensions)} times {TRAVEL:g} min(1, 1/α), the paper's at k = 50"
    )
    fields = {
        "alpha": Variable(("alpha",), alphas, "σ_v/√D"),
        "dimension": Variable(("dimension",), dimensions, "D"),
        "fluctuation": Variable(("dimension", "alpha"), spread, f"standard deviation of f over seeds at k = {steps}"),
        "travel": Variable(("seed", "dimension", "alpha"), travel, f"root mean square travel of u at k = {last}"),
        "loss": Variable(("dimension", "alpha", "step"), losses, "training loss, mean over seeds"),
        "constants": Variable(("constant",), constants, "a, b, c of (a α√D + b√D + c)/√(LM)"),
        "constants_standard_error": Variable(("constant",), error, "standard errors of a, b, c with the law's misfit"),
        "paper_constants": Variable(("constant",), np.array(FLUCTUATION), "a, b, c of paper H"),
        "fluctuation_ratio": Variable(
            ("dimension", "alpha"), scaled / law, "fluctuation over the law; NaN: not fitted"
        ),
        "travel_constants": Variable(
            ("asymptote", "mean_low_high"),
            asymptotes,
            f"at k = {last}, travel of u where α ≤ {SMALL:g} and α times travel where α ≥ {LARGE:g}: mean and range",
        ),
        "travel_ratio": Variable(("dimension", "alpha"), ratio, f"travel over {TRAVEL:g} min(1, 1/α); NaN: not fitted"),
    }
    figure, axes = _panels(inside, alphas, dimensions, spread, travel.mean(0), losses)
    _draw_laws(axes, law / np.sqrt(effective), constants, alphas, asymptotes)
    axes[0].set_ylabel(f"standard deviation of f over seeds, k = {steps}")
    axes[1].set(ylabel="root mean square", title=f"Travel of u after {last} steps")
    return Drawing(figure, fields, sizes | {"alpha_small": SMALL, "alpha_large": LARGE})


def _trained(
    request: Request, sizes: dict[str, Any], dimensions: NDArray[Any], alphas: Array
) -> tuple[Array, Array, Array]:
    """Fluctuation of the outputs (D, α), travel of u (seeds, D, α) and loss (D, α, steps + 1)."""
    depth, width, seeds, last = (sizes[name] for name in ("depth", "hidden_width", "seeds", "travel_steps"))
    spread, travel = np.empty((len(dimensions), len(alphas))), np.empty((seeds, len(dimensions), len(alphas)))
    losses = np.empty((*spread.shape, last + 1))
    for i, dimension in enumerate(map(int, dimensions)):
        for j, alpha in enumerate(alphas):
            problem = random_pairs(request.seed, dimension, sigma_v=alpha * np.sqrt(dimension), steps=last)
            seed = replicate_seed(request.seed, 100 * dimension + j)
            runs = train_units(problem, hidden_width=width, depth=depth, seeds=seeds, record_every=1, seed=seed)
            spread[i, j] = np.sqrt(np.mean(np.var(runs.outputs[:, sizes["steps"]], axis=0, ddof=1)))
            travel[:, i, j], losses[i, j] = runs.travel("u"), runs.loss.mean(0)
        request.say(f"D = {dimension} done")
    return spread, travel, losses


def _columns(alphas: Array, dimensions: NDArray[Any]) -> Array:
    """What a, b and c of a α√D + b√D + c are multiplied by, (D, α, 3)."""
    root = np.sqrt(dimensions)[:, None]
    return np.stack(np.broadcast_arrays(root * alphas, root, 1.0), axis=-1)


def fit_fluctuations(scaled: Array, alphas: Array, dimensions: NDArray[Any]) -> tuple[Array, Array]:
    """Fit a α√D + b√D + c, with equal relative weights and constants of at least zero, to (D, α) fluctuations.

    Returns the constants and their standard errors. These are the jackknife's over the points, whose distances from
    the law come from the seeds and from what the law misses. NaN is left out.
    """
    keep = np.isfinite(scaled)
    design = _columns(alphas, dimensions)[keep] / scaled[keep][:, None]

    def fit(rows: Array) -> Array:
        return np.asarray(lsq_linear(rows, np.ones(len(rows)), (0, np.inf)).x)

    without = np.array([fit(np.delete(design, row, axis=0)) for row in range(len(design))])
    return fit(design), np.sqrt(len(design) - 1) * without.std(axis=0)


def travel_asymptotes(travel: Array, alphas: Array) -> Array:
    """Return the travel where α is small, and α times the travel where it is large: mean, smallest, largest, (2, 3).

    `travel` is (D, α), with NaN where nothing is fitted; NaN where no point is left.
    """
    found = np.full((2, 3), np.nan)
    for row, values in zip(found, (travel[:, alphas <= SMALL], (alphas * travel)[:, alphas >= LARGE]), strict=True):
        if np.isfinite(values).any():
            row[:] = np.nanmean(values), np.nanmin(values), np.nanmax(values)
    return found


def _described(asymptotes: Array) -> str:
    texts = []
    for (mean, low, high), unit, where in zip(
        asymptotes, ("", "/α"), (f"α ≤ {SMALL:g}", f"α ≥ {LARGE:g}"), strict=True
    ):
        value = "none fitted" if np.isnan(mean) else f"{mean:.2f}{unit} (points {low:.2f} to {high:.2f})"
        texts.append(f"{value} where {where}")
    return ", ".join(texts)


def _extremes(ratio: Array, alphas: Array, dimensions: NDArray[Any]) -> str:
    """The smallest and the largest ratio, and where."""
    texts = []
    for pick in (np.nanargmin, np.nanargmax):
        i, j = np.unravel_index(pick(ratio), ratio.shape)
        texts.append(f"{ratio[i, j]:.2f} (D = {dimensions[i]}, α = {alphas[j]:.3g})")
    return " to ".join(texts)


def _panels(
    inside: NDArray[np.bool_], alphas: Array, dimensions: NDArray[Any], spread: Array, travel: Array, losses: Array
) -> tuple[Figure, list[Axes]]:
    """What was measured; crosses and dotted lines where nothing is fitted."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    axes = list(figure.subplots(1, 3))
    for colour, dimension, i in zip(PALETTE, dimensions, range(len(dimensions)), strict=False):
        for ax, values in zip(axes, (spread[i], travel[i]), strict=False):
            ax.plot(alphas[inside[i]], values[inside[i]], "o", color=colour, markersize=4, label=f"D = {dimension}")
            ax.plot(alphas[~inside[i]], values[~inside[i]], "x", color=colour, markersize=5)
            ax.set(xscale="log", yscale="log", xlabel="α = $\\sigma_v/\\sqrt{D}$")
        for j, curve in enumerate(losses[i]):
            style = "-" if inside[i, j] else ":"
            axes[2].plot(curve, style, color=colour, linewidth=0.8, label=f"D = {dimension}" if j == 0 else None)
    axes[2].set(yscale="log", xlabel="training step k", ylabel="loss", title="Loss, all α; dotted: α > √(LM/D)/3")
    axes[2].set_ylim(max(1e-6, np.nanmin(losses) / 2), 10)
    axes[2].legend(frameon=False, fontsize="small")
    return figure, axes


def _draw_laws(axes: list[Axes], law: Array, constants: Array, alphas: Array, asymptotes: Array) -> None:
    """Draw the fitted law of each D, the two asymptotes of the travel and the paper's."""
    a, b, c = constants
    for colour, curve in zip(PALETTE, law, strict=False):
        axes[0].plot(alphas, curve, color=colour, linewidth=1)
    axes[0].set_title(f"({a:.2f} α√D + {b:.2f} √D + {c:.2f})/√(LM)")
    below, above = alphas[alphas <= 1], alphas[alphas >= 1]
    (small, *_), (large, *_) = asymptotes
    if np.isfinite(small):
        axes[1].plot(below, np.full(len(below), small), "k", linewidth=1, label=f"{small:.2f}, from α ≤ {SMALL:g}")
    if np.isfinite(large):
        axes[1].plot(above, large / above, "k--", linewidth=1, label=f"{large:.2f}/α, from α ≥ {LARGE:g}")
    axes[1].plot(alphas, TRAVEL * np.minimum(1, 1 / alphas), "k:", linewidth=1, label="paper, k = 50: 3 min(1, 1/α)")
    for ax in axes[:2]:
        ax.legend(frameon=False, fontsize="small")
