"""Runs that are killed: what was checkpointed is never lost, and a rerun ends with the bits of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import flds
from tests.killed_runs import RUNS, held

ROOT = Path(__file__).parents[1]
CHECKPOINT = "run.checkpoint"
PATIENCE = 120


def start(name, folder, when="never"):
    command = [sys.executable, "-m", "tests.killed_runs", name, str(folder), str(when)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(job):
    out, err = job.communicate(timeout=PATIENCE)
    assert job.returncode == 0, err
    _, found, status, step = out.splitlines()[-1].split(" | ")
    assert status == "completed"
    return found, step


def went_on(name, folder, expected):
    """Check that a rerun goes on from what the checkpoint holds, to the same end, and leaves nothing."""
    there = held(folder / CHECKPOINT)
    found, step = finished(start(name, folder))
    assert found == expected
    if there is None:
        assert step == "None"
    elif there[1] != "ended":
        assert step == str(there[1])
    assert list(folder.iterdir()) == []
    return there


@pytest.fixture(scope="module", params=sorted(RUNS))
def undisturbed(request, tmp_path_factory):
    """A run's name, the digest of its end, and the seconds that it takes once it has begun."""
    job = start(request.param, tmp_path_factory.mktemp("whole"))
    assert job.stdout.readline() == "begins\n"
    begun = time.monotonic()
    found, step = finished(job)
    assert step == "None"
    return request.param, found, time.monotonic() - begun


def killed_at_random(undisturbed, folder, seed, number):
    name, expected, seconds = undisturbed
    job = start(name, folder)
    assert job.stdout.readline() == "begins\n"
    time.sleep(np.random.default_rng(seed).uniform(0.1, 1.0) * seconds)
    job.send_signal(number)
    job.communicate(timeout=PATIENCE)
    return went_on(name, folder, expected)


def killed_while_saving(undisturbed, folder, call):
    """The process ends itself at a call that flushes, renames or removes, before it or after it."""
    name, expected, _ = undisturbed
    job = start(name, folder, call)
    job.communicate(timeout=PATIENCE)
    assert job.returncode == -signal.SIGKILL
    return went_on(name, folder, expected)


def test_a_killed_run_goes_on(undisturbed, tmp_path):
    killed_at_random(undisturbed, tmp_path, 1, signal.SIGKILL)


@pytest.mark.parametrize(("call", "there"), [(4, False), (9, True)])
def test_a_run_killed_while_it_saves_goes_on(undisturbed, tmp_path, call, there):
    """Before the first checkpoint has its name, and while the second one is appended."""
    assert (killed_while_saving(undisturbed, tmp_path, call) is not None) == there


@pytest.mark.slow
def test_forty_kills(undisturbed, tmp_path_factory):
    """Of each kind of run: 20 at random moments by SIGKILL and SIGTERM, and 20 while it saves."""
    found = []
    for seed in range(20):
        number = (signal.SIGKILL, signal.SIGTERM)[seed % 2]
        found.append(killed_at_random(undisturbed, tmp_path_factory.mktemp("random"), seed, number))
    for call in range(2, 22):
        found.append(killed_while_saving(undisturbed, tmp_path_factory.mktemp("saving"), call))
    assert sum(step is not None for step in found) > 20  # most went on from somewhere


SMALL = (
    "--particles", "1000", "--depth", "3", "--steps", "60", "--train-samples", "100", "--test-samples", "20",
    "--operator", "lazy", "--threads", "1",
)  # fmt: skip


def command(*arguments, **rest):
    return subprocess.Popen([sys.executable, "-m", "flds", *map(str, arguments)], text=True, **rest)


def test_the_command_goes_on_after_sigterm(tmp_path):
    """It keeps the step that it was at; the same command again ends as one that was never disturbed."""
    kept = tmp_path / "run.ckpt"
    asked = ("solve", *SMALL, "--checkpoint", kept, "--checkpoint-every", "0.5", "--out", tmp_path / "run.nc")
    job = command(*asked, "--quiet")
    deadline = time.monotonic() + PATIENCE
    while not kept.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    job.terminate()
    assert job.wait(PATIENCE) == 128 + signal.SIGTERM
    early = flds.load(tmp_path / "run.nc")
    assert early.status == "interrupted"
    _, there = held(kept)
    assert there > early.steps[-1]
    assert command(*asked, "--quiet").wait(PATIENCE) == 0
    assert command("solve", *SMALL, "--out", tmp_path / "whole.nc", "--quiet").wait(PATIENCE) == 0
    found, whole = flds.load(tmp_path / "run.nc"), flds.load(tmp_path / "whole.nc")
    assert found.settings["continued_from_step"] == there
    for name, item in whole.variables.items():
        np.testing.assert_array_equal(found.variables[name].values, item.values)
    assert sorted(os.listdir(tmp_path)) == ["run.nc", "run.png", "whole.nc", "whole.png"]


def test_two_commands_on_one_checkpoint(tmp_path):
    kept = tmp_path / "run.ckpt"
    asked = ("solve", *SMALL, "--checkpoint", kept, "--checkpoint-every", "0", "--quiet")
    first = command(*asked, "--out", tmp_path / "first.nc")
    deadline = time.monotonic() + PATIENCE
    while not kept.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    first.send_signal(signal.SIGSTOP)
    second = command(*asked, "--out", tmp_path / "second.nc", stderr=subprocess.PIPE)
    _, err = second.communicate(timeout=PATIENCE)
    assert second.returncode == 2
    said = f"flds: another run is at work on the checkpoint {str(kept)!r}, process {first.pid}; "
    assert err == f"{said}wait for its end, or choose another file\n"
    first.kill()
    first.wait(PATIENCE)
    assert command(*asked, "--out", tmp_path / "second.nc").wait(PATIENCE) == 0  # the lock died with its process


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--checkpoint", "nowhere/run.ckpt"), "checkpoint: the folder 'nowhere' does not exist; create it first"),
        (("--checkpoint", "."), "checkpoint must name a file, got '.'"),
        (("--checkpoint", "text"), "'text' is no checkpoint that can be read"),
        (("--checkpoint", "run.nc"), "--checkpoint must not be what is read or written, got 'run.nc'"),
        (("--checkpoint", "run.png"), "--checkpoint must not be what is read or written, got 'run.png'"),
        (
            ("--checkpoint", "run.ckpt", "--fit"),
            "--fit may choose another number of particles when the command is given",
        ),
        (("--checkpoint-every", "-1"), "checkpoint_every must be a finite number of at least 0, got -1"),
    ],
)
def test_what_is_no_checkpoint(tmp_path, option, said):
    (tmp_path / "text").write_text("something else")
    sizes = SMALL[2:] if "--fit" in option else SMALL
    job = command("solve", *sizes, *option, "--quiet", "--out", "run.nc", cwd=tmp_path, stderr=subprocess.PIPE)
    _, err = job.communicate(timeout=PATIENCE)
    assert job.returncode == 2
    assert err.startswith(f"flds: {said}")
    assert err.count("\n") == 1
    assert (tmp_path / "text").read_text() == "something else"
