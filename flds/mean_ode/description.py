"""What a result says of its Mean ODE problem."""

from __future__ import annotations

from typing import Any

import numpy as np

from flds.mean_ode.blocks import Array, Block
from flds.mean_ode.problem import MeanFieldProblem
from flds.results.descriptions import digest
from flds.training.description import described_object
from flds.training.optimizers import is_own
from flds.training.optimizers.trial import steps_of
from solvers.results.solution import Variable


def describe(problem: MeanFieldProblem) -> dict[str, Any]:
    """Return the problem, without its arrays, as JSON."""
    return {
        "block": [block.name for block in problem.blocks],
        "blocks": [block.settings() for block in problem.blocks],
        "types": [_type_name(block) for block in problem.blocks],
        "initial_laws": {name: getattr(law, "__qualname__", type(law).__name__) for name, law in problem.laws.items()},
        "alpha": problem.alpha,
        "loss": problem.loss,
        "deviations": problem.scales,
        "learning_rates": {
            name: rate if isinstance(rate, float) else {"sha256": digest(rate)} for name, rate in problem.rates.items()
        },
        "steps": problem.steps,
        "optimizer": described_object(problem.rule),
        "weight_decay": problem.decays,
        "batch_size": problem.batch_size,
        "batch_order": problem.batch_order if isinstance(problem.batch_order, str) else "listed",
        "batch_seed": problem.batch_seed,
        "divergence_factor": problem.divergence_factor,
        "dimension": problem.dimension,
        "check": function_values(problem),
    }


def function_values(problem: MeanFieldProblem) -> list[float]:
    """Return some numbers that the variables of the blocks give, at units that are quantiles of their initial laws."""
    places = np.array([0.2, 0.7])
    uniforms = [np.tile(places, (problem.numbers(block), 1)) for block in problem.blocks]
    h = problem.x[:1]
    found = []
    for block, z in zip(problem.blocks, problem.initial(uniforms), strict=True):
        found.append(block.value(h.reshape(-1, problem.dimension) if block.tokenwise else h, z).ravel()[:8])
    if is_own(problem.rule):
        found.append(np.array(steps_of(problem.rule)))
    return np.concatenate(found).tolist()


def _type_name(block: Block) -> str:
    """Return the name of a block's class, with its module where it is not one of ours."""
    kind = type(block)
    return kind.__name__ if kind.__module__.startswith("flds.mean_ode.") else f"{kind.__module__}.{kind.__qualname__}"


def constants(problem: MeanFieldProblem) -> dict[str, Variable]:
    """Return the arrays of the problem that it has: data, embedding and unembedding."""
    tokens = ("token",) if problem.x.ndim == 3 else ()
    variables = {
        "inputs": Variable(("sample", *tokens, "dimension"), problem.x, "states at depth 0"),
        "targets": _targets(problem, problem.y, ("sample", *tokens), "training targets"),
    }
    if problem.embedding is not None:
        variables["embedding"] = Variable(("input", "dimension"), np.asarray(problem.embedding), "embedding W_E")
        for prefix, label, given in (("", "", problem.inputs), ("test_", "test ", problem.test_inputs)):
            if given is not None:
                raw = np.asarray(given)
                dims = (f"{prefix}sample", *tokens, "input")[: raw.ndim]
                variables[f"raw_{prefix}inputs"] = Variable(dims, raw, f"{label}inputs before the embedding")
    if problem.unembedding is not None:
        variables["unembedding"] = Variable(("dimension", "output"), np.asarray(problem.unembedding), "unembedding W_U")
    if len(problem.test_x):
        variables["test_inputs"] = Variable(
            ("test_sample", *tokens, "dimension"), problem.test_x, "test states at depth 0"
        )
        variables["test_targets"] = _targets(problem, problem.test_y, ("test_sample", *tokens), "test targets")
    for name, rate in problem.rates.items():
        if not isinstance(rate, float):
            variables[f"rate_{name}"] = Variable(("update",), rate, f"learning rate of {name} in each update")
    if not isinstance(problem.batch_order, str):
        variables["batch_order"] = Variable(("update", "place"), np.asarray(problem.batch_order), "samples trained on")
    return variables


def _targets(problem: MeanFieldProblem, targets: Array, dims: tuple[str, ...], label: str) -> Variable:
    """Return targets with the axes of the outputs of a record; class indices have none for the outputs."""
    shown = targets if targets.ndim == len(dims) else problem.squeezed(targets)
    return Variable((*dims, "output")[: shown.ndim], shown, label)
