"""What a checkpoint keeps of training: replicates that have ended, and the one at work after its last update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from flds.training.description import describe, own_rules
from flds.training.network import Network
from flds.training.options import Settings
from flds.training.problem import TrainingProblem
from flds.training.records import Recorder
from flds.training.snapshot import early_snapshot, ended_snapshot, grows, steps_done
from solvers.fingerprint import fingerprint
from solvers.results.checkpoint import FINAL, Checkpoint
from solvers.results.files import State, Variable

_ENDED = "ended_status"
# Settings that decide no numbers, or no more than their last digits.
_FREE = ("threads", "rank_budget", "device")


def known(problem: TrainingProblem) -> dict[str, Any]:
    """Return what a problem is known by: what a result says of it, and the code of its functions."""
    return {**describe(problem)[0], "functions": {"sha256": fingerprint(problem.phi, *own_rules(problem))}}


def described(problem: TrainingProblem, settings: Settings, solver: str, states: Sequence[State]) -> dict[str, Any]:
    """Return what a checkpoint is known by: the problem, the settings, and from which step on it is trained."""
    chosen = {name: value for name, value in asdict(settings).items() if name not in _FREE}
    return {
        "solver": solver,
        **known(problem),
        **chosen,
        "starts_after": int(states[0]["batch_loss"].values.size) if states else 0,
    }


class KeptReplicates:
    """The replicates of a run in its checkpoint, which is open.

    Parameters
    ----------
    checkpoint : Checkpoint
    problem, settings
        Those of the run.
    states : sequence of dict
        The states that replicates start from, if they do not start with step 0.

    Attributes
    ----------
    continued : dict
        The step that an earlier process came to, in the last replicate that it began, as a setting; or nothing.
    done : int
        Passes that need not be done again, of all replicates.
    """

    def __init__(
        self, checkpoint: Checkpoint, problem: TrainingProblem, settings: Settings, states: Sequence[State]
    ) -> None:
        self.checkpoint, self.problem, self.settings = checkpoint, problem, settings
        kept = [checkpoint.stored.pop(_name(index), None) for index in range(settings.replicates)]
        came_to = [self._done(state) for state in kept if state is not None]
        self.continued = {"continued_from_step": came_to[-1]} if came_to else {}
        begin: list[State | None] = [*states] or [None] * settings.replicates
        self.states = [first if state is None else dict(state) for first, state in zip(begin, kept, strict=True)]
        self.done = sum(map(self._done, self.states))

    def ended(self, replicate: int) -> Recorder | None:
        """Return what was recorded of a replicate that has ended, or None."""
        state = self.states[replicate]
        return None if state is None or _ENDED not in state else Recorder.of_ended(self.problem, self.settings, state)

    def take(self, replicate: int) -> State | None:
        """Return where training of a replicate goes on, or None where it begins; its memory is then the caller's."""
        state, self.states[replicate] = self.states[replicate], None
        return state

    def of(self, replicate: int) -> KeptReplicate | None:
        """Return what keeps a replicate while it is trained, or None without a checkpoint."""
        return None if self.checkpoint.path is None else KeptReplicate(self.checkpoint, _name(replicate))

    def end(self, replicate: int, recorder: Recorder, always: bool = False) -> None:
        """Keep a replicate that has ended: at once if it is time to, or there is none to come, else with the next."""
        if recorder.status in FINAL and self.checkpoint.path is not None:
            now = always or replicate == self.settings.replicates - 1 or self.checkpoint.due()
            self.checkpoint.end(_name(replicate), ended_snapshot(recorder), grows if now else None)

    def _done(self, state: Mapping[str, Variable] | None) -> int:
        """Return how many passes need not be done again."""
        if state is None:
            return 0
        step = self.problem.steps + 1 if _ENDED in state else steps_done(state)
        return int(state["batch_loss"].values.size) if step is None else step


class KeptReplicate(NamedTuple):
    """The replicate at work, in its checkpoint."""

    checkpoint: Checkpoint
    name: str

    def due(self) -> bool:
        """Whether it is time to keep it."""
        return self.checkpoint.due()

    def keep(self, network: Network, recorder: Recorder, step: int) -> None:
        """Keep it before the passes of a step; before those of the first there is nothing to keep."""
        if step > 0:
            self.checkpoint.keep(self.name, early_snapshot(network, recorder, step), grows)


def _name(replicate: int) -> str:
    return f"replicate_{replicate}"
