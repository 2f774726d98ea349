"""The versions of what decides the numbers."""

from __future__ import annotations

from functools import cache
from pathlib import Path


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide the numbers."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    """Look the versions up, which takes longer than a small solve."""
    import platform
    from importlib.metadata import version

    from threadpoolctl import threadpool_info

    libraries = {name: version(name) for name in ("flds", "numpy", "scipy", "numba")}
    kernels = [
        f"{one['internal_api']} {one.get('version')} {one.get('architecture', '')}".strip()
        for one in threadpool_info()
        if one["user_api"] == "blas"
    ]
    machine = {"processor": _processor(), "blas": ", ".join(sorted(set(kernels)))}
    return {"python": platform.python_version()} | libraries | machine


def _processor() -> str:
    """Return the model of the processor, as far as the system says it."""
    import platform

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(models), platform.processor() or platform.machine())
