"""How units move: the gradient that a rule sees, its learning rates, and what it remembers of every unit."""

from __future__ import annotations

from typing import Any, NamedTuple

from flds.mean_ode.blocks import Parameters
from flds.training.optimizers import SGD, Optimizer


class Stretch(NamedTuple):
    """Some units at a depth node, of the block of this index."""

    block: int
    node: int
    units: slice


class Update:
    """Moves units by a rule, a stretch at a time; several threads may do so for different stretches.

    Parameters
    ----------
    rule : Optimizer
        Sees the gradient that learning rates multiply: `factor`/`rows` times the sum over rows of D2φᵀb.
    rates : dict
        Learning rate of each parameter by name; at a rate of 0 it stays, whatever its gradient.
    units : list of dict
        For each block, the arrays (nodes, *shape, units) by name that are moved in place.
    factor : float
        1/α for the Mean ODE, H-(14), and 1 for the tangent ODE, H-(20).
    rows : int
        Samples (times tokens) of which the loss is the mean.
    """

    def __init__(
        self, rule: Optimizer, rates: dict[str, float], units: list[Parameters], factor: float, rows: int
    ) -> None:
        self.rule, self.rates, self.units = rule, rates, units
        self.scale = factor / rows
        self.plain = type(rule) is SGD
        # rate and scale in one number: plain gradient descent needs no scaled copy of the gradient
        self.steps = {name: rate * factor / rows for name, rate in rates.items()}
        self._remembered: dict[tuple[int, int, int, str], Any] = {}

    def __call__(self, stretch: Stretch, gradient: Parameters) -> None:
        """Move a stretch of units by one step, from sums over rows of D2φᵀb, arrays (*shape, units) by name."""
        for name, change in gradient.items():
            if not self.rates[name]:
                continue
            z = self.units[stretch.block][name][stretch.node][..., stretch.units]
            if self.plain:
                z += self.rule.step(change, None, self.steps[name])[0]
                continue
            key = (stretch.block, stretch.node, stretch.units.start, name)
            state = self._remembered[key] if key in self._remembered else self.rule.init(z)
            step, self._remembered[key] = self.rule.step(self.scale * change, state, self.rates[name])
            z += step
