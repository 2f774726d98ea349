"""The solution of a training problem: outputs, losses, moments over depth, ranks, and plots of them."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

import solvers.results.solution
from flds.training.options import Settings
from flds.training.problem import TrainingProblem
from flds.training.records import Recorder, kernels
from solvers.results.solution import Field, library_versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from flds.mean_ode.problem import MeanFieldProblem

# Data up to this size travel with the result; larger data are named by their hash.
EMBEDDED_BYTES = 64 * 2**20
# Samples whose limit a summary lists.
_SHOWN = 10

_RECORDED = (
    "outputs", "loss", "accuracy", "test_outputs", "test_loss", "test_accuracy", "feature_variance",
    "gradient_variance", "feature_kernel", "gradient_kernel", "rank", "rank_by_step", "truncation", "batch_loss",
)  # fmt: skip


@dataclass(repr=False, eq=False)
class Solution(solvers.results.solution.Solution):
    """Solution of a training problem; fields that were not produced raise AttributeError.

    Attributes
    ----------
    steps : (records,) int
        Recorded steps, from 0 to K.
    outputs : (records, samples[, outputs])
        f^(k) before update k on the recorded training samples; `test_outputs` likewise.
    loss, accuracy : (records,)
        Mean over the recorded training samples; `test_loss`, `test_accuracy` likewise.
    batch_loss : (steps + 1,)
        Loss of the batch at every step from 0 to K, recorded or not.
    feature_variance, gradient_variance : (records, depth + 1)
        E h_t² and E g_t², mean over the batch of that step.
    feature_kernel, gradient_kernel : (depth, passes, passes)
        Σ at depths 0 … L−1 and Θ at depths 1 … L across recorded (step, batch sample) pairs, in this order,
        with ``record_kernels=True``.
    rank, truncation : (depth, 2)
        Final rank of the forward and backward basis, and the share of the mass dropped.
    rank_by_step : (records, 2)
        Rank at each record, mean over depth.
    replicate_outputs : (replicates, records, samples[, outputs])
        Outputs of each replicate, where there are several; other fields are then means, and
        ``<field>_standard_error`` their standard errors.
    """

    schema: ClassVar[str] = "flds.Solution/1"

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw loss, accuracy, feature and gradient norms over depth, and rank; save to `path` if given."""
        from flds.cli.pictures import save_picture
        from flds.plotting import overview

        figure = overview(self)
        if path is not None:
            save_picture(figure, path)
        return figure

    @property
    def states(self) -> list[dict[str, Field]]:
        """What was kept of the trained network of each replicate; empty without ``keep_state=True``."""
        return [self.groups[f"state_{index}"] for index in range(len(self.groups))]

    def predict(
        self, inputs: ArrayLike, *, problem: TrainingProblem | MeanFieldProblem | None = None,
        return_error: bool = False,
    ) -> NDArray[np.float64] | tuple[NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
        """Return the outputs of the trained network on new inputs, from a solution with ``keep_state=True``.

        They are those at the last recorded step: on the test inputs, the last row of `test_outputs`.

        Parameters
        ----------
        inputs : (samples, ...) array
            In the form of the problem's own inputs.
        problem : TrainingProblem or MeanFieldProblem, optional
            The problem itself, where it cannot be read back, as for `rerun`.
        return_error : bool
            Also return the standard error over the replicates.

        Returns
        -------
        outputs : (samples, ...) float64
            Mean over the replicates, in the form of `test_outputs`.
        error : (samples, ...) float64
            Only with ``return_error=True``.

        Raises
        ------
        ValueError
            If there is no state, `inputs` do not have the form of the problem's or are so large that outputs are not
            finite, there is one replicate only to take an error from, or the problem cannot be read back.

        Notes
        -----
        Lazily sampled weights draw the images of what is new in these inputs, always the same ones for the same
        `inputs`. In another place or company an output differs by up to order 1/√N, as with another seed.
        """
        from flds.replay import predict

        with np.errstate(over="ignore", invalid="ignore"):  # which is looked for below
            parts = predict(self, inputs, problem)
            if return_error and len(parts) < 2:
                raise ValueError("return_error needs at least two replicates, got 1")
            mean, error = mean_and_error(parts) if return_error else (parts.mean(axis=0), np.zeros(1))
        for name, values in (("outputs", mean), ("standard errors of outputs", error)):
            if not np.isfinite(values).all():
                largest = np.abs(np.asarray(inputs, np.float64)).max()
                raise ValueError(
                    f"inputs are too large: {name} are not finite, got up to {largest:.3g}; scale them down"
                )
        return (mean, error) if return_error else mean

    def summary(self) -> str:
        """Return what was run and what came out, in a few lines."""
        from flds.plotting.overview import summary_lines

        return "\n".join(summary_lines(self))


@dataclass(repr=False, eq=False)
class LimitEstimate(solvers.results.solution.Solution):
    """Outputs of the limit N → ∞, L → ∞ with 95 % confidence intervals, as `estimate_limit` returns them.

    Those of test data are `test_outputs`, `test_outputs_half_width`, and so on. `settings` has the sizes and
    seeds of the round that is reported and, as ``rounds``, the sizes, half width and seconds of every round.

    Attributes
    ----------
    steps : (records,) int
        Recorded steps, from 0 to K.
    recorded_samples : (samples,) int
        Indices of the training samples.
    outputs, outputs_half_width : (records, samples[, outputs]) float64
        f^(k) of the limit, and half the width of its 95 % interval: t · statistical_error + depth_error +
        particle_error. An interval holds for one number, not for all of them at once. The outputs are extrapolated in
        depth, and rid of the bias of order 1/N that two halves of the particles show; a note says where they are not.
    statistical_error : (records, samples[, outputs]) float64
        Standard error of the mean over the replicates, with that of what was taken off.
    depth_error, particle_error : (records, samples[, outputs]) float64
        What the intervals allow for the error that is left of finite depth, and of finitely many particles: the size
        of the bias that was seen, as its next powers are of a like size where N is small.
    loss, accuracy : (records,) float64
        Of these outputs.
    """

    schema: ClassVar[str] = "flds.LimitEstimate/1"

    def summary(self) -> str:
        """Return what was run, and the outputs ± half width of up to ten samples at the last record."""
        settings, problem = self.settings, self.extra["problem"]
        depths = ", ".join(map(str, settings["depths"]))
        lines = [
            f"solver     {settings['solver']}, {settings['backward_weights']} backward weights",
            f"network    {problem['activation']}, horizon {problem['horizon']:g}",
            f"method     {settings['particles']} particles, depths {depths}, {settings['replicates']} replicates, "
            f"sampling by {settings['sampling']}",
            f"rounds     {len(settings['rounds'])}, seed {self.seed}",
        ]
        if len(self.steps):
            lines.append(f"step       {self.steps[-1]} of {problem['steps']}: outputs ± half width (95 %)")
            values, halves = (a[-1].reshape(a.shape[1], -1) for a in (self.outputs, self.outputs_half_width))
            for sample, row, half in zip(self.recorded_samples[:_SHOWN], values, halves, strict=False):
                shown = ", ".join(f"{f:.5g} ± {h:.2g}" for f, h in zip(row, half, strict=True))
                lines.append(f"sample {sample:<3} {shown}")
            if len(self.recorded_samples) > _SHOWN:
                lines.append(f"           … and {len(self.recorded_samples) - _SHOWN} samples more")
        lines.append(f"time       {self.timings['compile']:.1f} s compile, {self.timings['solve']:.1f} s solve")
        lines.append(f"status     {self.status}")
        return "\n".join(lines + [f"note       {note}" for note in self.notes])


def load(path: str | os.PathLike[str], groups: bool = True) -> solvers.results.solution.Solution:
    """Return the solution in a file that `save` wrote.

    Parameters
    ----------
    path : path
        The file.
    groups : bool
        Whether to read the states of trained networks as well, which may be large.

    Returns
    -------
    Solution
        A `flds.Solution`, or that of another solver, with all arrays in memory.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a results file of this library, or is damaged.
    """
    import flds.results.mean_ode  # noqa: F401  its files are to be known

    return solvers.results.solution.load(path, groups)


def assemble(
    problem: TrainingProblem, settings: Settings, recorders: list[Recorder], status: str,
    timings: dict[str, float], notes: list[str], saved: dict[str, Any],
) -> Solution:  # fmt: skip
    """Turn what was recorded into a Solution; replicates become means and standard errors."""
    records = min(len(recorder.records) for recorder in recorders)
    seen = min(len(recorder.batch_loss) for recorder in recorders)
    parts = [_replicate_fields(problem, settings, recorder, records, seen) for recorder in recorders]
    fields = average_replicates(parts, averaged=_RECORDED)
    saved["replicates_completed"] = sum(recorder.status == "completed" for recorder in recorders)
    description, arrays = describe(problem)
    return Solution(
        fields=fields | arrays, status=status, timings=timings, seed=settings.seed, settings=saved, notes=notes,
        versions=library_versions(), extra={"problem": description},
        groups=all_states([recorder.state for recorder in recorders], settings.replicates),
    )  # fmt: skip


def mean_and_error(samples: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean of independent samples along the first axis, and its standard error."""
    return samples.mean(axis=0), samples.std(axis=0, ddof=1) / np.sqrt(len(samples))


def average_replicates(parts: list[dict[str, Field]], averaged: tuple[str, ...]) -> dict[str, Field]:
    """Combine replicates: the mean of every field named in `averaged`, its standard error, and all outputs."""
    fields: dict[str, Field] = {}
    replicates: dict[str, Field] = {}
    for name in list(parts[0]):
        first = parts[0][name]
        if name not in averaged or len(parts) == 1:
            fields[name] = first
            continue
        stacked = np.stack([part.pop(name).values for part in parts])  # so that little is held twice
        mean, error = mean_and_error(stacked)
        fields[name] = first._replace(values=mean)
        fields[f"{name}_standard_error"] = first._replace(
            values=error, long_name=f"standard error of {first.long_name} over replicates"
        )
        if name == "outputs":
            dims = ("replicate", *first.dims)
            replicates["replicate_outputs"] = Field(dims, stacked, "network outputs of each replicate")
    return fields | replicates


def all_states(states: list[dict[str, Field]], replicates: int) -> dict[str, dict[str, Field]]:
    """Return the states of all replicates as groups, or none: there is no going on from some of them."""
    complete = len(states) == replicates and all(states)
    return {f"state_{index}": one for index, one in enumerate(states)} if complete else {}


def output_fields(
    problem: TrainingProblem, steps: list[int], recorded: list[int], outputs: NDArray[np.float64],
    test_outputs: NDArray[np.float64],
) -> dict[str, Field]:  # fmt: skip
    """Return recorded steps, outputs, losses and accuracies; outputs are (records, samples, outputs)."""
    loss = problem.loss_function
    fields = {
        "steps": Field(("record",), np.array(steps, np.int64), "training step"),
        "recorded_samples": Field(("sample",), np.array(recorded, np.int64), "index of the training sample"),
    }
    groups = (
        ("", "sample", "training", problem.y[recorded], outputs),
        ("test_", "test_sample", "test", problem.test_y, test_outputs),
    )
    for prefix, dim, label, targets, values in groups:
        if not len(targets):
            continue
        single = problem.outputs == 1
        shown, dims = (values[..., 0], ("record", dim)) if single else (values, ("record", dim, "output"))
        fields[f"{prefix}outputs"] = Field(dims, shown, f"network outputs on {label} samples")
        losses = np.array([loss.value(f, targets).mean() for f in values])
        fields[f"{prefix}loss"] = Field(("record",), losses, f"{label} loss")
        if loss.classifies:
            accuracies = np.array([loss.accuracy(f, targets) for f in values])
            fields[f"{prefix}accuracy"] = Field(("record",), accuracies, f"{label} accuracy")
    return fields


def depth_fields(
    horizon: float, feature_variance: NDArray[np.float64], gradient_variance: NDArray[np.float64]
) -> dict[str, Field]:
    """Return the grid of depths and the mean squares over it, (records, depth + 1) each."""
    over_depth, grid = ("record", "depth_point"), np.linspace(0.0, horizon, feature_variance.shape[1])
    return {
        "depth_grid": Field(("depth_point",), grid, "depth t", "horizon units"),
        "feature_variance": Field(over_depth, feature_variance, "mean square feature E h²"),
        "gradient_variance": Field(over_depth, gradient_variance, "mean square gradient E g²"),
    }


def _replicate_fields(
    problem: TrainingProblem, settings: Settings, recorder: Recorder, count: int, seen: int
) -> dict[str, Field]:
    recorded = list(settings.recorded_samples)
    records = recorder.records[:count]

    def stacked(name: str, *shape: int) -> NDArray[np.float64]:
        return recorder.rows[name].array[:count].reshape(count, *shape)

    fields = output_fields(
        problem, [r.step for r in records], recorded, stacked("outputs", len(recorded), problem.outputs),
        stacked("test_outputs", len(problem.test_x), problem.outputs),
    )  # fmt: skip
    points, side = settings.depth + 1, ("layer", "side")
    fields |= depth_fields(problem.horizon, stacked("feature_variance", points), stacked("gradient_variance", points))
    fields |= {
        "batch_loss": Field(("step",), np.array(recorder.batch_loss[:seen]), "loss of the batch"),
        "rank": Field(side, recorder.rank, "rank of the forward and backward basis"),
        "rank_by_step": Field(("record", "side"), stacked("rank", 2), "rank, mean over depth"),
        "truncation": Field(side, recorder.truncation, "share of the mass dropped below the tolerance"),
    }
    if settings.record_kernels and records:
        dims = ("layer", "pass", "other_pass")
        features, gradients = kernels([r.features for r in records]), kernels([r.gradients for r in records])
        fields["feature_kernel"] = Field(dims, features, "feature kernel Σ at depths 0 to L-1")
        fields["gradient_kernel"] = Field(dims, gradients, "gradient kernel Θ at depths 1 to L")
    return fields


def difference(then: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Return the first entry in which two descriptions of a problem differ, or None.

    Functions are compared by the numbers that they give, the entry "check", up to the rounding of another machine.
    What the first one does not say is not compared.
    """
    for name in then:
        if name != "check" and then[name] != now.get(name):
            return name
    return None if same_functions(then, now["check"]) else "activation, block or initial law"


def same_functions(then: dict[str, Any], values: list[float]) -> bool:
    """Whether functions that give these values are those of a description, as far as it says."""
    stored = then.get("check", values)
    return len(stored) == len(values) and np.allclose(stored, values, rtol=1e-9, atol=1e-12)


def function_values(problem: TrainingProblem) -> list[float]:
    """Return what φ and φ' give at some points."""
    points = np.linspace(-3.0, 3.0, 7)
    return [*problem.phi.value(points).tolist(), *problem.phi.derivative(points).tolist()]


def digest(array: NDArray[Any]) -> str:
    """Return the SHA-256 of the numbers of an array."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def describe(problem: TrainingProblem) -> tuple[dict[str, Any], dict[str, Field]]:
    """Return the problem as JSON, with what its functions give at some points, and arrays that are not too large."""
    description: dict[str, Any] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for item in dataclass_fields(problem):
        if not item.init:
            continue
        value = getattr(problem, item.name)  # arrays are the problem's own copies
        if item.name == "activation":
            description["activation"] = problem.phi.name
            description["check"] = function_values(problem)
        elif value is None or isinstance(value, (str, int, float)):
            description[item.name] = value
        else:
            arrays[item.name] = np.asarray(value)
    embedded = sum(array.nbytes for array in arrays.values()) <= EMBEDDED_BYTES
    fields = {}
    for name, array in arrays.items():
        description[name] = {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest(array)}
        if embedded:
            dims = tuple(f"{name}_{axis}" for axis in range(array.ndim))
            fields[f"problem_{name}"] = Field(dims, array, f"{name} of the problem")
    return description, fields
