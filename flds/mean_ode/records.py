"""What is kept of a run of the Mean ODE: one record a step that is due, and how the run ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flds.mean_ode.blocks import Array
from solvers.results.rows import Rows
from solvers.results.solution import Variable


class Record(NamedTuple):
    """What is kept of one step, before its update."""

    step: int
    outputs: Array  # (samples[, tokens], outputs), even of one output
    test_outputs: Array
    travel: dict[str, Array]  # (nodes,) by parameter name
    states: Array  # (nodes, *inputs.shape), or empty
    covectors: Array


@dataclass
class Run:
    """The records of one seed and how it ended; arrays of a record are rows of one large array by name, `rows`."""

    records: list[Record] = field(default_factory=list)
    status: str = "completed"
    state: dict[str, Variable] = field(default_factory=dict)  # of the trained units, where it is kept
    rows: dict[str, Rows] = field(default_factory=dict)

    def keep(self, record: Record, most: int) -> None:
        """Copy a record, one of at most so many."""
        names = ("outputs", "test_outputs", "states", "covectors")
        arrays: dict[str, Any] = {name: getattr(record, name) for name in names}
        arrays |= {f"travel_{name}": travel for name, travel in record.travel.items()}
        kept = {name: self.rows.setdefault(name, Rows(most)).append(array) for name, array in arrays.items()}
        travels = {name: kept.pop(f"travel_{name}") for name in record.travel}
        self.records.append(Record(record.step, travel=travels, **kept))
