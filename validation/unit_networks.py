"""Finite ResNets of paper H in torch, trained by autograd: any block, hidden width and depth, several seeds at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flds.mean_ode.attention import Attention
from flds.mean_ode.blocks import (
    Block,
    GatedLinearUnit,
    MatrixAfterActivation,
    MatrixBeforeActivation,
    Parameters,
    TwoLayerPerceptron,
)
from flds.mean_ode.draws import draw_units
from flds.mean_ode.problem import MeanFieldProblem
from flds.training.divergence import Divergence
from flds.training.options import RecordSteps
from solvers import checks
from solvers.ensemble.random import replicate_seed
from validation.blocks import ACTIVATIONS
from validation.networks import threads_for
from validation.rules import torch_rule

Array = NDArray[np.float64]
Tensors = dict[str, torch.Tensor]
Field = Callable[[torch.Tensor, Tensors], torch.Tensor]

# Layers of so many units, counted for every row of every run, are worth more than one thread.
_MANY_UNITS = 2**18


@dataclass(frozen=True)
class UnitRuns:
    """Trained networks of several seeds.

    Attributes
    ----------
    steps : (records,) int
        Recorded steps.
    outputs : (seeds, records, samples[, tokens][, outputs])
        f before update k, without the last axis where there is one output; NaN from where training diverged.
    loss : (seeds, records)
        Training loss.
    states : (seeds, L + 1, samples[, tokens], D)
        h_ℓ after the last update.
    initial, units : list of dict
        Z_0 and Z_K for each block, arrays (seeds, L, *shape, M) by name.
    history : (seeds, records, …) array
        The units that `track` picked at the recorded steps, or empty.
    """

    steps: NDArray[np.int64]
    outputs: Array
    loss: Array
    states: Array
    initial: list[Parameters]
    units: list[Parameters]
    history: Array

    def travel(self, name: str) -> Array:
        """Return the root mean square displacement of the entries of the parameter `name`, (seeds,)."""
        moved = [z[name] - z0[name] for z, z0 in zip(self.units, self.initial, strict=True) if name in z]
        return np.asarray(np.sqrt(np.mean([np.mean(d**2, axis=tuple(range(1, d.ndim))) for d in moved], axis=0)))


def train_units(
    problem: MeanFieldProblem,
    *,
    hidden_width: int,
    depth: int,
    seeds: int = 1,
    seed: int = 0,
    record_every: int | None = None,
    initial: list[Parameters] | None = None,
    track: Callable[[list[Parameters]], Array] | None = None,
) -> UnitRuns:
    """Train ResNets h_ℓ = h_{ℓ-1} + α/(LM) Σ_j φ(h_{ℓ-1}, z^{jℓ}) by the rule of the problem, in float64.

    Parameters
    ----------
    problem : MeanFieldProblem
        With built-in activations and rules, and blocks that are built in or have a method `torch_field`.
    hidden_width, depth : int
        M and L.
    seeds, seed : int
        Number of networks, and the seed of the first.
    record_every : int, optional
        Steps between records; by default first and last only.
    initial : list of dict, optional
        Initial units for each block, arrays (seeds, L, *shape, M) by name; by default independent draws.
    track : callable, optional
        Called with the units at the recorded steps; the (seeds, …) array that it returns is kept.

    Returns
    -------
    UnitRuns

    Raises
    ------
    ValueError, TypeError
        If an argument is not valid, or a block or rule has no counterpart here.

    References
    ----------
    Paper H, eqs. (1), (5), (8), (25).
    """
    width, depth = checks.positive_integer("hidden_width", hidden_width), checks.positive_integer("depth", depth)
    seeds, seed = checks.positive_integer("seeds", seeds), checks.seed_number("seed", seed)
    if record_every is not None:
        checks.positive_integer("record_every", record_every)
    fields = [unit_field(block) for block in problem.blocks]
    if initial is None:
        drawn = [draw_units(problem, depth, width, replicate_seed(seed, index), "iid") for index in range(seeds)]
        initial = [{name: np.stack([one[i][name] for one in drawn]) for name in z} for i, z in enumerate(drawn[0])]
    due = RecordSteps(problem.steps, record_every or max(1, problem.steps))
    runs = len(next(iter(initial[0].values())))
    with threads_for(runs * problem.x.size // problem.dimension * width < _MANY_UNITS):
        return _train(problem, fields, initial, depth, width, due, track)


def _train(
    problem: MeanFieldProblem,
    fields: list[Field],
    initial: list[Parameters],
    depth: int,
    width: int,
    due: RecordSteps,
    track: Callable[[list[Parameters]], Array] | None,
) -> UnitRuns:
    """Forward, loss, record, backward, update; for every step."""
    units = [{name: torch.tensor(a, requires_grad=True) for name, a in z.items()} for z in initial]
    runs = len(next(iter(initial[0].values())))
    x = torch.tensor(problem.x).expand(runs, *problem.x.shape)
    tensors = [(name, a) for z in units for name, a in z.items()]
    rules = [_rule(problem, a) for _, a in tensors]
    outputs, losses, history = [], [], []
    lost, divergence = np.zeros(runs, bool), Divergence(problem.divergence_factor)
    for step in range(problem.steps + 1):
        states = _forward(problem, fields, units, x, depth, width)
        f = _read(problem, states[-1])
        loss = _loss(problem, f, problem.y)
        lost |= divergence.at(loss.detach().numpy(), (f.detach() ** 2).flatten(1).mean(dim=1).numpy())
        if step in due:
            outputs.append(problem.squeezed(f.detach().numpy()).copy())
            losses.append(loss.detach().numpy().copy())
            outputs[-1][lost] = losses[-1][lost] = np.nan
            if track is not None:
                history.append(track([{n: a.detach().numpy() for n, a in z.items()} for z in units]))
        if step == problem.steps:
            break
        if not problem.batches.full:
            batch = problem.batches.table[step]
            states = _forward(problem, fields, units, x[:, batch], depth, width)
            loss = _loss(problem, _read(problem, states[-1]), problem.y[batch])
        gradients = torch.autograd.grad(loss.sum(), [a for _, a in tensors])
        for (name, a), rule, gradient in zip(tensors, rules, gradients, strict=True):
            rate = problem.rate(name, step)
            a.grad = depth * width / problem.alpha**2 * gradient  # H-(8): what rates multiply
            rule.param_groups[0]["lr"] = rate
            with torch.no_grad():
                a.mul_(1.0 - rate * problem.decays[name])
            rule.step()
    return UnitRuns(
        steps=np.array(sorted(due)),
        outputs=np.stack(outputs, axis=1),
        loss=np.stack(losses, axis=1),
        states=torch.stack(states, dim=1).detach().numpy(),
        initial=initial,
        units=[{name: a.detach().numpy() for name, a in z.items()} for z in units],
        history=np.stack(history, axis=1) if history else np.empty(0),
    )


def unit_field(block: Block) -> Field:
    """Return Σ_j φ(h, z_j) in torch: h (runs, samples[, tokens], D), z (runs, *shape, units).

    A block of one's own supplies it as a method `torch_field`; raises ValueError where there is none.
    """
    own = getattr(block, "torch_field", None)
    if own is not None:
        return own
    if type(block) not in _FIELDS:
        known = ", ".join(kind.__name__ for kind in _FIELDS)
        raise ValueError(
            f"block must be one of {known}, or have a method torch_field, to be trained by torch; got {block.name!r}"
        )
    return lambda h, z: _FIELDS[type(block)](block, h, z)


def _rule(problem: MeanFieldProblem, parameter: torch.Tensor) -> torch.optim.Optimizer:
    found = torch_rule(problem.rule, parameter)
    if found is None:
        raise ValueError(f"networks of units are trained by SGD and Adam, got {problem.rule!r}")
    return found


def _forward(
    problem: MeanFieldProblem,
    fields: list[Field],
    units: list[Tensors],
    x: torch.Tensor,
    depth: int,
    width: int,
) -> list[torch.Tensor]:
    layers = [{name: a.unbind(1) for name, a in z.items()} for z in units]
    states = [x]
    for layer in range(depth):
        h = states[-1]
        branch = sum(
            field(h, {name: parts[layer] for name, parts in z.items()}) for field, z in zip(fields, layers, strict=True)
        )
        states.append(h + problem.alpha / (depth * width) * branch)
    return states


def _read(problem: MeanFieldProblem, h: torch.Tensor) -> torch.Tensor:
    return h if problem.unembedding is None else h @ torch.tensor(np.asarray(problem.unembedding))


def _loss(problem: MeanFieldProblem, f: torch.Tensor, targets: NDArray[Any]) -> torch.Tensor:
    """Mean loss of every run, (runs,)."""
    y = torch.tensor(targets)
    if problem.loss == "mean_squared":
        return ((f - y) ** 2).flatten(1).mean(dim=1) / 2
    if problem.loss == "logistic":
        return torch.nn.functional.softplus(-f * y).flatten(1).mean(dim=1)
    y = y.expand(f.shape[:-1])
    losses = torch.nn.functional.cross_entropy(f.flatten(0, -2), y.flatten(), reduction="none")
    return losses.reshape(len(f), -1).mean(dim=1)


def _rows(h: torch.Tensor) -> torch.Tensor:
    return h.flatten(1, -2)


def _perceptron(block: TwoLayerPerceptron, h: torch.Tensor, z: Tensors) -> torch.Tensor:
    rows = _rows(h) / h.shape[-1]
    return (ACTIVATIONS[block.rho.name](rows @ z["u"]) @ z["v"].mT).reshape(h.shape)


def _gated(block: GatedLinearUnit, h: torch.Tensor, z: Tensors) -> torch.Tensor:
    rows = _rows(h) / h.shape[-1]
    return ((ACTIVATIONS[block.rho.name](rows @ z["w"]) * (rows @ z["u"])) @ z["v"].mT).reshape(h.shape)


def _matrix_after(block: MatrixAfterActivation, h: torch.Tensor, z: Tensors) -> torch.Tensor:
    return torch.einsum("rdej,rnd->rne", z["W"], ACTIVATIONS[block.rho.name](_rows(h))).reshape(h.shape)


def _matrix_before(block: MatrixBeforeActivation, h: torch.Tensor, z: Tensors) -> torch.Tensor:
    return ACTIVATIONS[block.rho.name](torch.einsum("rdej,rnd->rnej", z["W"], _rows(h))).sum(-1).reshape(h.shape)


def _attention(block: Attention, h: torch.Tensor, z: Tensors) -> torch.Tensor:
    q, k, v = (torch.einsum("rdcj,rstd->rstcj", z[name], h) for name in ("W_Q", "W_K", "W_V"))
    scores = torch.einsum("rstcj,rsicj->rstij", q, k) / math.sqrt(block.key_dimension)
    if block.causal:
        count = h.shape[2]
        hidden = torch.triu(torch.ones(count, count, dtype=torch.bool), 1)
        scores = scores.masked_fill(hidden[:, :, None], -torch.inf)
    mixed = torch.einsum("rstij,rsicj->rstcj", torch.softmax(scores, dim=3), v)
    return torch.einsum("rstcj,rcdj->rstd", mixed, z["W_O"])


_FIELDS: dict[type[Block], Callable[..., torch.Tensor]] = {
    TwoLayerPerceptron: _perceptron,
    GatedLinearUnit: _gated,
    MatrixAfterActivation: _matrix_after,
    MatrixBeforeActivation: _matrix_before,
    Attention: _attention,
}
