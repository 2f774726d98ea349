"""What the limit is: tied and independent weights told apart, in the limit and in dense networks."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

import flds
from flds.training.options import BACKWARD_WEIGHTS as WEIGHTS
from solvers.plotting.style import logarithmic, new_figure, sizes_axis, styled
from validation import closed_forms, coupled, plain
from validation.claims import (
    PAPER_F,
    Picture,
    Scale,
    Section,
    above,
    against,
    at_least,
    equal,
    margin_of,
    mean_and_error,
)
from validation.convergence import exponent_of
from validation.problems import large_steps, one_sample
from validation.rates import fit_power_laws

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]


def backward_weights(scale: Scale) -> Section:
    """Ordinary backpropagation and Definition 1 of paper F differ by a closed form that does not fall with depth."""
    from validation import networks

    depth, seeds = 16, scale.pick(16, 24)
    exact = {w: closed_forms.identity_first_output(0.5, 1.0, 1.0, depth, w) for w in WEIGHTS}
    gap = exact["tied"] - exact["independent"]
    yield against(f"identity: f^(1) tied − independent, limit, L = {depth}", _gap("identity", depth, scale), gap)
    width = scale.pick(500, 1500)
    dense = {
        w: np.array(
            [
                networks.train(
                    one_sample("identity"), width=width, depth=depth, backward_weights=w, seed=s, dtype="float32"
                ).outputs[1, 0]
                for s in range(seeds)
            ]
        )
        for w in WEIGHTS
    }
    difference = dense["tied"] - dense["independent"]
    name = f"identity: f^(1) tied − independent, dense networks of width {width}"
    yield against(name, difference, gap, resolution=gap)
    name = f"identity: f^(1) of ordinary backpropagation − Definition 1, dense networks of width {width}"
    yield above(name, *mean_and_error(dense["tied"] - exact["independent"]), 0.0, margin_of(seeds))
    yield from _hidden_alone(scale)
    yield from _gap_over_depth(scale)


def _gap(activation: str, depth: int, scale: Scale) -> Array:
    """f^(1) tied − independent of one sample, in the limit at depth L, one for each seed."""
    particles, replicates = scale.pick((4_000, 8), (50_000, 16))
    outputs = [
        flds.solve_flds(
            one_sample(activation), particles=particles, depth=depth, backward_weights=w, replicates=replicates
        ).replicate_outputs[:, 1, 0]
        for w in WEIGHTS
    ]
    return np.asarray(outputs[0] - outputs[1])


def _hidden_alone(scale: Scale) -> Section:
    """The W_ℓ trained alone, which removes neither the gap nor its cause: plain NumPy networks, f^(1)/(η_c y)."""
    depth, width, seeds = 16, scale.pick(200, 500), scale.pick(60, 100)
    exact = {w: closed_forms.identity_hidden_output(1.0, 1.0, 1.0, depth, w) for w in WEIGHTS}
    for weights in WEIGHTS:
        moved = np.array([_first_hidden_output(weights, width, depth, seed) for seed in range(seeds)])
        name = f"identity, W alone is trained, {weights}: f^(1) of networks of width {width}, L = {depth}"
        yield against(name, moved, exact[weights], resolution=abs(exact["tied"] - exact["independent"]))


def _first_hidden_output(weights: str, width: int, depth: int, seed: int) -> float:
    """f^(1) for η_c = ½ and the target 1, without what f^(0) adds to it, over η_c y."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((depth, width, width))
    backward = W if weights == "tied" else rng.standard_normal((depth, width, width))
    network = plain.Weights(rng.standard_normal((width, 1)), W, backward, rng.standard_normal((1, width)))
    one = np.ones((1, 1))
    f = plain.train(
        network,
        one,
        np.ones(1),
        activation="identity",
        loss="squared",
        horizon=1.0,
        rates=np.array([0.5]),
        batches=np.zeros((2, 1), np.intp),
        trained="W",
    ).outputs[:, 0, 0]
    return float((f[1] - f[0]) / (0.5 * (1 - f[0])))


