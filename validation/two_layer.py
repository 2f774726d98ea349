"""How much one step of SGD moves features in branches of two layers, against depth: limits and dense networks.

In the limit of small steps the change of h_L is A_L + r B_L, with A_L of all parameters but the inner matrices, B_L of
these, and r what their rate is multiplied by. With tied weights both tend to limits that are correlated, so that r = √L
gives E dh² = a + b √L + c L. With independent ones B_L falls like L^-½.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import flds
from flds.training.method import decide
from flds.training.network import Network
from flds.training.options import BACKWARD_WEIGHTS as WEIGHTS
from solvers.ensemble.random import Address, Stream
from solvers.plotting.style import PALETTE, TWO_COLUMNS, legend, logarithmic, new_figure, sizes_axis, styled
from validation.claims import (
    PAPER_F,
    Picture,
    Scale,
    Section,
    Table,
    above,
    equal,
    margin_of,
    mean_and_error,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
# Squares of changes, (seeds, depths), by scaling and kind of weights.
Movements = dict[tuple[str, str], Array]

# The step is so small that the change is proportional to L'.
RATE, TARGET = 0.15, 0.02
LARGER = "s = √τ, inner rate × √L"
# The branch exponent, and whether the inner rate is multiplied by √L.
SCALINGS = {"s = √τ": (0.5, False), LARGER: (0.5, True), "s = τ, rates × L": (1.0, False)}


def movement_problem(scaling: str, depth: int) -> flds.TrainingProblem:
    """Return one sample with |x|²/d = 1 and target 0.02, tanh, T = 1, and a step of rate 0.15."""
    exponent, larger = SCALINGS[scaling]
    rates = dict.fromkeys(("input", "inner", "outer", "readout"), RATE)
    rates["inner"] *= math.sqrt(depth) if larger else 1.0
    return flds.TrainingProblem(
        [[1.0]], [TARGET], steps=1, learning_rate=rates, residual="two_layer", branch_exponent=exponent
    )


def limit_movement(
    problem: flds.TrainingProblem, width: int, depth: int, weights: str, seed: int, sampling: str = "matched"
) -> float:
    """Return E dh_L²/L'² of the first step, of so many particles.

    Parameters
    ----------
    problem : TrainingProblem
        Of one step.
    width, depth : int
        n and L.
    weights : str
        "tied" or "independent".
    seed : int
    sampling : str
        "matched", or "law" for networks of this width, exactly in law.

    References
    ----------
    Yao, Wu and Gao, arXiv 2512.21075, for the claim that the inner layer needs a rate larger by √L.
    """
    options: Any = {"backward_weights": weights, "operator": "lazy", "threads": 1}
    network = Network(problem, decide(problem, width, depth, sampling, options).settings, seed)
    with network.ensemble.running():
        network.initialise()
        states = []
        for step in range(2):
            forward = network.forward(problem.x, Address(Stream.FORWARD, step, (0,)))
            states.append(forward.states[-1])
            if step == 0:
                slopes = problem.loss_function.derivative(forward.outputs, problem.y)
                network.update(problem.x, slopes, forward, network.backward(forward, slopes, 0), 0)
        change = network.ensemble.map(np.subtract, states[1], states[0])
        return float(network.ensemble.mean_squares(change)[0] / slopes[0, 0] ** 2)


def dense_movement(problem: flds.TrainingProblem, width: int, depth: int, weights: str, seed: int) -> float:
    """Return the same of a dense network of torch; parameters are those of `limit_movement`."""
    import torch

    from validation import networks
    from validation.rules import Rules

    network = networks.ResNet(
        problem,
        width,
        depth,
        independent=weights == "independent",
        generator=torch.Generator().manual_seed(seed),
        dtype=torch.float32,
    )
    rules = Rules(problem, network.input_weights, network.readout, network.blocks)
    x, y = (torch.tensor(one, dtype=torch.float32) for one in (problem.x, problem.y))
    before = network.states(x)[-1]
    away = network.read(before) - y
    torch.autograd.backward(0.5 * (away**2).sum())
    rules.step(0)
    with torch.no_grad():
        return float(((network.states(x)[-1] - before) ** 2).mean() / away[0, 0] ** 2)


def movements(kind: str, depths: tuple[int, ...], width: int, seeds: int, first: int = 0) -> Movements:
    """Return E dh_L²/L'² at these depths, of each scaling, kind of weights and seed.

    Parameters
    ----------
    kind : str
        "limit" or "dense".
    depths : tuple of int
    width, seeds : int
    first : int
        Of the seeds.
    """
    movement = {"limit": limit_movement, "dense": dense_movement}[kind]
    return {
        (scaling, weights): np.array(
            [
                [movement(movement_problem(scaling, depth), width, depth, weights, first + seed) for depth in depths]
                for seed in range(seeds)
            ]
        )
        for scaling in SCALINGS
        for weights in WEIGHTS
    }


def affine_in_root(depths: Array, squares: Array, last: int) -> tuple[Array, Array]:
    """Fit a + b √L + c L to all depths but one, and say how far the line misses it.

    Parameters
    ----------
    depths : (depths,) array
    squares : (seeds, depths) array
        E dh².
    last : int
        The place of the depth that is left out.

    Returns
    -------
    coefficient : (seeds,) array
        c of each seed.
    ratio : (seeds,) array
        What is left out over what the fit says there.
    """
    kept = np.arange(len(depths)) != last
    design = np.stack([np.ones(len(depths)), np.sqrt(depths), depths], axis=1)
    found = squares[:, kept] @ np.linalg.pinv(design[kept]).T
    return found[:, 2], squares[:, last] / (found @ design[last])


def two_layer_movement(scale: Scale) -> Section:
    """How far one step moves h_L in branches of two layers, in the limit and in dense networks, against depth.

    tanh, T = 1, rate 0.15, no bias; changes are divided by the slope L' of the loss, to which so small steps are
    proportional. Paper F's later version says that with s = √τ inner layers need a rate larger by √L.
    """
    depths, particles, seeds = scale.pick(((4, 16, 64, 128), 1_000, 12), ((4, 16, 64, 128, 256, 512), 4_000, 12))
    few, width, networks = scale.pick(((4, 16), 256, 32), ((4, 16, 64), 1_024, 8))
    limit = movements("limit", depths, particles, seeds)
    dense = movements("dense", few, width, networks, first=1_000)
    yield Table(_table(limit, dense, depths, few))
    for scaling, weights in limit:
        yield from _agrees(f"{weights}, {scaling}", limit[scaling, weights], dense[scaling, weights], few, width)
    for scaling, weights in limit:
        yield from _settles(scaling, weights, limit[scaling, weights], depths)
    yield from _grows(limit[LARGER, "tied"], depths)
    yield Picture(
        "two_layer_movement",
        "Root mean square change of h_L in one step of SGD over the slope of the loss, in branches of two layers, at "
        f"{particles:,} particles; crosses beside them are dense networks of width {width:,}, with two standard "
        "errors. With ordinary backpropagation and an inner rate that grows like √L the change has no limit.",
        draw_movements(limit, dense, depths, few),
    )


def _table(limit: Movements, dense: Movements, depths: tuple[int, ...], few: tuple[int, ...]) -> list[str]:
    """Lines of root mean square changes with standard errors."""
    lines = [
        f"| scaling | weights | {' | '.join(f'L = {depth}' for depth in depths)} |",
        "|---" * (2 + len(depths)) + "|",
    ]
    for scaling, weights in limit:
        for label, squares in (("", limit[scaling, weights]), (", dense", dense[scaling, weights])):
            cells = []
            for column in squares.T:
                mean, error = mean_and_error(column)
                cells.append(f"{math.sqrt(mean):.4f} ± {error / 2 / math.sqrt(mean):.4f}")
            cells += [""] * (len(depths) - len(cells))
            lines.append(f"| {scaling} | {weights}{label} | {' | '.join(cells)} |")
    return lines


def _agrees(name: str, limit: Array, dense: Array, few: tuple[int, ...], width: int) -> Section:
    """Dense networks move as far as the limit: shown is the depth that is farthest in standard errors."""
    found = []
    for place, depth in enumerate(few):
        (one, first), (other, second) = (mean_and_error(np.log(squares[:, place])) for squares in (dense, limit))
        error = math.hypot(first, second)
        found.append((abs(one - other) / error, depth, one - other, error))
    _, depth, off, error = max(found)
    # dense networks have terms of 1/n in means, and half their variance in means of logarithms
    slack = 20.0 / width
    label = f"{name}: logarithm of E dh² of dense networks over that of the limit, L = {depth}"
    margin = margin_of(min(len(limit), len(dense)))
    yield equal(label, off, error, 0.0, 0.5, slack, "terms of 1/n", margin=margin)


def _settles(scaling: str, weights: str, squares: Array, depths: tuple[int, ...]) -> Section:
    """The change has a limit in depth: of the last two depths, of which one is at least twice the other."""
    ratio, error = mean_and_error(squares[:, -1] / squares[:, -2])
    margin = margin_of(len(squares))
    name = f"{weights}, {scaling}: E dh² at L = {depths[-1]} over that at L = {depths[-2]}"
    if (scaling, weights) == (LARGER, "tied"):
        yield equal(f"{name} (second version)", ratio, error, 1.0, 0.2, source=PAPER_F, margin=margin)
        yield above(f"{name}, which has no limit", ratio, error, 1.2, margin)
        return
    yield equal(name, ratio, error, 1.0, 0.2, 2.0 / depths[-2], "terms of 1/L", margin=margin)


def _grows(squares: Array, depths: tuple[int, ...]) -> Section:
    """E dh² is a + b √L + c L with c > 0, and not a + c L."""
    from_16 = np.array(depths[1:], float)
    squares, margin, middle = squares[:, 1:], margin_of(len(squares)), len(from_16) - 2
    name = f"tied, {LARGER}: E dh², L = 16 … {depths[-1]}"
    if len(from_16) > 3:
        coefficient, ratio = affine_in_root(from_16, squares, middle)
        mean, error = mean_and_error(ratio)
        label = f"{name}: at L = {depths[-2]} over a + b √L + c L through the others"
        yield equal(label, mean, error, 1.0, 0.05, 0.01, "terms of 1/L", margin=margin)
        yield above(f"{name}: c of a + b √L + c L", *mean_and_error(coefficient), 0.0, margin)
    ends = [0, len(from_16) - 1]
    weight = (from_16[1] - from_16[0]) / (from_16[-1] - from_16[0])
    chord = squares[:, ends] @ np.array([1 - weight, weight])
    label = f"{name}: at L = {depths[2]} over a line in L through the ends"
    yield above(label, *mean_and_error(squares[:, 1] / chord), 1.0, margin)


@styled
def draw_movements(limit: Movements, dense: Movements, depths: tuple[int, ...], few: tuple[int, ...]) -> Figure:
    """Draw root mean square changes against depth, tied beside independent.

    Parameters
    ----------
    limit, dense : dict
        As `movements` returns them.
    depths, few : tuple of int
        Their depths.
    """
    figure, axes = new_figure(2, 1, TWO_COLUMNS, sharey=True)
    for ax, weights in zip(axes, WEIGHTS, strict=True):
        for colour, scaling in zip(PALETTE, SCALINGS, strict=False):
            for found, places, style in (
                (limit, np.array(depths), {"marker": "o", "label": scaling}),
                (dense, 1.1 * np.array(few), {"marker": "x", "linestyle": "none"}),
            ):
                mean, error = mean_and_error(found[scaling, weights])
                root = np.sqrt(mean)
                ax.errorbar(places, root, error / root, color=colour, capsize=2, markersize=4, **style)
        logarithmic(ax, "y")
        sizes_axis(ax, "x", depths)
        ax.set(xlabel="depth L", title=f"{weights} weights")
    axes[0].set_ylabel("change of $h_L$ over $L'$")
    axes[0].plot([], [], "x", color="0.3", label="dense networks")
    legend(axes[0])
    return figure
