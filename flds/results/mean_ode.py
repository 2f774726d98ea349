"""The solution of a Mean ODE problem, and how records become one."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from flds.mean_ode.blocks import Array, Block
from flds.mean_ode.problem import MeanFieldProblem
from flds.results.solution import Solution, all_states, average_replicates
from flds.training.divergence import completed
from solvers.results.solution import Field, library_versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from flds.mean_ode.options import MeanSettings
    from flds.mean_ode.solve import Run

_NOT_AVERAGED = ("steps", "depth_grid")


@dataclass(repr=False, eq=False)
class MeanFieldSolution(Solution):
    """Solution of `solve_mean_ode` or `solve_tangent_ode`; fields that were not produced raise AttributeError.

    Attributes
    ----------
    steps : (records,) int
        Recorded steps, from 0 to K.
    depth_grid : (nodes,) float64
        s at the nodes, from 0 to 1.
    outputs : (records, samples[, tokens], outputs) float64
        f before update k on the training samples; `test_outputs` likewise.
    loss, accuracy : (records,) float64
        Mean over samples and tokens; the accuracy for class targets; `test_loss`, `test_accuracy` likewise.
    travel_<name> : (records, nodes) float64
        √E‖Z_k(s) − Z_0‖² over √(numbers of Z), for each parameter; of ζ for the tangent ODE.
    features, covectors : (records, nodes, samples[, tokens], D) float64
        h and b at the nodes, with ``record_features=True``.
    inputs, targets : (samples[, tokens], D) and (samples[, tokens][, outputs]) arrays
        Of the problem, embedded; `raw_inputs` before the embedding, where there is one.
    replicate_outputs : (replicates, records, samples[, tokens], outputs) float64
        Outputs of each replicate, where there are several; other fields are then means, and
        ``<field>_standard_error`` their standard errors.
    outputs_depth_error : (records, samples[, tokens], outputs) float64
        Estimated error of finite depth, with ``depth_error=True``.
    """

    schema: ClassVar[str] = "flds.MeanFieldSolution/1"

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw the loss against the step and the travel over depth; save to `path` if given."""
        from flds.cli.pictures import save_picture
        from flds.plotting import mean_field_overview

        figure = mean_field_overview(self)
        if path is not None:
            save_picture(figure, path)
        return figure

    def summary(self) -> str:
        """Return what was run and what came out, in a few lines."""
        settings, problem = self.settings, self.extra["problem"]
        lines = [
            f"solver     {settings['solver']}, {' and '.join(problem['block'])}, alpha {problem['alpha']:g}",
            f"method     {settings['units']} units at {settings['depth'] + 1} nodes, {settings['sampling']} draws, "
            f"{settings['dtype']}, seed {self.seed}, {completed(settings)}",
        ]
        if len(self.steps):
            lines.append(f"step       {self.steps[-1]} of {problem['steps']}")
            lines.append(f"training   {problem['loss']} loss {self.loss[-1]:.4g} on {self.outputs.shape[1]} samples")
            if "test_loss" in self.fields:
                lines.append(f"test       loss {self.test_loss[-1]:.4g} on {self.test_outputs.shape[1]} samples")
            moved = {name: getattr(self, f"travel_{name}")[-1].mean() for name in problem["learning_rates"]}
            travel = ", ".join(f"{name} {distance:.3g}" for name, distance in moved.items())
            lines.append(f"travel     {travel} (root mean square, mean over depth)")
            if "outputs_depth_error" in self.fields:
                lines.append(f"depth      error of outputs about {self.outputs_depth_error.max():.2g}")
        lines += [f"time       {self.timings['solve']:.1f} s", f"status     {self.status}"]
        return "\n".join(lines + [f"note       {note}" for note in self.notes])


def assemble(
    problem: MeanFieldProblem, settings: MeanSettings, solver: str, runs: list[Run], depth_error: Array | None,
    status: str, timings: dict[str, float], notes: list[str],
) -> MeanFieldSolution:  # fmt: skip
    """Turn the records of complete runs, or of one that is not, into a Solution; replicates become means and errors."""
    count = min(len(run.records) for run in runs)
    parts = [_fields(problem, run, count) for run in runs]
    averaged = tuple(name for name in parts[0] if name not in _NOT_AVERAGED)
    fields = average_replicates(parts, averaged)
    fields |= constants(problem)
    if depth_error is not None:
        dims = fields["outputs"].dims
        fields["outputs_depth_error"] = Field(dims, depth_error, "estimated error of finite depth of outputs")
    complete = sum(run.status == "completed" for run in runs)
    saved = {"solver": solver} | asdict(settings) | {"replicates_completed": complete}
    return MeanFieldSolution(
        fields=fields, status=status, timings=timings, seed=settings.seed, settings=saved,
        notes=notes, versions=library_versions(), extra={"problem": describe(problem)},
        groups=all_states([run.state for run in runs], settings.replicates),
    )  # fmt: skip


