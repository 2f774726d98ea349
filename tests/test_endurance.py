"""The long counts: full disks, kills, changed bits and damaged files, on commands in processes of their own."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import flds
from tests import damage, killed_sweeps
from tests.conftest import three_samples
from tests.flds import test_console as console
from tests.flds import test_early_states as early_states
from tests.flds import test_places as places
from tests.flds import test_sweep_failures as failures
from tests.flds import test_sweeps as sweeps
from tests.solvers.test_files import refused_or_harmless
from tests.solvers.test_mean_field import interrupt

pytestmark = pytest.mark.slow
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
# Seconds of a processor that a command on a damaged file may take, start included; on a busy machine it waits as well.
PATIENCE = 10


def command(*arguments) -> list[str]:
    return [sys.executable, "-m", "flds", *map(str, arguments)]


def finish(arguments: list[str], folder: Path, **rest) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, **rest)


@pytest.fixture
def solving(tmp_path) -> list[str]:
    """A command that keeps a state of some 250 kB."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", inputs=rng.normal(size=(20, 64)), targets=rng.normal(size=20))
    sizes = ["--particles", "1000", "--depth", "4", "--batch-size", "4", "--keep-state", "--quiet"]
    return command("solve", "--data", tmp_path / "data.npz", *sizes)


def test_results_are_kept_elsewhere_when_the_disk_is_full(tmp_path, solving):
    disk = tmp_path / "disk"
    disk.mkdir()
    small = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size="$0" tmpfs "$1" && shift && exec "$@"']
    if finish([*small, "100k", str(disk), "true"], tmp_path).returncode:
        pytest.skip("no small disk can be mounted here")
    whole = finish([*solving, "--steps", "3", "--out", "whole.nc"], tmp_path)
    assert whole.returncode == 0, whole.stderr
    expected = flds.load(tmp_path / "whole.nc")
    size = (tmp_path / "whole.nc").stat().st_size + (tmp_path / "whole.nc.state").stat().st_size
    for kilobytes in np.linspace(4, 0.95 * size / 1024, 20).astype(int):
        out = ["--steps", "3", "--out", str(disk / "run.nc")]
        done = finish([*small, f"{kilobytes}k", str(disk), *solving, *out], tmp_path)
        assert done.returncode == 2, (kilobytes, done.returncode, done.stderr)
        assert "Traceback" not in done.stderr
        assert "run.nc" in done.stderr
        found = flds.load(tmp_path / "run.nc")
        np.testing.assert_array_equal(found.outputs, expected.outputs)
        np.testing.assert_array_equal(found.states[0]["readout"].values, expected.states[0]["readout"].values)
        for path in (tmp_path / "run.nc", tmp_path / "run.nc.state"):
            path.unlink()
        assert not list(tmp_path.glob(".*.part"))


