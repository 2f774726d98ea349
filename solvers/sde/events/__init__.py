"""Events: what happens to particles after each step, each in a file of its own, and when a run stops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers import checks
from solvers.sde.equation import McKeanVlasov, check_function
from solvers.sde.events.absorbing import Absorbing as Absorbing
from solvers.sde.events.event import Act, Event, Plan
from solvers.sde.events.jumps import Jumps as Jumps
from solvers.sde.events.periodic import Periodic as Periodic
from solvers.sde.events.reflecting import Reflecting as Reflecting
from solvers.sde.events.reset import Reset as Reset

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]
Function = Callable[..., Any]

STOP_ARGUMENTS = "t", "m"
# The arguments of a solve that make events.
EVENTS = "boundary", "jumps", "reset", "stop"
BOUNDARIES = Reflecting, Periodic, Absorbing


@dataclass(frozen=True)
class Events:
    """What happens after each step of a solve: at a boundary, by jumps and by resets; and when it stops."""

    boundary: Event | None = None
    jumps: Jumps | None = None
    reset: Reset | None = None
    stop: Function | None = None

    @classmethod
    def checked(cls, boundary: Any, jumps: Any, reset: Any, stop: Any) -> Events:
        """Return events of these; raises TypeError if one is of another kind."""
        kinds = {"boundary": (boundary, BOUNDARIES), "jumps": (jumps, (Jumps,)), "reset": (reset, (Reset,))}
        for name, (given, classes) in kinds.items():
            if given is not None and not isinstance(given, classes):
                wanted = " or ".join(f"solvers.{kind.__name__}" for kind in classes)
                raise TypeError(f"{name} must be a {wanted}, got {checks.shown(given)}")
        if stop is not None and not callable(stop):
            raise TypeError(f"stop must be a function of (t, m), got {checks.shown(stop)}")
        return cls(boundary, jumps, reset, stop)

    def __iter__(self) -> Iterator[Event]:
        return (event for event in (self.boundary, self.jumps, self.reset) if event is not None)

    @property
    def carries(self) -> tuple[str, ...]:
        """Names of the numbers that each particle carries, in order."""
        return tuple(name for event in self for name in event.carries)

    @property
    def plan(self) -> Plan:
        """What is done after a step: crossings on the way, jumps, and what happens where particles then are."""
        acts: list[tuple[Act, int, int, int]] = []
        jumping, share = self.jumps is not None, -1
        first: dict[Event, int] = {}
        for event in self:
            first[event] = sum(len(one.carries) for one in first)
            share = share if event.share is None else first[event] + event.share
        places = {event: place for place, event in enumerate(self)}
        ahead = [(event, event.crossing()) for event in self]
        here = [(event, event.landing(jumping)) for event in sorted(self, key=lambda event: event is not self.jumps)]
        for event, act in (*ahead, *here):
            if act is not None:
                acts.append((act, places[event], first[event], len(event.carries)))
        return Plan(tuple(acts), share)

    def numbers(self, dimension: int) -> tuple[Matrix, ...]:
        """Return the numbers of each event, (R, D); raises ValueError if they do not fit particles of D components."""
        if self.boundary is not None and self.reset is not None:
            self._check_reset(self.boundary.numbers(dimension), self.reset)
        return tuple(event.numbers(dimension) for event in self)

    def _check_reset(self, box: Matrix, reset: Reset) -> None:
        """Raise ValueError if a reset takes particles out of a boundary, or a threshold lies beyond it."""
        for name in ("value", "threshold") if reset.component < box.shape[1] else ():
            low, high = box[:, reset.component]
            if isinstance(self.boundary, Periodic) and np.isfinite(high):
                raise ValueError(f"a reset needs a component that is not periodic, got component {reset.component}")
            if not low <= getattr(reset, name) <= high:
                raise ValueError(
                    f"{name} of the reset must lie within the boundary, from {low:g} to {high:g}, got "
                    f"{getattr(reset, name):g}"
                )

    def box(self, dimension: int) -> Matrix | None:
        """Return the ends of a periodic boundary, (2, D), or None."""
        return self.boundary.numbers(dimension) if isinstance(self.boundary, Periodic) else None

    @property
    def functions(self) -> dict[str, tuple[Function, tuple[str, ...], int]]:
        """Functions of the user's by name, as those of an `Event`."""
        return {name: item for event in self for name, item in event.functions().items()}

    def requires(self, equation: McKeanVlasov, dt: float, finest: float) -> None:
        """Raise ValueError or TypeError unless events go with an equation, and steps of dt made of finest ones."""
        for event in self:
            if event.forward and dt < 0:
                raise ValueError(f"{type(event).__name__} goes forward in time, but t1 is before t0")
            event.requires(equation, finest)
        if self.stop is not None:
            check_function("stop", self.stop, STOP_ARGUMENTS, False, equation.vectorized)

    def check(self, x: Array, first: int) -> None:
        """Raise ValueError if one of the particles at the start, (D, n), from number `first` on, is out of place."""
        for event in self:
            event.check(x, first)

    def initial(self, x: Array, t: float) -> Matrix:
        """Return what each of the particles, (D, n), carries at the start."""
        return np.concatenate([np.zeros((0, x.shape[1])), *(event.initial(x, t) for event in self)])

    def settings(self) -> dict[str, str]:
        """Return what the file of a solution says of them."""
        named = {"boundary": self.boundary, "jumps": self.jumps, "reset": self.reset}
        found = {name: repr(event) for name, event in named.items() if event is not None}
        return found | ({} if self.stop is None else {"stop": getattr(self.stop, "__qualname__", "?")})


NOTHING = Events()

# What the numbers that particles carry are said to be in a solution.
CARRIED = {
    "hitting_times": "end of the step in which the particle was absorbed",
    "resets": "number of resets of the particle",
    "last_resets": "number of resets of the particle in the last step",
}
