"""What a user's function sees of each record of a run that goes on, and whether it ends the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers import checks
from solvers.ranks import on_first

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TrainingRecord:
    """A record of a run that goes on, as ``callback=`` gets it; arrays are copies.

    Attributes
    ----------
    step : int
        k, whose update is to come.
    outputs, test_outputs : (samples[, outputs]) float64
        f^(k), as in the solution; of no samples where nothing is tested.
    loss, test_loss, accuracy, test_accuracy : float
        As in the solution; NaN where it has none.

    References
    ----------
    Paper F, eq. (1), and paper H, eq. (1), for f.
    """

    step: int
    outputs: Array
    test_outputs: Array
    loss: float
    test_loss: float
    accuracy: float
    test_accuracy: float


class Watch:
    """A user's function of each record, or none.

    Parameters
    ----------
    callback : callable, optional
        Of a `TrainingRecord`; where it returns True, the run ends.
    measure : callable
        Returns loss and accuracy of outputs with targets.
    targets : (targets, test targets)
        Of what is recorded.
    communicator : mpi4py.MPI.Comm, optional
        Of the ranks that share a run; the first one calls the function.

    Raises
    ------
    TypeError
        If the callback cannot be called.
    """

    def __init__(
        self,
        callback: Any,
        measure: Callable[[Array, Any], tuple[float, float]],
        targets: tuple[Any, Any],
        communicator: Any = None,
    ) -> None:
        if callback is not None and not callable(callback):
            raise TypeError(f"callback must be a function of a record, got {checks.shown(callback)}")
        self.callback, self.measure, self.targets, self.communicator = callback, measure, targets, communicator

    def ends(self, step: int, outputs: Array, test_outputs: Array, squeezed: bool) -> bool:
        """Call the function; return whether the run is to end. `squeezed` leaves out the axis of one output.

        Raises
        ------
        TypeError
            If it returns something else than True, False or nothing.
        RuntimeError
            If it fails with an error that says something else of a solver.
        """
        if self.callback is None:
            return False
        pairs = zip((outputs, test_outputs), self.targets, strict=True)
        (loss, accuracy), (test_loss, test_accuracy) = (
            self.measure(one, targets) if len(one) else (np.nan, np.nan) for one, targets in pairs
        )
        trained, tested = (np.array(one[..., 0] if squeezed else one, np.float64) for one in (outputs, test_outputs))
        record = TrainingRecord(step, trained, tested, loss, test_loss, accuracy, test_accuracy)
        return bool(on_first(lambda: _answer(self._called(record)), self.communicator))

    def _called(self, record: TrainingRecord) -> Any:
        try:
            return self.callback(record)
        except (MemoryError, StopIteration, np.linalg.LinAlgError) as error:
            # which the solver would take for its own
            raise RuntimeError(f"callback failed at step {record.step}: {type(error).__name__}: {error}") from error


def _answer(found: Any) -> bool:
    if found is None:
        return False
    if not isinstance(found, (bool, np.bool_)):
        raise TypeError(f"callback must return True, to end the run, or False or nothing, got {checks.shown(found)}")
    return bool(found)


def require_one_run(callback: Any, replicates: int, executor: Any) -> None:
    """Refuse a callback of runs that it cannot watch one by one."""
    if callback is None:
        return
    if replicates > 1:
        raise ValueError(f"callback watches one run, got replicates={replicates}; solve each seed by itself")
    if executor is not None:
        raise ValueError("callback watches a run in this process; leave out executor or callback")
