"""How a problem is solved: particles, depth, operator, sampling, precision and what is recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flds import checks
from flds.problem import TrainingProblem

OPERATORS = ("auto", "lazy", "dense")
BACKWARD_WEIGHTS = ("tied", "independent")
SAMPLINGS = ("matched", "law", "matched_all")
DTYPES = ("float64", "float32")

# A training set up to this size, or one trained on as a whole, is recorded at every step.
FEW_SAMPLES = 32
MOST_RECORDED = 256
MOST_RECORDS = 20


@dataclass(frozen=True)
class Settings:
    """Checked solver settings with every default decided; they are saved with the result."""

    particles: int
    depth: int
    backward_weights: str
    seed: int
    operator: str
    sampling: str
    tolerance: float
    rank_budget: tuple[int, int]
    noise_depth: int
    record_every: int
    recorded_samples: tuple[int, ...]
    record_kernels: bool
    dtype: str
    threads: int
    replicates: int

    @property
    def numpy_dtype(self) -> np.dtype:
        return np.dtype(self.dtype)

    def record_steps(self, steps: int) -> list[int]:
        """Steps at which outputs are recorded: 0, record_every, … and always the last."""
        return sorted({*range(0, steps + 1, self.record_every), steps})


def recording(
    problem: TrainingProblem, record_every: int | None, recorded_samples: Any
) -> tuple[int, tuple[int, ...]]:
    """Decide at which steps and on which training samples outputs are recorded."""
    few = problem.samples <= FEW_SAMPLES or problem.full_batch
    if record_every is None:
        # both ends are recorded, so 19 intervals make 20 records
        record_every = 1 if few else max(1, -(-problem.steps // (MOST_RECORDS - 1)))
    checks.positive_integer("record_every", record_every)
    if recorded_samples is None:
        if problem.samples <= MOST_RECORDED or problem.full_batch:
            recorded_samples = range(problem.samples)
        else:
            recorded_samples = np.linspace(0, problem.samples - 1, MOST_RECORDED).astype(int)
    indices = np.asarray(list(recorded_samples))
    if indices.ndim != 1 or indices.size == 0 or indices.dtype.kind not in "iu":
        raise ValueError(f"recorded_samples must be a list of sample indices, got {recorded_samples!r}")
    if indices.min() < 0 or indices.max() >= problem.samples:
        raise ValueError(
            f"recorded_samples must be sample indices from 0 to {problem.samples - 1}, "
            f"got {indices.min()} to {indices.max()}"
        )
    return int(record_every), tuple(int(i) for i in indices)
