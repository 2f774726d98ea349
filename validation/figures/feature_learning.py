"""The three figures of paper F (Yao, Wu and Gao), with what the limit predicts drawn over them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

import flds
from flds.training.options import BACKWARD_WEIGHTS as WEIGHTS
from solvers.ensemble.random import replicate_seed
from solvers.plotting.style import BACKWARD, FORWARD, TEST, TRAINING
from solvers.results.solution import Variable
from validation import closed_forms, networks
from validation.claims import mean_and_error
from validation.figures.drawing import Drawing, Request
from validation.rates import CoupledErrors, PowerLaw, coupled_errors

Array = NDArray[np.float64]


# Sizes of a first look, and sizes like the paper's.
SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {
        "activation_order": {"width": 128, "depths": (8, 32), "seeds": 3, "steps": 60, "train": 300, "test": 200},
        "convergence": {
            "stages": (0, 5),
            "depths": (8, 16, 32),
            "deepest": 128,
            "widths": (64, 128, 256),
            "wide": 1024,
            "replicates": 8,
        },
        "learning_rates": {
            "rates": (0.05, 0.2, 0.8, 1.6, 3.2, 6.4),
            "seeds": 3,
            "steps": 30,
            "train": 300,
            "particles": 1500,
        },
    },
    "full": {
        "activation_order": {"width": 256, "depths": (8, 32, 64), "seeds": 6, "steps": 160, "train": 1000, "test": 397},
        "convergence": {
            "stages": (0, 5, 20),
            "depths": (8, 16, 32, 64),
            "deepest": 256,
            "widths": (64, 256, 1024),
            "wide": 4096,
            "replicates": 8,
        },
        "learning_rates": {
            "rates": (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8),
            "seeds": 5,
            "steps": 88,
            "train": 1400,
            "particles": 4000,
        },
    },
}


def _problem(request: Request, train: int, test: int = 0, **options: Any) -> flds.TrainingProblem:
    """The first samples of the data, cross-entropy, random batches."""
    data = request.dataset()
    if data.classes is None or data.test_inputs is None or data.test_targets is None:
        raise ValueError(f"data must have classes and a test set for this figure, got {data.name!r}")
    if test:
        options |= {"test_inputs": data.test_inputs[:test], "test_targets": data.test_targets[:test]}
    return flds.TrainingProblem(
        data.inputs[:train],
        data.targets[:train],
        loss="cross_entropy",
        batch_order="random",
        batch_seed=request.seed,
        **options,
    )


def _mean_band(ax: Axes, x: Array, runs: Array, **style: Any) -> None:
    """Draw the mean of runs, (runs, …), and, of two and more, a band of ± 2 standard errors."""
    ax.plot(x, runs.mean(0), **style)
    if len(runs) < 2:
        return
    mean, error = mean_and_error(runs)
    low = np.maximum(mean - 2 * error, mean / 10)  # axes are logarithmic
    ax.fill_between(x, low, mean + 2 * error, color=style["color"], alpha=0.2, linewidth=0)


# Figure 1


def activation_order(request: Request) -> Drawing:
    """Paper F, Fig. 1: pre- against post-activation, feature norms over depth, training loss and test loss.

    relu, T = 1. Each kind of network is trained at the rate of a grid with the lowest final training loss.
    """
    sizes = request.pick(SIZES, "activation_order")
    depths = sizes["depths"]
    base: dict[str, Any] = {"activation": "relu", "batch_size": 16}
    base |= {name: sizes[name] for name in ("steps", "train", "test")}
    every = sizes["steps"] // 10
    fields: dict[str, Variable] = {}
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
                    problem,
                    width=sizes["width"],
                    depth=depth,
                    residual=residual,
                    dtype="float32",
                    record_every=every,
                    seed=seed,
                )

            tried = {
                rate: [run(rate, replicate_seed(request.seed, seed)) for seed in range(sizes["seeds"])]
                for rate in (0.1, 0.3, 1.0, 3.0, 10.0)
            }
            rate = chosen[label] = min(tried, key=lambda rate, tried=tried: _final_loss(tried[rate]))  # type: ignore[misc]
            everyone = tried[rate]
            runs = [one for one in everyone if one.status == "completed"]
            request.say(f"{label}: best learning rate {rate:g}")
            if not runs:
                request.say(f"{label}: all {len(everyone)} runs diverged")
                continue
            lost = len(everyone) - len(runs)
            shown = f"{label}, $\\eta_c$ = {rate:g}" + (f", {lost} of {len(everyone)} diverged" if lost else "")
            style = {"color": colour, "label": shown}
            norms = np.array([one.feature_variance[0] for one in runs])
            _mean_band(axes[0], np.linspace(0, 1, depth + 1), norms, **style)
            losses = {name: np.array([getattr(one, name) for one in runs]) for name in ("loss", "test_loss")}
            for ax, values in zip(axes[1:], losses.values(), strict=True):
                _mean_band(ax, runs[0].steps, values, **style)
            name = f"{residual}_{depth}"
            fields[f"norms_{name}"] = Variable(
                ("seed_" + name, "depth_" + name), norms, f"mean square feature, {label}, untrained"
            )
            for key, values in losses.items():
                fields[f"{key}_{name}"] = Variable(("seed_" + name, "step"), values, f"{key}, {label}")
            predicted = _predicted_norms(residual, depth)
            fields[f"predicted_{name}"] = Variable(("depth_" + name,), predicted, f"mean-field prediction, {label}")
            axes[0].plot(np.linspace(0, 1, depth + 1), predicted, color="black", linewidth=1, linestyle=":")
    fields["steps"] = Variable(("step",), everyone[0].steps, "training step")
    axes[0].plot([], [], color="black", linewidth=1, linestyle=":", label="mean-field prediction")
    axes[0].set(yscale="log", xlabel="depth t = ℓ/L", ylabel="mean square feature", title="Untrained features")
    axes[1].set(yscale="log", xlabel="training step", ylabel="training loss", title="Training loss")
    axes[2].set(yscale="log", xlabel="training step", ylabel="test loss", title="Test loss")
    axes[0].legend(frameon=False, fontsize="x-small")
    return Drawing(figure, fields, base | sizes | {"learning_rates": chosen})


def _predicted_norms(residual: str, depth: int) -> Array:
    """E h² over depth at infinite width; every input has |x|²/d = 1."""
    if residual == "pre":
        return closed_forms.feature_variance("relu", 1.0, 1.0, depth)
    return closed_forms.post_activation("relu", 1.0, 1.0, depth)[1]


def _final_loss(runs: list[flds.Solution]) -> float:
    """The mean final training loss; infinite if a run diverges."""
    return float(np.mean([one.loss[-1] if one.status == "completed" else np.inf for one in runs]))


# Figure 2


def convergence(request: Request) -> Drawing:
    """Paper F, Fig. 2: mean-square errors in depth and width, untrained and in training, both kinds of weights.

    tanh, T = 1, one sample a step; coupled errors of h and g, largest over depth, with the exponents fitted to each and
    their 95 % intervals.
    """
    sizes = request.pick(SIZES, "convergence")
    stages, reference = sizes["stages"], (sizes["wide"], sizes["deepest"])
    problem = _problem(request, 32, activation="tanh", learning_rate=0.5, steps=stages[-1], batch_size=1)
    rows = [(step, quantity) for step in stages for quantity in "hg"]
    figure = Figure(figsize=(13, 2.9 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 4, squeeze=False)
    fields: dict[str, Variable] = {}
    for side, weights in enumerate(WEIGHTS):
        errors = coupled_errors(
            problem,
            sizes["depths"],
            sizes["widths"],
            reference,
            steps=stages,
            backward_weights=weights,
            replicates=sizes["replicates"],
            seed=request.seed,
        )
        laws = {(quantity, step): errors.joint_law(quantity, step) for quantity in errors.total for step in stages}
        for row, (step, quantity) in enumerate(rows):
            request.say(f"{weights} weights, {quantity}, k = {step}: {laws[quantity, step]}")
            pair = axes[row, 2 * side], axes[row, 2 * side + 1]
            errors.plot_depth(quantity, step, pair[0])
            errors.plot_width(quantity, step, pair[1])
            for ax in pair:
                ax.set_title(f"{weights}, {quantity}, k = {step}", fontsize="medium")
        fields |= _error_fields(errors, laws, weights)
    return Drawing(figure, fields, sizes | {"reference": reference})


def _error_fields(errors: CoupledErrors, laws: dict[tuple[str, int], PowerLaw], weights: str) -> dict[str, Variable]:
    fields = {
        "depths": Variable(("depth",), errors.depths, "depth L"),
        "widths": Variable(("width",), errors.widths, "width n"),
        "steps": Variable(("stage",), errors.steps, "training step"),
    }
    for quantity in errors.total:
        for name, array, dims in (
            ("total", errors.total, ("depth", "width")),
            ("in_depth", errors.in_depth, ("depth", "width_or_reference")),
            ("in_width", errors.in_width, ("depth_or_reference", "width")),
        ):
            fields[f"{weights}_{quantity}_{name}"] = Variable(
                ("replicate", "stage", *dims), array[quantity], f"mean-square error of {quantity}, {weights} weights"
            )
        found = [laws[quantity, int(step)] for step in errors.steps]
        fields[f"{weights}_{quantity}_exponents"] = Variable(
            ("stage", "exponent", "estimate_low_high"),
            np.array([[law.identified("depth"), law.identified("width")] for law in found]),
            f"p and q of a L^-p + b n^-q fitted to the total error of {quantity}, with 95 % intervals; NaN where the "
            "errors do not identify the exponent",
        )
    return fields


# Figure 3


def learning_rates(request: Request) -> Drawing:
    """Paper F, Fig. 3: training loss and test accuracy against the learning rate, with the limit's own curve.

    tanh, T = 1, depths 3, 6, 9 and widths 128, 256; the limit at the same rates. Rates at which the training loss
    ends above twice that of a network that outputs zero are not drawn.
    """
    sizes = request.pick(SIZES, "learning_rates")
    rates, seeds, steps, train = np.array(sizes["rates"]), sizes["seeds"], sizes["steps"], sizes["train"]
    depths, widths, limit_depth = (3, 6, 9), (128, 256), 16

    def problem(rate: float) -> flds.TrainingProblem:
        return _problem(request, train, 397, activation="tanh", learning_rate=rate, steps=steps, batch_size=16)

    loss, accuracy = (np.full((len(depths), len(widths), len(rates), seeds), np.nan) for _ in range(2))
    for i, j, k, s in np.ndindex(loss.shape):
        run = networks.train(
            problem(float(rates[k])),
            width=widths[j],
            depth=depths[i],
            dtype="float32",
            record_every=steps,
            seed=replicate_seed(request.seed, s),
        )
        loss[i, j, k, s], accuracy[i, j, k, s] = _ends(run)
    request.say("finite networks done")
    limit_ends, how = [], []
    for rate in rates:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a rate that diverges, or noise by law, is kept as it is
            run = flds.solve_flds(
                problem(float(rate)),
                particles=sizes["particles"],
                depth=limit_depth,
                record_every=steps,
                seed=request.seed,
                recorded_samples=range(train),
            )
        limit_ends.append(_ends(run))
        how.append(f"{run.status}, by {run.settings['sampling']}")
        request.say(f"limit at rate {rate:.3g}: {run.status}")
    limit = np.array(limit_ends).T
    fields = {
        "rates": Variable(("rate",), rates, "learning rate η_c"),
        "depths": Variable(("depth",), np.array(depths), "depth L"),
        "widths": Variable(("width",), np.array(widths), "width n"),
        "loss": Variable(("depth", "width", "rate", "seed"), loss, "final training loss"),
        "test_accuracy": Variable(("depth", "width", "rate", "seed"), accuracy, "final test accuracy"),
        "limit_loss": Variable(("rate",), limit[0], "final training loss of the limit"),
        "limit_test_accuracy": Variable(("rate",), limit[1], "final test accuracy of the limit"),
    }
    _say_optima(request, rates, loss, accuracy, limit)
    figure = _draw_rates(rates, depths, widths, loss, accuracy, limit)
    return Drawing(figure, fields, sizes | {"limit_depth": limit_depth, "limit_runs": how})


def _ends(run: flds.Solution) -> tuple[float, float]:
    """Final training loss and test accuracy; NaN where training diverged."""
    if run.status != "completed":
        return np.nan, np.nan
    return float(run.loss[-1]), float(run.test_accuracy[-1])


def _say_optima(request: Request, rates: Array, loss: Array, accuracy: Array, limit: Array) -> None:
    """Say which rates are best for the limit and, on the mean over seeds, for the networks."""
    for label, values, curve, pick in (
        ("training loss", loss, limit[0], np.nanargmin),
        ("test accuracy", accuracy, limit[1], np.nanargmax),
    ):
        mean = values.mean(-1).reshape(-1, len(rates))
        own = sorted(rates[pick(row)] for row in mean if not np.isnan(row).all())
        request.say(f"best rate by {label}: limit {rates[pick(curve)]:g}, networks {own[0]:g} to {own[-1]:g}")


def _draw_rates(
    rates: Array, depths: tuple[int, ...], widths: tuple[int, ...], loss: Array, accuracy: Array, limit: Array
) -> Figure:
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    colours = (TRAINING, FORWARD, BACKWARD)
    best = rates[np.nanargmin(limit[0])], rates[np.nanargmax(limit[1])]
    most = 2 * np.log(10)
    loss, accuracy = (np.where(loss < most, values, np.nan) for values in (loss, accuracy))
    limit = np.where(limit[0] < most, limit, np.nan)
    for ax, values, curve, optimum, label in zip(
        axes, (loss, accuracy), limit, best, ("training loss", "test accuracy"), strict=True
    ):
        for i, depth in enumerate(depths):
            for j, width in enumerate(widths):
                mean, spread = values[i, j].mean(-1), values[i, j].std(-1, ddof=1) / np.sqrt(values.shape[-1])
                ax.errorbar(
                    rates,
                    mean,
                    2 * spread,
                    color=colours[i],
                    linestyle=("--", "-")[j],
                    marker="o",
                    markersize=3,
                    linewidth=1,
                    label=f"L = {depth}, n = {width}",
                )
        ax.plot(rates, curve, color="black", linewidth=2, label="limit")
        ax.axvline(optimum, color=TEST, linestyle=":", label=f"optimum of the limit, {optimum:.2g}")
        ax.set(xscale="log", xlabel="learning rate $\\eta_c$", ylabel=f"final {label}")
    axes[0].set(yscale="log")
    axes[1].legend(frameon=False, fontsize="x-small", loc="lower center")
    return figure
