"""External fields: what the coefficients of an equation depend on beside time, position and means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from solvers import checks
from solvers.results.solution import Solution, Variable

if TYPE_CHECKING:
    from solvers.ensemble.threads import ThreadParticles

# Bytes up to which a field is kept with the solution.
_KEPT = 1e8
# Times at which a field that all particles share is looked up at once.
_PIECE = 1024


@dataclass(frozen=True, eq=False)
class ExternalField:
    """A quantity given beforehand, for all particles or for each, constant or along a path.

    Parameters
    ----------
    values : float or ([T,] [N,] [F]) array
        The axes are time (with `times`), particle (with ``per_particle=True``), and, if the field has F
        components instead of being a number, (F,). An array of float64 is not copied, so leave it as it is.
    times : (T,) array, optional
        Distinct times of the values; between them the field is linear. A solve needs them to cover its interval.
    per_particle : bool
        Whether each particle has its own value.

    Raises
    ------
    ValueError, TypeError
        If values or times are not finite numbers, or their shapes do not fit together.

    Examples
    --------
    ``ExternalField(frequencies, per_particle=True)`` gives every oscillator its own frequency;
    ``ExternalField(run.particles, run.times, per_particle=True)`` is the stored path of another run.
    """

    values: Any
    times: Any = None
    per_particle: bool = False
    kind: str = field(init=False, default="number")

    def __post_init__(self) -> None:
        values = np.asarray(checks.finite("field", self.values), np.float64, order="C")
        checks.flag("per_particle", self.per_particle)
        lead = (self.times is not None) + self.per_particle
        if values.ndim not in (lead, lead + 1):
            axes = [*(["times"] if self.times is not None else []), *(["particles"] if self.per_particle else [])]
            raise ValueError(
                f"field must have the axes ({', '.join(axes)}) and at most one more, got shape {values.shape}"
            )
        object.__setattr__(self, "kind", "number" if values.ndim == lead else "vector")
        if self.times is not None:
            times = np.asarray(checks.finite("times of the field", self.times), np.float64)
            if times.shape != values.shape[:1] or len(np.unique(times)) != len(times):
                raise ValueError(f"field has {values.shape[:1]} values in time, which need as many distinct times")
            order = np.argsort(times)
            object.__setattr__(self, "times", times[order])
            values = values if np.all(np.diff(order) == 1) else values[order]
        object.__setattr__(self, "values", values)

    def check(self, t0: float, t1: float, particles: int) -> None:
        """Raise ValueError unless the field covers the time from t0 to t1 and so many particles."""
        if self.per_particle and self.values.shape[self.times is not None] != particles:
            count = self.values.shape[self.times is not None]
            raise ValueError(f"field has values for {count} particles, but there are {particles}")
        fuzz = 1e-9 * abs(t1 - t0)  # times that were added up differ by rounding
        if self.times is not None and (min(t0, t1) < self.times[0] - fuzz or max(t0, t1) > self.times[-1] + fuzz):
            raise ValueError(f"field covers times {self.times[0]:g} to {self.times[-1]:g}, but the solve goes outside")

    def first(self, particles: int) -> ExternalField:
        """Return the field of the first so many particles."""
        if not self.per_particle:
            return self
        kept = self.values[:particles] if self.times is None else self.values[:, :particles]
        return ExternalField(kept, self.times, per_particle=True)

    def at(self, t: float) -> NDArray[np.float64]:
        """Return the field at time t, (N, F), or (1, F) where it is the same for all particles."""
        value = self.values
        if self.times is not None:
            t = min(max(t, self.times[0]), self.times[-1])
            after = int(np.clip(np.searchsorted(self.times, t), 1, max(1, len(self.times) - 1)))
            if len(self.times) == 1 or t == self.times[after - 1]:
                value = value[after - 1]
            elif t == self.times[after]:
                value = value[after]
            else:
                weight = (t - self.times[after - 1]) / (self.times[after] - self.times[after - 1])
                value = (1 - weight) * value[after - 1] + weight * value[after]
        return np.reshape(value, (-1 if self.per_particle else 1, 1 if self.kind == "number" else value.shape[-1]))

    def variables(self, ensemble: ThreadParticles, part: slice) -> dict[str, Variable]:
        """Return the field as variables of a solution, or nothing where it is large, or one of the user's own kind.

        Of a field of each particle it is the `part` that this process holds, by the home of the particles, `ensemble`.
        """
        if type(self) is not ExternalField or self.values.nbytes > _KEPT:
            return {}
        axes = ["field_time"] * (self.times is not None) + ["final_particle"] * self.per_particle
        axes += ["field_component"] * (self.values.ndim - len(axes))
        values, spread = self.values, None
        if self.per_particle:
            axis = int(self.times is not None)
            values, spread = values[(slice(None),) * axis + (part,)], ensemble.spread(axis)
        found = {"external_field": Variable(tuple(axes), values, "external field", spread=spread)}
        if self.times is not None:
            found["external_field_times"] = Variable(("field_time",), self.times, "time of the external field")
        return found


class FieldOnGrid:
    """An external field, or none, at the times of a grid.

    Parameters
    ----------
    field : ExternalField or None
    times : (steps + 1,) float64
    part : slice, optional
        The particles that this process holds, by default all.

    Attributes
    ----------
    most : int
        How many steps `piece` should cover at most.
    """

    def __init__(self, field: ExternalField | None, times: NDArray[np.float64], part: slice = slice(None)) -> None:
        self.field, self.times = field, times
        self.part = part if field is not None and field.per_particle else slice(None)
        # one of the user's own kind may do anything
        self.constant = field is None or (type(field) is ExternalField and field.times is None)
        shared = field is None or (type(field) is ExternalField and not field.per_particle)
        self.most = _PIECE if shared or self.constant else 1

    def at(self, step: int) -> NDArray[np.floating]:
        """Return the field at a time of the grid, (N, F), or (1, F) where it is the same for all particles."""
        return np.zeros((1, 0)) if self.field is None else self.field.at(self.times[step])[self.part]

    def piece(self, first: int, last: int) -> tuple[NDArray[np.floating], int, int]:
        """Return values (K, N or 1, F), a and b: the field at time first + k is values[a + b k], up to the last."""
        if self.constant:
            return np.ascontiguousarray(self.at(first)[None]), 0, 0
        return np.stack([self.at(step) for step in range(first, max(first, last) + 1)]), 0, 1


def kept_field(solution: Solution) -> ExternalField | None:
    """Return the external field that was kept with a solution, or None."""
    item, times = (solution.variables.get(name) for name in ("external_field", "external_field_times"))
    if item is None:
        return None
    return ExternalField(item.values, None if times is None else times.values, "final_particle" in item.dims)


def as_field(given: Any) -> ExternalField | None:
    """Return a field from None, a number, an (F,) array for all particles, or an `ExternalField`."""
    return given if given is None or isinstance(given, ExternalField) else ExternalField(given)
