"""Which samples each step trains on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers import checks
from solvers.memory import require_memory

# Bytes for each entry of the table of batches: the entry, and what making it takes.
TABLED = 16


@dataclass(frozen=True, eq=False)
class Batches:
    """The batches of a problem, the same for every solver and network.

    Parameters
    ----------
    samples, steps : int
        How many there are.
    given_size : int, optional
        Samples a step; by default all of them.
    order : str or (steps, batch) integer array
        "sequential" cycles through the samples, "random" draws without replacement in each epoch, and an array gives
        the sample indices themselves.
    seed : int
        Seed of "random".

    Raises
    ------
    ValueError, TypeError
        If an argument breaks these rules; the message names the problem's argument.
    MemoryError
        If the batches of so many steps do not fit in memory.
    """

    samples: int
    steps: int
    given_size: int | None
    order: str | ArrayLike
    seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", checks.seed_number("batch_seed", self.seed))
        if self.given_size is not None:
            size = checks.positive_integer("batch_size", self.given_size)
            if size > self.samples:
                raise ValueError(f"batch_size must be at most the {self.samples} samples, got {size}")
            object.__setattr__(self, "given_size", size)
        if isinstance(self.order, str):
            checks.choice("batch_order", self.order, ("sequential", "random"))
        else:
            object.__setattr__(self, "order", np.array(checks.numeric("batch_order", self.order)))
            self._check_order(np.asarray(self.order))
        if not self.full:  # a table that is needed
            self.require_memory()

    def require_memory(self) -> None:
        """Raise MemoryError if the table of batches does not fit."""
        require_memory(TABLED * (self.steps + 1) * self.size, "take fewer steps")

    def require_steps(self, steps: int) -> None:
        """Raise ValueError if the batches of another number of steps are not known."""
        if steps != self.steps and self.listed:
            raise ValueError(
                'batch_order must be "sequential" or "random" to go on, but the problem lists its batches, '
                f"which end after {self.steps} steps"
            )

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of a problem, as they were checked."""
        return {"batch_size": self.given_size, "batch_order": self.order, "batch_seed": self.seed}

    @property
    def listed(self) -> bool:
        """Whether the indices were given."""
        return not isinstance(self.order, str)

    @property
    def size(self) -> int:
        """Samples in one step."""
        return int(np.shape(self.order)[1]) if self.listed else self.given_size or self.samples

    @property
    def full(self) -> bool:
        """Whether every step trains on all samples, in their own order."""
        return not self.listed and self.size == self.samples

    @cached_property
    def table(self) -> NDArray[np.intp]:
        """Sample indices, (steps + 1, batch): the last row is only recorded, never trained on."""
        rows, batch = self.steps + 1, self.size
        if self.listed:
            order = np.asarray(self.order, np.intp)
            return order[np.arange(rows) % len(order)]
        if self.full or self.order == "sequential":
            return (np.arange(rows * batch) % self.samples).reshape(rows, batch)
        epochs = -(-rows * batch // self.samples)
        generator = np.random.default_rng(self.seed)
        drawn = np.concatenate([generator.permutation(self.samples) for _ in range(epochs)])
        return drawn[: rows * batch].reshape(rows, batch)

    def _check_order(self, order: NDArray[Any]) -> None:
        if order.ndim != 2 or order.dtype.kind not in "iu" or order.shape[0] != self.steps or order.size == 0:
            raise ValueError(
                f"batch_order must be an integer array of shape (steps, batch) with {self.steps} steps, "
                f"got dtype {order.dtype} and shape {order.shape}"
            )
        if order.min() < 0 or order.max() >= self.samples:
            raise ValueError(
                f"batch_order must hold sample indices from 0 to {self.samples - 1}, got {order.min()} to {order.max()}"
            )
        if self.given_size is not None and self.given_size != order.shape[1]:
            raise ValueError(
                f"batch_size must be left out or equal the columns of batch_order ({order.shape[1]}), "
                f"got {self.given_size}"
            )
