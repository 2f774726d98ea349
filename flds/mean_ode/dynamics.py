"""Forward pass, backward pass and update of units on depth nodes, for the Mean ODE and for the tangent ODE."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from flds.mean_ode.blocks import Array, Block, Parameters
from flds.mean_ode.depth import integrate
from flds.mean_ode.problem import MeanFieldProblem
from solvers.blocks import Blocks, partition

# Numbers that the temporaries of a stretch of units may hold, so that they stay in cache.
_CACHED = 160_000
# Units in the shortest stretch, however many samples there are.
SHORTEST = 16
# Partial sums that are held at once.
MOST_GROUPS = 16
# Bytes that blocks may keep from the forward pass.
MOST_KEPT = 2**29


class Dynamics(ABC):
    """Units of every node, their mean field at states h, and the gradient step that moves them.

    Parameters
    ----------
    problem : MeanFieldProblem
        Supplies blocks, α, rates and the loss.
    initial : list of dict
        Z_0 for each block, arrays (nodes, *shape, units) by name.
    threads : int
        Number of threads; results do not depend on it.
    """

    def __init__(self, problem: MeanFieldProblem, initial: list[Parameters], threads: int = 1) -> None:
        self.problem, self.initial = problem, initial
        some = next(iter(initial[0].values()))
        self.nodes, self.units = len(some), some.shape[-1]
        self.dtype = some.dtype
        self.blocks = Blocks(self.units, threads)
        self.moved = [{name: self._start(values) for name, values in z.items()} for z in initial]
        self.kept: dict[tuple[int, ...], Any] = {}  # what blocks keep from the forward pass for the backward pass
        self.keeping = False

    @property
    def depth(self) -> int:
        """Number of steps in depth."""
        return self.nodes - 1

    def forward(self, inputs: Array, states: list[Array] | None = None) -> Array:
        """Return h(1) of inputs, H-(10) or H-(18); the states at the nodes are appended to `states`."""

        def field(node: int, h: Array) -> Array:
            if states is not None:
                states.append(h)
            return self._total(self._value, node, h)

        self.keeping = states is not None and kept_bytes(self.problem, self.nodes, self.units) <= MOST_KEPT
        return integrate(inputs, field, self.depth)

    def backward(self, states: list[Array], covector: Array) -> list[Array]:
        """Return b at the nodes, H-(12) or H-(19), and move the units by one gradient step, H-(14) or H-(20)."""
        covectors: list[Array] = []

        def field(step: int, b: Array) -> Array:
            node = self.depth - step
            covectors.append(b)
            return self._total(self._pull, node, states[node], b)

        integrate(covector, field, self.depth)
        return covectors[::-1]

    def travel(self, parameter: str) -> Array:
        """Return the root mean square over units of ‖Z(s) − Z_0‖/√p at each node, (nodes,)."""
        total = [np.mean(self._displacement(z, z0, parameter) ** 2, axis=tuple(range(1, z[parameter].ndim)))
                 for z, z0 in zip(self.moved, self.initial, strict=True) if parameter in z]  # fmt: skip
        return np.asarray(np.sqrt(np.mean(total, axis=0)))

    def _total(self, work: Callable[..., Array], node: int, h: Array, *rest: Array) -> Array:
        """Average the work on stretches of units over all units, and add the blocks' shares."""
        total = np.zeros_like(h)
        for number, (block, z0, z) in enumerate(zip(self.problem.blocks, self.initial, self.moved, strict=True)):
            flat = [a.reshape(-1, a.shape[-1]) if block.tokenwise else a for a in (h, *rest)]
            groups = self._groups(block, z, h)
            sums = np.zeros((len(groups), *flat[0].shape), self.dtype)

            def one(item: tuple[int, list[slice]], number: int = number, block: Block = block, z0: Parameters = z0,
                    z: Parameters = z, flat: list[Array] = flat, sums: Array = sums) -> None:  # fmt: skip
                index, stretches = item
                for units in stretches:
                    key = node, number, units.start
                    sums[index] += work(block, key, *(_part(p, node, units) for p in (z0, z)), *flat)

            self.blocks.each(one, list(enumerate(groups)))  # type: ignore[arg-type]
            total += self.blocks.total(sums).reshape(h.shape)
        return total / self.units

    def _groups(self, block: Block, z: Parameters, h: Array) -> list[list[slice]]:
        """Cut the units into stretches whose temporaries stay in cache, and these into few groups for the threads."""
        numbers = sum(math.prod(a.shape[1:-1]) for a in z.values()) // self.problem.dimension
        size = max(SHORTEST, min(_CACHED // max(1, temporaries(block, h.shape) * numbers), -(-self.units // 2)))
        stretches = partition(self.units, min(self.units, size))
        return [stretches[part] for part in partition(len(stretches), -(-len(stretches) // MOST_GROUPS))]

    @abstractmethod
    def _start(self, initial: Array) -> Array:
        """What moves: Z itself, or ζ."""

    @abstractmethod
    def _value(self, block: Block, key: tuple[int, ...], z0: Parameters, z: Parameters, h: Array) -> Array:
        """Sum over units of the field of h."""

    @abstractmethod
    def _pull(self, block: Block, key: tuple[int, ...], z0: Parameters, z: Parameters, h: Array, b: Array) -> Array:
        """Sum over units of the field of b; moves the units in place."""

    @abstractmethod
    def _displacement(self, z: Parameters, z0: Parameters, name: str) -> Array:
        """How far the units have moved."""

    def _step(self, z: Parameters, gradient: Parameters, factor: float, rows: int) -> None:
        for name, change in gradient.items():
            rate = self.problem.rates[name]
            if rate:
                step = rate * factor / rows
                z[name] -= np.multiply(change, step, out=change) if change.flags.writeable else step * change


class MeanDynamics(Dynamics):
    """The Neural Mean ODE: h' = α E φ(h, Z), H-(10) to (14)."""

    def _start(self, initial: Array) -> Array:
        return initial.copy()

    def _value(self, block: Block, key: tuple[int, ...], z0: Parameters, z: Parameters, h: Array) -> Array:
        if not self.keeping:
            return self.problem.alpha * block.value(h, z)
        value, self.kept[key] = block.value_kept(h, z, self.kept.get(key))
        return self.problem.alpha * value

    def _pull(self, block: Block, key: tuple[int, ...], z0: Parameters, z: Parameters, h: Array, b: Array) -> Array:
        kept = self.kept.get(key)
        back, gradient = block.pull(h, b, z) if kept is None else block.pull(h, b, z, kept)  # type: ignore[call-arg]
        self._step(z, gradient, 1 / self.problem.alpha, h.size // h.shape[-1])
        return self.problem.alpha * back

    def _displacement(self, z: Parameters, z0: Parameters, name: str) -> Array:
        return z[name] - z0[name]


class TangentDynamics(Dynamics):
    """The tangent ODE: h' = E D2φ(h, Z_0) ζ, the limit α → ∞, H-(18) to (21)."""

    def _start(self, initial: Array) -> Array:
        return np.zeros_like(initial)

    def _value(self, block: Block, key: tuple[int, ...], z0: Parameters, z: Parameters, h: Array) -> Array:
        return block.tangent(h, z0, z)

    def _pull(self, block: Block, key: tuple[int, ...], z0: Parameters, z: Parameters, h: Array, b: Array) -> Array:
        back, gradient = block.pull_tangent(h, b, z0, z)
        self._step(z, gradient, 1.0, h.size // h.shape[-1])
        return back

    def _displacement(self, z: Parameters, z0: Parameters, name: str) -> Array:
        return z[name]


def temporaries(block: Block, shape: tuple[int, ...]) -> int:
    """Numbers that a block holds for one unit and one number of its parameters, at states of this shape."""
    rows = math.prod(shape[:-1])
    return rows if block.tokenwise else rows * shape[1]  # a weight for every pair of tokens


def kept_bytes(problem: MeanFieldProblem, nodes: int, units: int) -> float:
    """What perceptrons keep from a forward pass: ρ and ρ' of every row, unit and node."""
    return 16.0 * (problem.x.size / problem.dimension) * nodes * units


def _part(parameters: Parameters, node: int, units: slice) -> Parameters:
    return {name: values[node][..., units] for name, values in parameters.items()}
