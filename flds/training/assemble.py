"""How what was recorded becomes a solution."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flds.results.kernels import aligned
from flds.results.replicates import all_states, average_replicates
from flds.results.solution import Solution
from flds.training.description import describe
from flds.training.options import Settings
from flds.training.problem import TrainingProblem
from flds.training.records import Record, Recorder, kernels
from solvers.results.solution import Variable
from solvers.results.versions import library_versions

_RECORDED = (
    "outputs",
    "loss",
    "accuracy",
    "test_outputs",
    "test_loss",
    "test_accuracy",
    "feature_variance",
    "gradient_variance",
    "feature_kernel",
    "gradient_kernel",
    "kernel_alignment",
    "test_feature_kernel",
    "cross_feature_kernel",
    "test_kernel_alignment",
    "rank",
    "rank_by_step",
    "truncation",
    "batch_loss",
)


def assemble(
    problem: TrainingProblem,
    settings: Settings,
    recorders: list[Recorder],
    status: str,
    timings: dict[str, float],
    notes: list[str],
    saved: dict[str, Any],
) -> Solution:
    """Turn what was recorded into a Solution; replicates become means and standard errors."""
    records = min(len(recorder.records) for recorder in recorders)
    seen = min(len(recorder.batch_loss) for recorder in recorders)
    parts = [_replicate_variables(problem, settings, recorder, records, seen) for recorder in recorders]
    variables = average_replicates(parts, averaged=_RECORDED)
    saved["replicates_completed"] = sum(recorder.status == "completed" for recorder in recorders)
    description, arrays = describe(problem)
    return Solution(
        variables=variables | arrays,
        status=status,
        timings=timings,
        seed=settings.seed,
        settings=saved,
        notes=notes,
        versions=library_versions(),
        extra={"problem": description},
        groups=all_states([recorder.state for recorder in recorders], settings.replicates),
    )


def output_variables(
    problem: TrainingProblem,
    steps: list[int],
    recorded: list[int],
    outputs: NDArray[np.float64],
    test_outputs: NDArray[np.float64],
) -> dict[str, Variable]:
    """Return recorded steps, outputs, losses and accuracies; outputs are (records, samples, outputs)."""
    loss = problem.loss_function
    variables = {
        "steps": Variable(("step",), np.array(steps, np.int64), "training step"),
        "recorded_samples": Variable(("sample",), np.array(recorded, np.int64), "index of the training sample"),
    }
    groups = (
        ("", "sample", "training", problem.y[recorded], outputs),
        ("test_", "test_sample", "test", problem.test_y, test_outputs),
    )
    for prefix, dim, label, targets, values in groups:
        if not len(targets):
            continue
        single = problem.outputs == 1
        shown, dims = (values[..., 0], ("step", dim)) if single else (values, ("step", dim, "output"))
        variables[f"{prefix}outputs"] = Variable(dims, shown, f"network outputs on {label} samples")
        losses = np.array([loss.value(f, targets).mean() for f in values])
        variables[f"{prefix}loss"] = Variable(("step",), losses, f"{label} loss")
        if loss.classifies:
            accuracies = np.array([loss.accuracy(f, targets) for f in values])
            variables[f"{prefix}accuracy"] = Variable(("step",), accuracies, f"{label} accuracy")
    return variables


def depth_variables(
    horizon: float, feature_variance: NDArray[np.float64], gradient_variance: NDArray[np.float64]
) -> dict[str, Variable]:
    """Return the grid of depths and the mean squares over it, (records, depth + 1) each."""
    over_depth, grid = ("step", "t"), np.linspace(0.0, horizon, feature_variance.shape[1])
    return {
        "depth_grid": Variable(("t",), grid, "depth t", "horizon units"),
        "feature_variance": Variable(over_depth, feature_variance, "mean square feature E h²"),
        "gradient_variance": Variable(over_depth, gradient_variance, "mean square gradient E g²"),
    }


def _replicate_variables(
    problem: TrainingProblem, settings: Settings, recorder: Recorder, count: int, seen: int
) -> dict[str, Variable]:
    recorded = list(settings.recorded_samples)
    records = recorder.records[:count]

    def stacked(name: str, *shape: int) -> NDArray[np.float64]:
        return recorder.rows[name].array[:count].reshape(count, *shape)

    variables = output_variables(
        problem,
        [r.step for r in records],
        recorded,
        stacked("outputs", len(recorded), problem.outputs),
        stacked("test_outputs", len(problem.test_x), problem.outputs),
    )
    points, side = settings.depth + 1, ("layer", "side")
    variables |= depth_variables(
        problem.horizon, stacked("feature_variance", points), stacked("gradient_variance", points)
    )
    variables |= {
        "batch_loss": Variable(("every_step",), np.array(recorder.batch_loss[:seen]), "loss of the batch"),
        "rank": Variable(side, recorder.rank, "rank of the forward and backward basis"),
        "rank_by_step": Variable(("step", "side"), stacked("rank", 2), "rank, mean over depth"),
        "truncation": Variable(side, recorder.truncation, "share of the sum of squares that fell below the tolerance"),
    }
    if settings.record_kernels and records:
        variables |= _kernel_variables(problem, settings, recorder, records)
    return variables


def _kernel_variables(
    problem: TrainingProblem, settings: Settings, recorder: Recorder, records: list[Record]
) -> dict[str, Variable]:
    """Return Σ and Θ across recorded passes, Σ of test inputs, and how well Σ fits the targets."""
    steps = [record.step for record in records]
    features, gradients = kernels([r.features for r in records]), kernels([r.gradients for r in records])
    samples, dims = problem.batches[steps], ("layer", "pass", "other_pass")
    found = {
        "feature_kernel": Variable(dims, features, "feature kernel Σ at depths 0 to L-1"),
        "gradient_kernel": Variable(dims, gradients, "gradient kernel Θ at depths 1 to L"),
        "pass_step": Variable(("pass",), np.repeat(steps, problem.batch), "training step of a pass"),
        "pass_sample": Variable(("pass",), samples.ravel(), "index of the training sample of a pass"),
    }
    own = [slice(start, start + problem.batch) for start in range(0, samples.size, problem.batch)]
    blocks = np.array([features[:, one, one] for one in own])
    targets = [problem.y[batch] for batch in samples]
    alignment = np.array([aligned(block, y) for block, y in zip(blocks, targets, strict=True)])
    found["kernel_alignment"] = Variable(("step", "layer"), alignment, "alignment of Σ with the targets of the batch")
    if not len(problem.test_x):
        return found
    recorded = len(settings.recorded_samples)
    tests = recorder.rows["test_kernels"].array[: len(records)]
    cross, itself = tests[..., :recorded], tests[..., recorded:]
    dims = ("step", "layer", "test_sample")
    of_tests = np.array([aligned(block, problem.test_y) for block in itself])
    return found | {
        "test_feature_kernel": Variable((*dims, "other_test_sample"), itself, "feature kernel Σ of test samples"),
        "cross_feature_kernel": Variable((*dims, "sample"), cross, "Σ of test and recorded training samples"),
        "test_kernel_alignment": Variable(("step", "layer"), of_tests, "alignment of Σ of test samples with targets"),
    }
