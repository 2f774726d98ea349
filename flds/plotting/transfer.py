"""Results of sweeps: the final loss against the learning rate, of networks and of the limit, and where it is least."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flds.results.sweep import Sweep
from solvers.plotting.style import (
    BESIDE,
    DIVERGED,
    FAILED,
    OPTIMUM,
    PALETTE,
    STAR,
    legend,
    logarithmic,
    narrow,
    new_axes,
    new_figure,
    once,
    shades,
    sizes_axis,
    styled,
    text,
)

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RATE, SEED = "learning_rate", "seed"
_DRAWS = 2_000
# Losses that change by more are drawn on a logarithmic axis.
_WIDE = 20.0
# Longer names below an axis are slanted.
_WORD = 12
# Ticks of an axis of rates.
_TICKS = 8
_LINES = ("-", "--", "-.", ":")
# What decides a problem besides the learning rate.
PROBLEM = (
    "inputs", "targets", "test_inputs", "test_targets", "loss", "steps", "activation", "horizon", "optimizer",
    "weight_decay", "gradient_clip", "standard_deviations", "batch_size", "batch_order", "batch_seed", "residual",
    "hidden_ratio", "normalization", "gain", "bias", "branch_exponent",
)  # fmt: skip
# What decides a limit beside its problem, named where the networks have another.
_NAMED = {"depth": "depth {}", "backward_weights": "{} backward weights"}


class Optimum(NamedTuple):
    """The rate at which a loss is least, the loss there, and an interval.

    It is the 95 % interval if `sampled`, else reaches to the rates beside the lowest point.
    """

    rate: float
    loss: float
    low: float
    high: float
    sampled: bool


class Curve(NamedTuple):
    """A quantity at the end of runs, its standard errors where they are known, and which diverged or failed."""

    x: NDArray[Any]
    y: NDArray[Any]
    error: NDArray[Any] | None
    diverged: NDArray[np.bool_]
    failed: NDArray[np.bool_]


@styled
def plot_transfer(networks: Sweep, limit: Sweep | None = None, name: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the final loss against the learning rate for every width and depth, and the limit's with its optimum.

    Parameters
    ----------
    networks : Sweep
        Of a `TrainingProblem`, over ``learning_rate`` and others, such as ``width`` and ``depth``; ``seed`` is averaged
        over.
    limit : Sweep, optional
        Of the limit, over ``learning_rate`` and perhaps ``depth`` and ``seed``.
    name : str, optional
        What is drawn, a variable over training such as "accuracy"; by default the test loss, or without one the loss.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes
        Those given, or new ones of two columns. Errors are ± 2 standard errors over seeds or replicates. Rates at which
        a run diverged, or failed, have a cross at the top instead of a point. The star on each curve is the vertex of
        the parabola in the logarithm of the rate through its lowest point and those beside it, of the logarithm of the
        loss where the axis is logarithmic; where the lowest point is an end there is none. The shaded interval of
        the limit's holds 95 % of those of curves that are redrawn from these errors; without errors it reaches to the
        rates beside its lowest point, which the legend says.

    Raises
    ------
    TypeError, ValueError
        If one is not a sweep, has no learning rates, one that is not positive or no such variable, they are of
        different problems, `limit` is of networks, or no run has completed.
    """
    every = [(networks, *one) for one in _curves(networks, name).items()]
    if limit is not None:
        _require_same_problem(networks, limit)
        also = _differences(networks, limit)
        every += [(limit, ", ".join(filter(None, (label, *also))), one) for label, one in _curves(limit, name).items()]
    if not any(np.isfinite(curve.y).any() for *_, curve in every):
        raise ValueError("there is nothing to draw: no run has completed")
    ax, count = new_axes(ax, columns=2), sum(sweep is not limit for sweep, *_ in every)
    quantity = str(networks.final(name).name)
    ax.set(xlabel="learning rate $\\eta_c$", ylabel=f"final {quantity.replace('_', ' ')}")
    ax.set_title("Transfer of learning rates")
    largest, wide = "accuracy" in quantity, _is_wide([curve for *_, curve in every])
    for place, (sweep, label, curve) in enumerate(every):
        if sweep is limit:
            style = {
                "color": str(0.35 * (place - count) % 1.0),
                "linewidth": 1.8,
                "label": ", ".join(filter(None, ("limit", label))),
            }
        else:
            line = _LINES[place % len(_LINES)]
            style = {"color": shades(count)[place], "linestyle": line, "marker": "o", "label": label or _kind(networks)}
        _draw(ax, curve, place, **style)
        if np.isfinite(curve.y).any():
            best = optimum(curve.x, curve.y, curve.error, largest, wide and not largest)
            _mark(ax, best, style["color"], sweep is limit and place == count)
    _rates_axis(ax, np.concatenate([curve.x for *_, curve in every]))
    if wide and not largest:
        lowest = min(np.nanmin(curve.y, initial=np.inf) for *_, curve in every)
        ax.set_ylim(bottom=0.5 * lowest)  # however far errors reach
        logarithmic(ax, "y")
    legend(ax, beside=limit is not None)
    return ax


