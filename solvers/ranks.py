"""What the ranks of a communicator do together; without a communicator one process does it alone.

All ranks call these functions in the same order. What one of them raises, all raise, so that none waits for another.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from solvers import checks
from solvers.memory import available_memory
from solvers.processors import available_threads, thread_count

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Spread:
    """How an array is spread over ranks: this one holds consecutive entries of one axis.

    Attributes
    ----------
    axis : int
        The axis.
    first, total : int
        The place of the first entry held, and how many there are on all ranks.
    communicator : mpi4py.MPI.Comm
        The ranks.
    """

    axis: int
    first: int
    total: int
    communicator: Any

    def shape(self, held: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the whole of an array, of which this rank holds one of this shape."""
        return (*held[: self.axis], self.total, *held[self.axis + 1 :])


# What is asked of a communicator; mpi4py has more.
_ASKED = ("Get_rank", "Get_size", "Allgatherv", "Alltoallv", "Gatherv", "allgather", "bcast", "Abort")
# Marks errors.
_SHARED = "on_all_ranks"


def shared(error: BaseException) -> BaseException:
    """Return an error, marked as one that all ranks meet at the same place, so that it need not end them."""
    setattr(error, _SHARED, True)
    return error


def is_shared(error: BaseException) -> bool:
    """Return whether all ranks meet this error."""
    return getattr(error, _SHARED, False)


def world() -> Any:
    """Return the communicator of all ranks; raises ImportError without mpi4py or an MPI."""
    from mpi4py import MPI

    return MPI.COMM_WORLD


def check_communicator(given: Any) -> Any:
    """Return a communicator or None; raise TypeError if it is something else."""
    if given is not None and not all(hasattr(given, name) for name in _ASKED):
        raise TypeError(f"communicator must be an mpi4py.MPI.Comm, such as MPI.COMM_WORLD, got {checks.shown(given)}")
    return given


def on_first(work: Callable[[], T], communicator: Any = None) -> T:
    """Return on all ranks what work() returns on the first, which alone calls it; it must be picklable."""
    if communicator is None:
        return work()
    first = communicator.Get_rank() == 0
    found, error = _attempt(lambda: pickle.dumps(work())) if first else (None, None)
    found, error = communicator.bcast((found, error))
    if error is not None:
        raise shared(error)
    return pickle.loads(found)


def in_turn(work: Callable[[], object], communicator: Any = None) -> None:
    """Call work() on every rank, one after the other, until one raises."""
    if communicator is None:
        work()
        return
    for rank in range(communicator.Get_size()):
        _, error = _attempt(work) if communicator.Get_rank() == rank else (None, None)
        error = communicator.bcast(error, root=rank)
        if error is not None:
            raise shared(error)


def agreed(work: Callable[[], T], communicator: Any = None) -> T:
    """Return what work() returns here, once it has returned on all ranks."""
    if communicator is None:
        return work()
    found, error = _attempt(work)
    errors = communicator.allgather(error)
    for one in errors:
        if one is not None:
            raise shared(one)
    return found  # type: ignore[return-value]


def require_same(communicator: Any, given: Mapping[str, Any]) -> None:
    """Raise ValueError on all ranks, with the names, if they were not given the same arrays, numbers and texts."""
    if communicator is None:
        return
    digests = {}
    for name, one in given.items():
        array = isinstance(one, np.ndarray)
        digest = hashlib.sha256(repr((one.shape, one.dtype) if array else one).encode())
        digest.update(np.ascontiguousarray(one).data if array else b"")
        digests[name] = digest.hexdigest()
    of_ranks = communicator.allgather(digests)
    names = dict.fromkeys(name for ranks in of_ranks for name in ranks)
    differ = [name for name in names if len({ranks.get(name) for ranks in of_ranks}) > 1]
    if differ:
        verb = "differ" if len(differ) > 1 else "differs"
        said = f"the ranks of a communicator must be given the same arguments, but {', '.join(differ)} {verb}"
        raise shared(ValueError(said))


def threads_of_rank(given: Any, communicator: Any = None) -> int:
    """Return the number of threads that was given, or by default a rank's share of the CPUs available here."""
    if given is not None or communicator is None:
        return thread_count(given)
    return max(1, min(available_threads() // _neighbours(communicator), thread_count(None)))


def memory_of_rank(communicator: Any = None) -> float:
    """Return the bytes that this process may hold, with ranks what each of them may.

    Ranks of one machine share its memory, and all go by the one that has least.
    """
    if communicator is None:
        return available_memory()
    return float(min(communicator.allgather(available_memory() / _neighbours(communicator))))


def _neighbours(communicator: Any) -> int:
    """Return how many of the ranks run on this machine."""
    from mpi4py import MPI

    names = communicator.allgather(MPI.Get_processor_name())
    return int(names.count(names[communicator.Get_rank()]))


def _attempt(work: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    """Return what work() returns, or what it raises in a form that other ranks can be sent."""
    try:
        return work(), None
    except BaseException as error:  # whatever it is, the others must hear of it
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # an error of a kind that cannot be sent
            return None, RuntimeError(checks.reason(error))
        return None, error
