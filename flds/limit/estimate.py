"""The limit N → ∞, L → ∞ itself: outputs with confidence intervals, from rounds of growing N and L."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from flds.limit.assemble import assemble
from flds.limit.kept import described
from flds.limit.populations import POPULATIONS, cheapest
from flds.limit.search import Search
from flds.results.limit import LimitEstimate
from flds.training.options import OPERATORS, Options, checked
from flds.training.problem import TrainingProblem
from solvers import checks
from solvers.ensemble.homes import check_device
from solvers.processors import thread_count
from solvers.results.checkpoint import Checkpoint

_BUDGET_SECONDS = 60.0


def estimate_limit(
    problem: TrainingProblem,
    *,
    target_error: float | None = None,
    budget_seconds: float | None = None,
    backward_weights: str = "tied",
    seed: int = 0,
    particles: int | None = None,
    depth: int | None = None,
    replicates: int | None = None,
    operator: str = "auto",
    record_every: int | None = None,
    recorded_samples: int | Sequence[int] | None = None,
    threads: int | None = None,
    device: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> LimitEstimate:
    """Estimate the outputs of the limit N → ∞, L → ∞, with 95 % confidence intervals.

    Rounds of independent runs grow in particles or depth, whichever narrows the intervals more, until the target is
    met or the budget is spent. The last round alone is reported. With a target a small round says what the next one
    needs. Where training meets nearly as many directions as there are particles, as with minibatches over a large
    set, the runs are many dense networks in place of few with matched noise.

    Parameters
    ----------
    problem : TrainingProblem
        What is trained.
    target_error : float, optional
        The largest half width wanted of any interval, in the units of the outputs.
    budget_seconds : float, optional
        Time for all rounds; 60 if there is no target either. A round that has begun is finished, and no round begins
        that is expected to end later than this, but for the first. What is expected follows from the time of the
        rounds before.
    backward_weights : str
        "tied" or "independent", as for `solve_flds`.
    seed : int
        Seed of all noise, 0 to 2**63 - 1. Every round draws fresh noise.
    particles, depth : int, optional
        N and L of the first round; by default 2,000 and 8, or with a target 500 and 4, with more particles where noise
        is to be matched to many directions; of dense networks 256 neurons, or four for each input and output. A round
        trains N particles, at least 2, at the depths L/2, L, 2L and 4L, so L is even, and twice
        N/2, rounded down, at 2L, which shows the bias of order 1/N.
    replicates : int, optional
        Independent seeds in a round, at least 2; by default 16. Accuracy comes from more particles, not from more
        replicates. In an ensemble it is the number of pairs in the first round, by default 8; later ones have more.
    operator : str
        "lazy" for particles with matched noise, of which later rounds have more; "dense" for an ensemble: pairs of
        dense networks with the same orthonormal U and v and opposite matrices, in which much of the fluctuations
        cancels, and of which later rounds have more; "auto" for what takes less work for an error.
    record_every, recorded_samples : int, int or sequence of int, optional
        As in `flds.Options`.
    threads : int, optional
        Runs at a time, up to 4,096; by default all available CPUs. For given sizes the results do not depend on it.
    device : str, optional
        "cuda", "cuda:1" or "cpu", as in `flds.Options`: runs go on that device of torch, one after the other.
    checkpoint : path, optional
        A file in which finished rounds are kept. The same call again, should the process end before it, goes on with
        the next one, and ``settings["continued_from_round"]`` says after which. The file is removed at the end, but
        where the target is missed: with a larger ``budget_seconds`` the call goes on from there.
    progress : bool
        Show a progress bar for each round on standard error.

    Returns
    -------
    LimitEstimate
        `outputs` and `outputs_half_width`, what they are made of, and the losses of these outputs.

    Raises
    ------
    ValueError, TypeError
        If an argument is not valid.
    MemoryError
        If the first round would not fit in memory.
    KeyboardInterrupt
        If the first round is interrupted; a later one ends with the status "interrupted" and the round before.

    Warns
    -----
    RuntimeWarning
        If the target was not met, the rounds took longer than the budget, depth or particles are too few for their
        error to be relied upon, or training ended early or could not be done as asked.

    References
    ----------
    L. F. Richardson, "The deferred approach to the limit", Phil. Trans. R. Soc. A 226 (1927).
    D. Talay, L. Tubaro, "Expansion of the global error for numerical schemes solving stochastic differential
    equations", Stoch. Anal. Appl. 8 (1990).
    """
    device = check_device(device, threads=threads)
    if target_error is not None:
        target_error = checks.positive_number("target_error", target_error)
    if budget_seconds is not None:
        budget_seconds = checks.positive_number("budget_seconds", budget_seconds)
    elif target_error is None:
        budget_seconds = _BUDGET_SECONDS
    options: Options = {
        "backward_weights": backward_weights,
        "seed": seed,
        **({"threads": 1} if device is None else {"device": device}),
        "record_every": record_every,
        "recorded_samples": recorded_samples,
    }
    operator = checks.choice("operator", operator, OPERATORS)
    if operator == "auto":  # some rules need matrices whole
        operator = checked(problem, 2, 2, "matched", options).operator
    population = cheapest(problem, options) if operator == "auto" else POPULATIONS[operator]()
    first = population.first(problem, options, target_error is not None)
    given = {"particles": particles, "depth": depth, "replicates": replicates}
    first = first._replace(**{name: size for name, size in given.items() if size is not None})
    checks.positive_integer("replicates", first.replicates, smallest=2)
    search = Search(
        problem,
        options,
        population,
        1 if device else thread_count(threads),
        target_error,
        budget_seconds,
        progress,
        notes=[population.note] if operator == "auto" and population.note else [],
    )
    asked = {name: value for name, value in options.items() if name not in ("threads", "device", "recorded_samples")}
    asked |= {"recorded_samples": np.array(recorded_samples).tolist(), "sizes": list(first)}
    asked |= {"population": population.operator, "target_error": target_error}
    asked |= {} if target_error else {"budget_seconds": budget_seconds}
    kept = Checkpoint(checkpoint)
    with kept.opened(partial(described, problem, **asked)):
        search.run(first, kept)
        if search.status != "interrupted" and not search.missed:
            kept.remove()
    for note in search.warned:
        warnings.warn(note, RuntimeWarning, stacklevel=2)
    found: dict[str, Any] = {"continued_from_round": search.continued} if search.continued else {}
    found |= {"target_error": target_error, "budget_seconds": budget_seconds}
    found |= {"threads": search.threads, "networks": len(population.signs) * len(search.reported.seeds)}
    return assemble(problem, search.reported, search.rounds, found, search.status, search.timings, search.notes)
