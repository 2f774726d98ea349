"""How the rounds of an estimate become a solution."""

from __future__ import annotations

from typing import Any

from flds.limit.extrapolation import MULTIPLES, Round
from flds.results.limit import LimitEstimate
from flds.training.assemble import output_variables
from flds.training.description import describe
from flds.training.problem import TrainingProblem
from solvers.results.versions import library_versions


def assemble(
    problem: TrainingProblem,
    last: Round,
    rounds: list[Round],
    asked: dict[str, Any],
    status: str,
    timings: dict[str, float],
    notes: list[str],
) -> LimitEstimate:
    """Return the solution of the round that is reported, the last of all, with what was asked for."""
    settings = last.settings
    recorded = list(settings.recorded_samples)
    cut = len(recorded)
    variables = output_variables(problem, last.steps, recorded, last.estimate[:, :cut], last.estimate[:, cut:])
    errors = (
        ("outputs_half_width", last.half_width, "half width of the 95 % interval of"),
        ("statistical_error", last.standard_error, "standard error of"),
        ("depth_error", last.depth_error, "allowance for finite depth of"),
        ("particle_error", last.particle_error, "allowance for finitely many particles of"),
    )
    for name, values, label in errors:
        for prefix, part in (("", slice(0, cut)), ("test_", slice(cut, None))):
            if f"{prefix}outputs" in variables:
                like = variables[f"{prefix}outputs"]
                variables[f"{prefix}{name}"] = like._replace(
                    values=values[:, part].reshape(like.values.shape), long_name=f"{label} {like.long_name}"
                )
    description, arrays = describe(problem)
    saved: dict[str, Any] = {
        "solver": "estimate_limit",
        **asked,
        "particles": last.particles,
        "depth": last.depth,
        "depths": [last.depth // 2 * multiple for multiple in sorted(MULTIPLES)],
        "replicates": len(last.seeds),
        "seeds": last.seeds,
        "backward_weights": settings.backward_weights,
        "operator": settings.operator,
        "sampling": settings.sampling,
        "tolerance": settings.tolerance,
        "record_every": settings.record_every,
        "dtype": settings.dtype,
        "device": settings.device,
        "rounds": [{**r.sizes._asdict(), "half_width": r.widest, "seconds": r.seconds} for r in rounds],
    }
    return LimitEstimate(
        variables=variables | arrays,
        status=status,
        timings=timings,
        seed=settings.seed,
        settings=saved,
        notes=notes,
        versions=library_versions(),
        extra={"problem": description},
    )
