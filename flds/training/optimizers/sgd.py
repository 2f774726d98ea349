"""Stochastic gradient descent, with or without momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flds.training.optimizers.optimizer import Optimizer, State, momentum_of
from solvers import checks


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent: minus the rate times the gradient.

    Parameters
    ----------
    momentum : float
        μ, from 0 to below 1, of the heavy ball: buf ← μ buf + G, and the step is −η buf.
    nesterov : bool
        The step is −η (G + μ buf) instead.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks these rules.

    References
    ----------
    Paper F, eq. (4), without momentum; Sutskever et al., "On the importance of initialization and momentum in deep
    learning" (2013), for Nesterov's.
    """

    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        checked_momentum(self.momentum, self.nesterov)

    @property
    def plain(self) -> bool:
        """Whether there is no momentum."""
        return type(self) is SGD and not self.momentum

    def init(self, parameter: Any) -> State:
        return {"momentum": 0.0 * parameter} if self.momentum else {}

    def step(self, gradient: Any, state: State, rate: float) -> tuple[Any, State]:
        seen, state = momentum_of(gradient, state, self.momentum, self.nesterov)
        return seen * -rate, state


def checked_momentum(momentum: Any, nesterov: Any) -> None:
    """Raise ValueError or TypeError unless these are a momentum and whether it is Nesterov's."""
    value = checks.positive_number("momentum", momentum, zero=True)
    if value >= 1:
        raise ValueError(f"momentum must be below 1, or nothing is forgotten, got {value:g}")
    if checks.flag("nesterov", nesterov) and not value:
        raise ValueError("nesterov needs a momentum above 0, got 0; leave nesterov out")


# The rule of whatever is given no other.
PLAIN = SGD()
