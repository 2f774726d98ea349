"""The processors of this machine that a process may use."""

from __future__ import annotations

import os
from typing import Any

from solvers import checks

# More threads than this are a mistake.
_MOST_THREADS = 4096


def available_threads() -> int:
    """Return the number of CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_count(given: Any) -> int:
    """Return the number of threads that was given, from 1 to 4,096, or by default that of available CPUs.

    Raises
    ------
    TypeError, ValueError
        If it is not such a number.
    """
    if given is None:
        return min(available_threads(), _MOST_THREADS)
    threads = checks.positive_integer("threads", given)
    if threads > _MOST_THREADS:
        raise ValueError(
            f"threads must be at most {_MOST_THREADS}, got {checks.shown(threads)}; leave it out to use all CPUs"
        )
    return threads
