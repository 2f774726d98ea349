"""Forward pass and backward pass of units on depth nodes, for the Mean ODE and for the tangent ODE."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from flds.mean_ode.blocks import Array, Block, Parameters, TwoLayerPerceptron
from flds.mean_ode.depth import integrate
from flds.mean_ode.march import March
from flds.mean_ode.problem import MeanFieldProblem
from flds.mean_ode.update import Stretch, Update
from solvers.ensemble.threads import ThreadParticles
from solvers.partition import partition

Receive = Callable[[Stretch, Parameters], None]

# Numbers that the temporaries of a stretch of units may hold, so that they stay in cache.
_CACHED = 160_000
# Units in the shortest stretch, however many samples there are.
SHORTEST = 16
# Partial sums that are held at once.
MOST_GROUPS = 16


class Part(NamedTuple):
    """A stretch of units, the block they are of, and where they started and are now, arrays (*shape, units) by name."""

    stretch: Stretch
    block: Block
    initial: Parameters
    moved: Parameters


class Dynamics(ABC):
    """Units of every node, their mean field at states h, and the gradients of the loss in them.

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
        self.ensemble = ThreadParticles(self.units, threads)
        self.moved = [{name: self._start(values) for name, values in z.items()} for z in initial]
        self._cuts: dict[tuple[int, tuple[int, ...]], list[list[slice]]] = {}  # by block and shape of states

    @property
    def depth(self) -> int:
        """Number of steps in depth."""
        return self.nodes - 1

    @property
    @abstractmethod
    def factor(self) -> float:
        """What gradients D2φᵀb have to be multiplied by before the learning rate: that of H-(14) or H-(20)."""

    def forward(self, inputs: Array, states: list[Array] | None = None) -> Array:
        """Return h(1) of inputs, H-(10) or H-(18); the states at the nodes are appended to `states`."""

        def field(node: int, h: Array) -> Array:
            if states is not None:
                states.append(h)
            return self._total(self._value, node, h)

        return integrate(inputs, field, self.depth)

    def backward(self, states: list[Array], covector: Array, receive: Receive | None = None) -> list[Array]:
        """Return b at the nodes, H-(12) or H-(19); no unit moves.

        With `receive`, the gradients of units go to receive(stretch, gradient), as sums over rows of D2φᵀb: a stretch
        of units at a time, by the thread that computed them, once their part in the pass is done.
        """

        def work(part: Part, h: Array, b: Array) -> Array:
            return self._covector(part, h, b) if receive is None else self._pull(part, h, b, receive)

        return self._back(work, states, covector)

    def descend(self, states: list[Array], covector: Array, update: Update) -> list[Array]:
        """Return b at the nodes as `backward` does, and move every unit by the update, H-(14) or H-(20)."""
        return self._back(lambda part, h, b: self._step(part, h, b, update), states, covector)

    def update(self, rows: int) -> Update:
        """Return what moves these units by the rule of the problem, for gradients that are sums over so many rows."""
        return Update(self.problem, self.moved, self.factor, rows)

    def travel(self, parameter: str) -> Array:
        """Return the root mean square over units of ‖Z(s) − Z_0‖/√p at each node, (nodes,)."""
        total = [
            np.mean(self._squares(z, z0, parameter), axis=tuple(range(1, z[parameter].ndim)))
            for z, z0 in zip(self.moved, self.initial, strict=True)
            if parameter in z
        ]
        return np.asarray(np.sqrt(np.mean(total, axis=0)))

    def _back(self, work: Callable[[Part, Array, Array], Array], states: list[Array], covector: Array) -> list[Array]:
        """Integrate from the last node to the first, and return the covectors in the order of the nodes."""
        covectors: list[Array] = []

        def field(step: int, b: Array) -> Array:
            node = self.depth - step
            covectors.append(b)
            return self._total(work, node, states[node], b)

        integrate(covector, field, self.depth)
        return covectors[::-1]

    def _total(self, work: Callable[..., Array], node: int, h: Array, *rest: Array) -> Array:
        """Average the work on stretches of units over all units, and add what the blocks give."""
        total = np.zeros_like(h)
        for index, block in enumerate(self.problem.blocks):
            flat = [a.reshape(-1, a.shape[-1]) if block.tokenwise else a for a in (h, *rest)]
            groups = self._groups(index, h.shape)
            sums = np.zeros((len(groups), *flat[0].shape), self.dtype)

            def one(item: tuple[int, list[Stretch]], flat: list[Array] = flat, sums: Array = sums) -> None:
                group, stretches = item
                for stretch in stretches:
                    sums[group] += work(self._part(stretch), *flat)

            stretches = [[Stretch(index, node, units) for units in group] for group in groups]
            self.ensemble.each(one, list(enumerate(stretches)))
            total += self.ensemble.total(sums).reshape(h.shape)
        return total / self.units

    def _part(self, stretch: Stretch) -> Part:
        block, node, units = stretch
        initial, moved = (
            {name: values[node][..., units] for name, values in z[block].items()} for z in (self.initial, self.moved)
        )
        return Part(stretch, self.problem.blocks[block], initial, moved)

    def _groups(self, index: int, shape: tuple[int, ...]) -> list[list[slice]]:
        """Cut the units into stretches whose temporaries stay in cache, and these into few groups for the threads."""
        if (index, shape) not in self._cuts:
            block = self.problem.blocks[index]
            numbers = self.problem.numbers(block) // self.problem.dimension
            size = max(SHORTEST, _CACHED // max(1, temporaries(block, shape) * numbers))
            count = 2 * -(-self.units // (2 * size))  # even and of equal size, for the threads to share
            all_of_them = partition(self.units, -(-self.units // count))
            few = partition(len(all_of_them), -(-len(all_of_them) // MOST_GROUPS))
            self._cuts[index, shape] = [all_of_them[some] for some in few]
        return self._cuts[index, shape]

    @abstractmethod
    def _start(self, initial: Array) -> Array:
        """What moves: Z itself, or ζ."""

    @abstractmethod
    def _value(self, part: Part, h: Array) -> Array:
        """Sum over units of the field of h."""

    @abstractmethod
    def _covector(self, part: Part, h: Array, b: Array) -> Array:
        """Sum over units of the field of b."""

    @abstractmethod
    def _pull(self, part: Part, h: Array, b: Array, receive: Receive) -> Array:
        """Sum over units of the field of b; their gradients go to `receive`."""

    def _step(self, part: Part, h: Array, b: Array, update: Update) -> Array:
        """Sum over units of the field of b; the units move."""
        return self._pull(part, h, b, update)

    @abstractmethod
    def _squares(self, z: Parameters, z0: Parameters, name: str) -> Array:
        """Squares of how far the units have moved, in a new array."""


class MeanDynamics(Dynamics):
    """The Neural Mean ODE: h' = α E φ(h, Z), H-(10) to (14)."""

    @property
    def factor(self) -> float:
        return 1 / self.problem.alpha

    def forward(self, inputs: Array, states: list[Array] | None = None) -> Array:
        march = self._march(inputs)
        return super().forward(inputs, states) if march is None else march.forward(inputs, states)

    def backward(self, states: list[Array], covector: Array, receive: Receive | None = None) -> list[Array]:
        march = self._march(covector) if receive is None else None
        return super().backward(states, covector, receive) if march is None else march.back(states, covector)

    def descend(self, states: list[Array], covector: Array, update: Update) -> list[Array]:
        march = self._march(covector) if update.plain else None
        if march is None:
            return super().descend(states, covector, update)
        return march.back(states, covector, update.steps["u"], update.steps["v"])

    def _march(self, h: Array) -> March | None:
        """Return what goes through all nodes in one call, where there is a single block that can."""
        (block, *others), (z, *_) = self.problem.blocks, self.moved
        if others or not isinstance(block, TwoLayerPerceptron):
            return None
        kernels = block.kernels(h, z)
        return None if kernels is None else March(kernels, self.ensemble, z["u"], z["v"], self.problem.alpha)

    def _start(self, initial: Array) -> Array:
        return initial.copy()

    def _value(self, part: Part, h: Array) -> Array:
        return self.problem.alpha * part.block.value(h, part.moved)

    def _covector(self, part: Part, h: Array, b: Array) -> Array:
        return self.problem.alpha * part.block.covector(h, b, part.moved)

    def _pull(self, part: Part, h: Array, b: Array, receive: Receive) -> Array:
        back, gradient = part.block.pull(h, b, part.moved)
        receive(part.stretch, gradient)
        return self.problem.alpha * back

    def _step(self, part: Part, h: Array, b: Array, update: Update) -> Array:
        if update.plain and type(part.block).descend is not Block.descend:
            return self.problem.alpha * part.block.descend(h, b, part.moved, update.steps)
        return super()._step(part, h, b, update)

    def _squares(self, z: Parameters, z0: Parameters, name: str) -> Array:
        moved = z[name] - z0[name]
        return np.multiply(moved, moved, out=moved)


class TangentDynamics(Dynamics):
    """The tangent ODE: h' = E D2φ(h, Z_0) ζ, the limit α → ∞, H-(18) to (21)."""

    @property
    def factor(self) -> float:
        return 1.0

    def _start(self, initial: Array) -> Array:
        return np.zeros_like(initial)

    def _value(self, part: Part, h: Array) -> Array:
        return part.block.tangent(h, part.initial, part.moved)

    def _covector(self, part: Part, h: Array, b: Array) -> Array:
        return part.block.pull_tangent(h, b, part.initial, part.moved)[0]

    def _pull(self, part: Part, h: Array, b: Array, receive: Receive) -> Array:
        back, gradient = part.block.pull_tangent(h, b, part.initial, part.moved)
        receive(part.stretch, gradient)
        return back

    def _squares(self, z: Parameters, z0: Parameters, name: str) -> Array:
        return np.multiply(z[name], z[name])


def temporaries(block: Block, shape: tuple[int, ...]) -> int:
    """Numbers that a block holds for one unit and one number of its parameters, at states of this shape."""
    rows = math.prod(shape[:-1])
    return rows if block.tokenwise else rows * shape[1]  # a weight for every pair of tokens
