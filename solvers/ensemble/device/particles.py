"""Particles in tensors of torch, on a GPU or on the processor.

Sums over particles are made of products by groups, which a device makes at the same time, and added in float64. Small
matrices go to the host; rows of particles never do within a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from solvers.ensemble.device.arrays import DeviceArray, DeviceCoordinates, torch_type
from solvers.ensemble.device.devices import out_of_memory
from solvers.ensemble.device.noise import fill_normals
from solvers.ensemble.particles import Matrix, Particles
from solvers.ensemble.random import Address, Noise
from solvers.partition import group_size

Tensor = torch.Tensor

# Numbers that are brought to float64 at a time.
_AT_ONCE = 1 << 22


class TorchParticles(Particles):
    """N particles in tensors, contiguous, on one device of torch.

    Noise has the addresses and the numbers of other homes, and results are theirs to rounding.

    Parameters
    ----------
    particles : int
        Number of particles N.
    device : str
        "cuda", "cuda:1", "cpu".
    threads : int, optional
        Most threads of the processor that torch takes; by default those that it would take.
    """

    def __init__(self, particles: int, device: str = "cpu", threads: int | None = None) -> None:
        self.particles = self.held = particles
        self.device = torch.device(device)
        self.threads = threads
        self.group_size = group_size(particles)

    def beside(self, particles: int) -> TorchParticles:
        return TorchParticles(particles, str(self.device), self.threads)

    @contextmanager
    def running(self) -> Iterator[Particles]:
        """Take no gradients; NumPy's warnings of overflow are those of small matrices, which solves look for.

        Raises
        ------
        MemoryError
            If the device has no more memory.
        """
        before = torch.get_num_threads()
        if self.threads is not None and self.threads < before:
            torch.set_num_threads(self.threads)
        with torch.no_grad(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            try:
                yield self
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                reason = str(error).strip().split("\n")[0]
                raise MemoryError(f"device {str(self.device)!r} has no more memory: {reason}") from None
            finally:
                torch.set_num_threads(before)

    def allocate(self, rows: int, dtype: Any = np.float64) -> Any:
        return torch.empty((rows, self.held), dtype=torch_type(dtype), device=self.device)

    def stack(self, parts: Sequence[Any]) -> Any:
        return torch.cat(list(parts))

    def to_host(self, vectors: Any) -> NDArray[Any]:
        return np.asarray(vectors.cpu())

    def from_host(self, vectors: NDArray[Any]) -> Any:
        return self.from_state(vectors)

    def precision(self, vectors: Any) -> np.dtype[Any]:
        return np.dtype(str(vectors.dtype).removeprefix("torch."))

    def from_state(self, values: NDArray[Any]) -> Any:
        return torch.tensor(values, device=self.device)

    def put(self, out: Any, values: NDArray[Any]) -> None:
        out.copy_(torch.as_tensor(values))

    def as_coordinates(self, vectors: Any) -> Any:
        return vectors.as_subclass(DeviceCoordinates)

    def fill(self, out: Any, noise: Noise, address: Address, layer: int = 0) -> None:
        fill_normals(out, noise.draw(address, layer))

    def inner(self, left: Any, right: Any) -> Matrix:
        parts = [left] if isinstance(left, torch.Tensor) else left
        return self._to_matrix(torch.cat([self._products(part, right) for part in parts])) / self.particles

    def gram(self, vectors: Any) -> Matrix:
        return self._to_matrix(self._products(vectors, vectors, torch.float64)) / self.particles

    def mean_squares(self, vectors: Any) -> Matrix:
        return self.means(vectors, vectors)

    def means(self, *factors: Any) -> Matrix:
        total = torch.zeros(len(factors[0]), dtype=torch.float64, device=self.device)
        for part in self._parts(len(factors[0])):
            product = factors[0][:, part].double()
            for factor in factors[1:]:
                product = product * factor[:, part]
            total += product.sum(dim=1)
        return self._to_matrix(total) / self.particles

    def project(self, vectors: Any, coordinates: Matrix, directions: Any) -> tuple[Any, Matrix, Matrix]:
        rest = torch.addmm(vectors, self._coefficients(-coordinates, vectors.dtype), directions)
        left = self._products(directions, rest), self._products(rest, rest, torch.float64)
        found = self._to_matrix(torch.cat(left)) / self.particles  # at once: each way to the host waits for the device
        return rest, found[: len(directions)].T, found[len(directions) :]

    def combine(self, out: Any, terms: Sequence[tuple[NDArray[Any], Any]], add: bool = False) -> None:
        terms = [(c, v) for c, v in terms if c.size]
        if not add and not terms:
            out.zero_()
        for index, (coefficients, vectors) in enumerate(terms):
            keep = 1 if add or index else 0
            out.addmm_(self._coefficients(coefficients, out.dtype), vectors, beta=keep)

    def apply(
        self, work: Callable[..., object], out: Any, *arrays: Any, rows: Sequence[NDArray[np.float64]] = ()
    ) -> None:
        columns = [self._coefficients(row[:, None], out.dtype) for row in rows]
        _called(work, *(one.as_subclass(DeviceArray) for one in (out, *arrays, *columns)))

    def map(self, function: Callable[..., Any], *arrays: Any, rows: Sequence[NDArray[np.float64]] = ()) -> Any:
        like = arrays[0]
        columns = [self._coefficients(row[:, None], like.dtype) for row in rows]
        found = _called(function, *(one.as_subclass(DeviceArray) for one in (*arrays, *columns)))
        if not isinstance(found, torch.Tensor) or found.shape != like.shape:
            raise TypeError(
                f"{_name(function)} must return tensors for tensors, in their shape; make it of NumPy's functions"
            )
        found = found.as_subclass(torch.Tensor).to(like.dtype).contiguous()
        return found.clone() if any(found.data_ptr() == one.data_ptr() for one in arrays) else found

    def total(self, sums: Sequence[NDArray[np.floating]] | Matrix) -> Matrix:
        return np.sum(sums, axis=0, dtype=np.float64)

    def multiply(self, vectors: Any, matrix: Any, transposed: bool = False) -> Any:
        return vectors @ (matrix.T if transposed else matrix)

    def add_product(self, left: Any, right: Any, *matrices: Any) -> None:
        first, second = (self._coefficients(one, matrices[0].dtype) for one in (left.T, right))
        for matrix in matrices:
            matrix.addmm_(first, second)

    def _products(self, left: Any, right: Any, dtype: torch.dtype | None = None) -> Tensor:
        """Return inner products of rows, computed in a type, or in their own, by groups that are added in float64."""
        size = self.group_size
        whole = self.held - self.held % size
        total = torch.zeros((len(left), len(right)), dtype=torch.float64, device=self.device)
        if not total.numel():
            return total
        many = size * max(1, _AT_ONCE // (size * (len(left) + len(right)))) if dtype else whole
        for start in range(0, whole, many or 1):
            part = slice(start, min(start + many, whole))
            first, second = (
                one[:, part].to(dtype or one.dtype).unflatten(1, (-1, size)).transpose(0, 1) for one in (left, right)
            )
            total += torch.bmm(first, second.transpose(1, 2)).double().sum(dim=0)
        if whole < self.held:
            first, second = (one[:, whole:].to(dtype or one.dtype) for one in (left, right))
            total += (first @ second.T).double()
        return total

    def _parts(self, rows: int) -> Iterator[slice]:
        size = max(1, _AT_ONCE // max(1, rows))
        for start in range(0, self.held, size):
            yield slice(start, start + size)

    def _coefficients(self, values: Any, dtype: torch.dtype) -> Tensor:
        if isinstance(values, torch.Tensor):
            return values.as_subclass(torch.Tensor).to(dtype)
        return torch.as_tensor(np.ascontiguousarray(values), dtype=dtype, device=self.device)

    def _to_matrix(self, values: Tensor) -> Matrix:
        return np.asarray(values.cpu())


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", None) or getattr(function, "__name__", None) or repr(function)


def _called(function: Callable[..., Any], *arrays: Any) -> Any:
    """Call a function of arrays with tensors, and say which it is where it cannot take them."""
    try:
        return function(*arrays)
    except TypeError as error:
        raise TypeError(f"{_name(function)} does not work on tensors: {error}") from error
