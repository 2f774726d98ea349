"""What a checkpoint keeps of an estimate of the limit: its finished rounds, and how large the next one is to be."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flds.limit.extrapolation import Round
from flds.training.kept import known
from flds.training.options import Settings, stored_settings
from flds.training.problem import TrainingProblem
from solvers.results.checkpoint import Checkpoint
from solvers.results.files import Variable

if TYPE_CHECKING:
    from collections.abc import Mapping

_SEARCH = "search"


class Past(NamedTuple):
    """What an earlier process came to: its rounds, the sizes of the next one if there is to be one, and the rest."""

    rounds: list[Round]
    sizes: tuple[int, ...] | None
    modelled: list[float]
    expected: float
    seconds: float


def described(problem: TrainingProblem, **chosen: Any) -> dict[str, Any]:
    """Return what a checkpoint is known by."""
    return {"solver": "estimate_limit", **known(problem), **chosen}


def keep(checkpoint: Checkpoint, past: Past) -> None:
    """Keep the rounds; those that were kept before stay as they are."""
    if checkpoint.path is None:
        return
    last = len(past.rounds) - 1
    checkpoint.end(f"round_{last}", _state(past.rounds[last]), None)
    rest = {"sizes": past.sizes, "modelled": past.modelled, "expected": past.expected, "seconds": past.seconds}
    checkpoint.keep(_SEARCH, {"json": Variable.of_json(rest, "search")})


def past(checkpoint: Checkpoint) -> Past | None:
    """Return what an earlier process came to, or None."""
    stored = checkpoint.stored.get(_SEARCH)
    if stored is None:
        return None
    rest = stored["json"].json()
    rounds = [_round(state) for name, state in checkpoint.stored.items() if name != _SEARCH][: len(rest["modelled"])]
    sizes = None if rest["sizes"] is None else tuple(rest["sizes"])
    return Past(rounds, sizes, rest["modelled"], rest["expected"], rest["seconds"])


def _state(one: Round) -> dict[str, Variable]:
    values = {item.name: getattr(one, item.name) for item in fields(one)}
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    rest = {name: value for name, value in values.items() if name not in arrays}
    state = {
        name: Variable(tuple(f"{name}_{axis}" for axis in range(array.ndim)), array, name)
        for name, array in arrays.items()
    }
    return state | {"json": Variable.of_json(rest | {"settings": asdict(one.settings)}, "the rest")}


def _round(state: Mapping[str, Variable]) -> Round:
    rest = state["json"].json()
    settings = replace(stored_settings(Settings, rest["settings"]), threads=rest["settings"]["threads"])
    arrays: dict[str, Any] = {name: item.values for name, item in state.items() if name != "json"}
    return Round(**rest | arrays | {"settings": settings})
