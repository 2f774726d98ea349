"""Programs of this folder on the ranks of a real MPI."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
MPIEXEC = Path(sys.executable).parent / "mpiexec"
# Seconds after which a job that hangs is ended, which fails its test.
PATIENCE = 120


@contextmanager
def started(ranks, *command, **rest):
    """Start a command on so many ranks, in a process group of its own; whatever is left of it in the end is killed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | rest.pop("env", {})
    job = subprocess.Popen(
        [str(MPIEXEC), "-n", str(ranks), *map(str, command)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **rest,
    )  # fmt: skip
    try:
        yield job
    finally:
        if job.poll() is None:  # ranks are in sessions of their own, and wait for each other at full speed
            for process in [*descendants(job.pid), job.pid]:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            job.communicate()


def descendants(process):
    """Return the processes that one has started, and those that these have."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parts[2]))
    found = list(parents.get(process, ()))
    for child in found:
        found += parents.get(child, ())
    return found


def run(ranks, *command, **rest):
    """Run a command on so many ranks; return its exit status, what it printed, and what it said."""
    with started(ranks, *command, **rest) as job:
        out, err = job.communicate(timeout=PATIENCE)
        return job.returncode, out, err


def program(name, *arguments):
    """Return the command of a program of this folder."""
    return sys.executable, "-m", f"tests.mpi.{name}", *arguments


def seconds_to_end(job):
    """Wait for a job and return how long that took, and what it said."""
    start = time.monotonic()
    _, err = job.communicate(timeout=PATIENCE)
    return time.monotonic() - start, err
