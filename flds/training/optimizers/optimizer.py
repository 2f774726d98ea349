"""A rule for one parameter: what it sees, what it remembers, and what it adds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields, is_dataclass
from typing import Any

# What is remembered of a parameter: arrays by name.
State = dict[str, Any]


class Optimizer(ABC):
    """A rule that turns gradients into steps; rules hold no state of their own, so one serves all parameters.

    Subclass it for a rule of your own. It must give the same for the same arguments, and be a dataclass or the like, so
    that two of the same settings are one rule.

    What it sees is free of width and depth, in units in which a learning rate of order 1 moves features by order 1:

    - Of a weight matrix 𝒲 = W/√n, the gradient in the coordinates of its bases, (rows, columns), or with the dense
      operator, (n, n), over the branch scale s = (T/L)^e, e = ½, in the precision of the run. The map from coordinates
      to 𝒲 keeps Frobenius and spectral norms, singular values and products, so that a rule made of these is the same
      rule on 𝒲. Rows and columns are added as the bases grow, and are zero until then: what they add must then be
      zero. The step is multiplied by what a branch multiplies learning rates by, (T/L)^(1−e).
    - Of vectors, U and v, n times the gradient, (rows, particles). A rule sees some of the particles at a time, so it
      must treat each for itself; this is checked where a problem is made.
    - In the Mean ODE, the gradient that learning rates multiply, arrays (…, units), of some units at a time.

    Attributes
    ----------
    matrices_only : bool
        Given alone, the rule is for hidden matrices, and everything else takes SGD; for vectors it is refused.
    entrywise : bool
        Whether it treats entries of a matrix each for itself, as sign or Adam do. Such a step is not low-rank, so it
        needs the dense operator; it sees n times the gradient, and its step is divided by n.
    work : float
        Multiply–adds of a step of a square matrix over the cube of its rows, for estimates of costs.

    References
    ----------
    Paper F, eq. (4), for the gradients; Yang and Hu, "Tensor Programs IV: Feature Learning in Infinite-Width Neural
    Networks" (2021), for rates that keep features moving at any width.
    """

    matrices_only: bool = False
    entrywise: bool = False
    work: float = 0.0

    def __str__(self) -> str:
        """Return the class and the settings that are not its defaults, such as Muon(momentum=0.5)."""
        chosen: tuple[Any, ...] = fields(self) if is_dataclass(self) else ()
        given = [(one.name, getattr(self, one.name)) for one in chosen if getattr(self, one.name) != one.default]
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given)})"

    @property
    def plain(self) -> bool:
        """Whether the step is minus the rate times the gradient and nothing is remembered."""
        return False

    def init(self, parameter: Any) -> State:
        """Return what is remembered before the first step of a parameter, arrays by name.

        `parameter` is an array of zeros of the parameter's shape and dtype. Of a matrix the arrays may have any shape
        that follows from its own; as it grows, they are put into the corner of what `init` returns for the new shape.
        Of vectors and units they have the parameter's shape, or are numbers. `step` returns arrays of the same names,
        shapes and kinds of numbers.
        """
        return {}

    @abstractmethod
    def step(self, gradient: Any, state: State, rate: float) -> tuple[Any, State]:
        """Return what is added to the parameter, an array like `gradient`, and what is remembered next.

        `rate` is the learning rate of this step. Neither `gradient` nor the arrays of `state` are to be changed.
        """
