"""The three figures of paper F (Yao, Wu and Gao), with what the limit predicts drawn over them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

import flds
from flds.plotting import BACKWARD, FORWARD, TEST, TRAINING
from solvers.random import replicate_seed
from solvers.solution import Field
from validation import closed_forms, networks
from validation.figures import Drawing, Request
from validation.rates import CoupledErrors, coupled_errors

Array = NDArray[np.float64]
WEIGHTS = ("tied", "independent")


def _problem(request: Request, train: int, test: int = 0, **options: Any) -> flds.TrainingProblem:
    """The first samples of the data, cross-entropy, random batches."""
    data = request.dataset()
    if data.classes is None or data.test_inputs is None or data.test_targets is None:
        raise ValueError(f"data must have classes and a test set for this figure, got {data.name!r}")
    if test:
        options |= {"test_inputs": data.test_inputs[:test], "test_targets": data.test_targets[:test]}
    return flds.TrainingProblem(
        data.inputs[:train], data.targets[:train], loss="cross_entropy", batch_order="random", batch_seed=request.seed,
        **options,
    )  # fmt: skip


def _mean_band(ax: Axes, x: Array, runs: Array, **style: Any) -> None:
    """Draw the mean of runs, (runs, …), and a band of ± 2 standard errors."""
    mean, error = runs.mean(0), runs.std(0, ddof=1) / np.sqrt(len(runs))
    ax.plot(x, mean, **style)
    low = np.maximum(mean - 2 * error, mean / 10)  # axes are logarithmic
    ax.fill_between(x, low, mean + 2 * error, color=style["color"], alpha=0.2, linewidth=0)


# Figure 1


def activation_order(request: Request) -> Drawing:
    """Paper F, Fig. 1: pre- against post-activation, feature norms over depth, training loss and test loss.

    relu, T = 1. Each kind of network is trained at the rate of a grid with the lowest final training loss.
    """
    width, depths, seeds = (256, (8, 32, 64), 6) if request.full else (128, (8, 32), 3)
    options: dict[str, Any] = {"steps": 160, "train": 1000, "test": 397} if request.full else {
        "steps": 60, "train": 300, "test": 200
    }  # fmt: skip
    base: dict[str, Any] = {"activation": "relu", "batch_size": 16, **options}
    every = base["steps"] // 10
    fields: dict[str, Field] = {}
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    shades = {"pre": ("#9ecae1", "#4292c6", "#084594"), "post": ("#fdae6b", "#f16913", "#8c2d04")}
    chosen: dict[str, float] = {}
    for residual in ("pre", "post"):
        for depth, colour in zip(depths, shades[residual][-len(depths) :], strict=True):
            label = f"{residual}, L = {depth}"

            def run(rate: float, seed: int, depth: int = depth, residual: str = residual) -> flds.Solution:
                problem = _problem(request, learning_rate=rate, **base)
                return networks.train(
                    problem, width=width, depth=depth, residual=residual, dtype="float32", record_every=every,
                    seed=replicate_seed(request.seed, seed),
                )  # fmt: skip

            rate = _best_rate(lambda rate, run=run: run(rate, 0), (0.1, 0.3, 1.0, 3.0, 10.0))  # type: ignore[misc]
            chosen[label] = rate
            request.say(f"{label}: best learning rate {rate:g}")
            runs = [run(rate, seed) for seed in range(1, seeds + 1)]
            runs = [one for one in runs if one.status == "completed"]
            style = {"color": colour, "label": f"{label}, $\\eta_c$ = {rate:g}"}
            norms = np.array([one.feature_variance[0] for one in runs])
            _mean_band(axes[0], np.linspace(0, 1, depth + 1), norms, **style)
            losses = {name: np.array([getattr(one, name) for one in runs]) for name in ("loss", "test_loss")}
            for ax, values in zip(axes[1:], losses.values(), strict=True):
                _mean_band(ax, runs[0].steps, values, **style)
            name = f"{residual}_{depth}"
            fields[f"norms_{name}"] = Field(
                ("seed_" + name, "depth_" + name), norms, f"mean square feature, {label}, untrained"
            )
            for key, values in losses.items():
                fields[f"{key}_{name}"] = Field(("seed_" + name, "record"), values, f"{key}, {label}")
            predicted = _predicted_norms(residual, depth)
            fields[f"predicted_{name}"] = Field(("depth_" + name,), predicted, f"mean-field prediction, {label}")
            axes[0].plot(np.linspace(0, 1, depth + 1), predicted, color="black", linewidth=1, linestyle=":")
    fields["steps"] = Field(("record",), runs[0].steps, "training step")
    axes[0].plot([], [], color="black", linewidth=1, linestyle=":", label="mean-field prediction")
    axes[0].set(yscale="log", xlabel="depth t = ℓ/L", ylabel="mean square feature", title="Untrained features")
    axes[1].set(yscale="log", xlabel="training step", ylabel="training loss", title="Training loss")
    axes[2].set(yscale="log", xlabel="training step", ylabel="test loss", title="Test loss")
    axes[0].legend(frameon=False, fontsize="x-small")
    return Drawing(figure, fields, base | {"width": width, "depths": depths, "seeds": seeds, "learning_rates": chosen})


def _predicted_norms(residual: str, depth: int) -> Array:
    """E h² over depth at infinite width; every input has |x|²/d = 1."""
    if residual == "pre":
        return closed_forms.feature_variance("relu", 1.0, 1.0, depth)
    return closed_forms.post_activation("relu", 1.0, 1.0, depth)[1]


def _best_rate(run: Callable[[float], flds.Solution], rates: tuple[float, ...]) -> float:
    """The rate with the lowest final training loss among runs that do not diverge."""
    finals = {}
    for rate in rates:
        solution = run(rate)
        if solution.status == "completed":
            finals[rate] = float(solution.loss[-1])
    return min(finals, key=finals.__getitem__)


# Figure 2


def convergence(request: Request) -> Drawing:
    """Paper F, Fig. 2: mean-square errors in depth and width, untrained and in training, both kinds of weights.

    tanh, T = 1, one sample a step; coupled errors of h and g, largest over depth, with fitted exponents.
    """
    stages = (0, 5, 20) if request.full else (0, 5)
    depths, deepest, widths, wide = (
        ((8, 16, 32, 64), 512, (64, 256, 1024), 4096) if request.full else ((8, 16, 32), 128, (64, 128, 256), 1024)
    )
    problem = _problem(request, 32, activation="tanh", learning_rate=0.5, steps=stages[-1], batch_size=1)
    rows = [(step, quantity) for step in stages for quantity in "hg"]
    figure = Figure(figsize=(13, 2.5 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 4, squeeze=False)
    fields: dict[str, Field] = {}
    for side, weights in enumerate(WEIGHTS):
        errors = coupled_errors(
            problem, depths, widths, (wide, deepest), steps=stages, backward_weights=weights,
            replicates=12 if request.full else 4, seed=request.seed,
        )  # fmt: skip
        request.say(f"{weights} weights done")
        for row, (step, quantity) in enumerate(rows):
            pair = axes[row, 2 * side], axes[row, 2 * side + 1]
            errors.plot_depth(quantity, step, pair[0])
            errors.plot_width(quantity, step, pair[1])
            for ax in pair:
                ax.set_title(f"{weights}, {quantity}, k = {step}", fontsize="medium")
        fields |= _error_fields(errors, weights)
    return Drawing(figure, fields, {"depths": depths, "widths": widths, "reference": (wide, deepest), "steps": stages})


def _error_fields(errors: CoupledErrors, weights: str) -> dict[str, Field]:
    fields = {
        "depths": Field(("depth",), errors.depths, "depth L"),
        "widths": Field(("width",), errors.widths, "width n"),
        "steps": Field(("stage",), errors.steps, "training step"),
    }
    for quantity in errors.total:
        for name, array, dims in (
            ("total", errors.total, ("depth", "width")), ("in_depth", errors.in_depth, ("depth", "width_or_reference")),
            ("in_width", errors.in_width, ("depth_or_reference", "width")),
        ):  # fmt: skip
            fields[f"{weights}_{quantity}_{name}"] = Field(
                ("replicate", "stage", *dims), array[quantity], f"mean-square error of {quantity}, {weights} weights"
            )
        laws = [errors.joint_law(quantity, int(step)) for step in errors.steps]
        fields[f"{weights}_{quantity}_exponents"] = Field(
            ("stage", "exponent"), np.array([(law.depth_exponent, law.width_exponent) for law in laws]),
            f"p and q of a L^-p + b n^-q fitted to the total error of {quantity}",
        )  # fmt: skip
    return fields


# Figure 3


def learning_rates(request: Request) -> Drawing:
    """Paper F, Fig. 3: training loss and test accuracy against the learning rate, with the limit's own curve.

    tanh, T = 1, depths 3, 6, 9 and widths 128, 256; the limit at the same rates.
    """
    if request.full:
        rates, seeds, steps, train, particles = np.geomspace(0.05, 12.8, 9), 5, 88, 1400, 4000
    else:
        rates, seeds, steps, train, particles = np.geomspace(0.05, 12.8, 5), 3, 30, 300, 1500
    depths, widths, limit_depth = (3, 6, 9), (128, 256), 16

    def problem(rate: float) -> flds.TrainingProblem:
        return _problem(request, train, 397, activation="tanh", learning_rate=rate, steps=steps, batch_size=16)

    loss, accuracy = (np.full((len(depths), len(widths), len(rates), seeds), np.nan) for _ in range(2))
    for i, j, k, s in np.ndindex(loss.shape):
        run = networks.train(
            problem(float(rates[k])), width=widths[j], depth=depths[i], dtype="float32", record_every=steps,
            seed=replicate_seed(request.seed, s),
        )  # fmt: skip
        loss[i, j, k, s], accuracy[i, j, k, s] = _ends(run)
    request.say("finite networks done")
    limit_ends = []
    for rate in rates:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a rate that diverges, or noise by law, is kept as it is
            run = flds.solve_flds(
                problem(float(rate)), particles=particles, depth=limit_depth, record_every=steps, seed=request.seed,
                recorded_samples=range(train),
            )  # fmt: skip
        limit_ends.append(_ends(run))
        request.say(f"limit at rate {rate:.3g}: {run.status}")
    limit = np.array(limit_ends).T
    fields = {
        "rates": Field(("rate",), rates, "learning rate η_c"),
        "depths": Field(("depth",), np.array(depths), "depth L"),
        "widths": Field(("width",), np.array(widths), "width n"),
        "loss": Field(("depth", "width", "rate", "seed"), loss, "final training loss"),
        "test_accuracy": Field(("depth", "width", "rate", "seed"), accuracy, "final test accuracy"),
        "limit_loss": Field(("rate",), limit[0], "final training loss of the limit"),
        "limit_test_accuracy": Field(("rate",), limit[1], "final test accuracy of the limit"),
    }
    settings = {"seeds": seeds, "steps": steps, "train": train, "particles": particles, "limit_depth": limit_depth}
    return Drawing(_draw_rates(rates, depths, widths, loss, accuracy, limit), fields, settings)


def _ends(run: flds.Solution) -> tuple[float, float]:
    """Final training loss and test accuracy; NaN where training diverged."""
    if run.status != "completed":
        return np.nan, np.nan
    return float(run.loss[-1]), float(run.test_accuracy[-1])


def _draw_rates(rates: Array, depths: tuple[int, ...], widths: tuple[int, ...], loss: Array, accuracy: Array,
                limit: Array) -> Figure:  # fmt: skip
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    colours = (TRAINING, FORWARD, BACKWARD)
    best = rates[np.nanargmin(limit[0])], rates[np.nanargmax(limit[1])]
    for ax, values, curve, optimum, label in zip(
        axes, (loss, accuracy), limit, best, ("training loss", "test accuracy"), strict=True
    ):
        for i, depth in enumerate(depths):
            for j, width in enumerate(widths):
                mean, spread = values[i, j].mean(-1), values[i, j].std(-1, ddof=1) / np.sqrt(values.shape[-1])
                ax.errorbar(rates, mean, 2 * spread, color=colours[i], linestyle=("--", "-")[j], marker="o",
                            markersize=3, linewidth=1, label=f"L = {depth}, n = {width}")  # fmt: skip
        ax.plot(rates, curve, color="black", linewidth=2, label="limit")
        ax.axvline(optimum, color=TEST, linestyle=":", label=f"optimum of the limit, {optimum:.2g}")
        ax.set(xscale="log", xlabel="learning rate $\\eta_c$", ylabel=f"final {label}")
    axes[0].set(yscale="log", ylim=(None, 2 * np.log(10)))  # twice the loss of a network that outputs zero
    axes[1].legend(frameon=False, fontsize="x-small", loc="lower center")
    return figure
