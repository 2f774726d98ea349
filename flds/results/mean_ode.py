"""The solution of a Mean ODE problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from flds.results.loss_names import current_name
from flds.results.recipe import recipe
from flds.results.replicates import completed
from flds.results.solution import Solution


@dataclass(repr=False, eq=False)
class MeanFieldSolution(Solution):
    """Solution of `solve_mean_ode` or `solve_tangent_ode`; variables that were not produced raise AttributeError.

    Attributes
    ----------
    steps : (records,) int
        Recorded steps, from 0 to K.
    depth_grid : (nodes,) float64
        s at the nodes, from 0 to 1.
    outputs : (records, samples[, tokens][, outputs]) float64
        f before update k on the training samples, without the last axis where there is one output; `test_outputs`
        likewise.
    loss, accuracy : (records,) float64
        Mean over samples and tokens; the accuracy for class targets and ±1; `test_loss`, `test_accuracy` likewise.
    travel_<name> : (records, nodes) float64
        √E‖Z_k(s) − Z_0‖² over √(numbers of Z), for each parameter; of ζ for the tangent ODE.
    features, covectors : (records, nodes, samples[, tokens], D) float64
        h and b at the nodes, with ``record_features=True``.
    inputs, targets : (samples[, tokens], D) and (samples[, tokens][, outputs]) arrays
        Of the problem, embedded; `raw_inputs` before the embedding, where there is one.
    replicate_outputs : (replicates, records, samples[, tokens][, outputs]) float64
        Outputs of each replicate, where there are several; other variables are then means, and
        ``<variable>_standard_error`` their standard errors.
    outputs_depth_error : (records, samples[, tokens][, outputs]) float64
        Estimated error of finite depth, with ``depth_error=True``.
    """

    schema: ClassVar[str] = "flds.MeanFieldSolution/1"
    places: ClassVar[dict[str, str]] = {"step": "steps", "s": "depth_grid"}
    former_axes: ClassVar[dict[str, str]] = {"record": "step", "node": "s"}

    def summary(self) -> str:
        """Return what was run and what came out, in a few lines."""
        settings, problem = self.settings, self.extra["problem"]
        lines = [
            f"solver     {settings['solver']}, {' and '.join(problem['block'])}, alpha {problem['alpha']:g}",
            f"method     {settings['units']} units at {settings['depth'] + 1} nodes, {settings['sampling']} draws, "
            f"{settings['dtype']}, seed {self.seed}, {completed(settings)}",
        ]
        lines.append(f"trained by {recipe(problem, problem['learning_rates'], self.variables, 'rate')}")
        if len(self.steps):
            lines.append(f"step       {self.steps[-1]} of {problem['steps']}")
            loss = current_name(problem["loss"])
            lines.append(f"training   {loss} loss {self.loss[-1]:.4g} on {self.outputs.shape[1]} samples")
            if "test_loss" in self.variables:
                lines.append(f"test       loss {self.test_loss[-1]:.4g} on {self.test_outputs.shape[1]} samples")
            moved = {name: getattr(self, f"travel_{name}")[-1].mean() for name in problem["learning_rates"]}
            travel = ", ".join(f"{name} {distance:.3g}" for name, distance in moved.items())
            lines.append(f"travel     {travel} (root mean square, mean over depth)")
            if "outputs_depth_error" in self.variables:
                lines.append(f"depth      error of outputs about {self.outputs_depth_error.max():.2g}")
        lines += [f"time       {self.timings['solve']:.1f} s", f"status     {self.status}"]
        return "\n".join(lines + [f"note       {note}" for note in self.notes])
