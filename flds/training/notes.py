"""What a user should know of a run: what could not be done as asked, and how it went."""

from __future__ import annotations

from collections.abc import Iterable

from flds.training.options import Settings
from solvers.results.solution import AS_ASKED

_EXPLANATIONS = {
    "diverged": "training diverged after step {step}: lower learning_rate or horizon",
    "rank_budget": "the rank outgrew rank_budget {budget}, or memory, after step {step}: raise it or tolerance",
    "interrupted": "interrupted after step {step}",
}


def on_method(asked: Settings, settings: Settings, directions: int, room: int) -> list[str]:
    """Return what was decided otherwise than asked; `room` is how many particles matched noise needs at least."""
    if asked.sampling == "law":
        return []
    if settings.operator == "dense":
        narrowed = "" if settings.sampling == "law" else ", narrowed by orthonormal input weights and readouts alone"
        told = f"this is a dense network of width {settings.particles}, with the fluctuations of one{narrowed}"
        if asked.operator == "dense":
            return [f'{told}: matched noise needs operator="lazy"']
        return [
            f"{told}, and not yet the limit: matched noise would need some {room} particles here, for about "
            f"{directions} directions that training meets. To keep the limit take so many, or fewer samples or steps; "
            "or let flds.estimate_limit average many small networks"
        ]
    if settings.sampling == asked.sampling:
        return []
    return [f"matched noise needs at least {room} particles here; this run is sampled by law, as a network would be"]


def on_end(status: str, where: str, settings: Settings, unmatched: Iterable[bool], remark: str = "") -> list[str]:
    """Return how runs went; `where` is the step after which one ended early.

    `unmatched` says of each run whether some of its noise was drawn by law for lack of room.
    """
    notes = []
    if status not in AS_ASKED:
        explained = _EXPLANATIONS[status].format(step=where, budget=settings.rank_budget)
        notes.append("; ".join(filter(None, [explained, remark])))
    if any(unmatched):
        notes.append("there was too little room to match noise: part of the run was sampled by law")
    return notes
