"""A matrix that is sampled where it is used, between the tensors of a module and the operator that samples it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from solvers.ensemble.device.noise import row_positions
from solvers.ensemble.device.particles import TorchParticles
from solvers.ensemble.random import Address, Noise, Stream
from solvers.matrices.lazy import LazyOperator, Side
from solvers.matrices.sampling import Sampling

Tensor = torch.Tensor
Coordinates = NDArray[np.floating]

# What names of rows of particles in a state end with.
_ROWS = ("directions", "images")
# All names of a state; independent weights have no response.
STATE = {f"{side}_{rows}" for side in ("feature", "gradient") for rows in _ROWS} | {
    "mass",
    "share",
    "response",
    "address",
}


def _place(rows: Tensor, backward: bool) -> Address:
    """Return where noise of rows is found that nothing will remember."""
    return Address(Stream.PROBE, int(backward), row_positions(rows))


class Revealed(NamedTuple):
    """What a pass revealed and is not remembered: directions, (r, N), and their images, (r, M)."""

    directions: Tensor
    images: Tensor


class UnrevealedEntries(Exception):
    """A has entries where nothing was revealed."""


class SampledMatrix:
    """𝒲 = ω 𝒲_0 + Pᵀ A Q/√(MN), whose A is a tensor of somebody else's.

    Parameters
    ----------
    shape : (int, int)
        Outputs M and inputs N.
    seed : int
        Of the noise.
    tied : bool
        Whether 𝒲ᵀ or an independent copy multiplies gradients.
    tolerance : float
        Relative size below which what is left of a vector is dropped.
    rank : (int, int)
        Largest ranks, of inputs and of gradients.
    like : Tensor
        On the device and of the type that vectors have.
    """

    def __init__(
        self, shape: tuple[int, int], seed: int, tied: bool, tolerance: float, rank: tuple[int, int], like: Tensor
    ) -> None:
        self.seed, self.calls = seed, 0
        outputs, inputs = (TorchParticles(count, str(like.device)) for count in shape)
        self.operator: Any = LazyOperator(  # whose arrays are tensors here
            inputs,
            Noise(seed),
            0,
            tied=tied,
            tolerance=tolerance,
            budget=rank,
            sampling=Sampling(),
            dtype=inputs.precision(like),
            outputs=outputs,
        )
        self.operator.tolerance = tolerance

    @property
    def sides(self) -> tuple[Side, Side]:
        """Of inputs and of gradients."""
        return self.operator.features, self.operator.gradients

    @property
    def bytes(self) -> int:
        """Bytes of the directions and images that were revealed."""
        return sum(one.nbytes for side in self.sides for one in (side.directions, side.images))

    def forward(self, x: Tensor, learned: Tensor, remember: bool) -> tuple[Tensor, Coordinates]:
        """Return 𝒲x of rows, (b, M), and coordinates of x on Q, (b, rank); what is new may be remembered.

        Where it is not, its noise belongs to the numbers of its row: other rows have other noise, and the same again
        has the same, whatever was trained meanwhile.
        """
        address = self._address(Stream.FORWARD, range(len(x))) if remember else _place(x, backward=False)
        with self._at_work(learned), self._counted():
            found: tuple[Tensor, Coordinates] = self.operator.forward(x, address, x, remember)
        return found

    def look(self, x: Tensor, learned: Tensor) -> tuple[Tensor, Coordinates, Revealed]:
        """Return likewise what is not remembered, and what it revealed."""
        side = self.operator.features
        before = side.rank
        with self._for_now(), self._at_work(learned):
            image, coordinates = self.operator.forward(x, _place(x, backward=False), x)
            revealed = Revealed(side.directions[before:].clone(), side.images[before:].clone())
        return image, coordinates, revealed

    def backward(
        self, gradients: Tensor, places: Sequence[int], learned: Tensor, revealed: Revealed | None
    ) -> tuple[Tensor, Coordinates]:
        """Return 𝒲ᵀg of rows, (b, N), and coordinates of g on P, (b, rank).

        `places` are the rows' among those of their pass. What is new is remembered, but not where a forward pass has
        `revealed` what is not.
        """
        if revealed is None:
            address = self._address(Stream.BACKWARD, places)
            with self._at_work(learned), self._counted():
                found: tuple[Tensor, Coordinates] = self.operator.backward(gradients, address, gradients)
            return found
        with self._for_now(), self._at_work(learned):
            self.operator.take_in(*revealed)
            found = self.operator.backward(gradients, _place(gradients, backward=True), gradients)
        return found

    def state(self) -> dict[str, Tensor]:
        """Return what was revealed, and where the next noise is found."""
        state = {name: torch.as_tensor(array) for name, array in self.operator.state().items() if name != "learned"}
        return state | {"address": torch.tensor([self.seed, self.calls])}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state, of whatever device."""
        self.seed, self.calls = (int(number) for number in state["address"])
        self.operator.noise = Noise(self.seed)
        dtype = self.operator.features.directions.dtype
        arrays = {name: one.to(dtype) if name.endswith(_ROWS) else one for name, one in state.items()}
        self.operator.restore({name: one.cpu().numpy() for name, one in arrays.items()} | {"learned": np.zeros((0, 0))})

    def _address(self, stream: Stream, places: Sequence[int]) -> Address:
        return Address(stream, self.calls, tuple(places))

    @contextmanager
    def _at_work(self, learned: Tensor) -> Iterator[None]:
        """Give the operator A as it is now, on one side or the other."""
        operator, kind = self.operator, learned.device.type
        with torch.autocast(kind, enabled=False), operator.inputs.running():
            rows, columns = operator.learned.shape
            known = learned.detach()[:rows, :columns]
            if torch.count_nonzero(learned) != torch.count_nonzero(known):
                raise UnrevealedEntries
            operator.learned[...] = known.cpu().numpy()
            yield

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Let what is revealed next have other noise, if anything was revealed."""
        before = self.operator.rank
        yield
        self.calls += self.operator.rank != before

    @contextmanager
    def _for_now(self) -> Iterator[None]:
        """Forget what is revealed meanwhile, however much that is."""
        mark, budgets = self.operator.mark(), [side.budget for side in self.sides]
        for side in self.sides:
            side.budget = side.ensemble.particles
        try:
            yield
        finally:
            for side, budget in zip(self.sides, budgets, strict=True):
                side.budget = budget
            self.operator.forget(mark)