def _is_wide(curves: list[Curve]) -> bool:
    """Whether the losses change so much that their axis should be logarithmic."""
    heights = np.concatenate([curve.y for curve in curves])
    heights = heights[np.isfinite(heights)]
    return bool(heights.min() > 0 and heights.max() > _WIDE * heights.min())


def _rates_axis(ax: Axes, rates: NDArray[Any]) -> None:
    """Make the axis of rates logarithmic, with ticks at some of them, the first and the last among these."""
    several = np.unique(rates)
    ticks = _TICKS // 2 if narrow(ax) else _TICKS
    sizes_axis(ax, "x", several[np.unique(np.linspace(0, len(several) - 1, ticks).round().astype(int))])


def _kind(sweep: Sweep) -> str:
    return "limit" if sweep.settings["of"] == "solve_flds" else "networks"


def _require_same_problem(networks: Sweep, limit: Sweep) -> None:
    """Refuse sweeps of different problems, as far as they say, and those that are exchanged."""
    if limit.settings["of"] == "simulate_resnet":
        raise ValueError("limit must be a sweep of a limit, but is of networks: plot_transfer(networks, limit)")
    one, other = networks.settings["fixed"], limit.settings["fixed"]
    if not one or not other:  # sweeps of version 0.1 do not say
        return
    for name in PROBLEM:
        if name not in (*networks.grid, *limit.grid) and one.get(name) != other.get(name):
            raise ValueError(f"networks and limit must be of the same problem, but differ in {name}")


def _differences(networks: Sweep, limit: Sweep) -> list[str]:
    """Return what else decides the limit and is other than for the networks, such as its depth."""
    one, other = networks.settings["fixed"], limit.settings["fixed"]
    differing = (name for name in _NAMED if name not in limit.grid and one.get(name) != other.get(name))
    return [_NAMED[name].format(other[name].strip("'")) for name in differing if name in other]


def optimum(
    rates: NDArray[Any],
    losses: NDArray[Any],
    errors: NDArray[Any] | None,
    largest: bool = False,
    logarithmic: bool = False,
) -> Optimum | None:
    """Return where a curve is least, or largest, between its points, and the 95 % interval.

    Parameters
    ----------
    rates, losses : (points,) float64
        The curve; NaN where a run did not complete.
    errors : (points,) float64 or None
        Standard errors of the losses; without them the interval is that between the points beside the lowest.
    largest : bool
        Whether the largest value is looked for.
    logarithmic : bool
        Whether the parabola is that of the logarithm of the losses, which must be positive.

    Returns
    -------
    Optimum or None
        None if the lowest point is the first or the last of the runs that completed, since the least loss may then be
        beyond it.

    Raises
    ------
    ValueError
        If no loss is finite.
    """
    known = np.isfinite(losses)
    if not known.any():
        raise ValueError("there is no optimum: no run has completed")
    sign, x, y = -1.0 if largest else 1.0, np.log(rates[known]), losses[known]
    error = np.zeros(len(y)) if errors is None else errors[known]
    if logarithmic:
        y, error = np.log(y), error / y
    y = sign * y
    if not 0 < (place := int(np.argmin(y))) < len(y) - 1:
        return None
    best, least = _vertex(x, y)
    sampled = bool(np.isfinite(error).all() and np.any(error > 0))
    ends = x[[place - 1, place + 1]]
    if sampled:
        draws = y + np.random.default_rng(0).standard_normal((_DRAWS, len(y))) * error
        ends = np.quantile([_vertex(x, one)[0] for one in draws], [0.025, 0.975])
    low, high = np.exp(ends)
    loss = np.exp(least) if logarithmic else sign * least
    return Optimum(float(np.exp(best)), float(loss), float(low), float(high), sampled)


def _vertex(x: NDArray[Any], y: NDArray[Any]) -> tuple[float, float]:
    """Return where the parabola through the lowest of some points and its neighbours is least; at an end that point."""
    place = int(np.argmin(y))
    if not 0 < place < len(x) - 1:
        return float(x[place]), float(y[place])
    (a, b, c), (p, q, r) = x[place - 1 : place + 2], y[place - 1 : place + 2]
    top = (b - a) ** 2 * (q - r) - (b - c) ** 2 * (q - p)
    bottom = (b - a) * (q - r) - (b - c) * (q - p)
    vertex = b - 0.5 * top / bottom if bottom else b
    vertex = float(np.clip(vertex, a, c))
    parts = ((a, p, b, c), (b, q, a, c), (c, r, a, b))
    value = sum(height * (vertex - u) * (vertex - v) / ((at - u) * (at - v)) for at, height, u, v in parts)
    return vertex, float(value)


