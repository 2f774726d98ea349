"""The Neural Mean ODE against exact answers, and the theorems of paper H measured on finite networks."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import flds
from flds.mean_ode.blocks import Parameters
from flds.mean_ode.draws import draw_units
from flds.mean_ode.network import Dynamics, MeanDynamics, TangentDynamics
from flds.mean_ode.options import MeanSettings
from flds.mean_ode.train import train
from validation import closed_forms
from validation.claims import PAPER_H, Claim, Scale, Section, above, against, at_least, check, equal, margin_of
from validation.convergence import exponent_of
from validation.derivatives import check_block
from validation.linear_units import linear_mean_ode
from validation.problems import random_pairs
from validation.rates import fit_power_laws
from validation.unit_networks import UnitRuns, train_units

Array = NDArray[np.float64]


class SineShift(flds.Block):
    """φ(h, z) = Q sin(h + z) with a fixed rotation Q: globally Lipschitz with all its derivatives (Assumption B).

    With entries of z uniform on a circle, E φ(h, Z_0) = 0 and E D1φ(h, Z_0) = 0.
    """

    name = "sine_shift"

    def __init__(self, dimension: int) -> None:
        self.rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((dimension, dimension)))[0]

    def shapes(self, dimension: int) -> dict[str, tuple[int, ...]]:
        return {"shift": (dimension,)}

    def deviations(self, dimension: int) -> dict[str, float]:
        return {"shift": math.pi / math.sqrt(3)}

    def rates(self, dimension: int, deviations: dict[str, float]) -> dict[str, float]:
        return {"shift": float(dimension)}

    def value(self, h: Array, z: Parameters) -> Array:
        return np.sin(h[..., None] + z["shift"]).sum(-1) @ self.rotation.T

    def pull(self, h: Array, b: Array, z: Parameters) -> tuple[Array, Parameters]:
        slopes = np.cos(h[..., None] + z["shift"]) * (b @ self.rotation)[..., None]
        return slopes.sum(-1), {"shift": slopes.sum(0)}

    def tangent(self, h: Array, z: Parameters, change: Parameters) -> Array:
        return (np.cos(h[..., None] + z["shift"]) * change["shift"]).sum(-1) @ self.rotation.T

    def pull_tangent(self, h: Array, b: Array, z: Parameters, change: Parameters) -> tuple[Array, Parameters]:
        bent = -np.sin(h[..., None] + z["shift"]) * change["shift"] * (b @ self.rotation)[..., None]
        return bent.sum(-1), self.pull(h, b, z)[1]

    def torch_field(self, h: torch.Tensor, z: dict[str, torch.Tensor]) -> torch.Tensor:
        """Σ_j φ(h, z_j) for networks of several runs."""
        return torch.sin(h[..., None] + z["shift"][:, None]).sum(-1) @ torch.tensor(self.rotation).T


def _problem(kind: str, steps: int = 5, dimension: int = 4, samples: int = 4, **options: Any) -> flds.MeanFieldProblem:
    """Random pairs, for perceptrons or for the Lipschitz block."""
    pairs = np.random.default_rng(2).standard_normal((2, samples, dimension))
    if kind == "Lipschitz":
        options |= {"block": SineShift(dimension), "initial_laws": {"shift": lambda p: math.sqrt(12) * (p - 0.5)}}
    return flds.MeanFieldProblem(pairs[0], pairs[1], steps=steps, **options)


KINDS = ("Lipschitz", "perceptron")


def mean_ode(scale: Scale) -> Section:
    """The Neural Mean ODE and the tangent ODE against exact answers."""
    blocks: tuple[flds.Block, ...] = (
        flds.TwoLayerPerceptron(),
        flds.GatedLinearUnit(),
        flds.MatrixAfterActivation(),
        flds.MatrixBeforeActivation(),
        flds.Attention(2),
        SineShift(4),
    )
    for block in blocks:
        error = max(check_block(block, tolerance=math.inf).values())
        name = f"{block.name}: derivatives against differences of values, largest relative error"
        yield check(name, f"{error:.1e}", "at most 1e-7", error <= 1e-7)
    for named in ("two_layer_perceptron", "gated_linear_unit", "matrix_before_activation"):
        p = _problem("perceptron", steps=0, block=named)
        # not the default draws, whose pairs of opposite φ cancel whatever they are
        runs = flds.solve_mean_ode(p, units=4096, depth=4, sampling="iid", replicates=scale.pick(16, 64))
        share = np.mean(runs.replicate_outputs[:, 0] * p.x, axis=(1, 2)) / np.mean(p.x**2)
        yield against(f"{named}, iid units: untrained outputs times inputs / squares of inputs", share, 1.0, 0.1)
    yield from _linear_perceptrons(scale)
    yield _reported_depth_error()
    units = _centred_units()
    yield from _large_alpha("Lipschitz block, symmetric law", 2, units["Lipschitz"])
    yield from _large_alpha("perceptrons, tanh, symmetric law", 2, units["symmetric"])
    yield from _large_alpha("perceptrons, silu, skewed law", 1, units["skewed"], activation="silu")


def _reported_depth_error() -> Claim:
    """The error of finite depth that a solution reports, against that at eight times the depth, of units of one law.

    Units are the same at all nodes, for which the error is that of the method; a third of what halving the depth
    changes is 7/3 of the error where this is of order three.
    """
    p, units = _problem("perceptron", steps=20), 512
    reported = flds.solve_mean_ode(p, units=units, depth=8, depth_error=True, record_every=20).outputs_depth_error[-1]
    drawn, ends = draw_units(p, 1, units, 1, "sobol"), []
    for depth in (8, 64):
        same = [{name: np.repeat(values, depth + 1, axis=0) for name, values in z.items()} for z in drawn]
        ends.append(train(MeanDynamics(p, same), MeanSettings(units, depth)).records[-1].outputs)
    ratio = float(np.sqrt(np.mean(reported**2) / np.mean((ends[0] - ends[1]) ** 2)))
    name = "depth error of 20 steps at depth 8, as reported / against depth 64, root mean square"
    return check(name, f"{ratio:.2f}", "1 to 5", 1 <= ratio <= 5)


def _linear_perceptrons(scale: Scale) -> Section:
    """ρ = identity: the outputs after 20 steps against the exact dynamics of second moments."""
    p = _problem("perceptron", steps=20, activation="identity", sigma_v=1.5)
    exact, errors = linear_mean_ode(p, depth=128)[-1], {}
    for sampling, units in (("iid", scale.pick(4096, 16384)), ("sobol", scale.pick(1024, 4096))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a run that diverges refutes its claim below
            solution = flds.solve_mean_ode(
                p, units=units, depth=32, sampling=sampling, replicates=scale.pick(8, 16), record_every=20
            )
        if solution.status != "completed":
            yield check(f"linear perceptrons, 20 steps, {units} {sampling} units", solution.status, "completed", False)
            continue
        found = solution.replicate_outputs[:, -1]
        name = f"linear perceptrons, 20 steps, {units} {sampling} units: mean of outputs times targets / exact"
        yield against(name, np.mean(found * p.y, axis=(1, 2)) / np.mean(exact * p.y), 1.0, resolution=0.05)
        errors[sampling] = np.mean((found - exact) ** 2, axis=(1, 2))
    if len(errors) < 2:
        return
    ratio, error = _log_ratio(errors["iid"], errors["sobol"])
    name = f"linear perceptrons: log of the mean square error of four times {units} iid units over that of sobol units"
    yield above(name, ratio, error, 0.0, margin_of(len(errors["iid"])))


def _log_ratio(one: Array, other: Array) -> tuple[float, float]:
    """The logarithm of the ratio of two means over replicates, and its standard error."""
    means = one.mean(), other.mean()
    error = math.hypot(
        *(float(np.std(e, ddof=1)) / m / math.sqrt(len(e)) for e, m in zip((one, other), means, strict=True))
    )
    return math.log(means[0] / means[1]), error


def _large_alpha(case: str, power: int, initial: list[Parameters], **options: Any) -> Section:
    """α(Z_k − Z_0) → ζ_k like 1/α, outputs like 1/α² for a symmetric law, else like 1/α; no chance involved."""
    alphas = np.array([16.0, 32.0, 64.0])
    kind_of_block = "Lipschitz" if "shift" in initial[0] else "perceptron"
    nodes, name = len(next(iter(initial[0].values()))), next(iter(initial[0]))

    def solved(kind: type[Dynamics], alpha: float) -> tuple[Array, Array]:
        p = _problem(kind_of_block, steps=3, alpha=alpha, learning_rates=2.0, **options)
        dynamics = kind(p, initial)
        run = train(dynamics, MeanSettings(256, nodes - 1))
        moved = dynamics.moved[0][name]
        return moved if kind is TangentDynamics else alpha * (moved - initial[0][name]), run.records[-1].outputs

    zeta, limit = solved(TangentDynamics, 1.0)
    found = [solved(MeanDynamics, alpha) for alpha in alphas]
    units = [np.sqrt(np.mean((z - zeta) ** 2)) for z, _ in found], 1
    outputs = [np.sqrt(np.mean((f - limit) ** 2)) for _, f in found], power
    for what, (errors, expected) in {"α (Z_3 − Z_0) − ζ_3": units, "f^(3) − that of the tangent ODE": outputs}.items():
        slope = float(np.polyfit(np.log(1 / alphas), np.log(errors), 1)[0])
        claim = f"Theorem 2, {case}: {what}, exponent of 1/α"
        yield check(claim, f"{slope:.3f}", f"{expected} to 0.1 for the next order", abs(slope - expected) < 0.1)


def _centred_units() -> dict[str, list[Parameters]]:
    """Units for which E φ(h, Z_0) and E D1φ(h, Z_0) are zero to rounding, so that α does not amplify chance."""
    perceptrons = draw_units(_problem("perceptron"), 5, 256, 0, "sobol")
    u, v = (perceptrons[0][name][..., :16] for name in "uv")
    v = v**2 - np.mean(v**2, axis=-1, keepdims=True)
    shift = draw_units(_problem("Lipschitz"), 5, 128, 0, "sobol")[0]["shift"]
    return {
        "symmetric": perceptrons,
        "skewed": [{"u": np.repeat(u, 16, axis=-1), "v": np.tile(v / 4, 16)}],  # every u with every v
        "Lipschitz": [{"shift": np.concatenate([shift, shift + np.pi], axis=-1)}],
    }


def mean_ode_theorems(scale: Scale) -> Section:
    """Finite networks of paper H against their limit: Theorems 1 to 4, for a Lipschitz block and for perceptrons.

    The mean over seeds less the limit is the error of finite depth; the variance over seeds, that of sampling.
    """
    for kind in KINDS:
        yield from _theorem_1(kind, scale)
    for kind in KINDS:
        yield from _theorem_2(kind, scale)
    yield from _theorem_3(scale)
    yield from _theorem_4(scale)
    yield from _sampling_constant(scale)


def _runs(p: flds.MeanFieldProblem, depth: int, width: int, seeds: int) -> UnitRuns:
    return train_units(p, hidden_width=width, depth=depth, seeds=seeds, seed=1000 * depth + width)


def _variances(outputs: Array) -> Array:
    """Squared distances from the mean over seeds, unbiased, (seeds,)."""
    away = outputs - outputs.mean(axis=0)
    return np.asarray(np.mean(away**2, axis=tuple(range(1, away.ndim))) * len(outputs) / (len(outputs) - 1))


def _theorem_1(kind: str, scale: Scale) -> Section:
    p = _problem(kind)
    seeds = scale.pick(60, 400)
    limit = flds.solve_mean_ode(p, units=scale.pick(4096, 16384), depth=32, replicates=4, record_features=True)
    depths, wide = (4, 8, 16, 32), 64
    outputs = np.array([_runs(p, depth, wide, seeds).outputs[:, -1] for depth in depths])  # (L, seeds, …)
    slope, error = _bias_exponent(outputs - limit.outputs[-1], np.array(depths))
    name = f"Theorem 1, {kind} block: bias of f after 5 steps, M = {wide}, L = 4 … 32, exponent of 1/L"
    # the next order of the expansion moves the exponent by about the coarsest step
    yield equal(name, slope, error, 1.0, 0.75, 0.25, "for the coarsest step", margin=margin_of(seeds))
    products = [(16, 1), (32, 2), (64, 4), (64, 16)]
    spread = np.array([_variances(_runs(p, depth, width, seeds).outputs[:, -1]) for depth, width in products]).T
    gaps = np.array([1 / (depth * width) for depth, width in products])
    law = fit_power_laws(spread[:, :, None], gaps, None)
    name = f"Theorem 1, {kind} block: variance of f after 5 steps over seeds, L M = 16 … 1024"
    yield exponent_of(name, law, "depth", equal, 1.0, 0.5, 0.1, "for small LM", of="1/(LM)")
    yield _units_follow(kind, p, limit, scale)


def _units_follow(kind: str, p: flds.MeanFieldProblem, limit: flds.MeanFieldSolution, scale: Scale) -> Claim:
    """Theorem 1 (ii): units of networks against units of the limit that start where they do."""
    depths, seeds = (16, 64, 256), scale.pick(8, 48)
    errors = np.empty((seeds, len(depths)))
    for column, depth in enumerate(depths):
        runs = _runs(p, depth, 1, seeds)
        for seed in range(seeds):
            start = [{name: a[seed] for name, a in z.items()} for z in runs.initial]
            ends = flds.follow_units(p, limit, start, np.arange(depth) / depth)
            errors[seed, column] = sum(
                np.mean((z[name][-1] - now[name][seed]) ** 2)
                for z, now in zip(ends, runs.units, strict=True)
                for name in now
            )
    law = fit_power_laws(errors[:, :, None], 1 / np.array(depths), None)
    name = f"Theorem 1 (ii), {kind} block: mean square of units of networks, M = 1, less units of the limit"
    return exponent_of(name, law, "depth", at_least, 1.0, 0.5)


def _bias_exponent(away: Array, depths: NDArray[np.int64]) -> tuple[float, float]:
    """The power of 1/L in ‖E f_L − f‖, with its jackknife standard error; `away` is (L, seeds, …)."""

    def slope(sample: Array) -> float:
        flat = sample.reshape(*sample.shape[:2], -1)
        squares = np.mean(flat.mean(1) ** 2 - flat.var(1, ddof=1) / flat.shape[1], axis=1)
        if np.any(squares <= 0):
            return math.nan
        return float(np.polyfit(np.log(1 / depths), np.log(squares) / 2, 1)[0])

    count = away.shape[1]
    left_out = np.array([slope(np.delete(away, seed, axis=1)) for seed in range(count)])
    error = float(np.std(left_out) * np.sqrt(count - 1))
    return slope(away), error if math.isfinite(error) else math.inf


def _theorem_2(kind: str, scale: Scale) -> Section:
    """The sampling error grows like α/√(LM); for perceptrons nothing is claimed by the theorem."""
    seeds, alphas = scale.pick(60, 300), np.array([2.0, 4.0, 8.0])
    depth, width = 64, 16
    spread = np.array(
        [
            _variances(
                _runs(_problem(kind, steps=3, alpha=alpha, learning_rates=2.0), depth, width, seeds).outputs[:, -1]
            )
            for alpha in alphas
        ]
    ).T
    law = fit_power_laws(spread[:, :, None], alphas, None)
    name = f"Theorem 2, {kind} block: variance of f after 3 steps over seeds, α = 2 … 8, L M = 1024"
    # errors that do not grow with α are a share 1/α² of the variance at the smallest
    yield exponent_of(name, law, "depth", equal, 2.0, 1.0, 0.25, "for the smallest α", of="α")


def _theorem_3(scale: Scale) -> Section:
    """The first travel of u against its exact value, and how far units with small v go from those with none.

    Networks are off the identity before training, by a share σ_v²/(LM) of the squares; where it is above a tenth, at
    the largest σ_v in higher dimensions, they are left out.
    """
    depth, width, seeds = 16, 64, scale.pick(8, 32)
    for dimension in (10, 31, 100):
        for alpha in (0.1, 1.0, 3.0):
            p = _problem("perceptron", 1, dimension, 10, sigma_v=alpha * math.sqrt(dimension))
            exact, slack = _first_travel(p, alpha), alpha**2 * dimension / (depth * width)
            name = f"Theorem 3, D = {dimension}, σ_v = {alpha:g} √D: first travel of u, "
            name += f"{exact / min(alpha, 1 / alpha):.3f} min(σ_v/√D, √D/σ_v)"
            if alpha == 1:  # at the others it is the same number times σ_v or its inverse
                yield check(
                    f"Theorem 3, D = {dimension}: first travel of u for random data, exactly", f"{exact:.3f}",
                    "0.3, to one digit", round(exact, 1) == 0.3,
                )  # fmt: skip
                limit = flds.solve_mean_ode(p, units=scale.pick(1024, 4096), depth=2, replicates=8)
                found, error = limit.travel_u[1].mean(), limit.travel_u_standard_error[1].mean()
                yield equal(f"{name}, limit / exact", found / exact, error / exact, 1.0, 0.05, margin=margin_of(8))
            if slack > 0.1:
                continue
            squares = (_runs(p, depth, width, seeds).travel("u") / exact) ** 2
            error = squares.std(ddof=1) / math.sqrt(seeds)
            name += f", square over exact square, networks, L M = {depth * width}"
            note, margin = "for networks that are not the identity", margin_of(seeds)
            yield equal(name, float(squares.mean()), float(error), 1.0, 0.4, slack, note, margin=margin)
    yield from _small_v()


def _first_travel(p: flds.MeanFieldProblem, alpha: float) -> float:
    """The root mean square of what the first step adds to the entries of u: the untrained limit is the identity.

    Rates and scales are those of the paper, which the problem has by default: σ_u = √D and η_u = D min(1, D/σ_v²).
    """
    x, b, dimension = p.x, (p.x - p.y) / p.dimension, p.dimension
    inner = x @ x.T / dimension**2
    slopes = closed_forms.pair_means(p.blocks[0].rho.derivative, dimension * inner)  # type: ignore[attr-defined]
    square = np.sum(inner * (b @ b.T) * slopes) * alpha**2
    return float(dimension * min(1.0, 1 / alpha**2) / p.samples * math.sqrt(square))


def _small_v() -> Section:
    """(iv): the distance after three steps from units that start with v = 0 is proportional to σ_v; no chance in it."""
    alphas, distances = np.array([0.02, 0.04, 0.08]), []
    for alpha in alphas:
        p = _problem("perceptron", 3, 10, 10, sigma_v=alpha * math.sqrt(10))
        start = draw_units(p, 5, 256, 0, "sobol")
        ends = []
        for initial in (start, [{"u": start[0]["u"], "v": 0 * start[0]["v"]}]):
            dynamics = MeanDynamics(p, initial)
            train(dynamics, MeanSettings(256, 4))
            ends.append(dynamics.moved[0])
        squares = [np.mean((ends[0][name] - ends[1][name]) ** 2) for name in "uv"]
        distances.append(math.sqrt(sum(squares)))
    slope = float(np.polyfit(np.log(alphas), np.log(distances), 1)[0])
    name = "Theorem 3 (iv): distance of units from those that start with v = 0, 3 steps, D = 10, exponent of σ_v"
    yield check(name, f"{slope:.3f}", "1 to 0.05 for the next order", abs(slope - 1) < 0.05)


def _theorem_4(scale: Scale) -> Section:
    """The fluctuation of f grows like √D where σ_u = σ_v = √D."""
    dimensions, seeds = np.array([32, 64, 128]), scale.pick(24, 100)
    spread = np.array(
        [
            _variances(_runs(_problem("perceptron", 5, int(dimension), 6), 16, 128, seeds).outputs[:, -1])
            for dimension in dimensions
        ]
    ).T
    law = fit_power_laws(spread[:, :, None], dimensions, None)
    name = "Theorem 4: variance of f after 5 steps over seeds, D = 32 … 128, L M = 2048"
    # the term of H-(30) without D is a share of about 1/√D of the standard deviation
    yield exponent_of(name, law, "depth", equal, 1.0, 0.5, 0.2, "for the smallest D", of="D")


def _sampling_constant(scale: Scale) -> Section:
    """b of Fig. 2's a/L + b/√(LM) after 100 steps, over random data: 0.22 in the paper, 0.22 √D in its notebook."""
    if scale.name == "quick":
        return
    depth, width, sets, seeds = 64, 32, 24, 12
    for dimension in (10, 31):
        logs = []
        for data in range(sets):
            p = random_pairs(data, dimension, steps=100)
            variances = _variances(_runs(p, depth, width, seeds).outputs[:, -1])
            logs.append(math.log(depth * width * variances.mean()) / 2)
        typical = math.exp(np.mean(logs))
        name = f"Fig. 2, D = {dimension}: log b after 100 steps, mean over {sets} data sets (b = {typical:.2f})"
        for stated, label in (
            (0.22, "b = 0.22 as printed"),
            (0.22 * math.sqrt(dimension), "b = 0.22 √D of the notebook"),
        ):
            yield against(f"{name}, {label}", np.array(logs), math.log(stated), resolution=0.4, source=PAPER_H)
