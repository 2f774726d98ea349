"""Training of the units of one draw: passes and updates, what is recorded of them, and how it ends."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from flds.mean_ode.blocks import Array
from flds.mean_ode.kept import KeptRun
from flds.mean_ode.network import Dynamics
from flds.mean_ode.options import MeanSettings
from flds.mean_ode.records import Record, Run
from flds.mean_ode.snapshot import first_step, remembered, restore, snapshot
from flds.training.callbacks import Watch
from flds.training.divergence import Divergence
from flds.training.options import RecordSteps
from solvers.results.files import State


def train(
    dynamics: Dynamics,
    settings: MeanSettings,
    state: State | None = None,
    bar: Any = None,
    kept: KeptRun | None = None,
    watch: Watch | None = None,
) -> Run:
    """K gradient steps, or those after a stored state; each step is recorded before its update."""
    training, last = _Training(dynamics, settings, watch), dynamics.problem.steps
    run = training.run
    place: int | None = None  # the step that comes next, where the units are between two steps
    try:
        first = place = 0 if state is None else training.go_on(state)
        with dynamics.ensemble.running():
            for step in range(first, last + 1):
                forward = training.forward(step)
                if training.diverges(forward.outputs, forward.targets):
                    run.status = "diverged"
                    break
                record = training.record(step, forward)
                moves = step < last and run.status != "stopped"
                place = None if moves else step  # there is no going on from half an update
                covectors = training.backward(step, forward, moves)
                training.keep(record, forward, covectors)
                if run.status == "stopped":
                    break
                place = step + 1
                if step == last and settings.keep_state:
                    run.state = training.snapshot(None)
                elif kept is not None and moves and kept.due():
                    kept.keep(dynamics, training.update, run, place)
                if bar is not None:
                    bar.update()
    except KeyboardInterrupt:
        run.status = "completed" if place == last + 1 else "interrupted"
    if place and run.status in ("interrupted", "stopped"):
        if settings.keep_state:
            run.state = training.snapshot(place)
        if kept is not None and run.status == "interrupted":
            kept.keep(dynamics, training.update, run, place)
    return run


class _Forward(NamedTuple):
    """States of a batch at the nodes, h(1) of it, and its outputs and targets."""

    states: list[Array]
    last: Array
    outputs: Array
    targets: Any


class _Training:
    """What is done in each step, and the run that comes of it."""

    def __init__(self, dynamics: Dynamics, settings: MeanSettings, watch: Watch | None) -> None:
        problem = dynamics.problem
        self.dynamics, self.problem, self.settings, self.watch = dynamics, problem, settings, watch
        self.run, self.divergence = Run(), Divergence(problem.divergence_factor)
        self.due = RecordSteps(problem.steps, settings.record_every)
        self.inputs, self.tests = problem.x.astype(settings.dtype), problem.test_x.astype(settings.dtype)
        self.update = dynamics.update(rows=problem.batches.size * problem.x[0].size // problem.dimension)

    def batch(self, step: int) -> Any:
        """Return the samples of a step, as an index."""
        batches = self.problem.batches
        return slice(None) if batches.full else batches.table[step]

    def forward(self, step: int) -> _Forward:
        """Pass the batch of a step through depth."""
        batch, states = self.batch(step), list[Array]()
        last = self.dynamics.forward(self.inputs[batch], states)
        return _Forward(states, last, self.problem.read(last), self.problem.y[batch])

    def diverges(self, outputs: Array, targets: Any) -> bool:
        """Whether the loss or the outputs of a batch have grown too large."""
        return bool(self.divergence.at(self.problem.losses(outputs, targets).mean(), np.mean(outputs**2)))

    def record(self, step: int, forward: _Forward) -> Record | None:
        """Return the record of a step if it is due, without features; who watches it may stop the run."""
        if step not in self.due:
            return None
        problem, dynamics = self.problem, self.dynamics
        travel = {name: dynamics.travel(name) for name in problem.rates}
        tested = problem.read(dynamics.forward(self.tests) if len(self.tests) else self.tests)
        outputs = forward.outputs if problem.batches.full else problem.read(dynamics.forward(self.inputs))
        ends = self.watch is not None and self.watch.ends(step, outputs, tested, problem.outputs == 1)
        if ends and step < problem.steps:
            self.run.status = "stopped"
        return Record(step, outputs, tested, travel, np.empty(0), np.empty(0))

    def backward(self, step: int, forward: _Forward, moves: bool) -> list[Array]:
        """Pass back through depth, where units move or covectors are recorded; return them."""
        if not moves and not self.settings.record_features:
            return []
        slope = self.problem.loss_gradient(forward.last, forward.targets).astype(self.settings.dtype)
        if not moves:
            return self.dynamics.backward(forward.states, slope)
        self.update.begin(step)
        with self.dynamics.ensemble.whole():
            return self.dynamics.descend(forward.states, slope, self.update)

    def keep(self, record: Record | None, forward: _Forward, covectors: list[Array]) -> None:
        """Keep a record, if there is one, with the features of the batch if they are asked for."""
        if record is None:
            return
        if self.settings.record_features:
            record = record._replace(states=np.array(forward.states), covectors=np.array(covectors))
        self.run.keep(record, self.due.count)

    def snapshot(self, next_step: int | None) -> State:
        """Return the state of the units before the passes of a step, or, without one, after those of the last."""
        return snapshot(self.problem, self.dynamics.moved, self.run.records, next_step) | remembered(self.update)

    def go_on(self, state: State) -> int:
        """Restore units and records; return the step that comes next. The first record says what "diverged" means."""
        first = first_step(state)
        self.update.restore({name: item.values for name, item in state.items()})
        for record in restore(self.dynamics, state):
            if record.step < first:
                self.run.keep(record, self.due.count)
        for record in self.run.records[:1]:
            self.diverges(record.outputs[self.batch(0)], self.problem.y[self.batch(0)])
        return first