def test_solves_that_are_killed_leave_results_that_go_on(tmp_path, solving):
    steps, draw = 30, random.Random(0)
    (tmp_path / "old").mkdir()
    assert finish([*solving, "--steps", "2", "--out", "old/run.nc"], tmp_path).returncode == 0
    start = time.monotonic()
    assert finish([*solving, "--steps", str(steps), "--out", "whole.nc"], tmp_path).returncode == 0
    duration = time.monotonic() - start
    whole, ends = flds.load(tmp_path / "whole.nc"), Counter()
    for index in range(40):
        number = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)[index % 4]
        for path in (tmp_path / "old").iterdir():
            shutil.copy(path, tmp_path / path.name)
        with subprocess.Popen(
            [*solving, "--steps", str(steps), "--out", "run.nc"], cwd=tmp_path, env=ENVIRONMENT,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            time.sleep(duration * draw.uniform(0.1, 1.0))
            process.send_signal(number)
            errors = process.communicate(timeout=60)[1]
        assert process.returncode in (0, -number if number == signal.SIGKILL else 128 + number, -number), errors
        assert "Traceback" not in errors
        found = flds.load(tmp_path / "run.nc")
        assert found.missing == ""
        old = found.batch_loss.size == 3
        ends[number.name, found.status, "old" if old else "new"] += 1
        if old:
            continue
        if found.status == "completed":
            np.testing.assert_array_equal(found.outputs, whole.outputs)
            continue
        assert number != signal.SIGKILL
        if found.states:
            np.testing.assert_array_equal(flds.resume(found).outputs, whole.outputs)
        else:
            assert found.steps[-1] <= 1
    print(dict(ends))
    assert finish([*solving, "--steps", "2", "--out", "run.nc"], tmp_path).returncode == 0
    assert not list(tmp_path.glob(".run.nc*.part"))


def test_sweeps_that_are_killed_are_completed_later(tmp_path):
    assert killed_sweeps.kill(killed_sweeps.drawn(40), tmp_path) == []
    for index in range(7):
        ended = killed_sweeps.twice(tmp_path / f"twice {index}")
        assert sorted(status for status, *_ in ended) == [0, 2], ended


# What `tests/flds` runs in forks, in processes that load what they need by themselves.


@pytest.mark.parametrize("delay", [0.0, 0.4, 1.5, 4.0])
@pytest.mark.parametrize("arguments", console.COMMANDS, ids=lambda arguments: arguments[0])
def test_several_interrupts_in_a_row_are_no_traceback(arguments, delay, tmp_path):
    longer = ["--steps", "9000"] if arguments[0] == "solve" else []
    with console.loading([*arguments, *longer], tmp_path) as process:
        assert console.interrupted_often(process, delay) == ""


@pytest.mark.filterwarnings("ignore:interrupted")
@pytest.mark.parametrize("kind", early_states.SOLVES)
def test_a_run_interrupted_anywhere_goes_on_as_if_it_had_not_been(kind, monkeypatch, tmp_path):
    early_states.go_on_from(kind, 40, monkeypatch, tmp_path)


def test_a_user_without_a_home_trains(tmp_path, another_user, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o777)
    environment = ENVIRONMENT | {"HOME": "/nonexistent"}
    environment.pop("MPLCONFIGDIR", None)
    done = places.as_user(another_user, "solve", *places.SMALL, "--quiet", cwd=tmp_path, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(os.listdir()) == ["flds.nc", "flds.png"]


def script(folder: Path, code: str, *arguments: object, guard: str = "if __name__ == '__main__':") -> list[str]:
    """Write code as a script, and return the command that runs it."""
    (folder / "run.py").write_text(f"{guard}\n{textwrap.indent(code, '    ')}")
    return [sys.executable, str(folder / "run.py"), *map(str, arguments)]


def test_a_script_without_a_guard_says_what_it_needs(tmp_path):
    done = finish(script(tmp_path, sweeps.SCRIPT, tmp_path / "runs", guard="if True:"), tmp_path, timeout=120)
    assert done.returncode == 1
    assert "must call flds.sweep under  if __name__ == '__main__':" in done.stderr
    assert "bootstrapping phase" not in done.stderr


def test_a_sweep_interrupted_and_started_again_ends_as_one_that_was_not(tmp_path):
    half, whole = tmp_path / "half", tmp_path / "whole"
    with subprocess.Popen(script(tmp_path, sweeps.SCRIPT, half), stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list(half.glob("*.nc")):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    for folder in (half, whole):
        assert finish(script(tmp_path, sweeps.SCRIPT, folder), tmp_path).returncode == 0
    for path in whole.glob("*.nc"):
        np.testing.assert_array_equal(flds.load(path).outputs, flds.load(half / path.name).outputs)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("group", [False, True])
def test_signals_end_a_sweep_with_its_workers(tmp_path, number, group):
    runs = tmp_path / "runs"
    with subprocess.Popen(
        script(tmp_path, failures.SCRIPT, runs, 100), stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while process.poll() is None and not list(runs.glob("seed=*.nc")):
            time.sleep(0.02)
        (os.killpg if group else os.kill)(process.pid, number)
        errors = process.communicate(timeout=30)[1]  # workers would hold the pipe
    assert (process.returncode, errors) == (128 + number, "")
    assert not killed_sweeps.orphans(process.pid)
    assert not list(runs.glob("*.error.json"))
    assert not list(runs.glob(".*.part"))


# A limit on the size of files, which workers set when they import the script.
LIMITED = """
if __name__ == "__mp_main__":
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
"""
# Kills the worker that imports the script for a run of this activation.
DEADLY = """
import os, signal
from multiprocessing import current_process
import numpy as np, flds
def deadly(x):
    if current_process().name != "MainProcess":
        os.kill(os.getpid(), signal.SIGKILL)
    return np.tanh(x)
def slope(x):
    return 1 - np.tanh(x) ** 2
"""
DEADLY_SWEEP = """
import sys
problem = flds.TrainingProblem(np.eye(3), np.ones(3), steps=2)
for _ in range(2):
    grid = {"activation": ["tanh", flds.Activation(deadly, slope), "relu"], "seed": [1, 2]}
    print(flds.sweep(problem, grid, folder=sys.argv[1], workers=2, particles=50, depth=2).data.status.values.tolist())
"""


def test_workers_that_cannot_write_results_or_die_cost_no_other_run(tmp_path):
    guard = "if __name__ == '__main__':"
    done = finish(script(tmp_path, failures.SCRIPT, tmp_path / "runs", 1, guard=LIMITED + guard), tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{' '.join(['failed'] * 8)}\n"), done.stderr
    assert not list((tmp_path / "runs").glob(".*.part"))
    done = finish(script(tmp_path, DEADLY_SWEEP, tmp_path / "deadly", guard=DEADLY + guard), tmp_path)
    statuses = [["completed"] * 2, ["failed"] * 2, ["completed"] * 2]
    assert done.stdout == 2 * f"{statuses}\n", done.stderr


@pytest.mark.parametrize("part", ["run.nc", "run.nc.state"])
def test_changed_bits_are_refused_or_harmless(tmp_path, part):
    kept = flds.simulate_resnet(three_samples(steps=2), width=30, depth=2, replicates=2, keep_state=True)
    path = kept.save(tmp_path / "run.nc")
    whole, rng = (tmp_path / part).read_bytes(), np.random.default_rng(1)
    for place in rng.integers(0, len(whole), 150):
        changed = bytearray(whole)
        changed[place] ^= 1 << rng.integers(8)
        (tmp_path / part).write_bytes(changed)
        refused_or_harmless(path, kept, part)


def test_commands_on_damaged_and_crafted_files_say_one_line(tmp_path):
    """400 commands; each ends in time, with results or with one line that says why not."""
    kept = flds.simulate_resnet(three_samples(steps=2), width=30, depth=2, replicates=2, keep_state=True)
    folders = []
    for write in damage.crafted(kept).values():
        folders.append(_folder(tmp_path, len(folders)))
        write(folders[-1] / "run.nc")
    sources = _folder(tmp_path, -1)
    kept.save(sources / "run.nc")
    kept.data.to_netcdf(sources / "old.nc", engine="h5netcdf")
    kinds = (("run.nc", "run.nc", 1), ("run.nc.state", "run.nc.state", 2), ("old.nc", "run.nc", 3))
    kinds = [(name, damage.damaged((sources / source).read_bytes(), np.random.default_rng(seed)))
             for source, name, seed in kinds]  # fmt: skip
    while len(folders) < 134:
        folders.append(_folder(tmp_path, len(folders)))
        for source in ("run.nc", "run.nc.state"):
            shutil.copy(sources / source, folders[-1] / source)
        name, make = kinds[len(folders) % 3]
        (folders[-1] / name).write_bytes(next(make)[1])
    work = [(folder, verb) for folder in folders for verb in ("info", "solve", "resume")][:400]
    with ThreadPoolExecutor(2) as pool:
        wrong = [text for text in pool.map(lambda one: _trouble(*one), work) if text]
    assert not wrong, "\n".join(wrong)


def _folder(where: Path, number: int) -> Path:
    folder = where / str(number)
    folder.mkdir()
    return folder


def _trouble(folder: Path, verb: str) -> str:
    """Return what is wrong with a command on the file in a folder, or nothing."""
    rest = ["--out", f"{verb}.nc", "--quiet", "--threads", "1"]
    arguments = {
        "info": ["info", "run.nc"],
        "solve": ["solve", "--from", "run.nc", *rest],
        "resume": ["resume", "run.nc", "--steps", "1", *rest],
    }[verb]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (PATIENCE, PATIENCE))

    try:
        done = finish(command(*arguments), folder, timeout=6 * PATIENCE, preexec_fn=limit)
    except subprocess.TimeoutExpired:
        return f"{folder.name}, {verb}: no end in {6 * PATIENCE} s"
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    if done.returncode == 0:
        return "" if not lines else f"{folder.name}, {verb}: {done.stderr}"
    good = len(lines) == 1 and lines[0].startswith("flds: ") and done.returncode in (2, 3)
    return "" if good else f"{folder.name}, {verb}: status {done.returncode}, {done.stderr}"


@pytest.mark.filterwarnings("ignore:interrupted")
@pytest.mark.parametrize("scheme", ["euler_maruyama", "heun"])
def test_ctrl_c_at_many_moments_leaves_whole_solutions(scheme):
    assert interrupt(scheme, 100) <= 10
