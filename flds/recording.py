"""What is kept of a training run while it goes on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flds.dynamics import BackwardPass, ForwardPass, Network
from flds.problem import TrainingProblem
from flds.settings import Settings
from solvers.weight_operator import Coordinates

Array = NDArray[np.float64]


class Recorder:
    """Collects outputs, moments, ranks and, on request, kernels. It never changes the training."""

    def __init__(self, problem: TrainingProblem, settings: Settings, network: Network) -> None:
        self.problem, self.settings, self.network = problem, settings, network
        self.status = "completed"
        self.completed_steps = 0
        self.unmatched = False
        self.due = set(settings.record_steps(problem.steps))
        self.steps: list[int] = []
        self.outputs: list[Array] = []
        self.test_outputs: list[Array] = []
        self.feature_variance: list[Array] = []
        self.gradient_variance: list[Array] = []
        self.rank_by_step: list[Array] = []
        self.batch_loss: list[float] = []
        self.feature_coordinates: list[list[Coordinates]] = []
        self.gradient_coordinates: list[tuple[NDArray[np.intp], list[Coordinates]]] = []
        self.rank = np.zeros((settings.depth, 2), np.int64)
        self.truncation = np.zeros((settings.depth, 2))

    def record(self, step: int, forward: ForwardPass, backward: BackwardPass) -> None:
        """Record step `step` before its update."""
        problem = self.problem
        batch = problem.batches[step]
        self.batch_loss.append(float(problem.loss_function.value(forward.outputs, problem.y[batch]).mean()))
        self.completed_steps = step
        if step not in self.due:
            return
        recorded = list(self.settings.recorded_samples)
        if problem.full_batch:
            outputs = forward.outputs[recorded]
        else:
            outputs = self.network.probe(problem.x[recorded], step, recorded)
        # The fresh noise of a test sample has the position of a training sample that does not exist.
        tests = list(range(problem.samples, problem.samples + len(problem.test_x)))
        self.test_outputs.append(self.network.probe(problem.test_x, step, tests))
        self.steps.append(step)
        self.outputs.append(outputs)
        self.feature_variance.append(forward.variance)
        self.gradient_variance.append(backward.variance)
        self.rank_by_step.append(np.mean([layer.rank for layer in self.network.layers], axis=0))
        if self.settings.record_kernels:
            self.feature_coordinates.append(forward.coordinates)
            self.gradient_coordinates.append((backward.active, backward.coordinates))

    def finish(self) -> None:
        """Read off the final ranks and let the network go."""
        layers = getattr(self.network, "layers", [])
        for index, layer in enumerate(layers):
            self.rank[index] = layer.rank
            self.truncation[index] = layer.truncation
        self.unmatched = bool(layers) and self.network.unmatched()
        del self.network

    def feature_kernel(self) -> Array:
        """Σ across recorded passes and batch samples at depths 0 … L−1, (L, passes, passes)."""
        return self._kernel(self.feature_coordinates)

    def gradient_kernel(self) -> Array:
        """Θ likewise at depths 1 … L; NaN for samples with L' = 0, whose gradient was not needed."""
        padded = []
        for active, coordinates in self.gradient_coordinates:
            rows = []
            for d in coordinates:
                full = np.full((self.problem.batch, d.shape[1]), np.nan)
                full[active] = d
                rows.append(full)
            padded.append(rows)
        return self._kernel(padded)

    def _kernel(self, coordinates: list[list[Coordinates]]) -> Array:
        """Inner products of coordinates on orthonormal bases that grew from record to record."""
        kernels = []
        for layer in range(self.settings.depth):
            rows = [record[layer] for record in coordinates]
            width = max(row.shape[1] for row in rows)
            stacked = np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]))) for row in rows])
            missing = np.isnan(stacked).any(axis=1)
            kernel = np.nan_to_num(stacked) @ np.nan_to_num(stacked).T
            kernel[missing] = kernel[:, missing] = np.nan
            kernels.append(kernel)
        return np.array(kernels)
