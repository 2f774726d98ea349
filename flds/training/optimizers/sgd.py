"""Stochastic gradient descent, with or without momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flds.training.optimizers.momentum import Momentum
from flds.training.optimizers.optimizer import State


@dataclass(frozen=True)
class SGD(Momentum):
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

    @property
    def plain(self) -> bool:
        """Whether there is no momentum."""
        return type(self) is SGD and not self.momentum

    def step(self, gradient: Any, state: State, rate: float) -> tuple[Any, State]:
        seen, state = self.seen(gradient, state)
        return seen * -rate, state


# The rule of whatever is given no other.
PLAIN = SGD()
