"""Forward pass, backward pass and update of units on depth nodes, for the Mean ODE and for the tangent ODE."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from flds.mean_ode.blocks import Array, Block, Parameters, move
from flds.mean_ode.depth import integrate
from flds.mean_ode.problem import MeanFieldProblem
from solvers.ensemble.particles import partition
from solvers.ensemble.threads import Blocks

# Numbers that the temporaries of a stretch of units may hold, so that they stay in cache.
_CACHED = 160_000
# Units in the shortest stretch, however many samples there are.
SHORTEST = 16
# Partial sums that are held at once.
MOST_GROUPS = 16


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
        total = [np.mean(self._squares(z, z0, parameter), axis=tuple(range(1, z[parameter].ndim)))
                 for z, z0 in zip(self.moved, self.initial, strict=True) if parameter in z]  # fmt: skip
        return np.asarray(np.sqrt(np.mean(total, axis=0)))

    def _total(self, work: Callable[..., Array], node: int, h: Array, *rest: Array) -> Array:
        """Average the work on stretches of units over all units, and add the blocks' shares."""
        total = np.zeros_like(h)
        for block, z0, z in zip(self.problem.blocks, self.initial, self.moved, strict=True):
            flat = [a.reshape(-1, a.shape[-1]) if block.tokenwise else a for a in (h, *rest)]
            groups = self._groups(block, z, h)
            sums = np.zeros((len(groups), *flat[0].shape), self.dtype)

            def one(item: tuple[int, list[slice]], block: Block = block, z0: Parameters = z0, z: Parameters = z,
                    flat: list[Array] = flat, sums: Array = sums) -> None:  # fmt: skip
                index, stretches = item
                for units in stretches:
                    sums[index] += work(block, *(_part(p, node, units) for p in (z0, z)), *flat)

            self.blocks.each(one, list(enumerate(groups)))
            total += self.blocks.total(sums).reshape(h.shape)
        return total / self.units

    def _groups(self, block: Block, z: Parameters, h: Array) -> list[list[slice]]:
        """Cut the units into stretches whose temporaries stay in cache, and these into few groups for the threads."""
        numbers = sum(math.prod(a.shape[1:-1]) for a in z.values()) // self.problem.dimension
        size = max(SHORTEST, _CACHED // max(1, temporaries(block, h.shape) * numbers))
        count = 2 * -(-self.units // (2 * size))  # even and of equal size, for the threads to share
        stretches = partition(self.units, -(-self.units // count))
        return [stretches[part] for part in partition(len(stretches), -(-len(stretches) // MOST_GROUPS))]

    @abstractmethod
    def _start(self, initial: Array) -> Array:
        """What moves: Z itself, or ζ."""

    @abstractmethod
    def _value(self, block: Block, z0: Parameters, z: Parameters, h: Array) -> Array:
        """Sum over units of the field of h."""

    @abstractmethod
    def _pull(self, block: Block, z0: Parameters, z: Parameters, h: Array, b: Array) -> Array:
        """Sum over units of the field of b; moves the units in place."""

    @abstractmethod
    def _squares(self, z: Parameters, z0: Parameters, name: str) -> Array:
        """Squares of how far the units have moved, in a new array."""

    def _steps(self, h: Array, factor: float) -> dict[str, float]:
        """Return how far gradients of sums over rows of h move each parameter: rates are those of mean losses."""
        return {name: rate * factor / (h.size // h.shape[-1]) for name, rate in self.problem.rates.items()}


class MeanDynamics(Dynamics):
    """The Neural Mean ODE: h' = α E φ(h, Z), H-(10) to (14)."""

    def _start(self, initial: Array) -> Array:
        return initial.copy()

    def _value(self, block: Block, z0: Parameters, z: Parameters, h: Array) -> Array:
        return self.problem.alpha * block.value(h, z)

    def _pull(self, block: Block, z0: Parameters, z: Parameters, h: Array, b: Array) -> Array:
        return self.problem.alpha * block.descend(h, b, z, self._steps(h, 1 / self.problem.alpha))

    def _squares(self, z: Parameters, z0: Parameters, name: str) -> Array:
        moved = z[name] - z0[name]
        return np.multiply(moved, moved, out=moved)


class TangentDynamics(Dynamics):
    """The tangent ODE: h' = E D2φ(h, Z_0) ζ, the limit α → ∞, H-(18) to (21)."""

    def _start(self, initial: Array) -> Array:
        return np.zeros_like(initial)

    def _value(self, block: Block, z0: Parameters, z: Parameters, h: Array) -> Array:
        return block.tangent(h, z0, z)

    def _pull(self, block: Block, z0: Parameters, z: Parameters, h: Array, b: Array) -> Array:
        back, gradient = block.pull_tangent(h, b, z0, z)
        move(z, gradient, self._steps(h, 1.0))
        return back

    def _squares(self, z: Parameters, z0: Parameters, name: str) -> Array:
        return np.multiply(z[name], z[name])


def temporaries(block: Block, shape: tuple[int, ...]) -> int:
    """Numbers that a block holds for one unit and one number of its parameters, at states of this shape."""
    rows = math.prod(shape[:-1])
    return rows if block.tokenwise else rows * shape[1]  # a weight for every pair of tokens


def _part(parameters: Parameters, node: int, units: slice) -> Parameters:
    return {name: values[node][..., units] for name, values in parameters.items()}
