"""Optimisers: networks that are sampled where training looks against dense ones, and limits in width and depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import flds
from solvers.plotting.style import PALETTE, TWO_COLUMNS, legend, new_figure, styled
from validation import plain_mean_ode
from validation.claims import (
    Claim,
    Picture,
    Scale,
    Section,
    Table,
    above,
    check,
    equal,
    mean_and_error,
)
from validation.law import law_of
from validation.problems import three_samples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

_ADAM = flds.Adam(betas=(0.9, 0.95), epsilon=1e-3)
# Rules as people train, with rates at which features move as much as under plain descent.
RULES: dict[str, dict[str, Any]] = {
    "momentum": {"optimizer": flds.SGD(momentum=0.9), "learning_rate": 0.1},
    "Nesterov, decay, clipping": {
        "optimizer": flds.SGD(momentum=0.8, nesterov=True),
        "learning_rate": 0.2,
        "weight_decay": 0.2,
        "gradient_clip": 1.0,
    },
    "Muon (Newton–Schulz), Adam on vectors": {
        "optimizer": {"hidden": flds.Muon(), "input": _ADAM, "readout": _ADAM},
        "learning_rate": {"hidden": 0.2, "input": 0.1, "readout": 0.1},
    },
    "Muon (polar), cosine": {
        "optimizer": flds.Muon(orthogonalization="polar"),
        "learning_rate": lambda k: 0.15 * (1 + np.cos(np.pi * k / 6)),
    },
}
# Exact with matrices held whole alone, as its steps are not of low rank.
_HELD: dict[str, Any] = {"optimizer": _ADAM, "learning_rate": 0.1}
# With rates at which each learns well; Muon alone leaves U and v to plain SGD.
ON_DIGITS: dict[str, dict[str, Any]] = {
    "SGD": {"learning_rate": 1.0},
    "SGD with momentum 0.9": {"optimizer": flds.SGD(momentum=0.9), "learning_rate": 0.2},
    "Muon": {"optimizer": flds.Muon(), "learning_rate": 0.2},
    "Muon with Adam": {
        "optimizer": {"hidden": flds.Muon(), "input": flds.Adam(), "readout": flds.Adam()},
        "learning_rate": 0.1,
    },
}
_SE = "_standard_error"
# How closely outputs of two sizes are to agree: a wrong power of n or L, at the least a half, would change what is
# learnt by a factor of two at four times the size, outputs by some 0.3.
_APART = 0.15
# At depth L outputs are off by less than this over L: a step of Euler's scheme, times what training adds to them.
_OF_DEPTH = 0.3
# Outputs at width n are off by less than this over √n on average: their own fluctuations over √n are of that size.
_OF_WIDTH = 0.5
# Of float64, through few steps.
_ROUNDING = 1e-12


def optimizers(scale: Scale) -> Section:
    """Every rule against dense networks in law, and outputs that no longer change with width and depth.

    Rules are seen in the coordinates of the bases, where they are exact; a wrong power of n, L or T would change
    outputs of four times the width or depth by as much as training does.
    """
    yield from _mean_ode()
    yield from _laws(scale)
    yield from _limits(scale)
    yield from _transfer(scale)


def _mean_ode() -> Section:
    """Units of the Mean ODE by rules, schedules and minibatches, against the same written out in plain NumPy."""
    rng, steps = np.random.default_rng(11), 5
    x, y = rng.standard_normal((2, 4, 2))
    order = rng.integers(0, 4, (steps, 2))
    rates = {"u": 0.4 * (1 + np.cos(np.pi * np.arange(steps) / steps)), "v": np.full(steps, 0.3)}
    decay = {"u": 0.2, "v": 0.1}
    rules: dict[str, tuple[flds.Optimizer, plain_mean_ode.Move]] = {
        "momentum": (flds.SGD(momentum=0.8), plain_mean_ode.momentum(rates, decay, 0.8)),
        "Nesterov": (flds.SGD(momentum=0.8, nesterov=True), plain_mean_ode.momentum(rates, decay, 0.8, nesterov=True)),
        "Adam": (flds.Adam(betas=(0.8, 0.9), epsilon=1e-3), plain_mean_ode.adam(rates, decay, (0.8, 0.9), 1e-3)),
    }
    for name, (rule, move) in rules.items():
        problem = flds.MeanFieldProblem(
            x, y, alpha=1.5, steps=steps, learning_rates=rates, weight_decay=decay, optimizer=rule, batch_order=order,
        )  # fmt: skip
        found = flds.solve_mean_ode(problem, units=4, depth=3, seed=2, record_every=1)
        field, (units,) = plain_mean_ode.FIELDS["two_layer_perceptron"]("tanh"), flds.draw_units(problem, 4, 4, 2)
        expected = plain_mean_ode.train(
            field, units, x, y, "mean_squared", 1.5, {}, steps, np.eye(2), batches=list(order), move=move
        )
        off = float(np.abs(found.outputs - expected.outputs).max())
        yield check(
            f"Mean ODE, {name}, decay, a schedule, batches of two of four samples: outputs of {steps} steps",
            f"differ from plain NumPy by {off:.1e}",
            f"rounding, below {_ROUNDING:g}",
            off < _ROUNDING,
        )


def _laws(scale: Scale) -> Section:
    """Lazily sampled at tolerance 0, by every rule."""
    seeds = scale.pick(240, 2000)
    for index, (name, rest) in enumerate(RULES.items()):
        yield law_of(name, rest, range(index * seeds, (index + 1) * seeds))


def _limits(scale: Scale) -> Section:
    """Outputs after the last step against width and depth."""
    seeds = scale.pick(24, 96)
    widths = scale.pick((100, 400), (200, 2_000, 20_000, 200_000))
    depths = scale.pick((4, 16), (2, 8, 32))
    lines = ["| rule | size | output of the first sample | its standard error |", "|---|---|---|---|"]
    claims: list[Claim] = []
    for name, rest in (RULES | {"Adam, matrices held whole": _HELD}).items():
        problem = replace(three_samples("tanh", None), **rest)
        held = problem.groups["hidden"].optimizer.entrywise
        wide = [n for n in scale.pick((100, 400), (100, 400, 1_600)) if held] or widths
        found = []
        for sizes in ([(n, 4) for n in wide], [(400, depth) for depth in depths]):
            found.append([_last_outputs(problem, _count(seeds, *size), *size) for size in sizes])
            for (width, depth), values in zip(sizes, found[-1], strict=True):
                mean, error = mean_and_error(values[:, 0])
                lines.append(f"| {name} | n = {width:,}, L = {depth} | {mean:.4f} | {error:.4f} |")
        claims.append(_agree(f"{name}, three samples after {problem.steps} steps", found[0], wide))
        claims.append(
            _settled(f"{name}: change of the output from L = {depths[-2]} to {depths[-1]}", found[1], depths[-2])
        )
    yield Table(lines)
    yield from claims


def _count(seeds: int, width: int, depth: int) -> int:
    """Seeds at a size: fewer of very wide networks, whose outputs scatter less."""
    return max(8, min(seeds, 400_000 // width))


def _agree(name: str, found: Sequence[Array], widths: Sequence[int]) -> Claim:
    """Outputs at the widths before the largest are those at the largest: shown is the farthest in standard errors.

    Means have terms of 1/n; where steps are not smooth in the gradient, as those of Muon where a singular value
    vanishes in the limit, fluctuations of n^-½ leave terms of that order too.
    """
    means, errors = (np.array(part) for part in zip(*(mean_and_error(values) for values in found), strict=True))
    off, error = (means[:-1] - means[-1])[-2:], np.hypot(errors[:-1], errors[-1])[-2:]
    at, sample = np.unravel_index(np.argmax(np.abs(off / error)), off.shape)
    compared = widths[:-1][-2:]
    label = f"{name}: outputs at n = {' and '.join(f'{n:,}' for n in compared)} less those at n = {widths[-1]:,}"
    slack = _OF_WIDTH / compared[int(at)] ** 0.5
    return equal(label, off[at, sample], error[at, sample], 0.0, _APART, slack, "terms of n^-½ in means")


def _settled(name: str, found: Sequence[Array], depth: int) -> Claim:
    """The last two depths, of which the smaller is given, yield outputs that differ by no more than terms of 1/L."""
    (one, first), (other, second) = (mean_and_error(values[:, 0]) for values in found[-2:])
    error = float(np.hypot(first, second))
    return equal(name, other - one, error, 0.0, _APART + _OF_DEPTH / depth, _OF_DEPTH / depth, "terms of 1/L")


def _last_outputs(problem: flds.TrainingProblem, seeds: int, width: int, depth: int) -> Array:
    return np.array([run.outputs[-1] for run in _networks(problem, seeds, width, depth)])


def _networks(problem: flds.TrainingProblem, seeds: int, width: int, depth: int) -> Iterator[flds.Solution]:
    operator = "dense" if problem.groups["hidden"].optimizer.entrywise else "lazy"
    for seed in range(seeds):
        yield flds.simulate_resnet(problem, width=width, depth=depth, seed=seed, operator=operator, threads=2)


def _transfer(scale: Scale) -> Section:
    """The learning rate of the smallest loss, at a small and at a large network."""
    seeds = scale.pick(8, 32)
    small, large = {"width": 100, "depth": 4}, scale.pick({"width": 800, "depth": 16}, {"width": 3200, "depth": 32})
    lines = ["| rule | learning rate | loss, small | loss, large |", "|---|---|---|---|"]
    claims = []
    rules = {"momentum": flds.SGD(momentum=0.9), "Muon": flds.Muon()}
    for name, rule in rules.items():
        rates = np.array([0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8])
        losses = np.array(
            [
                [_last_loss(rate, rule, seeds, **size) for size in (small, large)]
                for rate in rates
            ]
        )  # fmt: skip
        lines += [
            f"| {name} | {rate:g} | {one:.4g} | {other:.4g} |" for rate, (one, other) in zip(rates, losses, strict=True)
        ]
        best = rates[np.argmin(losses, axis=0)]
        claims.append(
            check(
                f"{name}: best learning rate at n = {large['width']}, L = {large['depth']} over that at n = 100, L = 4",
                f"{best[1]:g} / {best[0]:g}",
                "a factor of 2 at most, the grid's step",
                bool(0.5 <= best[1] / best[0] <= 2),
            )
        )
    yield Table(lines)
    yield from claims


def _last_loss(rate: float, rule: flds.Optimizer, seeds: int, width: int, depth: int) -> float:
    problem = replace(three_samples("tanh", None), learning_rate=float(rate), optimizer=rule)
    runs = _networks(problem, seeds, width, depth)
    return float(np.mean([run.loss[-1] if run.status == "completed" else np.inf for run in runs]))


def optimizers_on_digits(scale: Scale) -> Section:
    """The limit learns handwritten digits by every rule: the accuracy on samples that were not trained on."""
    particles, steps, replicates = scale.pick((800, 25, 2), (2_000, 50, 4))
    data, found = flds.load_digits(), {}
    tested = len(np.asarray(data.test_inputs))
    for name, rest in ON_DIGITS.items():
        problem = flds.TrainingProblem(
            data.inputs, data.targets, test_inputs=data.test_inputs, test_targets=data.test_targets,
            loss="cross_entropy", steps=steps, batch_size=16, batch_order="random", **rest,
        )  # fmt: skip
        label = f"{name}, learning rate {rest['learning_rate']:g}"
        found[label] = flds.solve_flds(
            problem, particles=particles, depth=8, replicates=replicates, record_every=5, recorded_samples=16
        )
        accuracy = float(found[label].variables["test_accuracy"].values[-1])
        error = float(np.sqrt(accuracy * (1 - accuracy) / tested))  # of so many digits, which are a sample
        yield above(f"{label}: accuracy on {tested} test digits after {steps} steps", accuracy, error, 0.7)
    yield Picture(
        "optimizers",
        f"The limit on handwritten digits, {particles:,} particles, L = 8, batches of 16: accuracy on samples that "
        f"were not trained on, with two standard errors over {replicates} replicates. Muon moves the hidden matrices; "
        "U and v take plain SGD, or Adam where it is named.",
        _draw_digits(found),
    )


@styled
def _draw_digits(found: dict[str, flds.Solution]) -> Figure:
    figure, (ax,) = new_figure(1, 1, TWO_COLUMNS)
    for place, (label, run) in enumerate(found.items()):
        mean, error = (run.variables[name].values for name in ("test_accuracy", f"test_accuracy{_SE}"))
        ax.errorbar(run.steps, 100 * mean, 200 * error, label=label, color=PALETTE[place], marker="o", capsize=2)
    ax.axhline(10.0, color="0.6", linestyle=":", label="chance")
    ax.set(xlabel="step $k$", ylabel="test accuracy (%)", ylim=(0, 100))
    legend(ax, loc="center right", bbox_to_anchor=None)
    return figure