def describe(problem: MeanFieldProblem) -> dict[str, Any]:
    """Return the problem, without its arrays, as JSON."""
    return {
        "block": [block.name for block in problem.blocks], "blocks": [block.settings() for block in problem.blocks],
        "types": [_type_name(block) for block in problem.blocks],
        "initial_laws": {name: getattr(law, "__qualname__", type(law).__name__) for name, law in problem.laws.items()},
        "alpha": problem.alpha, "loss": problem.loss,
        "deviations": problem.scales, "learning_rates": problem.rates, "steps": problem.steps,
        "divergence_factor": problem.divergence_factor, "dimension": problem.dimension,
        "check": function_values(problem),
    }  # fmt: skip


def function_values(problem: MeanFieldProblem) -> list[float]:
    """Return some numbers that the fields of the blocks give, at units that are quantiles of their initial laws."""
    places = np.array([0.2, 0.7])
    uniforms = [np.tile(places, (problem.numbers(block), 1)) for block in problem.blocks]
    h = problem.x[:1]
    found = []
    for block, z in zip(problem.blocks, problem.initial(uniforms), strict=True):
        found.append(block.value(h.reshape(-1, problem.dimension) if block.tokenwise else h, z).ravel()[:8])
    return np.concatenate(found).tolist()


def _type_name(block: Block) -> str:
    """Return the name of a block's class, with its module where it is not one of ours."""
    kind = type(block)
    return kind.__name__ if kind.__module__.startswith("flds.mean_ode.") else f"{kind.__module__}.{kind.__qualname__}"


def constants(problem: MeanFieldProblem) -> dict[str, Field]:
    """Return the arrays of the problem that it has: data, embedding and unembedding."""
    tokens = ("token",) if problem.x.ndim == 3 else ()
    fields = {
        "inputs": Field(("sample", *tokens, "dimension"), problem.x, "states at depth 0"),
        "targets": Field(("sample", *tokens, "output")[: problem.y.ndim], problem.y, "training targets"),
    }
    if problem.embedding is not None:
        fields["embedding"] = Field(("input", "dimension"), np.asarray(problem.embedding), "embedding W_E")
        for prefix, label, given in (("", "", problem.inputs), ("test_", "test ", problem.test_inputs)):
            if given is not None:
                raw = np.asarray(given)
                dims = (f"{prefix}sample", *tokens, "input")[: raw.ndim]
                fields[f"raw_{prefix}inputs"] = Field(dims, raw, f"{label}inputs before the embedding")
    if problem.unembedding is not None:
        fields["unembedding"] = Field(("dimension", "output"), np.asarray(problem.unembedding), "unembedding W_U")
    if len(problem.test_x):
        fields["test_inputs"] = Field(("test_sample", *tokens, "dimension"), problem.test_x, "test states at depth 0")
        dims = ("test_sample", *tokens, "output")[: problem.test_y.ndim]
        fields["test_targets"] = Field(dims, problem.test_y, "test targets")
    return fields


def _fields(problem: MeanFieldProblem, run: Run, count: int) -> dict[str, Field]:
    records = run.records[:count]
    tokens = ("token",) if problem.x.ndim == 3 else ()
    nodes = np.linspace(0.0, 1.0, len(next(iter(records[0].travel.values()))) if records else 0)

    def stacked(name: str) -> Array:
        return np.asarray(run.rows[name].array[:count], np.float64)

    fields = {
        "steps": Field(("record",), np.array([record.step for record in records], np.int64), "training step"),
        "depth_grid": Field(("node",), nodes, "depth s"),
    }
    groups = (("", "sample", problem.y, "training"), ("test_", "test_sample", problem.test_y, "test"))
    for prefix, dim, targets, label in groups:
        if not len(targets):
            continue
        shape = (0, *targets.shape[: 1 + len(tokens)], problem.outputs)
        outputs: Array = stacked(f"{prefix}outputs") if records else np.empty(shape)
        dims = ("record", dim, *tokens, "output")
        fields[f"{prefix}outputs"] = Field(dims, outputs, f"network outputs on {label} samples")
        loss = np.array([problem.losses(one, targets).mean() for one in outputs])
        fields[f"{prefix}loss"] = Field(("record",), loss, f"{label} loss")
        if problem.loss == "cross_entropy":
            hits = np.array([np.mean(one.argmax(axis=-1) == targets) for one in outputs])
            fields[f"{prefix}accuracy"] = Field(("record",), hits, f"{label} accuracy")
    for name in problem.rates:
        travel = np.array([record.travel[name] for record in records]).reshape(len(records), len(nodes))
        fields[f"travel_{name}"] = Field(("record", "node"), travel, f"root mean square displacement of {name}")
    if records and records[0].states.size:
        dims = ("record", "node", "sample", *tokens, "dimension")
        fields["features"] = Field(dims, stacked("states"), "states h")
        fields["covectors"] = Field(dims, stacked("covectors"), "covectors b of the loss")
    return fields
