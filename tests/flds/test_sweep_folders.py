"""Folders of sweeps: each belongs to one sweep, which may grow, and to one process at a time."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xarray

import flds
from flds.training.activations import get_activation
from tests import killed_sweeps
from tests.flds import forks

fcntl = pytest.importorskip("fcntl")

GENERATOR = np.random.default_rng(0)
X, Y = GENERATOR.normal(size=(3, 4)), GENERATOR.normal(size=3)
PROBLEM = flds.TrainingProblem(X, Y, steps=2)
SMALL = {"particles": 50, "depth": 2}
RELU = get_activation("relu")


@pytest.fixture
def sweep(tmp_path):
    """A sweep on a thread in one folder, small unless told otherwise."""
    with ThreadPoolExecutor(1) as executor:

        def run(grid, problem=PROBLEM, folder="grid", **options):
            options = SMALL | options
            options = {name: value for name, value in options.items() if name not in grid and value is not None}
            return flds.sweep(problem, grid, folder=tmp_path / folder, executor=executor, **options)

        yield run


def test_a_sweep_grows_by_other_values_of_its_names(sweep, tmp_path):
    first = sweep({"seed": [0, 1], "learning_rate": [0.1]})
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "grid").glob("seed*.nc")}
    more = sweep({"seed": [1, 2], "learning_rate": [0.1, 0.2]})
    assert more.data.outputs.shape[:2] == (2, 2)  # those asked for
    assert np.array_equal(more.data.outputs[0, 0], first.data.outputs[1, 0])
    assert all(path.stat().st_mtime_ns == before for path, before in times.items())
    assert len(list((tmp_path / "grid").glob("seed*.nc"))) == 5


@pytest.mark.parametrize(
    ("grid", "options", "message"),
    [
        ({"depth": [2, 4]}, {}, "grid is seed there and depth here"),
        ({"seed": [0], "depth": [2]}, {}, "grid is seed there and seed, depth here"),
        ({"seed": [5]}, {"particles": 60}, "particles is 50 there and 60 here"),
        ({"seed": [0]}, {"depth": None}, "depth is 2 there and not set here"),
        ({"seed": [0]}, {"tolerance": 0.1}, "tolerance is not set there and 0.1 here"),
        ({"seed": [5]}, {"problem": flds.TrainingProblem(X + 1, Y, steps=3)},
         "other inputs; steps is 2 there and 3 here"),
        ({"seed": [5]}, {"problem": flds.TrainingProblem(X, Y, steps=2, activation=RELU)},
         "other activation"),
        ({"seed": [5]}, {"problem": flds.TrainingProblem(X, Y, steps=2, divergence_factor=9.0)},
         "divergence_factor is not set there and 9.0 here"),
        ({"seed": [0]}, {"solver": "simulate_resnet", "width": 50, "particles": None},
         "solver is solve_flds there and simulate_resnet here; particles is 50 there and not set here; "
         "width is not set there and 50 here"),
    ],
)  # fmt: skip
def test_another_sweep_in_the_folder_is_refused(sweep, tmp_path, grid, options, message):
    sweep({"seed": [0]})
    names = sorted(path.name for path in (tmp_path / "grid").iterdir())
    with pytest.raises(ValueError, match="holds another sweep") as raised:
        sweep(grid, **options)
    assert str(raised.value) == f"'{tmp_path / 'grid'}' holds another sweep: {message}; choose another folder"
    assert sorted(path.name for path in (tmp_path / "grid").iterdir()) == names


def test_threads_and_varied_fields_make_no_other_sweep(sweep):
    sweep({"learning_rate": [0.1]}, threads=1)
    other = flds.TrainingProblem(X, Y, steps=2, learning_rate=0.7)
    assert sweep({"learning_rate": [0.2]}, other, threads=2).data.status.values.tolist() == ["completed"]


def test_values_that_are_called_by_their_places_keep_them(sweep):
    rates = [np.array([0.1, 0.2]), np.array([0.3, 0.4])]
    sweep({"learning_rate": rates})
    assert sweep({"learning_rate": [*rates, np.array([0.5, 0.6])]}).data.status.values.tolist() == ["completed"] * 3
    with pytest.raises(ValueError, match=r"item0\.nc' belongs to another sweep; values such as item0 keep"):
        sweep({"learning_rate": rates[1:]})


def test_folders_of_older_versions_go_on(sweep, tmp_path):
    first, folder = sweep({"seed": [0, 1]}), tmp_path / "grid"
    (folder / "mine=1.nc").write_text("not of a sweep")
    flds.solve_flds(PROBLEM, sampling="law", **SMALL).save(folder / "mine=2.nc")
    description = (folder / "sweep.json").read_text()
    (folder / "sweep.json").unlink()
    for grid, options, message in (
        ({"depth": [2]}, {}, "holds another sweep: grid is seed there and depth here; choose another folder"),
        ({"seed": [7]}, {"particles": 60}, "holds runs of another sweep, such as seed=0.nc; choose another folder"),
    ):
        with pytest.raises(ValueError, match=message):
            sweep(grid, **options)
    assert sweep({"seed": [0, 1]}).data.equals(first.data)
    sweep({"seed": [0, 1, 2]})
    assert (folder / "sweep.json").read_text() == description


def test_damaged_files_are_named(sweep, tmp_path):
    sweep({"seed": [0]})
    run, description = tmp_path / "grid" / "seed=0.nc", tmp_path / "grid" / "sweep.json"
    run.write_bytes(run.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"seed=0\.nc' is not a readable results file: .*; remove it, and"):
        sweep({"seed": [0]})
    for text in ("", "[]", "{}", json.dumps({"solver": 1, "grid": 2, "fixed": 3})):
        description.write_text(text)
        with pytest.raises(ValueError, match=r"sweep\.json' is not the description of a sweep; choose another folder"):
            sweep({"seed": [0]})


HOLD = """
import sys, pathlib
from flds.sweeps.folder import alone
with alone(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_held_by_one_process_until_it_ends(sweep, tmp_path):
    folder = tmp_path / "grid"
    folder.mkdir()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], **pipes) as process:
        try:
            assert process.stdout.readline() == "held\n"
            with pytest.raises(BlockingIOError) as raised:
                sweep({"seed": [0]})
        finally:
            process.kill()
    expected = (
        f"another sweep is at work in '{folder}', process {process.pid}; wait for its end, or choose another folder"
    )
    assert str(raised.value) == expected
    assert sweep({"seed": [0]}).data.status.values.tolist() == ["completed"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_folders_without_locks_are_used_without(sweep, number, monkeypatch):
    def flock(*rest):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert sweep({"seed": [0]}).data.status.values.tolist() == ["completed"]


def test_what_a_killed_process_wrote_in_part_is_removed(sweep, tmp_path):
    sweep({"seed": [0]})
    parts = [tmp_path / "grid" / f".{name}.99.abc.part" for name in (
        "seed=1.nc", "seed=1.nc.state", "seed=1.error.json", "sweep.json", "seed=0.nc.state", "mine")]  # fmt: skip
    for path in parts:
        path.write_text("")
    sweep({"seed": [0, 1]})
    assert [path for path in parts if path.exists()] == parts[4:]  # those of others may be in use


def test_a_sweep_started_twice_at_once_is_done_once(tmp_path):
    ended = killed_sweeps.twice(tmp_path / "grid", forked=True)
    assert 0 in [status for status, *_ in ended]
    for status, printed, errors in ended:
        assert status == 0 or re.fullmatch(r"flds: another sweep is at work in .*, process \d+; wait .*\n", errors)
        if not status:
            assert f"runs       {killed_sweeps.RUNS} completed\n" in printed
            assert printed.endswith(f"results  {tmp_path / 'grid' / 'sweep.nc'}\n")
    with xarray.open_dataset(tmp_path / "grid" / "sweep.nc") as found:
        assert found.status.values.tolist() == ["completed"] * killed_sweeps.RUNS
        assert np.isfinite(found.outputs).all()


# Writes sweep.nc in small pieces, and says when it begins.
SLOW = """
import time
import solvers.results.files
write = solvers.results.files.write
def slowly(path, fill, sealed=True):
    if "sweep.nc" not in path.name:
        return write(path, fill, sealed)
    print("writing", flush=True)
    def pieces(put):
        def put_slowly(data):
            for start in range(0, len(data), 1000):
                put(data[start:start + 1000])
                time.sleep(0.001)
        fill(put_slowly)
    return write(path, pieces, sealed)
solvers.results.files.write = slowly
"""
# The same under its name from the beginning, with time for what comes in between.
IN_PLACE = (
    SLOW.replace("0.001", "0.05")
    + """
import contextlib
@contextlib.contextmanager
def replacing(target):
    yield target
solvers.results.files.replacing = replacing
"""
)


def end_writing(command, folder, number, delay, code):
    """Run a sweep, send it a signal while it writes sweep.nc, and return what is there then."""
    os.utime(folder / "grid" / "seed=0.nc")  # so that the result is made anew
    with forks.start(*command, cwd=folder, code=code + forks.MAIN) as process:
        assert process.stdout.readline() == "writing\n"
        time.sleep(delay)
        process.send_signal(number)
        process.communicate(timeout=30)
    with xarray.open_dataset(folder / "grid" / "sweep.nc") as found:
        return found.load()


def test_sweep_nc_is_whole_whenever_its_writing_is_ended(tmp_path):
    small = ["--train-samples", 9, "--test-samples", 5, "--set", "steps=1", "--set", "particles=50", "--set", "depth=2"]
    command = ["sweep", "--grid", "seed=0,1", "--workers", "1", *small, "--out", "grid"]
    assert forks.run(*command, cwd=tmp_path, code=forks.FORKED_WORKERS + forks.MAIN).returncode == 0
    with xarray.open_dataset(tmp_path / "grid" / "sweep.nc") as found:
        whole = found.load()
    for number, delay in ((signal.SIGTERM, 0.0), (signal.SIGKILL, 0.0), (signal.SIGKILL, 0.02)):
        assert end_writing(command, tmp_path, number, delay, SLOW).equals(whole)
    with pytest.raises((OSError, ValueError)):  # half a file is noticed
        end_writing(command, tmp_path, signal.SIGKILL, 0.02, IN_PLACE)
