"""What happens after a step, made of the acts of several events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from solvers.ensemble.random import Draw
from solvers.sde.coefficients import Coefficients
from solvers.sde.equation import Form, McKeanVlasov
from solvers.sde.events.event import Act
from solvers.sde.schemes.kernels import between, load_finite
from solvers.sde.schemes.scheme import Step

if TYPE_CHECKING:
    from solvers.sde.march import Leg

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]
Function = Callable[..., Any]


def finishing(
    acts: Sequence[tuple[Act, int, int, int]],
    equation: McKeanVlasov,
    coefficients: Coefficients,
    form: Form,
    compiled: Function,
) -> Function:
    """Return finish(moved, leg, base, target, start, own, fault), which does the acts in order for some particles.

    `moved`, (D, n), is where a step from `base` led particles start … start + n − 1; what they carry is read from the
    rows of `base` that follow their components, and written to `target`. `own` says whether each has its own field.
    """
    if not acts:
        return lambda moved, leg, base, target, start, own, fault: None
    D, total = form.dimension, max(first + marks for _, _, first, marks in acts)
    happen, *others = (
        _in_place(compiled(act.make(equation, coefficients, form, *act.settings)), place, D + first, marks, compiled)
        for act, place, first, marks in acts
    )
    for other in others:
        happen = _both(happen, other, compiled)

    def finish(
        moved: Matrix, leg: Leg, base: Array, target: Array, start: int, own: bool, fault: NDArray[np.int64]
    ) -> None:
        n = moved.shape[1]
        x, none, held = np.empty((D, n)), np.empty((0, n)), np.zeros(n, np.bool_)
        load_finite(base, start, x)
        for row in range(D, D + total):
            target[row, start : start + n] = base[row, start : start + n]
        field = between(leg.field, leg.later, 0.0, start, start + n, own)
        begun = Step(
            leg.t0, leg.dt, x, leg.m0, field, none, leg.common, leg.factor, base[:D], leg.args, leg.t0, leg.m0, field,
            none, fault,
        )  # fmt: skip
        happen(moved, begun, leg.arrival, leg.numbers, base, target, start, held, leg.draw)

    return finish


def _in_place(act: Function, place: int, first: int, marks: int, compiled: Function) -> Function:
    """Return an act with its numbers and marks among those of all events."""

    def act_here(
        moved: Matrix, s: Step, arrival: float, numbers: Any, base: Array, target: Array, start: int, held: Array,
        draw: Draw,
    ) -> None:  # fmt: skip
        low, high = start, start + moved.shape[1]
        seed, stream, step, positions, finest, refinement, origin = draw
        here = Draw(seed, stream, step, positions, finest, refinement, origin + start)
        old, new = base[first : first + marks, low:high], target[first : first + marks, low:high]
        act(moved, s, arrival, numbers[place], old, new, held, here)

    return compiled(act_here)


def _both(first: Function, second: Function, compiled: Function) -> Function:
    def both(
        moved: Matrix, s: Step, arrival: float, numbers: Any, base: Array, target: Array, start: int, held: Array,
        draw: Draw,
    ) -> None:  # fmt: skip
        first(moved, s, arrival, numbers, base, target, start, held, draw)
        second(moved, s, arrival, numbers, base, target, start, held, draw)

    return compiled(both)
