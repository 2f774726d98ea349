"""The estimate of a limit, with its intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import solvers.results.solution
from flds.results.recipe import recipe

# Samples whose limit a summary lists.
_SHOWN = 10


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
    places: ClassVar[dict[str, str]] = {"step": "steps", "sample": "recorded_samples"}
    former_axes: ClassVar[dict[str, str]] = {"record": "step"}

    def _population(self) -> str:
        settings = self.settings
        if settings.get("networks", settings["replicates"]) > settings["replicates"]:
            return f"pairs of dense networks of width {settings['particles']}"
        return f"{settings['particles']} particles, sampling by {settings['sampling']}"

    def summary(self) -> str:
        """Return what was run, and the outputs ± half width of up to ten samples at the last record."""
        settings, problem = self.settings, self.extra["problem"]
        depths = ", ".join(map(str, settings["depths"]))
        lines = [
            f"solver     {settings['solver']}, {settings['backward_weights']} backward weights",
            f"network    {problem['activation']}, horizon {problem['horizon']:g}",
            f"method     {self._population()}, depths {depths}, {settings['replicates']} replicates",
            f"trained by {recipe(problem, problem['learning_rate'], self.variables, 'problem_learning_rate')}",
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
