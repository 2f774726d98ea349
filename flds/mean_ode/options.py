"""How a Mean ODE problem is solved: units, depth, draws, precision and what is recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

from flds.mean_ode.draws import SAMPLINGS
from flds.mean_ode.problem import MeanFieldProblem
from flds.training.callbacks import require_one_run
from flds.training.optimizers import SGD
from flds.training.options import DTYPES, MOST_RECORDS
from solvers import checks
from solvers.processors import thread_count


class MeanOptions(TypedDict, total=False):
    """Options of `solve_mean_ode` and `solve_tangent_ode`.

    Parameters
    ----------
    sampling : str
        "sobol" (default) spreads the initial draws evenly over their law, "iid" draws them independently.
    seed : int
        Seed of the draws, 0 to 2**63 - 1.
    replicates : int
        Independent seeds; variables become means with standard errors.
    depth_error : bool
        Also estimate the error of finite depth, from two more runs with the same draws at every node and `depth` and
        depth/2 steps: the variable ``outputs_depth_error`` is a third of their distance, which a method of order two
        would leave, or the distance itself where depth is below 8.
    record_every : int
        Steps between records; the last step is always recorded. By default every step, with minibatches at most 20.
    record_features : bool
        Record h and b at all nodes, as `follow_units` needs. Not with minibatches.
    keep_state : bool
        Keep the trained units, for `MeanFieldSolution.predict` and `resume`.
    dtype : str
        "float64" or "float32".
    threads : int
        Number of threads, up to 4,096; by default all CPUs. Results do not depend on it.
    executor, checkpoint, checkpoint_every, callback : Executor, path, float, callable
        As in `flds.Options`. A callback watches one run, so it goes with neither replicates nor depth_error.
    """

    sampling: str
    seed: int
    replicates: int
    depth_error: bool
    record_every: int
    record_features: bool
    keep_state: bool
    dtype: str
    threads: int | None
    executor: Any
    checkpoint: Any
    checkpoint_every: float
    callback: Any


@dataclass(frozen=True)
class MeanSettings:
    """Checked settings of a Mean ODE solve; they are saved with the result."""

    units: int
    depth: int
    sampling: str = "sobol"
    seed: int = 0
    replicates: int = 1
    depth_error: bool = False
    record_every: int = 1
    record_features: bool = False
    keep_state: bool = False
    dtype: str = "float64"
    threads: int = 1


def resolve_mean(problem: Any, units: int, depth: int, options: MeanOptions) -> MeanSettings:
    """Check the options and decide the defaults; raises TypeError or ValueError, naming what is wrong."""
    if not isinstance(problem, MeanFieldProblem):
        raise TypeError(f"problem must be a flds.MeanFieldProblem, got {type(problem).__name__}")
    unknown = sorted(set(options) - set(MeanOptions.__annotations__))
    if unknown:
        raise TypeError(f"unknown option {unknown[0]!r}; valid options are {', '.join(MeanOptions.__annotations__)}")
    given = {name: value for name, value in options.items() if value is not None}
    settings = MeanSettings(
        units=checks.positive_integer("units", units, smallest=2),
        depth=checks.positive_integer("depth", depth),
        sampling=checks.choice("sampling", given.get("sampling", "sobol"), SAMPLINGS),
        seed=checks.seed_number("seed", given.get("seed", 0)),
        replicates=checks.positive_integer("replicates", given.get("replicates", 1)),
        depth_error=checks.flag("depth_error", given.get("depth_error", False)),
        record_every=checks.positive_integer("record_every", given.get("record_every", _record_every(problem))),
        record_features=checks.flag("record_features", given.get("record_features", False)),
        keep_state=checks.flag("keep_state", given.get("keep_state", False)),
        dtype=checks.choice("dtype", given.get("dtype", "float64"), DTYPES),
        threads=thread_count(given.get("threads")),
    )
    if settings.depth_error and depth % 2:
        raise ValueError(f"depth must be even to estimate its error, got {depth}")
    require_one_run(given.get("callback"), settings.replicates + settings.depth_error, given.get("executor"))
    if settings.record_features and not problem.batches.full:
        raise ValueError("record_features needs every step to train on all samples; leave out batch_size or it")
    return settings


def _record_every(problem: MeanFieldProblem) -> int:
    return 1 if problem.batches.full else -(-max(1, problem.steps) // (MOST_RECORDS - 1))


def require_linear(problem: MeanFieldProblem) -> None:
    """Refuse rules that have no tangent ODE: a step must be linear in the gradients, and the initial units stay."""
    if type(problem.rule) is not SGD:
        raise ValueError(
            f"the tangent ODE needs steps that are linear in the gradients, as those of SGD are, got "
            f"{type(problem.rule).__name__}; use solve_mean_ode"
        )
    if any(problem.decays.values()):
        raise ValueError("the tangent ODE holds the initial units, which weight_decay would shrink; use solve_mean_ode")
