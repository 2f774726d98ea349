"""The solution of a training problem: outputs, losses, moments over depth, ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

import solvers.results.solution
from flds.results.kernels import step_kernel
from flds.results.recipe import recipe
from flds.results.replicates import completed, mean_and_error
from flds.results.upstairs import upstairs
from solvers.results.solution import Variable

if TYPE_CHECKING:
    import xarray


@dataclass(repr=False, eq=False)
class Solution(solvers.results.solution.Solution):
    """Solution of a training problem; variables that were not produced raise AttributeError.

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
        Σ at depths 0 … L−1 and Θ at depths 1 … L across recorded (step, batch sample) pairs, in this order, which
        `pass_step` and `pass_sample` list, with ``record_kernels=True``; `step_kernel` returns those of single steps.
    kernel_alignment : (records, depth)
        Centred alignment of Σ with the targets of the batch of that step, see `flds.kernel_alignment`; NaN where the
        batch has one sample. `test_kernel_alignment` likewise of test samples.
    test_feature_kernel : (records, depth, test samples, test samples)
        Σ at depths 0 … L−1 of test samples; `cross_feature_kernel`, (records, depth, test samples, samples), with the
        recorded training samples.
    rank, truncation : (depth, 2)
        Final rank of the forward and backward basis, and the share of the sum of squares of all vectors that fell below
        the tolerance.
    rank_by_step : (records, 2)
        Rank at each record, mean over depth.
    replicate_outputs : (replicates, records, samples[, outputs])
        Outputs of each replicate, where there are several; other variables are then means, and
        ``<variable>_standard_error`` their standard errors.
    """

    schema: ClassVar[str] = "flds.Solution/1"
    places: ClassVar[dict[str, str]] = {"step": "steps", "sample": "recorded_samples", "t": "depth_grid"}
    former_axes: ClassVar[dict[str, str]] = {"record": "step", "step": "every_step", "depth_point": "t"}

    @property
    def states(self) -> list[dict[str, Variable]]:
        """What was kept of the trained network of each replicate; empty without ``keep_state=True``."""
        return [self.groups[f"state_{index}"] for index in range(len(self.groups))]

    def step_kernel(self, name: str = "feature_kernel") -> xarray.DataArray:
        """Return Σ_t or Θ_t of every recorded step.

        Parameters
        ----------
        name : str
            "feature_kernel" or "gradient_kernel", across the batch, or "test_feature_kernel".

        Returns
        -------
        xarray.DataArray
            (step, t, sample, other_sample) where every step trains on the same samples, whose indices are the
            coordinates; else (step, t, place, other_place), places in the batch, with the indices of the samples there
            as `sample`, (step, place). Of test samples (step, t, test_sample, other_test_sample).

        Raises
        ------
        AttributeError
            If the solution has no kernels.
        ValueError
            If there is no such kernel.
        """
        return step_kernel(self, name)

    def predict(
        self,
        inputs: ArrayLike,
        *,
        problem: Any = None,
        return_error: bool = False,
    ) -> NDArray[np.float64] | tuple[NDArray[np.float64], NDArray[np.float64]]:
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
        with np.errstate(over="ignore", invalid="ignore"):  # which is looked for below
            parts = upstairs.predict(self, inputs, problem)
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
        settings, problem = self.settings, self.extra["problem"]
        network = settings["solver"] == "simulate_resnet"
        size = f"width {settings['particles']}" if network else f"{settings['particles']} particles"
        if settings.get("kernel") == "quadrature":
            size = "infinite width"
        method = f"method     tangent kernel of the untrained network, by {settings.get('kernel')}"
        if "operator" in settings:
            method = (
                f"method     {settings['operator']} operator, sampling by {settings['sampling']}, {settings['dtype']}"
            )
        if settings.get("device"):
            method += f", on {settings['device']}"
        lines = [
            f"solver     {settings['solver']}, {settings['backward_weights']} backward weights",
            f"network    {size}, depth {settings['depth']}, {problem['activation']}, horizon {problem['horizon']:g}",
            method,
            f"trained by {recipe(problem, problem['learning_rate'], self.variables, 'problem_learning_rate')}",
        ]
        if "tolerance" in settings:
            lines.append(f"tolerance  {settings['tolerance']:.3g}, seed {self.seed}, {completed(settings)}")
        if settings.get("operator") == "lazy" and len(self.rank):
            rank, dropped = self.rank.max(axis=0), self.truncation.max(axis=0)
            lines.append(f"rank       {rank[0]:.4g} forward, {rank[1]:.4g} backward (largest over depth)")
            lines.append(f"dropped    {dropped[0]:.1e} forward, {dropped[1]:.1e} backward (share of squares)")
        if len(self.steps):
            lines.append(f"step       {self.steps[-1]} of {problem['steps']}")
            for prefix, label, samples in (("", "training", self.outputs.shape[1]), ("test_", "test", None)):
                if f"{prefix}loss" not in self.variables:
                    continue
                count = samples or self.test_outputs.shape[1]
                result = f"{problem['loss']} loss {self._last(f'{prefix}loss')}"
                if f"{prefix}accuracy" in self.variables:
                    result += f", accuracy {self._last(f'{prefix}accuracy', percent=True)}"
                lines.append(f"{label:10} {result} on {count} samples")
        lines.append("time       " + ", ".join(f"{taken:.1f} s {name}" for name, taken in self.timings.items()))
        lines.append(f"status     {self.status}")
        return "\n".join(lines + [f"note       {note}" for note in self.notes])

    def _last(self, name: str, percent: bool = False) -> str:
        value = getattr(self, name)[-1]
        error = self.variables.get(f"{name}_standard_error")
        if percent:
            return f"{value:.1%}" + ("" if error is None else f" ± {error.values[-1]:.1%}")
        return f"{value:.4g}" + ("" if error is None else f" ± {error.values[-1]:.2g}")
