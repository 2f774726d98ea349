"""How much memory there is, and the refusal of a run that would not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def available_memory() -> float:
    """Return the bytes this process may still use, by the system's and the container's account."""
    limits = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        limits.append(1024.0 * float(lines["MemAvailable"].split()[0]))
    group = Path("/sys/fs/cgroup")
    if (group / "memory.max").exists() and (bound := (group / "memory.max").read_text().strip()) != "max":
        limits.append(float(bound) - float((group / "memory.current").read_text()))
    return min(limits, default=np.inf)


def require_memory(needed: float, remedy: str) -> None:
    """Raise MemoryError, with the numbers and what to do, if so many bytes are not available."""
    available = available_memory()
    if needed > available:
        raise MemoryError(f"this run needs {needed / 1e9:.3g} GB and {available / 1e9:.3g} GB are available; {remedy}")
