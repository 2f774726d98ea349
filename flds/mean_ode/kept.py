"""What a checkpoint keeps of the Mean ODE: runs that have ended, and the one at work between two steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from flds.mean_ode.description import constants, describe
from flds.mean_ode.network import Dynamics
from flds.mean_ode.options import MeanSettings
from flds.mean_ode.problem import MeanFieldProblem
from flds.mean_ode.records import Run
from flds.mean_ode.snapshot import first_step, recorded, remembered, snapshot
from flds.mean_ode.update import Update
from flds.results.descriptions import digest
from solvers.fingerprint import fingerprint
from solvers.results.checkpoint import FINAL, Checkpoint
from solvers.results.files import State, Variable
from solvers.results.solution import STATUSES

_STATUS = "ended_status"


def described(
    problem: MeanFieldProblem, settings: MeanSettings, solver: str, states: Sequence[State]
) -> dict[str, Any]:
    """Return what a checkpoint is known by: the problem, its arrays, the settings, and where units start from."""
    chosen = {name: value for name, value in asdict(settings).items() if name != "threads"}
    arrays = {name: {"sha256": digest(item.values)} for name, item in constants(problem).items()}
    start = first_step(states[0]) if states else 0
    functions = {"sha256": fingerprint(problem.blocks, problem.laws, problem.rule)}
    known = {"solver": solver, **describe(problem), "functions": functions}
    return {**known, **chosen, **arrays, "starts_after": start}


class KeptRuns(NamedTuple):
    """The runs of a solve in its checkpoint, which is open, by name."""

    checkpoint: Checkpoint
    problem: MeanFieldProblem

    @property
    def continued(self) -> dict[str, int]:
        """The step that an earlier process came to, in the last run that it began, as a setting; or nothing."""
        states = list(self.checkpoint.stored.values())
        return {"continued_from_step": self._done(states[-1])} if states else {}

    @property
    def done(self) -> int:
        """Steps that need not be done again, of all runs."""
        return sum(self._done(state) + (_STATUS in state) for state in self.checkpoint.stored.values())

    def ended(self, name: str) -> Run | None:
        """Return a run that has ended, or None."""
        state = self.checkpoint.stored.get(name, {})
        return run_of(self.problem, state) if _STATUS in state else None

    def take(self, name: str) -> State | None:
        """Return where a run goes on, or None where it begins; its memory is then the caller's."""
        state = self.checkpoint.stored.pop(name, None)
        return None if state is None else dict(state)

    def of(self, name: str) -> KeptRun | None:
        """Return what keeps a run while it goes on, or None without a checkpoint."""
        return None if self.checkpoint.path is None else KeptRun(self.checkpoint, name)

    def end(self, name: str, run: Run) -> None:
        """Keep a run that has ended."""
        if run.status in FINAL and self.checkpoint.path is not None:
            self.checkpoint.end(name, ended_snapshot(self.problem, run), _grows)

    def _done(self, state: Any) -> int:
        return self.problem.steps if _STATUS in state else first_step(state)


class KeptRun(NamedTuple):
    """The run at work, in its checkpoint."""

    checkpoint: Checkpoint
    name: str

    def due(self) -> bool:
        """Whether it is time to keep it."""
        return self.checkpoint.due()

    def keep(self, dynamics: Dynamics, update: Update, run: Run, step: int) -> None:
        """Keep it before the passes of a step."""
        state = snapshot(dynamics.problem, dynamics.moved, run.records, step) | remembered(update)
        self.checkpoint.keep(self.name, state, _grows)


def ended_snapshot(problem: MeanFieldProblem, run: Run) -> State:
    """Return what is kept of a run that has ended: what it recorded, and its state if that is kept."""
    status = Variable((), np.array(STATUSES.index(run.status)), "how the run ended")
    return (run.state or snapshot(problem, [], run.records)) | {_STATUS: status}


def run_of(problem: MeanFieldProblem, state: Mapping[str, Variable]) -> Run:
    """Return the run of which `ended_snapshot` returned this."""
    run = Run(status=STATUSES[int(state[_STATUS].values)])
    for record in recorded(problem, state):
        run.keep(record, problem.steps + 1)
    if any(part.startswith("block_") for part in state):
        run.state = {part: item for part, item in state.items() if part != _STATUS}
    return run


def _grows(name: str) -> bool:
    return name.startswith("recorded_")
