"""Replicates that are trained elsewhere: on an executor, each for itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from typing import Any

from solvers import checks
from solvers.results.files import State


def check_executor(given: Any, communicator: Any = None) -> Executor | None:
    """Return an executor or None.

    Raises
    ------
    TypeError, ValueError
        If it is something else, or is to be used with a communicator.
    """
    if given is None:
        return None
    if not isinstance(given, Executor):
        raise TypeError(
            "executor must be a concurrent.futures.Executor, such as dask.distributed.Client(...).get_executor(), "
            f"got {checks.shown(given)}"
        )
    if communicator is not None:
        raise ValueError("executor trains whole replicates, and communicator shares each of them: give one of the two")
    return given


class Apart:
    """Replicates at work on an executor, or none without one; those that are left at the end are cancelled.

    Parameters
    ----------
    executor : Executor or None
    work : callable
        Of a module; it trains one and returns what it recorded.
    arguments : dict
        What `work` is called with for each replicate that is to be trained, by its number.
    """

    def __init__(
        self, executor: Executor | None, work: Callable[..., State], arguments: Mapping[int, tuple[Any, ...]]
    ) -> None:
        self._futures: dict[int, Future[State]] = {}
        if executor is not None:
            self._futures = {number: executor.submit(work, *given) for number, given in arguments.items()}

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *error: object) -> None:
        for future in self._futures.values():
            future.cancel()

    def result(self, replicate: int) -> State:
        """Wait for a replicate and return what it recorded.

        Raises
        ------
        RuntimeError
            If it failed, or the process that trained it died.
        """
        try:
            return self._futures[replicate].result()
        except Exception as error:  # whatever ended it
            raise RuntimeError(f"replicate {replicate + 1} failed: {checks.reason(error)}") from None
