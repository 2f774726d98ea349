"""How fast networks reach the limit: coupled errors in depth and width, untrained and in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import flds
from flds.training.options import BACKWARD_WEIGHTS as WEIGHTS
from solvers.plotting.style import TWO_COLUMNS, new_figure, styled
from validation import coupled
from validation.claims import Claim, Picture, Scale, Section, Table, above, against, at_least, equal, margin_of
from validation.problems import large_steps
from validation.rates import CoupledErrors, PowerLaw, coupled_errors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]


def exponent_of(
    name: str, law: PowerLaw, side: str, claim: Callable[..., Claim], *expected: Any, of: str = "", **rest: Any
) -> Claim:
    """State a claim on the exponent of a law in "depth" or in "width", or `of` what took their place."""
    exponent, error = getattr(law, f"{side}_exponent"), getattr(law, f"{side}_error")
    if claim is at_least:
        rest["interval"] = getattr(law, f"{side}_interval")
    base = of or {"depth": "1/L", "width": "1/n"}[side]
    return claim(f"{name}, exponent of {base}", exponent, error, *expected, margin=margin_of(law.replicates), **rest)


def rates_at_initialisation(scale: Scale) -> Section:
    """Coupled errors of the untrained network in depth and in width, in both orders, against exact exponents.

    Errors in depth are extrapolated to infinite width, where they are known exactly. Between these depths their
    exponents are not yet those of L → ∞: 2 for h, and for g 2 (identity), 1 (tanh) and ½ (relu, whose φ' jumps).
    """
    depths, deepest = scale.pick(((16, 32, 64), 256), ((16, 32, 64, 128), 1024))
    wide = scale.pick((1024, 8192), (2048, 16384))
    for activation in scale.pick(("tanh", "relu"), ("identity", "tanh", "relu")):
        problem = large_steps(activation, steps=0, horizon=1.0)
        deep = coupled_errors(problem, depths, wide[:1], (wide[1], deepest), replicates=scale.pick(10, 16))
        yield from _known_errors(activation, problem, deep)
    for activation in scale.pick(("tanh",), ("tanh", "relu")):
        problem = large_steps(activation, steps=0, horizon=1.0)
        grid = coupled_errors(problem, (4,), (64, 128, 256, 512), (4096, 16), replicates=scale.pick(24, 300))
        for quantity in "hgf":
            for depth in (4, 16):
                law = grid.width_law(quantity, 0, depth)
                name = f"{activation}, k = 0: error of {quantity} in width, n = 64 … 512, L = {depth}"
                if (activation, quantity) == ("relu", "g"):
                    # φ'(h^n) and φ'(h) differ by 1 where the signs do: with a probability like |h^n − h| ~ n^-½, which
                    # adds to the errors of order 1/n
                    yield exponent_of(name, law, "width", at_least, 0.5, 0.25)
                else:
                    yield exponent_of(name, law, "width", equal, 1.0, 0.5)
        yield from _commute(activation, grid)


def _known_errors(activation: str, problem: flds.TrainingProblem, deep: CoupledErrors) -> Section:
    """Errors of h and g at the coarsest depth, and their exponents, against exact values at infinite width."""
    depth, deepest = int(deep.depths[0]), deep.reference[1]
    initial = float(np.mean(problem.x[problem.batches[0]] ** 2))
    for quantity, error in (("h", coupled.feature_error), ("g", coupled.gradient_error)):
        exact = [error(activation, initial, problem.horizon, int(one), deepest) for one in deep.depths]
        yield against(
            f"{activation}, k = 0: E|{quantity}^L − {quantity}^L*|² / its exact value at infinite width, L = {depth}, "
            f"L* = {deepest}",
            deep.depth_errors(quantity, 0)[:, 0] / exact[0],
            1.0,
            resolution=0.3,
        )
        name = f"{activation}, k = 0: error of {quantity} in depth, L = {depth} … {deep.depths[-1]}"
        expected = coupled.exponent(exact, 1 / deep.depths - 1 / deepest)
        yield exponent_of(name, deep.depth_law(quantity, 0), "depth", equal, expected, 0.3)


def _commute(activation: str, grid: CoupledErrors) -> Section:
    """The limits in n and L can be taken in either order: the error in width hardly depends on the depth."""
    for quantity in "hg":
        errors = grid.in_width[quantity][:, 0]  # (replicates, L, n)
        ratio = np.log(errors[:, -1].mean(0) / errors[:, 0].mean(0))
        spread = np.std((errors[:, -1] / errors[:, -1].mean(0)) - (errors[:, 0] / errors[:, 0].mean(0)), axis=0, ddof=1)
        error = float(np.mean(spread) / np.sqrt(len(errors)))  # widths share their noise, so they are not averaged
        name = f"{activation}, k = 0: error of {quantity} in width at L = 16 / at L = 4, logarithm, mean over n"
        margin = margin_of(len(errors))
        yield equal(name, float(ratio.mean()), error, 0.0, 0.5, 0.25, "for the step at L = 4", margin=margin)


def rates_in_training(scale: Scale) -> Section:
    """Coupled errors in depth and width during training, each limit against its own networks."""
    stages = scale.pick((1, 5), (1, 5, 20))
    for weights in WEIGHTS:
        deep, wide = _training_errors("tanh", weights, stages, scale)
        for step in stages:
            for quantity in "hgf":
                name = f"tanh, {weights}, k = {step}: error of {quantity}"
                law = deep.depth_law(quantity, step, deep.reference[0])
                yield exponent_of(f"{name} in depth", law, "depth", at_least, 1.0, 0.5)
                law = wide.width_law(quantity, step, wide.reference[1])
                yield exponent_of(f"{name} in width", law, "width", at_least, 1.0, 0.5)
        yield Table(deep.table(f"total error, {weights}"))
        yield Picture(
            f"rates_{weights}",
            f"Mean-square error of h and g after training steps, {weights} weights, tanh: in depth against L* = "
            f"{deep.reference[1]} and in width against N = {wide.reference[0]}, with fitted exponents.",
            draw_rates(deep, wide, stages),
        )
    yield from _relu_in_training(scale)


def _training_errors(
    activation: str, weights: str, stages: tuple[int, ...], scale: Scale
) -> tuple[CoupledErrors, CoupledErrors]:
    problem = large_steps(activation, steps=stages[-1], horizon=1.0)
    depths, deepest, particles = scale.pick(((8, 16, 32), 128, 1024), ((8, 16, 32, 64), 256, 4096))
    deep = coupled_errors(
        problem,
        depths,
        (64, 256),
        (particles, deepest),
        steps=stages,
        backward_weights=weights,
        replicates=6,
    )
    wide = coupled_errors(
        problem,
        (4,),
        (64, 128, 256, 512),
        (4096, 8),
        steps=stages,
        backward_weights=weights,
        replicates=scale.pick(8, 40),
    )
    return deep, wide


def _relu_in_training(scale: Scale) -> Section:
    """For relu φ' jumps and nothing is proved: exponents are stated, and claimed only to be positive."""
    if scale.name == "quick":
        return
    stages = (1, 5)
    for weights in WEIGHTS:
        deep, wide = _training_errors("relu", weights, stages, scale)
        for step in stages:
            for quantity in "hg":
                name = f"relu, {weights}, k = {step}: error of {quantity}"
                law = deep.depth_law(quantity, step, deep.reference[0])
                yield exponent_of(f"{name} in depth falls", law, "depth", above, 0.0)
                law = wide.width_law(quantity, step, wide.reference[1])
                yield exponent_of(f"{name} in width falls", law, "width", above, 0.0)


@styled
def draw_rates(deep: CoupledErrors, wide: CoupledErrors, stages: tuple[int, ...]) -> Figure:
    """Errors of h and g, in depth (left) and in width (right), one row for each quantity and step."""
    rows = [(quantity, step) for step in stages for quantity in "hg"]
    figure, panels = new_figure(2, len(rows), TWO_COLUMNS)
    for (quantity, step), axes in zip(rows, panels.reshape(len(rows), 2), strict=True):
        deep.plot_depth(quantity, step, axes[0])
        wide.plot_width(quantity, step, axes[1])
        for ax in axes:
            ax.set_title(f"{quantity}, k = {step}")
    return figure
