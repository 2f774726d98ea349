"""Training of one network: passes and updates, what is recorded of them, and how it ends."""

from __future__ import annotations

from typing import Any

import numpy as np

from flds.training.callbacks import Watch
from flds.training.kept import KeptReplicate
from flds.training.network import Network
from flds.training.records import Recorder
from flds.training.snapshot import early_snapshot, go_on, snapshot
from solvers.ensemble.random import Address, Stream
from solvers.matrices.operator import RankBudgetExceeded
from solvers.results.checkpoint import FINAL
from solvers.results.files import Variable


def train(
    network: Network,
    bar: Any = None,
    state: dict[str, Variable] | None = None,
    kept: KeptReplicate | None = None,
    watch: Watch | None = None,
) -> Recorder:
    """Forward through depth, loss, backward through depth, update; for every step, unless who watches ends it."""
    problem = network.problem
    recorder = Recorder(problem, network.settings, network)
    place: tuple[int, list[Any]] | None = None  # the step that comes next, and what the weights revealed before it
    try:
        with network.ensemble.running():
            first = 0
            if state is None:
                network.initialise()
            else:
                first = go_on(network, recorder, state)
                state = None  # what the network has not taken over is no longer needed
            place = first, network.mark()
            for step, batch in enumerate(problem.batches[first:], first):
                inputs, targets = problem.x[batch], problem.y[batch]
                forward = network.forward(inputs, Address(Stream.FORWARD, step, tuple(range(len(batch)))))
                loss = problem.loss_function.value(forward.outputs, targets).mean()
                if recorder.divergence.at(loss, np.mean(forward.outputs**2)):
                    recorder.status = "diverged"
                    break
                slopes = problem.loss_function.derivative(forward.outputs, targets)
                backward = network.backward(forward, slopes, step)
                recorder.record(step, loss, forward, backward)
                if watch is not None and step in recorder.due and recorder.last_ends(watch) and step < problem.steps:
                    recorder.status = "stopped"
                    break
                if step < problem.steps:
                    place = None  # there is no going on from half an update
                    with network.ensemble.whole():
                        network.update(inputs, slopes, forward, backward, step)
                    place = step + 1, network.mark()
                    if kept is not None and kept.due():
                        kept.keep(network, recorder, step + 1)
                elif network.settings.keep_state:
                    recorder.state = snapshot(network, recorder, forward, backward)
                del forward, backward  # whose states would lie beside those of the next pass
                if bar is not None:
                    bar.update()
    except (RankBudgetExceeded, MemoryError):
        recorder.status = "rank_budget"
    except np.linalg.LinAlgError:  # a Gram matrix with NaN or infinity in it
        recorder.status = "diverged"
    except KeyboardInterrupt:
        recorder.status = "interrupted"
    if place is not None and recorder.status in ("rank_budget", "interrupted", "stopped"):
        network.forget(place[1])
        if network.settings.keep_state:
            recorder.state = early_snapshot(network, recorder, place[0])
        if kept is not None and recorder.status not in FINAL:
            kept.keep(network, recorder, place[0])
    recorder.finish()
    return recorder
