"""What a solve has saved so far of its particles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from solvers import checks
from solvers.ensemble.threads import ThreadParticles
from solvers.results.rows import Rows
from solvers.results.solution import Variable
from solvers.sde.statistics import Statistic

Array = NDArray[np.floating]


class Saved:
    """Statistics of particles collected during a solve, at so many times at most, and some at all of the grid."""

    def __init__(
        self, statistics: dict[str, Statistic], most: int, ensemble: ThreadParticles, scalar: bool, grid: int = 0
    ) -> None:
        self.statistics, self.ensemble, self.scalar = statistics, ensemble, scalar
        self.most, self.grid = most, grid
        self.steps, self.times, self.moments = Rows(most), Rows(most), Rows(most)
        self.values = {name: Rows(most) for name in statistics}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.order: Sequence[float] | None = None  # of the rows in variables, where it is not theirs
        self.often = [name for name, statistic in statistics.items() if statistic.often]
        self.often_times = Rows(grid)
        self.values |= {name: Rows(grid) for name in self.often}

    def add_often(self, t: float, x: Array) -> None:
        """Evaluate what is saved at all times of the grid; raises as `add` does."""
        self.often_times.append(t)
        for name in self.often:
            self.values[name].append(self._value(name, t, x))

    def add(self, step: float, t: float, x: Array, m: Array) -> None:
        """Evaluate statistics at a place on the grid; `x` is (D, N).

        Raises
        ------
        TypeError, ValueError
            If a function fails or its value is not an array of real numbers of one shape.
        """
        values = {name: self._value(name, t, x) for name in self.statistics if name not in self.often}
        self.steps.append(float(step))
        self.times.append(t)
        self.moments.append(m)
        for name, value in values.items():
            self.values[name].append(value)

    def has(self, place: float) -> bool:
        """Whether there is a record of this place already."""
        return bool(np.any(self.steps.array == place))

    @property
    def gathers(self) -> bool:
        """Whether ranks that share the particles send all of them to the first."""
        return any(statistic.gathers for statistic in self.statistics.values())

    @property
    def _own(self) -> dict[str, Rows]:
        found = {"steps": self.steps, "times": self.times, "moments": self.moments}
        return found | ({"often_times": self.often_times} if self.often else {})

    def rows(self) -> dict[str, tuple[Array, bool]]:
        """Return what has been collected, by name, and whether each rank has that of its own particles."""
        own = self._own
        found = {name: (rows.array, False) for name, rows in own.items()}
        return found | {f"of_{name}": (rows.array, self.statistics[name].spread) for name, rows in self.values.items()}

    def restore(self, rows: Mapping[str, Array]) -> None:
        """Take over what `rows` returned."""
        own = self._own
        for name, stored in rows.items():
            collected = own[name] if name in own else self.values[name.removeprefix("of_")]
            for row in stored:
                collected.append(row)

    def arrange(self, wanted: Sequence[float]) -> None:
        """Put what was collected into the order of the steps wanted, as far as they were reached."""
        places = {step: place for place, step in enumerate(self.steps.array.tolist())}
        order = [places[step] for step in wanted if step in places]
        self.order = None if order == list(range(len(places))) else order

    def try_out(self, t: float, x: Array) -> float:
        """Evaluate every statistic to learn the shapes of their values; raises as `add` does.

        Returns the bytes that all records take, so many of them at most.
        """
        values = {name: self._value(name, t, x) for name in self.statistics}
        self.shapes = {name: value.shape for name, value in values.items()}
        often = sum(values[name].nbytes for name in self.often) * self.grid
        return float(sum(value.nbytes for name, value in values.items() if name not in self.often) * self.most + often)

    def _value(self, name: str, t: float, x: Array) -> Array:
        statistic = self.statistics[name]
        rule = "; save takes functions of time and all particles, (t, x)" if statistic.gathers else ""
        where = f"{name} failed at t = {t:g}"
        given = checks.called(where, statistic._value, t, x, self.scalar, self.ensemble, rule=rule)
        value = np.asarray(checks.numeric(f"the value of {name}", given, truth=True))
        if self.shapes.get(name, value.shape) != value.shape:
            raise ValueError(f"{name} must keep its shape, got {self.shapes[name]} and then {value.shape}")
        return value

    def variables(self, component: int | None, moments: int) -> dict[str, Variable]:
        """Return the collected arrays; a last axis of length `component` is named so; m has `moments` entries."""
        times = self._arranged(self.times)
        variables = {"times": Variable(("time",), times, "time")}
        if moments:
            means = self._arranged(self.moments).reshape(len(times), moments)
            variables["moments"] = Variable(("time", "moment"), means, "mean of ψ over the particles")
        for name, statistic in self.statistics.items():
            often = name in self.often
            rows = self.values[name].array if often else self._arranged(self.values[name])
            values = rows.reshape(len(rows) if often else len(times), *self.shapes[name])
            axes = list(statistic.axes[: values.ndim - 1])
            for axis in range(len(axes), values.ndim - 1):
                last = axis == values.ndim - 2 and values.shape[-1] == component
                axes.append("component" if last else f"{name}_{axis}")
            labels = statistic.labels if isinstance(statistic.labels, tuple) else (statistic.labels,)
            for place, values_of_axis in enumerate(labels):
                if values_of_axis is not None:
                    said = f"{axes[place].replace('_', ' ')} of {name}"
                    axes[place] = f"{name}_{axes[place]}"
                    variables[axes[place]] = Variable((axes[place],), values_of_axis, said)
            spread = self.ensemble.spread(1) if statistic.spread else None
            over = f"{name}_time" if often else "time"
            if often:
                variables[f"{name}_times"] = Variable((over,), self.often_times.array, f"time of {name}")
            variables[name] = Variable((over, *axes), values, statistic.long_name, spread=spread)
        return variables

    def _arranged(self, rows: Rows) -> Array:
        return rows.array if self.order is None else rows.array[np.array(self.order, np.intp)]
