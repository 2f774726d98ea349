"""The processors of this machine that a process may use."""

from __future__ import annotations

import os


def available_threads() -> int:
    """Return the number of CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
