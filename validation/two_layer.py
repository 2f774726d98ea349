"""How much one step of SGD moves features in branches of two layers, against depth: limits and dense networks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

import flds
from flds.training.method import decide
from flds.training.network import Network
from solvers.ensemble.random import Address, Stream

Array = NDArray[np.float64]

# Of the step, and a target that moves features little, so that squares of changes add up.
RATE, TARGET = 0.15, 0.2
# What branches are multiplied by, and whether the inner rate is multiplied by √L.
SCALINGS = {"s = √τ": (0.5, False), "s = √τ, inner rate × √L": (0.5, True), "s = τ, rates × L": (1.0, False)}


def movement_problem(scaling: str, depth: int) -> flds.TrainingProblem:
    """Return one sample with |x|²/d = 1 and target 0.2, tanh, T = 1, and a step of rate 0.15."""
    exponent, larger = SCALINGS[scaling]
    rates = dict.fromkeys(("input", "inner", "outer", "readout"), RATE)
    rates["inner"] *= math.sqrt(depth) if larger else 1.0
    return flds.TrainingProblem(
        [[1.0]], [TARGET], steps=1, learning_rate=rates, residual="two_layer", branch_exponent=exponent
    )


def limit_movement(problem: flds.TrainingProblem, width: int, depth: int, weights: str, seed: int) -> float:
    """Return the root mean square change of h_L in the first step, in a network of this width, exactly in law.

    Parameters
    ----------
    problem : TrainingProblem
        Of one step.
    width, depth : int
        n and L.
    weights : str
        "tied" or "independent".
    seed : int

    References
    ----------
    Yao, Wu and Gao, arXiv 2512.21075, for the claim that the inner layer needs a rate larger by √L.
    """
    options: Any = {"backward_weights": weights, "operator": "lazy", "threads": 1}
    network = Network(problem, decide(problem, width, depth, "law", options).settings, seed)
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
        return math.sqrt(float(network.ensemble.mean_squares(change)[0]))


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
    loss = 0.5 * ((network.read(before) - y) ** 2).sum()
    torch.autograd.backward(loss)
    rules.step(0)
    with torch.no_grad():
        return math.sqrt(float(((network.states(x)[-1] - before) ** 2).mean()))