def _gap_over_depth(scale: Scale) -> Section:
    """The power of the depth with which reuse of W_ℓᵀ vanishes: 1 according to paper F, 2 in its second version."""
    depths = scale.pick((8, 16, 32), (8, 16, 32, 64))
    exact = [
        closed_forms.identity_first_output(0.5, 1.0, 1.0, depth, "tied")
        - closed_forms.identity_first_output(0.5, 1.0, 1.0, depth, "independent")
        for depth in depths
    ]
    for activation in ("identity", "tanh"):
        gaps = np.array([_gap(activation, depth, scale) for depth in depths]).T
        law = fit_power_laws(gaps[:, :, None], 1 / np.array(depths), None)
        name = f"{activation}: f^(1) tied − independent, L = 8 … {depths[-1]}"
        yield exponent_of(name, law, "depth", equal, 1.0, 0.5, source=PAPER_F)
        yield exponent_of(f"{name} (second version)", law, "depth", equal, 2.0, 0.5, source=PAPER_F)
        if activation == "identity":
            yield exponent_of(name, law, "depth", equal, coupled.exponent(exact, 1 / np.array(depths)), 0.1)
        else:  # the gap itself tends to its limit like 1/L, which moves the exponent by about the coarsest step
            yield exponent_of(name, law, "depth", equal, 0.0, 0.5, 1 / depths[0], "for the coarsest step")


