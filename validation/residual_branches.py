"""Residual branches: laws of networks with two layers and norms, and the exponent 1 against what is known of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import flds
from flds.training.options import BACKWARD_WEIGHTS as WEIGHTS
from validation import closed_forms, coupled
from validation.claims import Scale, Section, Table, above, against, equal, margin_of, mean_and_error
from validation.convergence import exponent_of
from validation.law import law_of
from validation.problems import one_sample, three_samples
from validation.rates import fit_power_laws

Array = NDArray[np.float64]

_NORMED: dict[str, Any] = {"residual": "two_layer", "normalization": "rms_norm", "bias": True}
# What is trained, and with which weights.
BRANCHES: dict[str, tuple[dict[str, Any], str]] = {
    "two layers, RMSNorm, bias, hidden ratio ½": (_NORMED | {"hidden_ratio": 0.5}, "tied"),
    "two layers, RMSNorm, bias, hidden ratio 4": (_NORMED | {"hidden_ratio": 4.0}, "tied"),
    "two layers, LayerNorm with gains, independent": (
        {"residual": "two_layer", "normalization": "layer_norm", "gain": True}, "independent",
    ),
    "two layers, exponent 1, hidden ratio 2": (
        {"residual": "two_layer", "hidden_ratio": 2.0, "branch_exponent": 1.0}, "tied",
    ),
    "one matrix, exponent 1": ({"branch_exponent": 1.0}, "tied"),
    "one matrix, exponent 1, independent": ({"branch_exponent": 1.0}, "independent"),
}  # fmt: skip
_RATE = 0.5


def residual_branches(scale: Scale) -> Section:
    """Branches of one matrix and of two layers: their laws, and the exponent 1 in closed form and as the Mean ODE."""
    seeds = scale.pick(240, 2000)
    for index, (name, (rest, weights)) in enumerate(BRANCHES.items()):
        yield law_of(name, rest, range(index * seeds, (index + 1) * seeds), weights)
    yield from _closed_forms(scale)
    yield from _tied_against_independent(scale)
    yield from _mean_ode(scale)


def _closed_forms(scale: Scale) -> Section:
    """One step with φ = identity, s = τ."""
    depth = 16
    particles, replicates = scale.pick((2_000, 16), (20_000, 32))
    problem = replace(one_sample("identity"), branch_exponent=1.0)
    for weights in WEIGHTS:
        f = flds.solve_flds(
            problem, particles=particles, depth=depth, backward_weights=weights, replicates=replicates
        ).replicate_outputs[:, 1, 0]
        exact = {w: closed_forms.identity_first_output(_RATE, 1.0, 1.0, depth, w, branch_exponent=1.0) for w in WEIGHTS}
        resolution = abs(exact["tied"] - exact["independent"]) / 2
        yield against(f"exponent 1, identity, {weights}: f^(1), L = {depth}", f, exact[weights], resolution)


def _tied_against_independent(scale: Scale) -> Section:
    """The two meet in depth where branches have one matrix, and do not where they have two."""
    depths, (particles, replicates) = (8, 16, 32, 64), scale.pick((1_000, 8), (4_000, 24))
    exact = [
        closed_forms.identity_first_output(_RATE, 1.0, 1.0, depth, "tied", branch_exponent=1.0)
        - closed_forms.identity_first_output(_RATE, 1.0, 1.0, depth, "independent", branch_exponent=1.0)
        for depth in depths
    ]
    steps = 1 / np.array(depths)
    cases: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("one matrix, identity", {}, "identity"),
        ("one matrix, tanh", {}, "tanh"),
        ("two layers, tanh", {"residual": "two_layer"}, "tanh"),
    )
    for name, rest, activation in cases:
        problem = replace(one_sample(activation), branch_exponent=1.0, **rest)
        gaps = np.array([_gap(problem, depth, particles, replicates) for depth in depths]).T
        label = f"exponent 1, {name}: f^(1) tied − independent"
        law = fit_power_laws(gaps[:, :, None], steps, None)
        if rest:
            yield above(f"{label}, L = {depths[-1]}", *mean_and_error(gaps[:, -1]), 0.1, margin_of(replicates))
            yield exponent_of(
                f"{label}, L = 8 … 64", law, "depth", equal, 0.0, 0.5, 1 / depths[0], "for the coarsest step"
            )
        elif activation == "identity":
            yield exponent_of(f"{label}, L = 8 … 64", law, "depth", equal, coupled.exponent(exact, steps), 0.3)
        else:
            yield exponent_of(
                f"{label}, L = 8 … 64", law, "depth", equal, 1.0, 0.5, 1 / depths[0], "for the coarsest step"
            )


def _gap(problem: flds.TrainingProblem, depth: int, particles: int, replicates: int) -> Array:
    """f^(1) tied − independent, of each seed, which draws the same forward weights for both."""
    tied, independent = (
        flds.solve_flds(
            problem, particles=particles, depth=depth, backward_weights=w, replicates=replicates, operator="lazy"
        ).replicate_outputs[:, 1, 0]
        for w in WEIGHTS
    )
    return np.asarray(tied - independent)


def _mean_ode(scale: Scale) -> Section:
    """The limit in width and depth of two layers with exponent 1 is the Mean ODE of large embedding dimension.

    U/√d and v/D are its fixed embedding and unembedding, and rows of W and columns of V its units, H = ratio · D of
    them to a layer: u = D W, v = H V, so that σ_u = √D, σ_v = √H, η_u = η_c D/ratio and η_v = η_c H. Embeddings are
    orthonormal, with which terms of 1/√D drop out.
    """
    dimensions, units, draws = scale.pick(((16, 64), 512, 12), ((16, 64, 256), 2_048, 16))
    depths, (particles, replicates) = (32, 64), scale.pick((1_000, 8), (8_000, 8))
    base = three_samples("tanh", None, steps=4)
    rates = {"input": 0.0, "readout": 0.0, "inner": _RATE, "outer": _RATE}
    lines = ["| hidden ratio | size | f^(4) of three samples | largest standard error |", "|---|---|---|---|"]
    claims = []
    for ratio in (0.5, 1.0, 4.0):
        problem = replace(
            base, residual="two_layer", hidden_ratio=ratio, branch_exponent=1.0, learning_rate=rates
        )  # fmt: skip
        found = {
            f"L = {depth}": flds.solve_flds(
                problem, particles=particles, depth=depth, replicates=replicates
            ).replicate_outputs[:, -1]
            for depth in depths
        }
        coarse, fine = found.values()
        limit, limit_error = mean_and_error(2 * fine - coarse)  # terms of 1/L drop out
        for dimension in dimensions:
            ends = np.array([_mean_ode_outputs(problem, dimension, units, seed) for seed in range(draws)])
            found[f"Mean ODE, D = {dimension}"] = ends
        for size, values in found.items():
            mean, error = mean_and_error(values)
            lines.append(f"| {ratio:g} | {size} | {' '.join(f'{one:.4f}' for one in mean)} | {error.max():.4f} |")
        mean, error = mean_and_error(ends)
        off, errors = mean - limit, np.hypot(error, limit_error)
        worst = int(np.argmax(np.abs(off) / errors))
        name = f"exponent 1, two layers, hidden ratio {ratio:g}: f^(4), Mean ODE of D = {dimensions[-1]} less the limit"
        # independent weights, and every other ratio, are 0.07 and more away
        claims.append(
            equal(
                name, off[worst], errors[worst], 0.0, 0.03, 0.1 / dimensions[-1], "terms of 1/D",
                margin=margin_of(min(draws, replicates)),
            )
        )  # fmt: skip
    yield Table(lines)
    yield from claims


def _mean_ode_outputs(problem: flds.TrainingProblem, dimension: int, units: int, seed: int) -> Array:
    """Outputs after the last step with an embedding in so many dimensions."""
    inputs, hidden = problem.x.shape[1], problem.hidden_ratio * dimension
    gaussian = np.random.default_rng(seed).standard_normal((dimension, inputs + 1))
    frame = np.linalg.qr(gaussian)[0] * math.sqrt(dimension)
    mean_field = flds.MeanFieldProblem(
        problem.x,
        problem.y,
        embedding=frame[:, :inputs].T / math.sqrt(inputs),
        unembedding=frame[:, inputs:] / dimension,
        activation=problem.phi.name,
        sigma_u=math.sqrt(dimension),
        sigma_v=math.sqrt(hidden),
        learning_rates={"u": _RATE * dimension**2 / hidden, "v": _RATE * hidden},
        steps=problem.steps,
    )
    return np.asarray(flds.solve_mean_ode(mean_field, units=units, depth=16, seed=seed).outputs[-1]).ravel()
