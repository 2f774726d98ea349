"""What a checkpoint keeps of an estimate of the limit: its finished rounds, and how large the next one is to be."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flds.limit.extrapolation import Round
from flds.training.description import describe
from flds.training.options import Settings
from flds.training.problem import TrainingProblem
from solvers.fingerprint import fingerprint
from solvers.results.checkpoint import Checkpoint
from solvers.results.files import Variable

if TYPE_CHECKING:
    from collections.abc import Mapping

_SEARCH = "search"


class Past(NamedTuple):
    """What an earlier process came to: its rounds, N and L of the next one if there is to be one, and the rest."""

    rounds: list[Round]
    sizes: tuple[int, int] | None
    modelled: list[float]
    expected: float
    seconds: float


def described(problem: TrainingProblem, **chosen: Any) -> dict[str, Any]:
    """Return what a checkpoint is known by."""
    functions = {"sha256": fingerprint(problem.phi)}
    return {"solver": "estimate_limit", **describe(problem)[0], "functions": functions, **chosen}


def keep(checkpoint: Checkpoint, past: Past) -> None:
    """Keep the rounds; those that were kept before stay as they are."""
    if checkpoint.path is None:
        return
    last = len(past.rounds) - 1
    checkpoint.end(f"round_{last}", _state(past.rounds[last]), None)
    rest = {"sizes": past.sizes, "modelled": past.modelled, "expected": past.expected, "seconds": past.seconds}
    checkpoint.keep(_SEARCH, {"json": _text(rest)})


def past(checkpoint: Checkpoint) -> Past | None:
    """Return what an earlier process came to, or None."""
    stored = checkpoint.stored.get(_SEARCH)
    if stored is None:
        return None
    rest = _read(stored["json"])
    rounds = [_round(state) for name, state in checkpoint.stored.items() if name != _SEARCH][: len(rest["modelled"])]
    sizes = None if rest["sizes"] is None else (rest["sizes"][0], rest["sizes"][1])
    return Past(rounds, sizes, rest["modelled"], rest["expected"], rest["seconds"])


def _state(one: Round) -> dict[str, Variable]:
    values = {item.name: getattr(one, item.name) for item in fields(one)}
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    rest = {name: value for name, value in values.items() if name not in arrays}
    state = {
        name: Variable(tuple(f"{name}_{axis}" for axis in range(array.ndim)), array, name)
        for name, array in arrays.items()
    }
    return state | {"json": _text(rest | {"settings": asdict(one.settings)})}


def _round(state: Mapping[str, Variable]) -> Round:
    rest = _read(state["json"])
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in rest["settings"].items()
    }
    arrays: dict[str, Any] = {name: item.values for name, item in state.items() if name != "json"}
    return Round(**rest | arrays | {"settings": Settings(**settings)})


def _text(value: Any) -> Variable:
    return Variable(("byte",), np.frombuffer(json.dumps(value).encode(), np.uint8), "JSON")


def _read(item: Variable) -> Any:
    return json.loads(item.values.tobytes())
