"""What rules with momentum share."""

from __future__ import annotations

from typing import Any

from flds.training.optimizers.optimizer import Optimizer, State
from solvers import checks


class Momentum(Optimizer):
    """A rule that sees the gradient with momentum, as torch has it: buf ← μ buf + G, and G + μ buf by Nesterov.

    Attributes
    ----------
    momentum : float
        μ, from 0 to below 1.
    nesterov : bool
        Whether it sees G + μ buf, or buf.
    """

    momentum: float
    nesterov: bool

    def __post_init__(self) -> None:
        value = checks.positive_number("momentum", self.momentum, zero=True)
        if value >= 1:
            raise ValueError(f"momentum must be below 1, or nothing is forgotten, got {value:g}")
        if checks.flag("nesterov", self.nesterov) and not value:
            raise ValueError("nesterov needs a momentum above 0, got 0; leave nesterov out")

    def init(self, parameter: Any) -> State:
        return {"momentum": 0.0 * parameter} if self.momentum else {}

    def seen(self, gradient: Any, state: State) -> tuple[Any, State]:
        """Return the gradient with momentum, and what is remembered next."""
        if not self.momentum:
            return gradient, state
        velocity = self.momentum * state["momentum"] + gradient
        return (gradient + self.momentum * velocity if self.nesterov else velocity), {"momentum": velocity}
