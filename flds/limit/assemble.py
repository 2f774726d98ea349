"""How the rounds of an estimate become a solution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flds.limit.extrapolation import MULTIPLES
from flds.results.limit import LimitEstimate
from flds.training.assemble import output_variables
from flds.training.description import describe
from solvers.results.versions import library_versions

if TYPE_CHECKING:
    from flds.limit.estimate import Search


def assemble(search: Search) -> LimitEstimate:
    """Return the solution of the last round of a search."""
    problem, last = search.problem, search.reported
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
        **({"continued_from_round": search.continued} if search.continued else {}),
        "target_error": search.target,
        "budget_seconds": search.budget,
        "particles": last.particles,
        "depth": last.depth,
        "replicates": search.replicates,
        "depths": [last.depth // 2 * multiple for multiple in sorted(MULTIPLES)],
        "seeds": last.seeds,
        "backward_weights": settings.backward_weights,
        "operator": settings.operator,
        "sampling": settings.sampling,
        "tolerance": settings.tolerance,
        "record_every": settings.record_every,
        "dtype": settings.dtype,
        "threads": search.threads,
        "rounds": [
            {"particles": r.particles, "depth": r.depth, "half_width": r.widest, "seconds": r.seconds}
            for r in search.rounds
        ],
    }
    return LimitEstimate(
        variables=variables | arrays,
        status=search.status,
        timings=search.timings,
        seed=settings.seed,
        settings=saved,
        notes=search.notes,
        versions=library_versions(),
        extra={"problem": description},
    )
