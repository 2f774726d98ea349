"""The method of a run: how weights are held and noise is drawn, how far ranks may grow, and whether it fits at all."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from flds.training import notes
from flds.training.cost import CostEstimate
from flds.training.footprint import Footprint, lazy_footprint
from flds.training.options import Options, Settings, checked
from flds.training.problem import TrainingProblem
from flds.training.workload import Workload
from solvers.ensemble.homes import memory_of_device
from solvers.ensemble.random import require_drawable
from solvers.matrices.matched import ROOM
from solvers.memory import require_memory
from solvers.ranks import memory_of_rank

# Share of the available memory that bases may grow to fill.
_SHARE = 0.9
# What to do where a run does not fit.
_REMEDIES = {
    "lazy": "lower particles, depth, rank_budget or replicates, take fewer steps or records, raise tolerance, or use "
    'dtype="float32"',
    "dense": 'lower particles, depth or replicates, take fewer steps or records, or use operator="lazy"',
}
# What is said of a run beside which an ensemble would take less time for an error.
_CHEAPER = "; an ensemble of small dense networks takes less time for an error: estimate_limit, or --target-error"


class Method(NamedTuple):
    """What was decided: the settings of a run, what it costs, and what its user should know."""

    settings: Settings
    cost: CostEstimate
    notes: list[str]


def decide(problem: TrainingProblem, particles: int, depth: int, sampling: str, options: Options) -> Method:
    """Return the method of a run, and refuse one that does not fit in memory.

    Raises
    ------
    ValueError, TypeError
        If an option is not valid, or noise would take more than a day to draw.
    MemoryError
        If the run would not fit in memory.
    """
    method, load = _planned(problem, particles, depth, sampling, options)
    operator = method.settings.operator
    require_drawable(load.draws(operator), load.particles, load.refinement, load.threads, "noise_depth")
    cost, device = method.cost, method.settings.device
    require_memory(cost.memory, _REMEDIES[operator], cost.available)
    if cost.device_memory:
        require_memory(cost.device_memory, _REMEDIES[operator], cost.device_available, f" on device {device!r}")
    return method


def plan(problem: TrainingProblem, particles: int, depth: int, sampling: str, options: Options) -> Method:
    """Check the options and decide what they leave open, the operator and the noise by work alone.

    Raises
    ------
    ValueError, TypeError
        If an option is not valid.
    """
    return _planned(problem, particles, depth, sampling, options)[0]


def _planned(
    problem: TrainingProblem, particles: int, depth: int, sampling: str, options: Options
) -> tuple[Method, Workload]:
    asked = checked(problem, particles, depth, sampling, options)
    communicator = options.get("communicator")
    load = Workload.of(problem, asked, ranks=1 if communicator is None else communicator.Get_size())
    operator, reason = _operator(asked.operator, load)
    settings = replace(asked, operator=operator, sampling=_sampling(asked.sampling, operator, load))
    if settings.keep_state and settings.sampling == "matched_all":
        raise ValueError('keep_state needs sampling "matched" or "law", got "matched_all"')
    available = Footprint(memory_of_rank(communicator), memory_of_device(asked.device))
    settings = replace(settings, rank_budget=_ranks(asked.rank_budget, operator, load, available))
    needed = load.room if operator == "dense" else load.matched_room
    noted = notes.on_method(asked, settings, load.directions, needed)
    return Method(settings, CostEstimate.of(load, settings, reason, available), noted), load


def _sampling(sampling: str, operator: str, load: Workload) -> str:
    """Return how noise can be drawn: matched noise needs room for its first constraints.

    Those of a dense network are U and v alone, and it has no states that all draws could be held against.
    """
    needed = load.matched_room if operator == "lazy" else ROOM * load.constants
    if needed > load.particles:
        return "law"
    return "matched" if operator == "dense" and sampling == "matched_all" else sampling


def _operator(operator: str, load: Workload) -> tuple[str, str]:
    """Decide between lazy and dense by work, which is the same on every machine."""
    rank = load.expected_rank
    if operator != "auto":
        return operator, "as asked"
    if load.sampling != "law" and load.room <= load.particles:
        reason = f"expected rank {rank} leaves room to match noise among {load.particles} particles"
        return "lazy", reason + (_CHEAPER if load.ensemble_pays else "")
    if load.dense_work() < sum(load.lazy_work()):
        return "dense", f"expected rank {rank} is not small against {load.particles} particles"
    return "lazy", f"expected rank {rank} against {load.particles} particles"


def _ranks(asked: tuple[int, int], operator: str, load: Workload, available: Footprint) -> tuple[int, int]:
    """Decide how far the ranks may grow: as asked or needed, as far as memory allows."""
    if operator == "dense":
        return load.particles, load.particles
    most = max(load.expected_rank, _affordable_rank(load, max(asked), available))
    return min(asked[0], most), min(asked[1], most)


def _affordable_rank(load: Workload, most: int, available: Footprint) -> int:
    """Return the largest rank, up to `most`, for which there is memory, with some room for error."""
    low = 0
    while low < most:
        middle = (low + most + 1) // 2
        if lazy_footprint(load, (middle, middle)).within(available, _SHARE):
            low = middle
        else:
            most = middle - 1
    return low