def _curves(sweep: Sweep, name: str | None) -> dict[str, Curve]:
    """Return the final losses against the rate, for each point of the other names of the grid."""
    if not isinstance(sweep, Sweep):
        raise TypeError(f"networks and limit must be results of flds.sweep, got {type(sweep).__name__}")
    if RATE not in sweep.grid:
        raise ValueError(f"the sweep must vary learning_rate, but varies {', '.join(sweep.grid)}")
    if not _numbers(sweep, RATE):
        raise ValueError("the sweep must vary learning_rate over numbers, but some of its values are others")
    if not (rates := sweep.variables[RATE].values).min() > 0:
        raise ValueError(f"learning rates must be positive for a logarithmic axis, got {rates.min():g}")
    return _over(sweep, RATE, name)


def _over(sweep: Sweep, x: str, name: str | None) -> dict[str, Curve]:
    final, marks = sweep.final(name), [sweep.data["status"] == kind for kind in (DIVERGED, FAILED)]
    error: xarray.DataArray | None = None
    if SEED in final.dims and x != SEED:
        count = final.sizes[SEED]
        error = final.std(SEED, ddof=1) / np.sqrt(count) if count > 1 else None
        final = final.mean(SEED, skipna=False)  # those that are left where some diverged are no sample
        marks = [mark.any(SEED) for mark in marks]
    elif f"{final.name}_standard_error" in sweep.variables:
        error = sweep.final(f"{final.name}_standard_error")
    others = [dim for dim in final.dims if dim != x]
    found = {}
    values = sweep.variables[x].values
    order = np.argsort(values, kind="stable") if _numbers(sweep, x) else np.arange(len(values))
    for point in np.ndindex(*(final.sizes[dim] for dim in others)):
        at = dict(zip(others, point, strict=True))
        label = ", ".join(f"{dim} {final[dim].values[place]}" for dim, place in at.items())
        y, diverged, failed = (array.isel(at).values[order] for array in (final, *marks))
        errors = None if error is None else error.isel(at).values[order]
        found[label] = Curve(values[order], y, errors, diverged, failed)
    return found


def _numbers(sweep: Sweep, name: str) -> bool:
    """Whether the values of a name are numbers."""
    return sweep.variables[name].values.dtype.kind in "iuf"


def _draw(ax: Axes, curve: Curve, place: int, **style: Any) -> None:
    """Draw a curve with its errors, and crosses at the top, a row for each curve, where runs diverged or failed."""
    error = None if curve.error is None else 2 * curve.error
    ax.errorbar(curve.x, curve.y, error, capsize=2, markersize=3, **style)
    for kind, marker, those in ((DIVERGED, "x", curve.diverged), (FAILED, "+", curve.failed)):
        if those.any():
            ax.plot(
                curve.x[those], np.full(those.sum(), 0.98 - 0.035 * place), marker, color=style["color"], markersize=4,
                clip_on=False, transform=ax.get_xaxis_transform(), label=once(ax, kind),
            )  # fmt: skip


def _mark(ax: Axes, best: Optimum | None, colour: Any, interval: bool) -> None:
    """Mark the optimum of a curve if there is one, and for the limit its interval."""
    if best is None:
        return
    ax.plot(
        best.rate, best.loss, marker="*", markersize=7, markeredgewidth=0, color=colour, zorder=5, linestyle="",
        label=once(ax, STAR),
    )  # fmt: skip
    if interval:
        label = OPTIMUM if best.sampled else BESIDE
        ax.axvspan(best.low, best.high, color="0.88", linewidth=0, zorder=0, label=label)


@styled
def sweep_overview(sweep: Sweep) -> Figure:
    """Return a figure of a `sweep`: the final loss against the rate, or what else varies first, and the summary."""
    figure, axes = new_figure(2, 1, width_ratios=(2.2, 1))
    try:
        final = sweep.final()
    except ValueError:  # no run has a record
        final = None
    if final is None or not np.isfinite(final.values).any():
        axes[0].axis("off")
    elif (
        RATE in sweep.grid
        and _numbers(sweep, RATE)
        and any(np.isfinite(curve.y).any() for curve in _curves(sweep, None).values())
    ):
        plot_transfer(sweep, ax=axes[0])
        axes[0].set_title("")
    else:
        _plain(axes[0], sweep, str(final.name))
    text(figure, axes[1], sweep.summary().splitlines())
    return figure


def _plain(ax: Axes, sweep: Sweep, quantity: str) -> None:
    """Draw the final loss against the first name that has numbers, or the places of the first."""
    grid = sweep.grid
    x = next((name for name in grid if name != SEED and _numbers(sweep, name)), None)
    x = x or next((name for name in grid if name != SEED), SEED)
    for place, (label, curve) in enumerate(_over(sweep, x, None).items()):
        numbers = _numbers(sweep, x)
        at = curve.x if numbers else np.arange(len(curve.x))
        _draw(ax, curve._replace(x=at), place, color=PALETTE[place % len(PALETTE)], marker="o", label=label or None)
        if not numbers:
            names = [str(value) for value in curve.x]
            ax.set_xticks(at, names)
            if max(map(len, names)) > _WORD:
                ax.tick_params("x", labelrotation=20)
    ax.set(xlabel=x.replace("_", " "), ylabel=f"final {quantity.replace('_', ' ')}")
    legend(ax)
