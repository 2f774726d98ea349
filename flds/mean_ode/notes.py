"""What a user has to know of how a run of the Mean ODE went."""

from __future__ import annotations

from flds.mean_ode.problem import MeanFieldProblem
from flds.mean_ode.records import Run
from solvers.results.solution import AS_ASKED

# Where training works the loss falls; one that grew by this factor is worth a note.
_GROWN = 10.0


def notes_on(problem: MeanFieldProblem, runs: list[Run], status: str, remark: str) -> list[str]:
    """Return a sentence each on how a solve ended, its `remark`, and the runs that are kept of it."""
    found = []
    if status == "diverged":
        found.append("training diverged: lower learning_rates")
    elif status == "interrupted":
        found.append("interrupted")
    if status not in AS_ASKED:
        records = runs[-1].records
        found += [f"the last step recorded is {records[-1].step if records else None}", *filter(None, [remark])]
    if runs[0].status == "completed":
        losses = [problem.losses(record.outputs, problem.y).mean() for record in runs[0].records]
        if losses[-1] > _GROWN * losses[0]:
            found.append(f"the loss grew from {losses[0]:.3g} to {losses[-1]:.3g}: lower learning_rates or raise depth")
    return found
