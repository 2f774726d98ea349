"""Adam: steps over the root of a running mean of squares, entry by entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flds.training.optimizers.optimizer import Optimizer, State
from solvers import checks


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam, with the corrections of its running means; with `weight_decay` of the problem it is AdamW.

    On vectors it is exact. On hidden matrices it is not low-rank and needs ``operator="dense"``.

    Parameters
    ----------
    betas : (float, float)
        What the running means of gradients and of their squares keep in a step, each from 0 to below 1.
    epsilon : float
        Above 0; added to the root, in units of what is seen, so that it is free of width and depth.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks these rules.

    References
    ----------
    Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015).
    """

    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8

    entrywise = True

    def __post_init__(self) -> None:
        if not isinstance(self.betas, (tuple, list)) or len(self.betas) != 2:
            raise ValueError(f"betas must be a pair of numbers, got {checks.shown(self.betas)}")
        object.__setattr__(self, "betas", tuple(self.betas))
        for index, beta in enumerate(self.betas):
            if checks.positive_number(f"betas[{index}]", beta, zero=True) >= 1:
                raise ValueError(f"betas[{index}] must be below 1, or nothing is forgotten, got {beta:g}")
        checks.positive_number("epsilon", self.epsilon)

    def init(self, parameter: Any) -> State:
        return {"mean": 0.0 * parameter, "square": 0.0 * parameter, "steps": np.array(0)}

    def step(self, gradient: Any, state: State, rate: float) -> tuple[Any, State]:
        first, second = self.betas
        steps = int(state["steps"]) + 1
        mean = first * state["mean"] + (1 - first) * gradient
        square = second * state["square"] + (1 - second) * gradient**2
        size = (square / (1 - second**steps)) ** 0.5 + self.epsilon
        return -rate / (1 - first**steps) * mean / size, {"mean": mean, "square": square, "steps": np.array(steps)}
