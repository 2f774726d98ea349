"""How units move: the gradient that a rule sees, its learning rates, and what it remembers of every unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from flds.mean_ode.blocks import Array, Parameters
from flds.mean_ode.problem import MeanFieldProblem
from flds.training.parameters import REMEMBERED, advance


class Stretch(NamedTuple):
    """Some units at a depth node, of the block of this index."""

    block: int
    node: int
    units: slice


class Update:
    """Moves units by the rule of their problem, a stretch at a time; several threads may do so for different stretches.

    Parameters
    ----------
    problem : MeanFieldProblem
        Its rule sees the gradient that learning rates multiply: `factor`/`rows` times the sum over rows of D2φᵀb. At a
        rate of 0 a parameter stays, whatever its gradient.
    units : list of dict
        For each block, the arrays (nodes, *shape, units) by name that are moved in place.
    factor : float
        1/α for the Mean ODE, H-(14), and 1 for the tangent ODE, H-(20).
    rows : int
        Samples (times tokens) of which the loss is the mean.

    Attributes
    ----------
    plain : bool
        Whether an update is no more than minus `steps` times the sum over rows of D2φᵀb.
    """

    def __init__(self, problem: MeanFieldProblem, units: list[Parameters], factor: float, rows: int) -> None:
        self.problem, self.rule, self.units, self.scale = problem, problem.rule, units, factor / rows
        self.plain = self.rule.plain and not any(problem.decays.values())
        self.remembered: list[dict[str, dict[str, Array]]] = [
            {name: self._blank(values) for name, values in z.items()} for z in units
        ]
        self.rates: dict[str, float] = {}
        self.steps: dict[str, float] = {}
        self._numbers: dict[tuple[int, str, str], Array] = {}  # what numbers become with the next step

    def begin(self, step: int) -> None:
        """Make ready for update `step`."""
        self.settle()
        self.rates = {name: self.problem.rate(name, step) for name in self.problem.rates}
        # rate and scale in one number: plain gradient descent needs no scaled copy of the gradient
        self.steps = {name: rate * self.scale for name, rate in self.rates.items()}

    def settle(self) -> None:
        """Let the numbers that a rule remembers take the values that they had after the last update."""
        for (block, name, key), number in self._numbers.items():
            self.remembered[block][name][key] = number
        self._numbers.clear()

    def __call__(self, stretch: Stretch, gradient: Parameters) -> None:
        """Move a stretch of units by one step, from sums over rows of D2φᵀb, arrays (*shape, units) by name."""
        for name, change in gradient.items():
            if self.rule.plain and not self.rates[name]:
                continue
            z = self.units[stretch.block][name][stretch.node][..., stretch.units]
            if self.problem.decays[name]:
                z *= 1.0 - self.rates[name] * self.problem.decays[name]
            if self.rule.plain:
                z += self.rule.step(change, {}, self.steps[name])[0]
                continue
            memory = self.remembered[stretch.block][name]
            state = {
                key: array[stretch.node][..., stretch.units] if np.ndim(array) else array[()]
                for key, array in memory.items()
            }
            moving = z if self.rates[name] else None  # a rate of 0 holds the units, while moments go on
            numbers = advance(self.rule, moving, self.scale * change, state, self.rates[name])
            for key, number in numbers.items():
                self._numbers[stretch.block, name, key] = number

    def state(self) -> dict[str, Array]:
        """Return what the rule remembers, by names for a state: own memory, not copies."""
        self.settle()
        return {
            f"{REMEMBERED}{block}_{name}_{key}": array
            for block, z in enumerate(self.remembered)
            for name, memory in z.items()
            for key, array in memory.items()
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over what `state` returned, from all that a state has."""
        for block, z in enumerate(self.remembered):
            for name, memory in z.items():
                for key in memory:
                    memory[key] = np.array(state[f"{REMEMBERED}{block}_{name}_{key}"])

    def _blank(self, values: Array) -> dict[str, Array]:
        """Return what is remembered before the first step of a parameter, (nodes, *shape, units) or numbers."""
        blank: dict[str, Array] = {}
        for name, first in self.rule.init(np.zeros((*values.shape[1:-1], 1), values.dtype)).items():
            whole = np.empty(values.shape, np.asarray(first).dtype)
            blank[name] = np.array(first)
            if np.ndim(first):
                whole[...] = first
                blank[name] = whole
        return blank
