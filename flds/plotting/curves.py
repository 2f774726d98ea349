"""Curves over training steps and over depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from solvers import checks

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from flds.results.limit import LimitEstimate
    from flds.results.mean_ode import MeanFieldSolution
    from flds.results.solution import Solution

# Okabe and Ito's palette, told apart with any colour vision.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
TRAINING, TEST, FORWARD, BACKWARD = PALETTE[:4]
_FEW = 5


def new_axes(ax: Axes | None) -> Axes:
    """Return the axes given, or new ones of the width of a column."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(4.5, 3.2), layout="constrained")[1]


def over_steps(solution: Solution | LimitEstimate, ax: Axes | None) -> Axes:
    """Return axes for curves over training steps; refuse a solution that has none."""
    from matplotlib.ticker import MaxNLocator

    require_records(solution)
    ax = new_axes(ax)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("training step")
    return ax


def require_records(solution: Solution | LimitEstimate) -> None:
    """Refuse a solution that ended before its first record."""
    if not len(solution.steps):
        raise ValueError("the solution has no records: it ended before the first one")


def few(count: int) -> list[tuple[int, Any]]:
    """Return index and colour of up to five of so many, from the first to the last."""
    import matplotlib as mpl

    chosen = np.unique(np.linspace(0, count - 1, _FEW).round().astype(int))
    return list(zip(chosen.tolist(), mpl.colormaps["viridis"](np.linspace(0, 0.85, len(chosen))), strict=True))


def _curve(ax: Axes, x: NDArray[Any], y: NDArray[Any], error: NDArray[Any] | None, **style: Any) -> list[Artist]:
    """Draw y against x, with a band of ± 2 errors where they are known."""
    artists: list[Artist] = list(ax.plot(x, y, **style))
    if error is not None:
        artists.append(
            ax.fill_between(x, y - 2 * error, y + 2 * error, color=style.get("color"), alpha=0.25, linewidth=0)
        )
    return artists


def _error(solution: Solution | LimitEstimate, name: str) -> NDArray[Any] | None:
    item = solution.variables.get(f"{name}_standard_error")
    half_width = solution.variables.get(f"{name}_half_width")  # of a LimitEstimate
    if item is None and half_width is not None:
        return half_width.values / 2
    return None if item is None else item.values


def _training_and_test(ax: Axes, solution: Solution, name: str) -> list[Artist]:
    artists: list[Artist] = []
    for field, colour, marker, label in ((name, TRAINING, "o", "training"), (f"test_{name}", TEST, "s", "test")):
        if field in solution.variables:
            y, error = solution.variables[field].values, _error(solution, field)
            marked = marker if len(y) <= 30 else None
            artists += _curve(ax, solution.steps, y, error, color=colour, marker=marked, markersize=3, label=label)
    return artists


def plot_loss(solution: Solution, scale: str = "linear", ax: Axes | None = None) -> list[Artist]:
    """Draw training loss, test loss, and the loss of every batch against the step.

    `scale` is that of the loss, "linear" or "log". Raises AttributeError if the solution has no loss.
    """
    solution.loss  # noqa: B018  names the variables there are
    ax = over_steps(solution, ax)
    artists: list[Artist] = []
    if "batch_loss" in solution.variables and len(solution.batch_loss) > len(solution.steps):
        steps = np.arange(len(solution.batch_loss))
        artists += ax.plot(steps, solution.batch_loss, color="0.7", linewidth=1, label="batch")
    artists += _training_and_test(ax, solution, "loss")
    ax.set(ylabel="loss", title="Loss", yscale=scale)
    if scale == "linear":
        ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
    return artists


def chance(solution: Solution) -> float:
    """Return the accuracy of a guess."""
    return 1 / solution.outputs.shape[-1] if solution.outputs.ndim >= 3 else 0.5


def plot_accuracy(solution: Solution, ax: Axes | None = None) -> list[Artist]:
    """Draw training and test accuracy against the step, with chance for comparison.

    Raises AttributeError if the problem has no classes.
    """
    accuracy = solution.accuracy
    ax = over_steps(solution, ax)
    artists = _training_and_test(ax, solution, "accuracy")
    guess = chance(solution)
    artists.append(ax.axhline(guess, color="0.5", linestyle=":", label=f"chance (1/{1 / guess:.0f})"))
    ax.set(ylabel="accuracy", title="Accuracy", ylim=(0, max(1.02, accuracy.max(initial=0))))
    ax.legend(frameon=False)
    return artists


def plot_variance(solution: Solution, name: str = "feature_variance", ax: Axes | None = None) -> list[Artist]:
    """Draw `feature_variance` or `gradient_variance` over depth at up to five steps.

    Raises ValueError for another name.
    """
    symbols = {"feature_variance": ("h", "Features"), "gradient_variance": ("g", "Gradients")}
    symbol, title = symbols[checks.choice("name", name, tuple(symbols))]
    values, error = getattr(solution, name), _error(solution, name)
    require_records(solution)
    ax = new_axes(ax)
    artists: list[Artist] = []
    for record, colour in few(len(solution.steps)):
        one = None if error is None else error[record]
        label = f"step {solution.steps[record]}"
        artists += _curve(ax, solution.depth_grid, values[record], one, color=colour, label=label)
    ax.set(xlabel="depth t", ylabel=f"mean square  E ${symbol}_t^2$", title=f"{title} over depth")
    ax.legend(frameon=False, fontsize="small")
    return artists


