"""Files of results that were damaged, or made by others, and whatever the commands say of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import flds
from solvers.results import arrays, files
from solvers.results.files import Variable

# Attributes that no run leaves.
ATTRIBUTES = (
    {"settings": "null"}, {"settings": "{}"}, {"settings": "[1"}, {"timings": "3"}, {"notes": "{}"},
    {"extra": "{}"}, {"extra": '{"problem": null}'}, {"extra": '{"problem": {}}'}, {"versions": "[]"},
    {"status": "done"}, {"seed": "first"}, {"seed": -1}, {"schema": "flds.Solution/1/2"}, {"state": "{}"},
    {"state": "null"}, {"state": '{"file": 1, "sha256": ""}'}, {"state": '{"file": "a/b", "sha256": ""}'},
)  # fmt: skip
LACKING = ("outputs", "steps", "loss", "problem_inputs", "recorded_samples", "truncation")
# Arrays of a state that fit no run.
STATES = {
    "last_active": np.array([99]), "last_weights": np.ones(5), "recorded_step": np.array([7]),
    "layer_0_learned": np.ones((90, 90)), "layer_7_learned": np.ones((1, 1)), "readout": np.ones((3, 3)),
}  # fmt: skip


def crafted(kept: flds.Solution) -> dict[str, Callable[[Path], object]]:
    """Writers of files with a seal that fits and contents that do not, from a run with the states of two replicates."""
    data, state = kept.data, dict(kept.groups["state_0"])

    def with_groups(groups: files.Groups) -> Callable[[Path], object]:
        return lambda path: arrays.write_with_arrays(
            path, groups, lambda beside: data.assign_attrs(state=json.dumps(beside))
        )

    def plain(changed) -> Callable[[Path], object]:
        return lambda path: files.write_dataset(path, changed)

    inputs = data["problem_inputs"].attrs
    writers = {json.dumps(change): plain(data.assign_attrs(change)) for change in ATTRIBUTES}
    writers |= {f"without {name}": plain(data.drop_vars(name)) for name in LACKING}
    writers["inputs of another shape"] = plain(data.assign(problem_inputs=(("a", "b"), np.ones((2, 2)), inputs)))
    writers["a variable without a long name"] = plain(data.assign(extra=(("a",), np.ones(2))))
    for name, values in STATES.items():
        changed = state | {name: Variable(tuple("ab"[: values.ndim]), values, "changed")}
        writers[f"{name} of a state"] = with_groups({"state_0": changed, "state_1": kept.groups["state_1"]})
    writers["a stray group"] = with_groups({"other": state})
    return writers


def damaged(whole: bytes, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Yield what a disk or a transfer makes of a file, for ever, and what was done to it."""
    while True:
        place, bit = int(rng.integers(len(whole))), 1 << int(rng.integers(8))
        yield f"bit {bit} of byte {place}", whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :]
        zeros = int(2 ** rng.uniform(4, 9))
        yield f"{zeros} zeros at the start", bytes(zeros) + whole[zeros:]
        place = int(rng.integers(len(whole)))
        yield f"cut after {place} bytes", whole[:place]
        place, size = int(rng.integers(len(whole))), int(2 ** rng.uniform(0, 12))
        yield f"{size} random bytes from {place}", whole[:place] + rng.bytes(size) + whole[place + size :]
        yield "bytes at the end", whole + rng.bytes(int(rng.integers(1, 100)))