def dense_networks(scale: Scale) -> Section:
    """Trained dense networks, tied and independent, against both limits: f^(k) − f̊^(k) over seeds and outputs.

    Three samples in turn, tanh, T = 2, η_c = ½, outputs on three training and four test inputs. The squared bias is
    that of the mean over seeds, less the variance of this mean.
    """
    stages = scale.pick((1, 5), (1, 5, 20))
    depths, widths, seeds = scale.pick(((8, 16, 32), (64, 128, 256), 6), ((16, 32, 64), (128, 256, 512), 200))
    problem = large_steps("tanh", steps=stages[-1])
    depth, replicates = scale.pick((4, 4), (16, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one round of given size; its half widths are counted below
        limits = {
            w: flds.estimate_limit(
                problem,
                backward_weights=w,
                particles=1000,
                depth=depth,
                replicates=replicates,
                budget_seconds=1e-3,
                seed=1,
            )
            for w in WEIGHTS
        }
    f = {w: np.concatenate([limits[w].outputs, limits[w].test_outputs], axis=1)[list(stages)] for w in WEIGHTS}
    outputs = {w: _dense_outputs(problem, depths, widths, seeds, w)[..., list(stages), :] for w in WEIGHTS}
    pairs = [(w, limit) for w in WEIGHTS for limit in WEIGHTS]
    errors = {(w, limit): ((outputs[w] - f[limit]) ** 2).mean(axis=-1) for w, limit in pairs}  # (seeds, L, n, stages)
    gaps = np.mean((f["tied"] - f["independent"]) ** 2, axis=1)
    blur = _standard_error(list(limits.values()), stages)
    for index, step in enumerate(stages):
        for w, limit in pairs:
            away = outputs[w][..., index, :] - f[limit][index]
            yield from _towards(w, limit, step, away, depths, widths, float(gaps[index]), float(blur[index]))
        for w in WEIGHTS:
            yield from _diagonal_law(w, step, errors[w, w][..., index], depths, widths)
    yield Picture(
        "dense_networks",
        "Mean-square distance of trained dense networks from the two limits, with 95 % intervals over seeds; dotted, "
        "the squared distance of the two limits from each other.",
        _draw_dense(errors, gaps, stages, depths, widths),
    )


def _dense_outputs(
    problem: flds.TrainingProblem, depths: tuple[int, ...], widths: tuple[int, ...], seeds: int, weights: str
) -> Array:
    """Outputs on training and test inputs, (seeds, L, n, steps + 1, outputs)."""
    import torch

    from validation import networks

    def outputs(width: int, depth: int, seed: int) -> Array:
        run = networks.train(problem, width=width, depth=depth, backward_weights=weights, seed=seed, dtype="float32")
        return np.concatenate([run.outputs, run.test_outputs], axis=1)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for each other take several times as long over such small matrices
    try:
        return np.array([[[outputs(n, depth, s) for n in widths] for depth in depths] for s in range(seeds)])
    finally:
        torch.set_num_threads(threads)


def _standard_error(limits: list[flds.LimitEstimate], stages: tuple[int, ...]) -> Array:
    """Root mean square over outputs of the limits' standard errors, half of their half widths, at each stage."""
    squares = [
        np.concatenate([one.outputs_half_width, one.test_outputs_half_width], axis=1)[list(stages)] ** 2 / 4
        for one in limits
    ]
    return np.asarray(np.sqrt(np.mean(squares, axis=(0, 2))))


def _towards(
    weights: str,
    limit: str,
    step: int,
    away: Array,
    depths: tuple[int, ...],
    widths: tuple[int, ...],
    gap: float,
    blur: float,
) -> Section:
    """The squared bias that is left at infinite width and depth: zero, or that of the two limits.

    A limit that is off by `blur` adds its square to a bias of zero, and 2 blur times the root of any other.
    """
    left, error = _plateau(away, np.array(depths), np.array(widths))
    margin = margin_of(len(away))  # the jackknife leaves out one seed at a time
    name = f"{weights} networks, {'Definition 1' if limit == 'independent' else 'tied limit'}, k = {step}: "
    name += "squared bias of f extrapolated to n, L → ∞"
    if weights == limit:
        yield equal(name, left, error, 0.0, gap / 2, blur**2, "for the error of the limit", margin=margin)
        return
    error = float(np.hypot(error, 2 * np.sqrt(gap) * blur))
    if weights == "tied":  # what Theorem 1 of paper F says of ordinary backpropagation
        yield equal(name, left, error, 0.0, gap / 2, source=PAPER_F, margin=margin)
    yield equal(name + ", that of the two limits", left, error, gap, gap / 2, margin=margin)


def _diagonal_law(weights: str, step: int, errors: Array, depths: tuple[int, ...], widths: tuple[int, ...]) -> Section:
    """The rate of E|f − f̊|² of networks and their own limit where n grows like L."""
    count = min(len(depths), len(widths))
    diagonal = np.array([errors[:, i, i] for i in range(count)]).T
    law = fit_power_laws(diagonal[:, :, None], 1 / np.array(depths[:count]), None)
    name = f"{weights} networks, own limit, k = {step}: E|f − f̊|² on the diagonal n = {widths[0] // depths[0]} L"
    yield exponent_of(name, law, "depth", at_least, 1.0, 0.5)


def _plateau(away: Array, depths: NDArray[np.int64], widths: NDArray[np.int64]) -> tuple[float, float]:
    """Extrapolate f − f' to infinite width and depth; return its mean square over outputs, and the standard error.

    `away` is (seeds, L, n, outputs). Every seed gives the constant of a fit c + a/L + a'/L² + b/n to each output; the
    square of the mean over seeds, less the variance of this mean, is an unbiased square.
    """
    x, y = (grid.ravel() for grid in np.meshgrid(1 / depths, 1 / widths, indexing="ij"))
    weights = 1 / np.sqrt(y)  # the variance of an output falls like 1/n
    design = np.stack([np.ones_like(x), x, x**2, y], axis=1) * weights[:, None]
    constants = (np.linalg.pinv(design)[0] * weights) @ away.reshape(len(away), len(x), -1)  # (seeds, outputs)

    def square(sample: Array) -> float:
        return float(np.mean(sample.mean(0) ** 2 - sample.var(0, ddof=1) / len(sample)))

    # leave out one seed at a time
    left_out = [square(np.delete(constants, seed, axis=0)) for seed in range(len(constants))]
    count = len(constants)
    return square(constants), float(np.std(left_out) * np.sqrt(count - 1))


@styled
def _draw_dense(
    errors: dict[tuple[str, str], Array],
    gaps: Array,
    stages: tuple[int, ...],
    depths: tuple[int, ...],
    widths: tuple[int, ...],
) -> Figure:
    figure, panels = new_figure(len(stages), 2)
    axes = panels.reshape(2, len(stages))
    styles = {
        ("tied", "tied"): ("#0072B2", "-", "o"),
        ("independent", "independent"): ("#009E73", "-", "s"),
        ("tied", "independent"): ("#D55E00", "--", "o"),
        ("independent", "tied"): ("#CC79A7", "--", "s"),
    }
    for column, step in enumerate(stages):
        for row, (across, values) in enumerate((("width n", widths), ("depth L", depths))):
            ax = axes[row, column]
            for (w, limit), (colour, line, marker) in styles.items():
                found = errors[w, limit][:, -1, :, column] if row == 0 else errors[w, limit][:, :, -1, column]
                mean, error = mean_and_error(found)
                label = f"{w} networks to {'tied limit' if limit == 'tied' else 'Definition 1'}"
                ax.errorbar(
                    values,
                    mean,
                    2 * error,
                    color=colour,
                    linestyle=line,
                    marker=marker,
                    markersize=4,
                    capsize=2,
                    label=label,
                )
            ax.axhline(gaps[column], color="0.4", linestyle=":", label="tied limit to Definition 1")
            fixed = f"L = {depths[-1]}" if row == 0 else f"n = {widths[-1]}"
            ax.set(xlabel=across, title=f"after {step} step{'s' * (step > 1)}, {fixed}")
            sizes_axis(ax, "x", values)
            logarithmic(ax, "y")
            if column == 0:
                ax.set_ylabel("mean-square distance of f")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure
