"""What a sweep loses where workers die, disks are full, executors break and signals come: no more than those runs."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import current_process, get_context

import numpy as np
import pytest

import flds
import flds.sweeps.runs
from flds.results.solution import Solution
from tests import killed_sweeps

GENERATOR = np.random.default_rng(0)
X, Y = GENERATOR.normal(size=(3, 4)), GENERATOR.normal(size=3)
PROBLEM = flds.TrainingProblem(X, Y, steps=2)
SMALL = {"particles": 50, "depth": 2}


def deadly(x):
    if current_process().name != "MainProcess":
        os.kill(os.getpid(), signal.SIGKILL)
    return np.tanh(x)


def slope(x):
    return 1 - np.tanh(x) ** 2


def test_a_run_that_kills_its_worker_costs_no_other(tmp_path):
    grid = {"activation": ["tanh", flds.Activation(deadly, slope), "relu"], "seed": [1, 2]}
    for _ in range(2):  # the second call tries the failed ones again, and ends as well
        found = flds.sweep(PROBLEM, grid, folder=tmp_path, workers=2, **SMALL)
        assert found.status.values.tolist() == [["completed"] * 2, ["failed"] * 2, ["completed"] * 2]
    errors = sorted(tmp_path.glob("*.error.json"))
    assert [path.name for path in errors] == [f"activation=item1,seed={seed}.error.json" for seed in (1, 2)]
    for path in errors:
        error = json.loads(path.read_text())["error"]
        assert error == "the worker process died: killed by signal 9, perhaps out of memory"


def test_an_executor_that_breaks_is_no_traceback(tmp_path):
    grid = {"activation": ["tanh", flds.Activation(deadly, slope), "relu"]}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        found = flds.sweep(PROBLEM, grid, folder=tmp_path, executor=executor, **SMALL)
        assert found.status.values.tolist()[1:] == ["failed"] * 2  # a broken pool does nothing more
        assert "BrokenProcessPool: " in (tmp_path / "activation=item1.error.json").read_text()
        found = flds.sweep(PROBLEM, grid, folder=tmp_path, executor=executor, **SMALL)
    assert found.status.values.tolist()[1:] == ["failed"] * 2
    found = flds.sweep(PROBLEM, grid, folder=tmp_path, workers=1, **SMALL)
    assert found.status.values.tolist() == ["completed", "failed", "completed"]


def full(*rest, **named):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_costs_the_runs_that_it_takes(tmp_path, monkeypatch):
    save = Solution.save
    monkeypatch.setattr(Solution, "save", lambda self, path: (full if "seed=1" in str(path) else save)(self, path))
    with ThreadPoolExecutor(1) as executor:
        options = {"folder": tmp_path, "executor": executor, **SMALL}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = flds.sweep(PROBLEM, {"seed": [0, 1, 2]}, **options)
        assert found.status.values.tolist() == ["completed", "failed", "completed"]
        error = json.loads((tmp_path / "seed=1.error.json").read_text())["error"]
        assert error == "OSError: [Errno 28] No space left on device"
        (tmp_path / "seed=1.error.json").unlink()
        monkeypatch.setattr(flds.sweeps.runs, "write_text", full)
        message = r"runs failed whose errors could not be written: seed=1\.nc: OSError: \[Errno 28\] No space left"
        with pytest.warns(RuntimeWarning, match=message):
            found = flds.sweep(PROBLEM, {"seed": [0, 1, 2]}, **options)
        assert found.status.values.tolist() == ["completed", "failed", "completed"]


SCRIPT = """
import resource, signal, sys
import numpy as np, flds
class Ended(KeyboardInterrupt):
    pass
def end(number, frame):
    raise Ended(number)
{worker}
if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    g = np.random.default_rng(0)
    p = flds.TrainingProblem(g.normal(size=(3, 4)), g.normal(size=3), steps=int(sys.argv[2]))
    try:
        found = flds.sweep(p, {{"seed": range(8)}}, folder=sys.argv[1], workers=2, particles=1000, depth=8)
        print(*found.status.values)
    except Ended as ended:
        sys.exit(128 + ended.args[0])
"""
# A limit on the size of files is met like a full disk: errors fit, results do not.
LIMITED = """
if __name__ == "__mp_main__":
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
"""


def command(folder, steps, worker=""):
    (folder / "run.py").write_text(SCRIPT.format(worker=worker))
    return [sys.executable, str(folder / "run.py"), str(folder / "runs"), str(steps)]


def test_workers_that_cannot_write_results_go_on(tmp_path):
    done = subprocess.run(command(tmp_path, 1, LIMITED), capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, f"{' '.join(['failed'] * 8)}\n"), done.stderr
    errors = [json.loads(path.read_text())["error"] for path in (tmp_path / "runs").glob("*.error.json")]
    files = [str(tmp_path / "runs" / f"seed={seed}.nc") for seed in range(8)]
    assert sorted(errors) == [f"OSError: [Errno 27] File too large: {name!r}" for name in files]
    assert not list((tmp_path / "runs").glob(".*.part"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("group", [False, True])
def test_signals_end_a_sweep_with_its_workers(tmp_path, number, group):
    """The whole group is what a terminal that closes ends."""
    runs = tmp_path / "runs"
    with subprocess.Popen(command(tmp_path, 100), stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline and not list(runs.glob("seed=*.nc")):
                time.sleep(0.02)
            (os.killpg if group else os.kill)(process.pid, number)
            errors = process.communicate(timeout=30)[1]  # workers would hold the pipe
            assert process.returncode == 128 + number, errors
            assert errors == ""
        finally:
            process.kill()
    assert not killed_sweeps.orphans(process.pid)
    assert 1 <= len(list(runs.glob("seed=*.nc"))) < 8
    assert not list(runs.glob("*.error.json"))
    assert not list(runs.glob(".*.part"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_command_says_which_signal_ended_it(tmp_path, number):
    with killed_sweeps.start(tmp_path / "runs") as process:
        while process.poll() is None and not list((tmp_path / "runs").glob("seed=*.nc")):
            time.sleep(0.01)
        process.send_signal(number)
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number
    (line,) = errors.splitlines()
    assert line.startswith("flds: interrupted")


def test_sweeps_that_are_killed_are_completed_later(tmp_path):
    """A few of the kills that `tests/test_endurance.py` counts."""
    assert killed_sweeps.kill(4, tmp_path) == []
