"""How much memory there is, and the refusal of a run that would not fit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from solvers.processors import available_threads

# Resident memory of the interpreter with the libraries a solve imports.
INTERPRETER_BYTES = 200e6
# So few bytes are not worth finding out what is left.
_NEGLIGIBLE = 1e6

# By kind of control group: files with its limits, the file with what is in use, and the entry of memory.stat for page
# cache that the system takes back before it refuses memory. Beyond memory.high a group is slowed down to a crawl.
_GROUP_FILES = {
    "cgroup": (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
    "cgroup2": (("memory.max", "memory.high"), "memory.current", "inactive_file"),
}
# Limits of the process itself; for each the entry of its status that counts towards it, and the bytes that a thread
# reserves of it and does not use, for its stack and its share of the heap.
_PROCESS_LIMITS = {"Max address space": ("VmSize", 72e6), "Max data size": ("VmData", 0.0)}


def available_memory(root: Path = Path("/")) -> float:
    """Return the bytes this process may hold at the peak of a run, the interpreter included.

    It is the smallest of what the system has available, what the control groups of the process and those above them
    leave, and what its own limits on address space and data leave. What it holds already is added up to the size of an
    interpreter; of what it has more, a run makes no use.

    Parameters
    ----------
    root : path
        Where proc and sys are found.

    Returns
    -------
    float
        At least 0; infinity where nothing is known.
    """
    held = min(_entries(root / "proc/self/status").get("VmRSS", 0.0), INTERPRETER_BYTES)
    left = [*_system(root, held), *_control_groups(root, held), *_own_limits(root)]
    return max(0.0, min(left, default=np.inf))


def require_memory(needed: float, remedy: str, available: float | None = None, place: str = "") -> None:
    """Raise MemoryError, with the numbers and what to do, if so many bytes, as a peak, are not available.

    `place` says where, for a message; by default it is this process.
    """
    if needed < _NEGLIGIBLE:
        return
    available = available_memory() if available is None else available
    if needed > available:
        raise MemoryError(
            f"this run needs {needed / 1e9:.3g} GB{place} and {available / 1e9:.3g} GB are available; {remedy}"
        )


def _system(root: Path, held: float) -> Iterator[float]:
    available = _entries(root / "proc/meminfo").get("MemAvailable")
    if available is not None:
        yield available + held


def _own_limits(root: Path) -> Iterator[float]:
    """Yield what is left of the limits of this process; nothing is added, since more is reserved than is held."""
    used = _entries(root / "proc/self/status")
    for line in _read(root / "proc/self/limits").splitlines():
        found = re.match(r"(Max [a-z ]+?) {2,}(\d+)", line)  # the soft limit, a number where there is one
        if found and found[1] in _PROCESS_LIMITS:
            entry, reserved = _PROCESS_LIMITS[found[1]]
            yield float(found[2]) - used.get(entry, 0.0) - reserved * available_threads()


def _control_groups(root: Path, held: float) -> Iterator[float]:
    """Yield what is left to the groups of this process and to all above them, as far as they are mounted here."""
    own = {}
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            own["cgroup2"] = path
        elif "memory" in controllers.split(","):
            own["cgroup"] = path
    for line in _read(root / "proc/self/mountinfo").splitlines():
        place, _, source = line.partition(" - ")
        kind, _, options = source.split(" ", 2)
        if kind not in own or (kind == "cgroup" and "memory" not in options.split(",")):
            continue
        top, mount = (re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), part) for part in place.split()[3:5])
        group = root / mount.lstrip("/")
        for name in ("", *_below(own[kind], top)):
            group /= name
            yield _left_to_group(group, kind, held)


def _below(path: str, top: str) -> tuple[str, ...]:
    """Return the way from the group that is mounted down to that of the process.

    A container may see another path than its mounts do; the group that is mounted is then its own, or one above it.
    """
    parts, above = PurePosixPath(path).parts, PurePosixPath(top).parts
    inside = parts[: len(above)] == above and ".." not in parts
    return parts[len(above) :] if inside else ()


def _left_to_group(group: Path, kind: str, held: float) -> float:
    limits, usage, cache = _GROUP_FILES[kind]
    bounds = [float(text) for name in limits if (text := _read(group / name).strip()) not in ("", "max")]
    if not bounds:
        return np.inf
    statistics = dict(line.split() for line in _read(group / "memory.stat").splitlines())
    # of groups that are not mounted here, as in a container, the older kind tells its members
    bounds.append(float(statistics.get("hierarchical_memory_limit", np.inf)))
    # less may be in use than this process holds: libraries that another group read first are not counted here
    return min(bounds) - max(0.0, float(_read(group / usage) or 0) - float(statistics.get(cache, 0)) - held)


def _entries(path: Path) -> dict[str, float]:
    """Return the entries in bytes of a file with lines of the form "name: 123 kB"."""
    return {name: 1024 * float(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB$", _read(path), re.MULTILINE)}


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):  # not there, not ours to read, or gone meanwhile
        return ""
