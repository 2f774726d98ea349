"""What is kept of a training run while it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flds.training.callbacks import Watch
from flds.training.divergence import Divergence
from flds.training.network import BackwardPass, ForwardPass, Network
from flds.training.options import RecordSteps, Settings
from flds.training.problem import TrainingProblem
from solvers.matrices.operator import Coordinates
from solvers.results.rows import Rows
from solvers.results.solution import STATUSES

if TYPE_CHECKING:
    from solvers.results.files import Variable

Array = NDArray[np.float64]
_ARRAYS = ("outputs", "test_outputs", "feature_variance", "gradient_variance", "rank", "test_kernels")


@dataclass(frozen=True)
class Record:
    """What is kept of one step; arrays are rows of those of all steps."""

    step: int
    outputs: Array
    test_outputs: Array
    feature_variance: Array
    gradient_variance: Array
    rank: Array
    test_kernels: Array  # Σ of test inputs with recorded samples and with themselves, or nothing
    features: list[Coordinates]
    gradients: list[Coordinates]


class Recorder:
    """Collects outputs, moments, ranks and, on request, kernels. It never changes the training."""

    def __init__(self, problem: TrainingProblem, settings: Settings, network: Network | None = None) -> None:
        self.problem, self.settings = problem, settings
        if network is not None:
            self.network = network
        # kernels are those of what the first matrix of a branch meets, and of what is pulled through the last
        self.met, *_, self.pulled = [*problem.branch.matrices, *problem.branch.matrices]
        self.status = "completed"
        self.completed_steps = 0
        self.unmatched = False
        self.due = RecordSteps(problem.steps, settings.record_every)
        self.records: list[Record] = []
        self.rows = {name: Rows(self.due.count) for name in _ARRAYS}
        self.batch_loss: list[float] = []
        self.rank = np.zeros((settings.depth, 2), np.int64)
        self.truncation = np.zeros((settings.depth, 2))
        self.divergence = Divergence(problem.divergence_factor)
        self.state: dict[str, Variable] = {}  # of the trained network, where it is kept

    def record(self, step: int, loss: float, forward: ForwardPass, backward: BackwardPass) -> None:
        """Record step `step` before its update; `loss` is that of its batch."""
        problem = self.problem
        if step in self.due:
            recorded = list(self.settings.recorded_samples)
            # Test samples take the noise of the positions after the last training sample.
            tests = range(problem.samples, problem.samples + len(problem.test_x))
            kernels = self.settings.record_kernels
            self._keep(
                step,
                {
                    "outputs": (
                        forward.outputs[recorded]
                        if problem.full_batch
                        else self.network.probe(problem.x[recorded], recorded)
                    ),
                    "test_outputs": self.network.probe(problem.test_x, tests),
                    "feature_variance": forward.variance,
                    "gradient_variance": backward.variance,
                    "rank": np.mean([operator.rank for operator in self.network.operators], axis=0),
                    "test_kernels": self._test_kernels(recorded, tests) if kernels and tests else np.empty(0),
                },
                features=[np.asarray(tape[self.met]) for tape in forward.tapes] if kernels else [],
                gradients=self._with_gaps(backward) if kernels else [],
            )
        self.batch_loss.append(float(loss))
        self.completed_steps = step

    def _test_kernels(self, recorded: list[int], tests: range) -> Array:
        inputs = np.concatenate([self.problem.x[recorded], self.problem.test_x])
        return self.network.feature_kernels(inputs, [*recorded, *tests])[:, len(recorded) :]

    def last_ends(self, watch: Watch) -> bool:
        """Whether the run is to end with the last record."""
        last = self.records[-1]
        return watch.ends(last.step, last.outputs, last.test_outputs, squeezed=self.problem.outputs == 1)

    def finish(self) -> None:
        """Read off the final ranks; the network can then be freed."""
        for layer in getattr(self.network, "layers", []):
            operators = layer.matrices.values()
            self.rank[layer.number] = np.max([operator.rank for operator in operators], axis=0)
            self.truncation[layer.number] = np.max([operator.truncation for operator in operators], axis=0)
        self.unmatched = self.network.unmatched()
        del self.network

    def ended(self) -> dict[str, NDArray[Any]]:
        """Return all of a run that has ended, but for the state of its network, as arrays by name."""
        status = np.array(STATUSES.index(self.status))
        return self.stored() | {
            "ended_status": status,
            "ended_step": np.array(self.completed_steps),
            "ended_rank": self.rank,
            "ended_truncation": self.truncation,
            "ended_unmatched": np.array(self.unmatched),
        }

    @classmethod
    def of_ended(cls, problem: TrainingProblem, settings: Settings, state: dict[str, Variable]) -> Recorder:
        """Return the recorder of a run that has ended, from what `ended` returned and the state, if it was kept."""
        recorder, arrays = cls(problem, settings), {name: item.values for name, item in state.items()}
        recorder.restore(arrays)
        recorder.status = STATUSES[int(arrays["ended_status"])]
        recorder.completed_steps = int(arrays["ended_step"])
        recorder.rank, recorder.truncation = arrays["ended_rank"], arrays["ended_truncation"]
        recorder.unmatched = bool(arrays["ended_unmatched"])
        recorder.state = {name: item for name, item in state.items() if not name.startswith("ended_")}
        if not settings.keep_state:
            recorder.state = {}
        return recorder

    def stored(self, before: int | None = None) -> dict[str, NDArray[Any]]:
        """Return all records, or those of the steps before one, as arrays by name."""
        arrays: dict[str, NDArray[Any]] = {"batch_loss": np.array(self.batch_loss[:before])}
        records = [record for record in self.records if before is None or record.step < before]
        if self.divergence.initial is not None:
            arrays["initial_sizes"] = self.divergence.initial
        for name in ("step", *_ARRAYS):
            arrays[f"recorded_{name}"] = np.array([getattr(record, name) for record in records])
        if self.settings.record_kernels:
            for side in ("features", "gradients"):
                for layer, rows in enumerate(zip(*(getattr(record, side) for record in records), strict=True)):
                    arrays[f"layer_{layer}_recorded_{side}"] = _padded(rows)
        return arrays

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over records."""
        self.batch_loss = arrays["batch_loss"].tolist()
        # older states do not say how large the outputs were, which are small before training
        if "initial_sizes" in arrays:
            self.divergence.initial = arrays["initial_sizes"]
        elif self.batch_loss:
            self.divergence.initial = np.array([self.batch_loss[0], 0.0])
        self.completed_steps = len(self.batch_loss) - 1
        kernels, layers = self.settings.record_kernels, range(self.settings.depth)
        if "recorded_test_kernels" not in arrays:  # of older states
            arrays = {**arrays, "recorded_test_kernels": self._unknown_kernels(len(arrays["recorded_step"]))}
        for index, step in enumerate(arrays["recorded_step"].tolist()):
            if step == self.completed_steps and step not in self.due:
                continue  # recorded only because training stopped there
            self._keep(
                step,
                {name: arrays[f"recorded_{name}"][index] for name in _ARRAYS},
                *(
                    [arrays[f"layer_{layer}_recorded_{side}"][index] for layer in layers] if kernels else []
                    for side in ("features", "gradients")
                ),
            )

    def _unknown_kernels(self, records: int) -> Array:
        tests = len(self.problem.test_x)
        if not (self.settings.record_kernels and tests):
            return np.empty((records, 0))
        return np.full((records, self.settings.depth, tests, len(self.settings.recorded_samples) + tests), np.nan)

    def _keep(
        self, step: int, arrays: dict[str, Array], features: list[Coordinates], gradients: list[Coordinates]
    ) -> None:
        rows = {name: self.rows[name].append(array) for name, array in arrays.items()}
        self.records.append(Record(step=step, features=features, gradients=gradients, **rows))

    def _with_gaps(self, backward: BackwardPass) -> list[Coordinates]:
        """Coordinates of the gradients, NaN for samples with L' = 0, whose gradient was not needed."""
        rows = []
        for d in (gradients[self.pulled] for gradients in backward.gradients):
            full = np.full((self.problem.batch, max(1, d.shape[1])), np.nan)
            full[backward.active] = 0.0
            full[backward.active, : d.shape[1]] = d
            rows.append(full)
        return rows


def kernels(coordinates: list[list[Coordinates]]) -> Array:
    """Inner products of coordinates on orthonormal bases that grew from record to record.

    Takes, for every record, the (batch, rank) coordinates in each layer; returns (layers, passes, passes)
    with passes = records × batch.
    """
    result = Rows(len(coordinates[0]))
    for rows in zip(*coordinates, strict=True):
        padded = _padded(rows)
        stacked = padded.reshape(padded.shape[0] * padded.shape[1], padded.shape[2])
        missing = np.isnan(stacked).any(axis=1)
        kernel = np.nan_to_num(stacked) @ np.nan_to_num(stacked).T
        kernel[missing] = kernel[:, missing] = np.nan
        result.append(kernel)
    return result.array


def _padded(rows: Sequence[Coordinates]) -> Coordinates:
    """Coordinates of one layer, (records, batch, rank), with zeros on directions that came later."""
    padded = np.zeros((len(rows), len(rows[0]), max(row.shape[1] for row in rows)), np.result_type(*rows))
    for record, row in zip(padded, rows, strict=True):
        record[:, : row.shape[1]] = row
    return padded
