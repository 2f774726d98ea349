"""Programs of this folder on the ranks of a real MPI."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
MPIEXEC = Path(sys.executable).parent / "mpiexec"
# Seconds after which a job that hangs is ended, which fails its test.
PATIENCE = 120


def start(ranks, *command, **rest):
    """Start a command on so many ranks, in a process group of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | rest.pop("env", {})
    return subprocess.Popen(
        [str(MPIEXEC), "-n", str(ranks), *map(str, command)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **rest,
    )  # fmt: skip


def run(ranks, *command, **rest):
    """Run a command on so many ranks; return its exit status, what it printed, and what it said."""
    job = start(ranks, *command, **rest)
    try:
        out, err = job.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        job.kill()
        raise
    return job.returncode, out, err


def program(name, *arguments):
    """Return the command of a program of this folder."""
    return sys.executable, "-m", f"tests.mpi.{name}", *arguments


def seconds_to_end(job):
    """Wait for a job and return how long that took, and what it said."""
    start = time.monotonic()
    _, err = job.communicate(timeout=PATIENCE)
    return time.monotonic() - start, err
