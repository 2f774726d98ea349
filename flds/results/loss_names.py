"""What losses of the Mean ODE were called in files of older versions."""

from __future__ import annotations

FORMER = {"squared": "mean_squared"}


def current_name(stored: str) -> str:
    """Return today's name of a loss that a file names, perhaps of an older version."""
    return FORMER.get(stored, stored)


def former_name(name: str) -> str:
    """Return the oldest name of a loss, by which older results know it."""
    return next((old for old, now in FORMER.items() if now == name), name)
