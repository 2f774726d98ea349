"""Kill sweeps at some time, and see that a later call completes each as one that was not disturbed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray

import flds
from tests.flds import forks

RUNS = 5
SWEEP = [
    "sweep", "--grid", f"seed={','.join(map(str, range(RUNS)))}", "--workers", "2", "--set", "steps=4",
    "--set", "particles=500", "--set", "depth=4", "--set", "keep_state=true",
]  # fmt: skip
TARGETS = ("parent", "worker", "group")
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
# Seconds after the end of a command in which its processes may end as well.
PATIENCE = 5.0


class Kill(NamedTuple):
    """A signal to "parent", "worker" or "group", so many seconds after so many runs have ended."""

    target: str
    number: signal.Signals
    runs: int
    delay: float = 0.0


def drawn(count: int, seed: int = 0) -> Iterable[Kill]:
    """Yield so many kills at random times."""
    draw = random.Random(seed)
    for index in range(count):
        runs = draw.randrange(RUNS)
        yield Kill(
            TARGETS[index % len(TARGETS)], SIGNALS[index // len(TARGETS) % len(SIGNALS)], runs,
            draw.uniform(0.0, 0.3 if runs else 3.0),
        )  # fmt: skip


def start(folder: Path, forked: bool = False, before: str = "") -> subprocess.Popen[str] | forks.Process:
    """Start the sweep in a session of its own, by which its processes are found.

    Forked, it does not load anything, and nor do its workers, and it can have code that it runs before.
    """
    data = folder.parent / "data.npz"
    if not data.exists():
        generator = np.random.default_rng(0)
        np.savez(data, inputs=generator.normal(size=(20, 64)), targets=generator.normal(size=20))
    command = [*SWEEP, "--data", str(data), "--out", str(folder)]
    if forked:
        return forks.start(*command, cwd=folder.parent, code=forks.FORKED_WORKERS + before + forks.MAIN)
    return subprocess.Popen(
        [sys.executable, "-m", "flds", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def finish(folder: Path, forked: bool = False) -> tuple[int, str, str]:
    """Start the sweep and wait for its end; nothing of it is left behind, however this ends."""
    with start(folder, forked) as process:
        try:
            printed, errors = process.communicate(timeout=300)
            return process.returncode, printed, errors
        finally:
            process.kill()


def processes(session: int) -> dict[int, str]:
    """Return the command lines of the living processes of a session, by number."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            state, _, _, of = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            if state != "Z" and int(of) == session:
                found[int(entry.name)] = (entry / "cmdline").read_text()
        except (OSError, ValueError):
            continue  # it has ended, or is none
    return found


def workers(session: int) -> list[int]:
    """Return the processes that a command has started, but for the one that clears up after them."""
    there = processes(session).items()
    return [number for number, command in there if number != session and "resource_tracker" not in command]


def orphans(session: int) -> dict[int, str]:
    """Return the processes of a session that are still there some time after its command has ended."""
    deadline = time.monotonic() + PATIENCE
    while (left := processes(session)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def disturb(folder: Path, kill: Kill, forked: bool, before: str) -> str:
    """Start a sweep, kill a part of it, and return what is wrong later, or nothing."""
    target, number, runs, delay = kill
    with start(folder, forked, before) as process:
        try:
            while process.poll() is None and len(list(folder.glob("seed=*.nc"))) < runs:
                time.sleep(0.01)
            time.sleep(delay)
            if target == "parent":
                process.send_signal(number)
            elif target == "group":
                os.killpg(process.pid, number)
            else:
                deadline = time.monotonic() + PATIENCE
                while not (there := workers(process.pid)) and process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.01)
                for one in random.sample(there, min(1, len(there))):
                    os.kill(one, number)
            process.wait(300)
            left = orphans(process.pid)
            errors = process.stderr.read() if process.stderr and not left else ""
        finally:
            process.kill()
            for one in processes(process.pid):
                os.kill(one, signal.SIGKILL)
    if left:
        return f"{len(left)} orphans"
    if target == "worker" and process.returncode:
        return f"status {process.returncode} after the death of a worker: {errors}"
    return "a traceback" if "Traceback" in errors else ""


def compare(folder: Path, whole: Path, expected: dict[str, flds.Solution]) -> str:
    """Return how a completed sweep differs from an undisturbed one, of which its runs are expected, or nothing."""
    for name, other in expected.items():
        one = flds.load(folder / name)
        pairs = [(one.variables[name].values, item.values) for name, item in other.variables.items()]
        if one.missing or not all(np.array_equal(*pair, equal_nan=True) for pair in pairs):
            return f"{name} differs"
    with xarray.open_dataset(folder / "sweep.nc") as one, xarray.open_dataset(whole / "sweep.nc") as other:
        if not one.equals(other):
            return "sweep.nc differs"
    others = {path.name for path in folder.iterdir()} ^ {path.name for path in whole.iterdir()}
    others = {name for name in others if not name.startswith(".sweep.nc.")}  # the command's own, which is no result
    return f"other files: {sorted(others)}" if others else ""


def kill(kills: Iterable[Kill], where: Path, forked: bool = False, before: str = "") -> list[str]:
    """Kill a sweep at each of these times, and return what went wrong; `before` is what those that are killed run."""
    random.seed(0)
    status, _, errors = finish(where / "whole", forked)
    assert status == 0, errors
    expected = {path.name: flds.load(path) for path in sorted((where / "whole").glob("seed=*.nc"))}
    wrong = []
    for index, one in enumerate(kills):
        folder = where / str(index)
        found = [disturb(folder, one, forked, before)]
        done = len(list(folder.glob("seed=*.nc")))
        status, printed, errors = finish(folder, forked)
        if status or f"runs       {RUNS} completed\n" not in printed:
            found.append(f"the later call ended with {status}: {printed}{errors}")
        else:
            found.append(compare(folder, where / "whole", expected))
        found = [text for text in found if text]
        said = f"{one.number.name} to the {one.target} after {one.runs} runs, {done} of {RUNS} done at its end: "
        said += "; ".join(found) or "good"
        print(said, flush=True)
        if found:
            wrong.append(said)
        else:
            shutil.rmtree(folder)
    return wrong


def twice(where: Path, forked: bool = False) -> list[tuple[int, str, str]]:
    """Start a sweep twice at once and return how both ended."""
    ended = []
    with start(where, forked) as one, start(where, forked) as other:
        for process in (one, other):
            try:
                printed, errors = process.communicate(timeout=300)
                ended.append((process.returncode, printed, errors))
            finally:
                process.kill()
    return ended
