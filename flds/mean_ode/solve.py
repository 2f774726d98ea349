"""The public solvers of paper H: the Neural Mean ODE and the tangent ODE, in training."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

import numpy as np

from flds.mean_ode.assemble import assemble
from flds.mean_ode.blocks import Array, Parameters
from flds.mean_ode.cost import require_room
from flds.mean_ode.draws import draw_units
from flds.mean_ode.kept import KeptRun, KeptRuns, described, ended_snapshot, run_of
from flds.mean_ode.network import Dynamics, MeanDynamics, TangentDynamics
from flds.mean_ode.notes import notes_on
from flds.mean_ode.options import MeanOptions, MeanSettings, require_linear, resolve_mean
from flds.mean_ode.problem import MeanFieldProblem
from flds.mean_ode.records import Run
from flds.mean_ode.snapshot import first_step
from flds.mean_ode.train import train
from flds.results.mean_ode import MeanFieldSolution
from flds.training.apart import Apart, check_executor
from flds.training.callbacks import Watch
from flds.training.divergence import outcome
from solvers import checks
from solvers.accelerate import compiler_time
from solvers.ensemble.random import replicate_seed
from solvers.progress import progress_bar
from solvers.results.checkpoint import Checkpoint
from solvers.results.files import State, Variable
from solvers.results.solution import AS_ASKED

# Units on which E φ(x, Z_0) = 0 is tested, and how far a mean may be from zero in standard errors of eight draws, so
# that numbers of order 100 are hardly ever beyond by chance (Student's law with seven degrees of freedom: 2e-5).
_TESTED_UNITS, _MARGIN = 1024, 10.0
# Below this depth the error in depth does not yet fall as it should.
_SMALL_DEPTH = 8
# The replicate whose draws it is estimated with, beyond those of any run.
_DEPTH_SEED = 10**6

KINDS: dict[str, type[Dynamics]] = {"solve_mean_ode": MeanDynamics, "solve_tangent_ode": TangentDynamics}


def solve_mean_ode(
    problem: MeanFieldProblem,
    *,
    units: int = 4096,
    depth: int = 16,
    progress: bool = False,
    **options: Unpack[MeanOptions],
) -> MeanFieldSolution:
    """Train the Neural Mean ODE: the limit L → ∞ of ResNets of any hidden width M.

    Units are held at depth + 1 nodes, each with draws of its own; the forward and the backward equation are integrated
    by a predictor–corrector of order three with one evaluation a node.

    Parameters
    ----------
    problem : MeanFieldProblem
        What is trained.
    units : int
        Units at each node, even where they are drawn in pairs; errors fall like units^-½ with "iid" draws and faster
        with "sobol". Below about 1000 the bias of few units can exceed the standard error over replicates.
    depth : int
        Steps in depth; errors fall like depth^-3.
    progress : bool
        Show a progress bar on standard error.
    **options : MeanOptions
        sampling, seed, replicates, depth_error, record_every, record_features, keep_state, dtype, threads;
        see `flds.MeanOptions`.

    Returns
    -------
    MeanFieldSolution
        steps (records,), outputs (records, samples[, tokens][, outputs]), loss (records,), likewise test_outputs and
        test_loss, and travel_<name> (records, nodes): the root mean square of ‖Z_k(s) − Z_0‖ over √(numbers of Z).

    Raises
    ------
    ValueError, TypeError
        If an argument is not valid.
    MemoryError
        If the run would not fit in memory.

    Warns
    -----
    RuntimeWarning
        If training diverged or was interrupted; the solution keeps the replicates that were complete, or else the steps
        up to there.

    References
    ----------
    Paper H, eqs. (10)–(14).
    """
    return run("solve_mean_ode", problem, resolve_mean(problem, units, depth, options), progress, options=options)


def solve_tangent_ode(
    problem: MeanFieldProblem,
    *,
    units: int = 4096,
    depth: int = 16,
    progress: bool = False,
    **options: Unpack[MeanOptions],
) -> MeanFieldSolution:
    """Train the tangent ODE: the limit α → ∞ of the Neural Mean ODE, linear in the displacement ζ of its units.

    Parameters are those of `solve_mean_ode`; `problem.alpha` is not used.

    Returns
    -------
    MeanFieldSolution
        As for `solve_mean_ode`; travel_<name> is that of ζ, the limit of α (Z_k − Z_0).

    Raises
    ------
    ValueError
        Also if E φ(x, Z_0) or E D1φ(x, Z_0) is not zero, which Assumption B of paper H asks for.

    References
    ----------
    Paper H, eqs. (18)–(21).
    """
    settings = resolve_mean(problem, units, depth, options)
    require_linear(problem)
    _require_centred(problem)
    return run("solve_tangent_ode", problem, settings, progress, options=options)


def run(
    name: str,
    problem: MeanFieldProblem,
    settings: MeanSettings,
    progress: bool = False,
    states: Sequence[dict[str, Variable]] = (),
    options: MeanOptions | None = None,
) -> MeanFieldSolution:
    """Train every replicate with the solver of this name, from stored states where there are any."""
    given: Mapping[str, Any] = options or {}
    checkpoint = Checkpoint.of(given.get("checkpoint"), given.get("checkpoint_every"))
    executor = check_executor(given.get("executor"), None)
    if executor is not None and given.get("threads") is None:
        settings = replace(settings, threads=1)
    shown = checks.flag("progress", progress)
    require_room(problem, settings)
    watch = Watch(given.get("callback"), problem.loss_function.measured, (problem.y, problem.test_y))
    kind, start = KINDS[name], time.perf_counter()
    passes = problem.steps + 1
    with checkpoint.opened(partial(described, problem, settings, name, states)), compiler_time() as compiler:
        kept = KeptRuns(checkpoint, problem)
        continued = kept.continued
        total = settings.replicates * (passes - (first_step(states[0]) if states else 0)) - kept.done
        with progress_bar(total + (2 * passes if settings.depth_error else 0), shown) as bar:
            runs = list(_trained(kind, problem, settings, states, bar, kept, executor, watch))
            status, _, complete, remark = outcome([run.status for run in runs], settings.replicates)
            difference = None
            if settings.depth_error and status == "completed":
                status, difference = _depth_error(kind, problem, settings, bar, kept)
        ended = [runs[index] for index in complete]
        notes = notes_on(problem, ended, status, remark)
        timings = {"compile": compiler.seconds, "solve": time.perf_counter() - start - compiler.seconds}
        solution = assemble(problem, settings, name, ended, difference, status, timings, notes + checkpoint.notes)
        solution.settings |= continued
        checkpoint.settle(status)
    if status not in AS_ASKED:
        warnings.warn("; ".join(notes), RuntimeWarning, stacklevel=3)
    return solution


def _trained(
    kind: type[Dynamics],
    problem: MeanFieldProblem,
    settings: MeanSettings,
    states: Sequence[State],
    bar: Any,
    kept: KeptRuns,
    executor: Executor | None,
    watch: Watch,
) -> Iterator[Run]:
    """Yield the runs of the replicates, in order, until one is interrupted."""
    names = [f"replicate_{index}" for index in range(settings.replicates)]

    def start(index: int) -> State | None:
        return kept.take(names[index]) or (states[index] if states else None)

    arguments: dict[int, tuple[Any, ...]] = {}
    if executor is not None:
        waiting = [index for index, name in enumerate(names) if kept.ended(name) is None]
        arguments = {index: (kind, problem, settings, index, start(index)) for index in waiting}
    with Apart(executor, _train_replicate, arguments) as apart:
        for index, name in enumerate(names):
            run = kept.ended(name)
            if run is None:
                if executor is None:
                    run = _one_replicate(kind, problem, settings, index, start(index), bar, kept.of(name), watch)
                else:
                    run = run_of(problem, apart.result(index))
                    bar.update(problem.steps + 1)
                kept.end(name, run)
            yield run
            if run.status == "interrupted":
                return


def _train_replicate(
    kind: type[Dynamics], problem: MeanFieldProblem, settings: MeanSettings, index: int, state: State | None
) -> State:
    """Train one replicate, from a state if there is one, and return what it recorded."""
    return ended_snapshot(problem, _one_replicate(kind, problem, settings, index, state))


def _one_replicate(
    kind: type[Dynamics],
    problem: MeanFieldProblem,
    settings: MeanSettings,
    index: int,
    state: State | None,
    bar: Any = None,
    kept: KeptRun | None = None,
    watch: Watch | None = None,
) -> Run:
    try:
        dynamics = prepare(kind, problem, settings, index)
    except KeyboardInterrupt:
        return Run([], "interrupted")
    return train(dynamics, settings, state, bar, kept, watch)


def prepare(kind: type[Dynamics], problem: MeanFieldProblem, settings: MeanSettings, replicate: int) -> Dynamics:
    """Draw the units of a replicate."""
    seed = replicate_seed(settings.seed, replicate)
    initial = draw_units(problem, settings.depth + 1, settings.units, seed, settings.sampling)
    return kind(problem, _cast(initial, settings.dtype), settings.threads)


def _depth_error(
    kind: type[Dynamics], problem: MeanFieldProblem, settings: MeanSettings, bar: Any, kept: KeptRuns
) -> tuple[str, Array | None]:
    """Estimate the error of finite depth with the same draws at every node; return how it ended, and the error."""

    def solve(depth: int) -> Run:
        name = f"depth_{depth}"
        ended = kept.ended(name)
        if ended is not None:
            return ended
        seed = replicate_seed(settings.seed, _DEPTH_SEED)
        drawn = draw_units(problem, 1, settings.units, seed, settings.sampling)
        same = [{name: np.repeat(values, depth + 1, axis=0) for name, values in z.items()} for z in drawn]
        dynamics = kind(problem, _cast(same, settings.dtype), settings.threads)
        run = train(dynamics, settings, kept.take(name), bar, kept.of(name))
        kept.end(name, run)
        return run

    fine = solve(settings.depth)
    coarse = solve(settings.depth // 2) if fine.status == "completed" else fine
    for run in (fine, coarse):
        if run.status == "interrupted":
            return "interrupted", None
    outputs = np.full((2, len(fine.records), *problem.y.shape[: problem.x.ndim - 1], problem.outputs), np.inf)
    for row, run in zip(outputs, (fine, coarse), strict=True):
        for index, record in enumerate(run.records):
            row[index] = record.outputs
    with np.errstate(invalid="ignore"):
        distance = np.nan_to_num(np.abs(outputs[0] - outputs[1]), nan=np.inf)
    return "completed", distance / (3 if settings.depth >= _SMALL_DEPTH else 1)


def _require_centred(problem: MeanFieldProblem) -> None:
    """Refuse blocks and laws for which E φ(x, Z_0) or E D1φ(x, Z_0) is not zero.

    A symmetric law under which φ changes its sign needs no test; others are averaged over Sobol sequences, which find
    small means.
    """
    for index, block in enumerate(problem.blocks):
        if problem.symmetric(block):
            continue
        h = problem.x[:2].reshape(-1, problem.dimension) if block.tokenwise else problem.x[:1]
        b = np.random.default_rng(0).standard_normal(h.shape)
        parts = [
            {name: values[0] for name, values in draw_units(problem, 1, _TESTED_UNITS, seed, "sobol")[index].items()}
            for seed in range(8)
        ]
        fields = {
            "φ(x, Z_0)": np.array([block.value(h, z) for z in parts]),
            "D1φ(x, Z_0)": np.array([block.pull(h, b, z)[0] for z in parts]),
        }
        for label, values in fields.items():
            error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
            if np.any(np.abs(values.mean(axis=0)) > _MARGIN * error + 1e-12 * _TESTED_UNITS):
                raise ValueError(
                    f"the tangent ODE needs E {label} = 0 (Assumption B of paper H), which the block {block.name!r} "
                    "with these initial laws breaks; use solve_mean_ode"
                )


def _cast(parameters: list[Parameters], dtype: str) -> list[Parameters]:
    return [{name: np.ascontiguousarray(values, dtype) for name, values in z.items()} for z in parameters]
