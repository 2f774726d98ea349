"""What is trained, one object each: how it moves by its rule, and what the rule remembers of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flds.training.groups import Group
from flds.training.optimizers import Gradient, Optimizer
from solvers.ensemble.particles import Array, Particles
from solvers.matrices.operator import WeightOperator

# What names of arrays that rules remember begin with, in a state.
REMEMBERED = "remembered_"


class Parameter(ABC):
    """Vectors, or a weight matrix, with the rule of its group.

    Attributes
    ----------
    name : str
        Of it in a state, and of no other.
    group : Group
        Its rule, learning rates and weight decay.
    remembered : dict
        What the rule remembers, arrays by name.
    on_host : bool
        Whether a move is long work of one thread, while others move other parameters.
    """

    name: str
    group: Group
    remembered: dict[str, Any]
    on_host: bool = False

    def move(self, gradient: Gradient, step: int) -> None:
        """Make update `step` of the network: decay, and then the step of the rule."""
        rate, decay = float(self.group.rates[step]), self.group.weight_decay
        if decay:
            self.shrink(1.0 - rate * decay)
        if self.group.optimizer.plain:
            self.descend(gradient * -rate)
        else:
            self.follow(gradient, rate)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what the rule remembers, by names for a state: own memory, not copies."""
        return {f"{REMEMBERED}{self.name}_{name}": array for name, array in self.remembered.items()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `state` returned, from all that a state has."""
        begin = f"{REMEMBERED}{self.name}_"
        self.remembered = {
            name.removeprefix(begin): self.kept(array) for name, array in state.items() if name.startswith(begin)
        }

    def kept(self, array: NDArray[Any]) -> Any:
        """Return an array of a state as memory of one's own."""
        return np.array(array)

    @abstractmethod
    def squares(self, gradient: Gradient) -> float:
        """Return n times the sum of squares of the gradient, which is free of width."""

    @abstractmethod
    def shrink(self, factor: float) -> None:
        """Multiply by a factor."""

    @abstractmethod
    def descend(self, step: Gradient) -> None:
        """Add a step that is a sum of products."""

    @abstractmethod
    def follow(self, gradient: Gradient, rate: float) -> None:
        """Add the step of the rule, which sees a whole array, and remember for it what it wants remembered."""


class Vectors(Parameter):
    """Rows of particles, such as U and v, (rows, N); gradients are n times those of their entries.

    Parameters
    ----------
    name : str
        In a state.
    group : Group
        Its rule.
    ensemble : Particles
        The particles.
    values : (rows, N) array
        Moved in place.
    scale, inside : float
        As for `Matrix`; 1 for vectors outside of branches.
    share : float
        N/n: of a mean over its N particles in a sum over them, over n.
    """

    def __init__(
        self,
        name: str,
        group: Group,
        ensemble: Particles,
        values: Array,
        scale: float = 1.0,
        inside: float = 1.0,
        share: float = 1.0,
    ) -> None:
        self.name, self.group, self.ensemble, self.values = name, group, ensemble, values
        self.scale, self.inside, self.share = scale, inside, share
        self.remembered = self._blank()

    def squares(self, gradient: Gradient) -> float:
        return self.share * self.scale**2 * gradient.squares(lambda right: self.ensemble.inner(right, right))

    def shrink(self, factor: float) -> None:
        self.ensemble.scale(self.values, factor)

    def descend(self, step: Gradient) -> None:
        step = replace(step, multiplier=step.multiplier * self.inside)
        self.ensemble.combine(self.values, [(step.coefficients.T, step.right)], add=True)

    def follow(self, gradient: Gradient, rate: float) -> None:
        whole = self.ensemble.allocate(len(self.values), self.values.dtype)
        self.ensemble.combine(whole, [(gradient.coefficients.T, gradient.right)])
        spread = [name for name in self.remembered if np.ndim(self.remembered[name])]
        numbers = {name: value[()] for name, value in self.remembered.items() if name not in spread}
        after: dict[str, Any] = {}

        def work(values: Array, seen: Array, *arrays: Array) -> None:
            state = numbers | dict(zip(spread, arrays, strict=True))
            moved = advance(self.group.optimizer, values, seen, state, rate, self.inside)
            after.update(moved)  # the same from each part

        self.ensemble.apply(work, self.values, whole, *(self.remembered[name] for name in spread))
        self.remembered |= after

    def kept(self, array: NDArray[Any]) -> Any:
        """Return numbers, or an array (rows, N), or (rows, 1) for all particles, as memory of one's own."""
        if not np.ndim(array):
            return np.array(array)
        out = self.ensemble.allocate(len(array), array.dtype)
        self.ensemble.put(out, array)
        return out

    def _blank(self) -> dict[str, Any]:
        """Return what is remembered before the first step."""
        first = self.group.optimizer.init(np.zeros((len(self.values), 1), self.ensemble.precision(self.values)))
        return {name: self.kept(np.asarray(column)) for name, column in first.items()}


class Matrix(Parameter):
    """A weight matrix, whose rule sees coordinates of the gradient on its bases, as they are by now.

    Parameters
    ----------
    name : str
        In a state.
    group : Group
        Its rule.
    operator : WeightOperator
        𝒲.
    scale : float
        s = (T/L)^e, which a branch's image carries; gradients are over s, so that by A is s times what is seen.
    inside : float
        What a branch multiplies steps by: (T/L)^(1−e).
    width : int
        n.
    dtype : numpy dtype
        Of what its rule sees and remembers.
    """

    def __init__(
        self,
        name: str,
        group: Group,
        operator: WeightOperator,
        scale: float,
        inside: float,
        width: int,
        dtype: np.dtype,
    ) -> None:
        self.name, self.group, self.operator, self.width = name, group, operator, width
        self.scale, self.inside, self.dtype = scale, inside, dtype
        self.remembered = {}
        self.on_host = operator.on_host and not group.optimizer.plain

    def squares(self, gradient: Gradient) -> float:
        return self.scale**2 * gradient.squares(lambda right: np.asarray(right @ right.T, np.float64))

    def shrink(self, factor: float) -> None:
        self.operator.shrink(factor)

    def descend(self, step: Gradient) -> None:
        step = replace(step, multiplier=step.multiplier * self.inside)
        self.operator.update(step.coefficients, step.right)

    def follow(self, gradient: Gradient, rate: float) -> None:
        rule, number = self.group.optimizer, 1.0
        if rule.entrywise:  # entries of 𝒲 are of size 1/n of those of n 𝒲, as the gradient that is seen
            number = float(self.width)
        seen = (number * (gradient.coefficients.T @ gradient.right)).astype(self.dtype, copy=False)
        state = rule.init(np.zeros(tuple(seen.shape), self.dtype))
        for name, array in self.remembered.items():
            state[name] = _in_the_corner(state[name], array)
        step, after = stepped(rule, seen, state, rate)
        self.remembered = {name: array if np.ndim(array) else np.asarray(array) for name, array in after.items()}
        self.operator.add(step * (self.inside / number))


def clipped(gradients: list[tuple[Parameter, Gradient]], largest: float | None) -> list[tuple[Parameter, Gradient]]:
    """Return the gradients, all multiplied by min(1, largest / norm); the norm is the root of all `squares`."""
    if largest is None:
        return gradients
    norm = sum(parameter.squares(gradient) for parameter, gradient in gradients) ** 0.5
    if norm <= largest:
        return gradients
    return [(parameter, gradient * (largest / norm)) for parameter, gradient in gradients]


def stepped(rule: Optimizer, gradient: Any, state: dict[str, Any], rate: float) -> tuple[Any, dict[str, Any]]:
    """Return the step of a rule and what it remembers next.

    Raises
    ------
    ValueError
        If the step has another shape than the gradient.
    RuntimeError
        If the algebra of a rule fails on a finite gradient; on another it says that training diverges.
    """
    try:
        step, after = rule.step(gradient, dict(state), rate)  # which may put other arrays into it
    except np.linalg.LinAlgError as error:
        if np.isfinite(gradient).all():
            raise RuntimeError(f"the optimizer {rule} failed: {error}") from error
        raise
    if np.shape(step) != gradient.shape:
        raise ValueError(
            f"the optimizer {rule} must give steps of the shape of the gradient, {gradient.shape}, got {np.shape(step)}"
        )
    return step, after


def advance(
    rule: Optimizer,
    values: Array | None,
    gradient: Any,
    state: dict[str, Any],
    rate: float,
    factor: float = 1.0,
) -> dict[str, NDArray[Any]]:
    """Add the step of a rule, times a factor, to `values`, if there are any, and write what it remembers into `state`.

    Returns the numbers that it remembers next. Errors are those of `stepped`.
    """
    step, after = stepped(rule, gradient, state, rate)
    if values is not None:
        values += step if factor == 1.0 else step * factor
    arrays = {name: array for name, array in state.items() if np.ndim(array)}
    # one that becomes another is read before it is written to
    moved = {
        name: after[name].copy()
        if any(np.may_share_memory(after[name], array) for array in arrays.values())
        else after[name]
        for name in arrays
    }
    for name, array in arrays.items():
        array[...] = moved[name]
    return {name: np.array(after[name]) for name in state if name not in arrays}


def _in_the_corner(array: Any, old: Any) -> Any:
    """Put an array of a smaller matrix into what stands for a larger one, a copy; numbers cannot be changed."""
    if np.shape(array) == np.shape(old):
        return old[()] if np.ndim(old) == 0 else old
    whole = np.array(array)
    whole[tuple(slice(0, size) for size in np.shape(old))] = old
    return whole
