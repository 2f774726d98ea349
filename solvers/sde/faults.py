"""Why a step cannot be done for a particle."""

from __future__ import annotations

from enum import IntEnum


class Fault(IntEnum):
    """What a step notes where it cannot be done for a particle."""

    UNSOLVED = 1
    RATE = 2
    NEGATIVE_RATE = 3


_TEXTS = {
    Fault.UNSOLVED: "the equation of the implicit step was not solved; take more steps",
    Fault.RATE: "the rate of jumps is above rate_bound",
    Fault.NEGATIVE_RATE: "the rate of jumps is negative or not a number",
}


class StepError(RuntimeError):
    """A step from time t on that cannot be done for a particle."""

    def __init__(self, fault: Fault, t: float, particle: int) -> None:
        super().__init__(fault, t, particle)

    def __str__(self) -> str:
        fault, t, particle = self.args
        return f"in the step from t = {t:g}, at particle {particle}, {_TEXTS[fault]}"
