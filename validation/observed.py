"""Networks whose features, gradients and outputs are kept at chosen steps and depths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flds.training.branches import BranchLayer, BranchPull, ResidualBranch
from flds.training.method import decide
from flds.training.network import BackwardPass, ForwardPass, Network
from flds.training.options import Options
from flds.training.problem import TrainingProblem
from flds.training.train import train

Array = NDArray[np.floating]


class Observation(NamedTuple):
    """One step of one network: h and g at common depths, (points, batch, n), and f on batch and test inputs."""

    h: NDArray[np.floating]
    g: NDArray[np.floating]
    f: NDArray[np.float64]


class _ObservedBranch(ResidualBranch):
    """A branch whose layers keep the last gradients that they met, g_ℓ; methods are those of `ResidualBranch`."""

    def __init__(self, branch: ResidualBranch) -> None:
        self.branch, self.matrices, self.vectors = branch, branch.matrices, branch.vectors
        self.hidden_ratio = branch.hidden_ratio
        self.met: dict[int, Array] = {}

    def forward(self, h: Array, layer: BranchLayer) -> tuple[Array, dict[str, Array]]:
        """The forward pass."""
        return self.branch.forward(h, layer)

    def backward(self, g: Array, h: Array, tape: dict[str, Array], layer: BranchLayer) -> BranchPull:
        """Pull g back and keep it."""
        self.met[layer.number] = g
        return self.branch.backward(g, h, tape, layer)


class ObservedNetwork(Network):
    """A network that keeps h, g and f at chosen steps and evenly spaced depths; methods are those of `Network`."""

    steps: frozenset[int] = frozenset()
    points = 1  # intervals between the depths that are kept

    def initialise(self) -> None:
        """Draw the network; nothing has been seen."""
        self.branch = self.watched = _ObservedBranch(self.problem.branch)
        super().initialise()
        self.seen: dict[int, Observation] = {}

    def backward(self, forward: ForwardPass, slopes: NDArray[np.float64], step: int) -> BackwardPass:
        """The backward pass; at chosen steps, what it and the forward pass saw is kept."""
        result = super().backward(forward, slopes, step)
        if step in self.steps:
            every = len(self.layers) // self.points
            gradients = [result.bottom, *(self.watched.met[layer.number] for layer in self.layers)]  # g_0 … g_L
            h, g = (np.array(states[::every]) for states in (forward.states, gradients))
            first = self.problem.samples  # test inputs have the noise of training samples that do not exist
            tests = self.probe(self.problem.test_x, range(first, first + len(self.problem.test_x)))
            self.seen[step] = Observation(h, g, np.concatenate([forward.outputs, tests]))
        return result


def observe(
    problem: TrainingProblem, width: int, depth: int, steps: Sequence[int], points: int, seed: int, options: Options
) -> dict[int, Observation]:
    """Train a network of this width and depth, exactly in law, and return what was seen at these steps.

    It is seen at points + 1 depths. `problem`, `options` and `seed` are as for `flds.simulate_resnet`; raises its
    errors, and ValueError if training ends early.
    """
    settings = decide(problem, width, depth, "law", options).settings
    network = ObservedNetwork(problem, settings, seed)
    network.steps, network.points = frozenset(steps), points
    status = train(network).status
    if status == "interrupted":
        raise KeyboardInterrupt
    if status != "completed":
        raise ValueError(f"training of width {width} and depth {depth} ended with status {status!r}")
    return network.seen
