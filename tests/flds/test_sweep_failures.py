"""What a sweep loses where workers die, disks are full, executors break and signals come: no more than those runs."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import flds
import flds.sweeps.runs
from flds.results.solution import Solution
from tests import killed_sweeps
from tests.flds import forks
from tests.killed_sweeps import Kill

GENERATOR = np.random.default_rng(0)
X, Y = GENERATOR.normal(size=(3, 4)), GENERATOR.normal(size=3)
PROBLEM = flds.TrainingProblem(X, Y, steps=2)
SMALL = {"particles": 50, "depth": 2}


# The workers are forks; `test_processes.py` has items that kill processes which are not.
DEADLY = (
    forks.FORKED_WORKERS
    + """
import json, os, signal, sys
import numpy as np, flds
started = os.getpid()
def deadly(x):
    if os.getpid() != started:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.tanh(x)
def slope(x):
    return 1 - np.tanh(x) ** 2
g = np.random.default_rng(0)
problem = flds.TrainingProblem(g.normal(size=(3, 4)), g.normal(size=3), steps=2)
activations = ["tanh", flds.Activation(deadly, slope), "relu"]
def sweep(**rest):
    found = flds.sweep(problem, folder=sys.argv[1], particles=50, depth=2, threads=1, **rest)
    print(json.dumps(found.data.status.values.tolist()), flush=True)
"""
)


def statuses(code, folder):
    """Run code that sweeps, and return the statuses of its sweeps."""
    done = forks.run(folder, cwd=folder, code=DEADLY + code)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_run_that_kills_its_worker_costs_no_other(tmp_path):
    # the second call tries the failed ones again, and ends as well
    found = statuses('for _ in range(2): sweep(grid={"activation": activations, "seed": [1, 2]}, workers=2)', tmp_path)
    assert found == 2 * [[["completed"] * 2, ["failed"] * 2, ["completed"] * 2]]
    errors = sorted(tmp_path.glob("*.error.json"))
    assert [path.name for path in errors] == [f"activation=item1,seed={seed}.error.json" for seed in (1, 2)]
    for path in errors:
        error = json.loads(path.read_text())["error"]
        assert error == "the worker process died: killed by signal 9, perhaps out of memory"


def test_an_executor_that_breaks_is_no_traceback(tmp_path):
    code = """
from concurrent.futures import ProcessPoolExecutor
grid = {"activation": activations}
with ProcessPoolExecutor(1, mp_context=Forking.context) as executor:
    sweep(grid=grid, executor=executor)
    sys.stdout.write(json.dumps(open(sys.argv[1] + "/activation=item1.error.json").read()) + "\\n")
    sweep(grid=grid, executor=executor)
sweep(grid=grid, workers=1)
"""
    first, error, second, third = statuses(code, tmp_path)
    assert first[1:] == second[1:] == ["failed"] * 2  # a broken pool does nothing more
    assert "BrokenProcessPool: " in error
    assert third == ["completed", "failed", "completed"]


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
        assert found.data.status.values.tolist() == ["completed", "failed", "completed"]
        error = json.loads((tmp_path / "seed=1.error.json").read_text())["error"]
        assert error == "OSError: [Errno 28] No space left on device"
        (tmp_path / "seed=1.error.json").unlink()
        monkeypatch.setattr(flds.sweeps.runs, "write_text", full)
        message = r"runs failed whose errors could not be written: seed=1\.nc: OSError: \[Errno 28\] No space left"
        with pytest.warns(RuntimeWarning, match=message):
            found = flds.sweep(PROBLEM, {"seed": [0, 1, 2]}, **options)
        assert found.data.status.values.tolist() == ["completed", "failed", "completed"]


SCRIPT = """
import os, resource, signal, sys
import numpy as np, flds
class Ended(KeyboardInterrupt):
    pass
def end(number, frame):
    raise Ended(number)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, end)
g = np.random.default_rng(0)
p = flds.TrainingProblem(g.normal(size=(3, 4)), g.normal(size=3), steps=int(sys.argv[2]))
try:
    found = flds.sweep(p, {"seed": range(8)}, folder=sys.argv[1], workers=2, particles=300, depth=8, threads=1)
    print(*found.data.status.values)
except Ended as ended:
    sys.exit(128 + ended.args[0])
"""
# A limit on the size of files is met like a full disk: errors fit, results do not.
LIMITED = """
import os, resource
most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
os.register_at_fork(after_in_child=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, most)))
"""


def test_workers_that_cannot_write_results_go_on(tmp_path):
    runs = tmp_path / "runs"
    done = forks.run(runs, 1, cwd=tmp_path, code=forks.FORKED_WORKERS + LIMITED + SCRIPT)
    assert (done.returncode, done.stdout) == (0, f"{' '.join(['failed'] * 8)}\n"), done.stderr
    errors = [json.loads(path.read_text())["error"] for path in runs.glob("*.error.json")]
    files = [str(runs / f"seed={seed}.nc") for seed in range(8)]
    assert sorted(errors) == [f"OSError: [Errno 27] File too large: {name!r}" for name in files]
    assert not list(runs.glob(".*.part"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("group", [False, True])
def test_signals_end_a_sweep_with_its_workers(tmp_path, number, group):
    """The whole group is what a terminal that closes ends."""
    runs = tmp_path / "runs"
    with forks.start(runs, 60, cwd=tmp_path, code=forks.FORKED_WORKERS + SCRIPT) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not list(runs.glob("seed=*.nc")):
            time.sleep(0.01)
        (os.killpg if group else os.kill)(process.pid, number)
        errors = process.communicate(timeout=30)[1]  # workers would hold the pipe
        assert process.returncode == 128 + number, errors
        assert errors == ""
    assert not killed_sweeps.orphans(process.pid)
    assert 1 <= len(list(runs.glob("seed=*.nc"))) < 8
    assert not list(runs.glob("*.error.json"))
    assert not list(runs.glob(".*.part"))


@pytest.mark.parametrize(("number", "forked"), [(signal.SIGTERM, True), (signal.SIGHUP, False)])
def test_the_command_says_which_signal_ended_it(tmp_path, number, forked):
    with killed_sweeps.start(tmp_path / "runs", forked) as process:
        while process.poll() is None and not list((tmp_path / "runs").glob("seed=*.nc")):
            time.sleep(0.01)
        process.send_signal(number)
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number
    (line,) = errors.splitlines()
    assert line.startswith("flds: interrupted")


# At the beginning, in the middle and at the end of a sweep; `tests/test_endurance.py` has many more, of processes that
# are no forks.
KILLS = [
    Kill("worker", signal.SIGKILL, 0), Kill("parent", signal.SIGKILL, 2), Kill("group", signal.SIGTERM, 4)
]  # fmt: skip
# Results that are under their name before they are whole.
IN_PLACE = """
import time
from flds.results.solution import Solution
save = Solution.save
def in_place(self, path):
    path.write_bytes(b"half")
    time.sleep(0.3)
    path.unlink()
    return save(self, path)
Solution.save = in_place
"""


def test_sweeps_that_are_killed_are_completed_later(tmp_path):
    assert killed_sweeps.kill(KILLS, tmp_path, forked=True) == []


def test_results_that_are_not_whole_would_be_noticed(tmp_path):
    kill = Kill("parent", signal.SIGKILL, 1)
    (wrong,) = killed_sweeps.kill([kill], tmp_path, forked=True, before=IN_PLACE)
    assert "is not a readable results file" in wrong
