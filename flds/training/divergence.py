"""When training counts as diverged: one definition for every solver and network."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# How a replicate ended, in words.
_ENDED = {
    "diverged": "diverged",
    "interrupted": "was interrupted",
    "rank_budget": "outgrew its rank budget, or memory",
}


class Divergence:
    """Watches the loss and the mean square of the outputs of each step's batch.

    Training has diverged when one of them exceeds `factor` times the largest of 1 and both at step 0, or is not finite.
    A run that has once gone so far is not what the limit describes, even if its numbers stay finite. Outputs are
    measured by the loss as well, because targets may be large and outputs start small.

    Parameters
    ----------
    factor : float
        The problem's `divergence_factor`.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.initial: NDArray[np.float64] | None = None  # loss and mean square at step 0, (2, …)

    def at(self, loss: ArrayLike, mean_square: ArrayLike) -> NDArray[np.bool_]:
        """Return whether training has diverged at a step, for one run or elementwise for several."""
        sizes = np.array([loss, mean_square], np.float64)
        if self.initial is None:
            self.initial = sizes
        bound = self.factor * np.maximum(1.0, self.initial.max(axis=0))
        return np.asarray(~np.all(np.isfinite(sizes) & (sizes <= bound), axis=0))


def outcome(statuses: list[str], replicates: int) -> tuple[str, int, list[int], str]:
    """Return the status of several replicates, which of them gave it, those whose variables are kept, and a remark.

    Kept are the replicates that completed, or else the one that gave the status.
    """
    early = ("interrupted", "rank_budget", "diverged", "stopped")
    status = next((one for one in early if one in statuses), "completed")
    ended = statuses.index(status)
    complete = [index for index, one in enumerate(statuses) if one == "completed"]
    if status == "completed":
        return status, ended, complete, ""
    if not complete:
        note = f"variables are of replicate {ended + 1}, which {_ENDED[status]}" if replicates > 1 else ""
        return status, ended, [ended], note
    note = f"variables are of the {len(complete)} of {replicates} replicates that completed"
    lost = statuses.count("diverged")
    return status, ended, complete, note + (f"; {lost} diverged, so means may be biased" if lost else "")
