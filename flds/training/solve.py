"""The public solvers of the feature-learning dynamics: the limit, and a finite network in law."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Unpack

import numpy as np

from flds.results.solution import Solution
from flds.training.apart import Apart, check_executor
from flds.training.assemble import assemble
from flds.training.callbacks import Watch, require_one_run
from flds.training.cost import CostEstimate
from flds.training.divergence import outcome
from flds.training.kept import KeptReplicates, described
from flds.training.method import decide, plan
from flds.training.network import Network
from flds.training.notes import on_end
from flds.training.options import Options, Settings
from flds.training.problem import TrainingProblem
from flds.training.records import Recorder
from flds.training.snapshot import ended_snapshot
from flds.training.train import train
from solvers import checks
from solvers.accelerate import compiler_time
from solvers.ensemble.homes import home_on
from solvers.ensemble.particles import Particles
from solvers.ensemble.random import replicate_seed
from solvers.ensemble.threads import compile_kernels
from solvers.progress import progress_bar
from solvers.ranks import require_same
from solvers.results.checkpoint import Checkpoint
from solvers.results.files import State, Variable


def solve_flds(
    problem: TrainingProblem,
    *,
    particles: int = 20_000,
    depth: int = 64,
    sampling: str = "matched",
    progress: bool = False,
    **options: Unpack[Options],
) -> Solution:
    """Solve the feature-learning dynamics: the infinite-width limit of training, at depth L.

    Parameters
    ----------
    problem : TrainingProblem
        What is trained.
    particles : int
        N; statistical errors fall like 1/sqrt(N).
    depth : int
        L, the number of Euler–Maruyama steps; the error of the limit L → ∞ falls like 1/L.
    sampling : str
        "matched" makes the second moments of fresh noise exact (smaller errors at equal N), "law" draws
        it as a network would, "matched_all" is the strong test for the identity activation.
    progress : bool
        Show a progress bar on standard error.
    **options : Options
        backward_weights, seed, operator, tolerance, rank_budget, noise_depth, record_every,
        recorded_samples, record_kernels, keep_state, dtype, threads, replicates, callback and others; see
        `flds.Options`.

    Returns
    -------
    Solution
        Outputs, losses, moments over depth, ranks; `status` says whether the solve completed.

    Raises
    ------
    ValueError, TypeError
        If an argument is not valid.
    MemoryError
        If the run would not fit in memory.

    Warns
    -----
    RuntimeWarning
        If the solve ended early or could not be done as asked; the solution keeps all that was computed.

    References
    ----------
    Paper F, Definition 1, eqs. (7)–(9), for ``backward_weights="independent"``; the limit of ordinary
    backpropagation, which has an additional response term, for ``"tied"``.
    """
    return run(problem, particles, depth, sampling, progress, options, "solve_flds")


def simulate_resnet(
    problem: TrainingProblem,
    *,
    width: int = 1_000,
    depth: int = 64,
    progress: bool = False,
    **options: Unpack[Options],
) -> Solution:
    """Train a ResNet of finite width by SGD, exactly in law, without holding its weight matrices.

    Parameters
    ----------
    problem : TrainingProblem
        What is trained.
    width, depth : int
        n and L of F-(1).
    progress : bool
        Show a progress bar on standard error.
    **options : Options
        As for `solve_flds`. The law is exact at ``tolerance=0``. At the default, joint tests over all steps and
        samples do not tell some hundred networks from dense ones; larger tolerances change the smallest joint
        fluctuations first, which training makes some 10⁻³ of those of one output. So does ``dtype="float32"``, which
        keeps nothing below 10⁻⁵.

    Notes
    -----
    The joint law of the outputs on trained samples over all steps is that of the network. An input that is
    only evaluated (a test input, or a training sample between its visits) is not remembered by the lazy
    operator: its output has the right law at every record, and jointly with up to 63 others evaluated with
    it, but not jointly over records. ``operator="dense"`` has no such restriction.

    Returns
    -------
    Solution
        As for `solve_flds`.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As for `solve_flds`.

    References
    ----------
    Paper F, eqs. (1) and (4).
    """
    return run(problem, checks.positive_integer("width", width), depth, "law", progress, options, "simulate_resnet")


def estimate_cost(
    problem: TrainingProblem,
    *,
    particles: int | None = None,
    depth: int = 64,
    sampling: str | None = None,
    width: int | None = None,
    **options: Unpack[Options],
) -> CostEstimate:
    """Return operator, rank, memory and time that `solve_flds` or `simulate_resnet` would need, without running it.

    Parameters are those of `solve_flds`. The time is for this machine, whose speed is measured first. Of a run that
    does not fit, which a solver refuses, it says what is missing.

    Parameters
    ----------
    width : int, optional
        n of `simulate_resnet`, whose cost it then is; without particles, and with sampling "law".

    Returns
    -------
    CostEstimate
        Ranks, bytes and seconds, which operator the run would take, and whether it `fits` in memory.

    Raises
    ------
    ValueError, TypeError
        As for `solve_flds`; also if there are both particles and a width, or a width and a sampling other than "law".
    """
    if width is not None:
        if particles is not None:
            raise ValueError("give particles for solve_flds or width for simulate_resnet, not both")
        if sampling not in (None, "law"):
            raise ValueError(f'sampling must be "law" with a width, got {checks.shown(sampling)}; leave it out')
        particles, sampling = checks.positive_integer("width", width), "law"
    particles = 20_000 if particles is None else particles
    return plan(problem, particles, depth, "matched" if sampling is None else sampling, options).cost


def run(
    problem: TrainingProblem,
    particles: int,
    depth: int,
    sampling: str,
    progress: bool,
    options: Options,
    solver: str,
    kind: type[Network] = Network,
    states: Sequence[dict[str, Variable]] = (),
) -> Solution:
    """Check the options, train every replicate of a network of this kind, and return the solution.

    With stored states, one for each replicate, training goes on from there.
    """
    checks.flag("progress", progress)
    settings, cost, notes = decide(problem, particles, depth, sampling, options)
    communicator, known = options.get("communicator"), partial(described, problem, settings, solver, states)
    checkpoint = Checkpoint.of(options.get("checkpoint"), options.get("checkpoint_every"))
    if communicator is not None:
        require_same(communicator, known() | {"checkpoint": str(checkpoint.path)})
    executor = check_executor(options.get("executor"), communicator)
    if executor is not None and options.get("threads") is None:
        settings = replace(settings, threads=1)
    callback = options.get("callback")
    require_one_run(callback, settings.replicates, executor)
    targets = problem.y[list(settings.recorded_samples)], problem.test_y
    watch = Watch(callback, problem.loss_function.measured, targets, communicator)
    ensemble = home_on(settings.device, settings.particles, settings.threads, communicator)
    timings = {"compile": 0.0 if settings.device else compile_kernels(settings.numpy_dtype)}
    start = time.perf_counter()
    with checkpoint.opened(known, communicator), compiler_time() as compiler:
        kept = KeptReplicates(checkpoint, problem, settings, states)
        total = settings.replicates * (problem.steps + 1) - kept.done
        with progress_bar(total, progress and ensemble.speaks) as bar:
            recorders = list(_trained(kind, problem, settings, ensemble, kept, bar, executor, watch))
        timings["compile"] += compiler.seconds
        timings["solve"] = time.perf_counter() - start - compiler.seconds
        saved = json.loads(json.dumps(asdict(settings))) | {"solver": solver, "reason": cost.reason} | kept.continued
        if solver == "simulate_resnet":
            saved["width"] = settings.particles
        solution = _solution(problem, settings, recorders, timings, notes + checkpoint.notes, saved)
        checkpoint.settle(solution.status)
    for note in solution.notes if ensemble.speaks else ():
        if note not in checkpoint.notes:  # of which there was a warning
            warnings.warn(note, RuntimeWarning, stacklevel=3)
    return solution


def _trained(
    kind: type[Network],
    problem: TrainingProblem,
    settings: Settings,
    ensemble: Particles,
    kept: KeptReplicates,
    bar: Any,
    executor: Executor | None,
    watch: Watch,
) -> Iterator[Recorder]:
    """Yield what was recorded of each replicate, in order, until one ends as the others would."""
    arguments: dict[int, tuple[Any, ...]] = {}
    if executor is not None:
        waiting = [number for number in range(settings.replicates) if kept.ended(number) is None]
        arguments = {number: (kind, problem, settings, number, kept.take(number)) for number in waiting}
    with Apart(executor, _train_replicate, arguments) as apart:
        for number in range(settings.replicates):
            recorder = kept.ended(number)
            if recorder is None:
                seed = replicate_seed(settings.seed, number)
                if executor is None:
                    # no name holds the network, whose memory is free for what is made of the records
                    network = partial(kind, problem, settings, seed, ensemble=ensemble)
                    recorder = train(network(), bar, kept.take(number), kept.of(number), watch)
                else:
                    recorder = Recorder.of_ended(problem, settings, apart.result(number))
                    bar.update(problem.steps + 1)
                kept.end(number, recorder, always=executor is not None)
            yield recorder
            if recorder.status in ("interrupted", "rank_budget"):  # the others would end so, too
                return


def _train_replicate(
    kind: type[Network], problem: TrainingProblem, settings: Settings, replicate: int, state: State | None
) -> State:
    """Train one replicate, from a state if there is one, and return what it recorded."""
    network = kind(problem, settings, replicate_seed(settings.seed, replicate))
    return ended_snapshot(train(network, state=state))


def _solution(
    problem: TrainingProblem,
    settings: Settings,
    recorders: list[Recorder],
    timings: dict[str, float],
    notes: list[str],
    saved: dict[str, Any],
) -> Solution:
    """Return the solution of the replicates that were trained, some of which may have ended early."""
    status, ended, kept, remark = outcome([one.status for one in recorders], settings.replicates)
    where = f"{recorders[ended].completed_steps}" + (f" of replicate {ended + 1}" if settings.replicates > 1 else "")
    notes += on_end(status, where, settings, (one.unmatched for one in recorders), remark)
    with np.errstate(over="ignore", invalid="ignore"):  # the last records of a diverging run
        return assemble(problem, settings, [recorders[index] for index in kept], status, timings, notes, saved)