def plot_rank(solution: Solution, ax: Axes | None = None) -> list[Artist]:
    """Draw the mean rank of the forward and backward bases against the step."""
    rank, error = solution.rank_by_step, _error(solution, "rank_by_step")
    ax = over_steps(solution, ax)
    artists: list[Artist] = []
    for side, (label, colour, line) in enumerate((("forward", FORWARD, "-"), ("backward", BACKWARD, "--"))):
        one = None if error is None else error[:, side]
        style = {"color": colour, "linestyle": line, "marker": "o", "markersize": 3, "label": label}
        artists += _curve(ax, solution.steps, rank[:, side], one, **style)
    ax.set(ylabel="rank, mean over depth", title="Rank of the bases")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
    return artists


def plot_outputs(solution: Solution, ax: Axes | None = None) -> list[Artist]:
    """Draw the first output of up to seven recorded samples against the step."""
    ax = over_steps(solution, ax)
    artists: list[Artist] = []
    for sample, colour in zip(range(solution.outputs.shape[1]), PALETTE, strict=False):
        y, error = _trajectory(solution, sample, 0)
        label = f"sample {_name(solution, sample)}"
        artists += _curve(ax, solution.steps, y, error, color=colour, marker="o", markersize=3, label=label)
    ax.set(ylabel="output f" if solution.outputs.ndim == 2 else "first output", title="Outputs")
    ax.legend(frameon=False, fontsize="small")
    return artists


def plot_replicates(solution: Solution, sample: int = 0, output: int = 0, ax: Axes | None = None) -> list[Artist]:
    """Draw one output of every replicate against the step, and their mean ± 2 standard errors.

    Raises AttributeError if the solution has one replicate only, IndexError if there is no such sample or output.
    """
    every = np.array([_pick(one, sample, output) for one in solution.replicate_outputs])
    ax = over_steps(solution, ax)
    artists: list[Artist] = list(ax.plot(solution.steps, every.T, color="0.65", linewidth=0.8))
    artists[0].set_label(f"{len(every)} replicates")
    y, error = _trajectory(solution, sample, output)
    artists += _curve(ax, solution.steps, y, error, color=TRAINING, linewidth=2, label="mean")
    ax.set(ylabel="output f", title=f"Replicates, sample {_name(solution, sample)}")
    ax.legend(frameon=False)
    return artists


def plot_against_limit(
    limit: Solution | LimitEstimate,
    networks: Sequence[Solution],
    sample: int = 0,
    output: int = 0,
    ax: Axes | None = None,
) -> list[Artist]:
    """Draw one output of finite networks and of the limit against the step.

    Parameters
    ----------
    limit : Solution or LimitEstimate
        Of `solve_flds` or `estimate_limit`.
    networks : sequence of Solution
        Of `simulate_resnet` or dense training of the same problem; the legend gives width and depth.
    sample, output : int
        Place among the recorded samples of the limit, and among the outputs.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into.

    Returns
    -------
    list of matplotlib.artist.Artist

    Raises
    ------
    IndexError
        If there is no such sample or output.
    ValueError
        If a network is of another problem, or did not record the sample.
    """
    import matplotlib as mpl

    index = _name(limit, sample)
    for network in networks:
        if network.extra.get("problem") != limit.extra.get("problem"):
            raise ValueError("networks must be solutions of the problem of the limit")
        if "particles" not in network.settings:
            raise ValueError(f"networks must be of simulate_resnet or dense training, got {network.settings['solver']}")
        if index not in network.recorded_samples:
            raise ValueError(f"networks must have recorded sample {index}, got {network.recorded_samples.tolist()}")
    ax = over_steps(limit, ax)
    artists: list[Artist] = []
    colours = mpl.colormaps["viridis"](np.linspace(0.85, 0.15, len(networks)))
    for network, colour in zip(networks, colours, strict=True):
        label = f"n = {network.settings['particles']}, L = {network.settings['depth']}"
        place = int(np.flatnonzero(network.recorded_samples == index)[0])
        artists += _curve(ax, network.steps, *_trajectory(network, place, output), color=colour, label=label)
    y, error = _trajectory(limit, sample, output)
    artists += _curve(ax, limit.steps, y, error, color="black", linestyle="--", linewidth=1.5, label="limit")
    ax.set(ylabel="output f", title=f"Networks and limit, sample {index}")
    ax.legend(frameon=False, fontsize="small")
    return artists


def plot_travel(solution: MeanFieldSolution, ax: Axes | None = None) -> list[Artist]:
    """Draw how far the units of the Mean ODE have moved at the last record, over depth, for each parameter.

    Raises ValueError if the solution has no travel.
    """
    names = [name for name in solution.variables if name.startswith("travel_") and not name.endswith("_standard_error")]
    if not (names and len(solution.steps)):
        raise ValueError("the solution has no travel: it must be of the Mean ODE, with a record")
    ax = new_axes(ax)
    artists: list[Artist] = []
    for name, colour in zip(names, PALETTE, strict=False):
        y, error = getattr(solution, name)[-1], _error(solution, name)
        last, label = None if error is None else error[-1], name.removeprefix("travel_")
        artists += _curve(ax, solution.depth_grid, y, last, color=colour, label=label)
    ax.set(xlabel="depth s", ylabel="root mean square", title=f"Travel after {solution.steps[-1]} steps")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
    return artists


def _pick(outputs: NDArray[Any], sample: int, output: int) -> NDArray[Any]:
    """Return one output over the records, from (records, samples[, …, outputs])."""
    return outputs[:, sample].reshape(len(outputs), -1)[:, output]


def _trajectory(
    solution: Solution | LimitEstimate, sample: int, output: int
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    error = _error(solution, "outputs")
    return _pick(solution.outputs, sample, output), None if error is None else _pick(error, sample, output)


def _name(solution: Solution | LimitEstimate, sample: int) -> int:
    """Return the index in the training set of a recorded sample."""
    recorded = solution.variables.get("recorded_samples")
    return int(sample if recorded is None else recorded.values[sample])
