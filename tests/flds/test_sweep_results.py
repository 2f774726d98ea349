"""What a sweep returns and writes: one file for Python and the command line, best points, errors, tables, pictures."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xarray

import flds
from flds.cli.commands import app
from flds.sweeps import results
from solvers.results.files import write_dataset

GENERATOR = np.random.default_rng(0)
X, Y = GENERATOR.normal(size=(6, 4)), GENERATOR.normal(size=6)
PROBLEM = flds.TrainingProblem(X, Y, steps=3, test_inputs=X[:2] + 0.1, test_targets=Y[:2])
GRID = {"learning_rate": [0.1, 0.2, 0.4], "activation": ["tanh", "relu"], "tolerance": [0.1, 2.0]}  # 2 is refused
GRID_OF_TWO = {name: GRID[name] for name in ("learning_rate", "activation")}


def run(folder, grid=GRID_OF_TWO, problem=PROBLEM, **options):
    with ThreadPoolExecutor(1) as executor:
        options = {"particles": 200, "depth": 2} | options
        return flds.sweep(problem, grid, folder=folder, executor=executor, **options)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "grid"
    return folder, run(folder, GRID)


def test_the_file_is_what_was_returned(swept):
    folder, found = swept
    again = flds.load(folder / "sweep.nc")
    assert type(again) is flds.Sweep
    assert again.data.identical(found.data)
    assert again.grid == found.grid == GRID
    assert found.status == "failed"
    assert found.settings["of"] == "solve_flds"
    assert again.reused == found.reused == 0


def test_what_does_not_vary_is_there_once(swept):
    data = swept[1].data
    assert data.problem_inputs.dims == ("inputs_0", "inputs_1")
    np.testing.assert_array_equal(data.problem_inputs, X)
    assert data.steps.dims == ("step",)
    assert data.loss.dims == ("learning_rate", "activation", "tolerance", "step")
    one = flds.load(swept[0] / "learning_rate=0.2,activation=relu,tolerance=0.1.nc")
    assert data.loss.sel({"learning_rate": 0.2, "activation": "relu", "tolerance": 0.1, "step": 2}) == one.loss[2]
    data = run(swept[0].parent / "steps", {"steps": [2, 4]}).data
    assert data.steps_values.dims == ("step",)  # of the longest; the others end early
    assert np.isnan(data.loss.sel(steps=2)).sum() == 2


def test_best_points_and_errors_are_named(swept):
    found = swept[1]
    values = found.final().sel({"tolerance": 0.1})
    (point, value), *rest = found.best(count=3)
    assert value == values.min()
    assert values.sel(learning_rate=point["learning_rate"], activation=point["activation"]) == value
    assert len(rest) == 2
    assert found.final().name == "test_loss"
    assert np.isnan(found.final().sel({"tolerance": 2.0})).all()
    text = found.summary()
    assert "runs       6 completed, 6 failed" in text
    assert f"best       test loss {value:.4g} at learning_rate {point['learning_rate']:g}" in text
    assert "tolerance 2: ValueError: tolerance must be below 1" in text
    assert "… and 1 more" in text
    with pytest.raises(ValueError, match="name must be one of"):
        found.final("rank")


def test_the_best_accuracy_is_the_largest(tmp_path):
    problem = flds.TrainingProblem(X, [0, 1, 0, 1, 1, 0], loss="cross_entropy", steps=4)
    found = run(tmp_path, {"learning_rate": [1e-9, 4.0]}, problem)
    assert found.best(1, "accuracy")[0][1] == found.final("accuracy").max()


def test_runs_that_diverge_are_no_best_points(tmp_path):
    found = run(tmp_path, {"learning_rate": [0.1, 1e6]}, flds.TrainingProblem(X, Y, steps=30, activation="identity"))
    assert found.status == "diverged"
    assert [point for point, _ in found.best()] == [{"learning_rate": 0.1}]
    assert found.plot().axes


def test_a_second_call_reads_the_result_alone(tmp_path, monkeypatch):
    first = run(tmp_path)
    loaded = []
    monkeypatch.setattr("flds.sweeps.folder.load", lambda path, groups=True: loaded.append(path))
    monkeypatch.setattr(results, "load", lambda path, groups=True: loaded.append(path) or flds.load(path, groups))
    again = run(tmp_path)
    assert loaded == [tmp_path / "sweep.nc"]
    assert again.reused == 6
    assert again.data.identical(first.data)


@pytest.mark.parametrize("change", ["another run", "its own copy", "a touch", "nothing"])
def test_a_run_that_has_changed_is_looked_at(tmp_path, change):
    first, path = run(tmp_path), tmp_path / "learning_rate=0.1,activation=tanh.nc"
    time.sleep(0.02)  # the clock of the file system has ticks
    if change == "another run":
        times = path.stat()
        shutil.copy2(tmp_path / "learning_rate=0.2,activation=tanh.nc", path)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # no copy keeps when it was made
        with pytest.raises(ValueError, match="belongs to another sweep"):
            run(tmp_path)
        return
    if change == "its own copy":
        shutil.copy2(path, tmp_path / "copy")
        (tmp_path / "copy").replace(path)
    if change == "a touch":
        path.touch()
    written = (tmp_path / "sweep.nc").stat().st_mtime_ns
    again = run(tmp_path)
    assert again.data.identical(first.data)
    assert ((tmp_path / "sweep.nc").stat().st_mtime_ns == written) == (change == "nothing")


def test_a_damaged_result_is_made_anew(tmp_path):
    first, path = run(tmp_path), tmp_path / "sweep.nc"
    path.write_bytes(path.read_bytes()[:-200])
    assert run(tmp_path).data.identical(first.data)
    assert flds.load(path).data.identical(first.data)


def test_a_folder_to_be_read_only_gives_its_result(tmp_path, monkeypatch):
    first = run(tmp_path)
    (tmp_path / "sweep.nc").unlink()

    def refuse(self, path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(flds.Sweep, "save", refuse)
    assert run(tmp_path).data.identical(first.data)


def test_results_of_older_versions_open(swept, tmp_path):
    found = swept[1]
    names = {"step": "record", "every_step": "step", "t": "depth_point"}
    old = xarray.Dataset(
        {
            name: (tuple(names.get(dim, dim) for dim in item.dims), item.values, {"long_name": "x", "units": "1"})
            for name, item in found.variables.items()
            if name not in ("error", "file", "fingerprint", *GRID)
        },
        {name: (name, values, {"long_name": "x", "units": "1"}) for name, values in GRID.items()},
        {"schema": "flds.sweep/1"},
    )
    write_dataset(tmp_path / "sweep.nc", old)
    again = flds.load(tmp_path / "sweep.nc")
    assert again.grid == GRID
    assert again.best() == found.best()
    assert again.plot().axes


def test_tables_have_a_row_for_each_run_or_number(swept, tmp_path):
    found = swept[1]
    rows = list(csv.DictReader(found.to_csv(tmp_path / "wide.csv").read_text().splitlines()))
    assert len(rows) == 12
    assert [row["status"] for row in rows].count("failed") == 6
    row = next(r for r in rows if (r["learning_rate"], r["activation"], r["tolerance"]) == ("0.4", "relu", "0.1"))
    expected = found.final("loss").sel({"learning_rate": 0.4, "activation": "relu", "tolerance": 0.1})
    assert float(row["loss"]) == expected
    rows = list(csv.DictReader(found.to_csv(tmp_path / "long.csv", long=True).read_text().splitlines()))
    losses = [row for row in rows if row["variable"] == "loss"]
    assert len(losses) == 12 * 4
    assert {row["step"] for row in losses} == {"0", "1", "2", "3"}


@pytest.mark.parametrize(
    "grid",
    [
        {"learning_rate": [0.5]}, {"activation": ["tanh", "relu"]}, {"seed": [0, 1]},
        {"depth": [1, 2], "seed": [0, 1]},
    ],
)  # fmt: skip
def test_sweeps_over_anything_are_drawn(grid, tmp_path):
    figure = run(tmp_path, grid, **({} if "depth" not in grid else {"depth": 1})).plot(tmp_path / "sweep.png")
    assert figure.axes[0].get_ylabel() == "final test loss"
    assert (tmp_path / "sweep.png").stat().st_size > 5000


def test_a_sweep_without_any_run_is_drawn_and_described(tmp_path):
    found = run(tmp_path, {"tolerance": [2.0, 3.0]})
    assert "runs       2 failed" in found.summary()
    assert found.plot().axes
    with pytest.raises(ValueError, match="nothing over training to compare"):
        found.final()


def test_the_command_line_writes_and_shows_the_same(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = ["--train-samples", "9", "--test-samples", "5", "--set", "steps=1", "--set", "particles=50"]
    arguments = ["sweep", "--grid", "learning_rate=0.25,0.5", *few, "--workers", "1", "--out", "grid", "--plot"]
    dataset = flds.load_digits()
    problem = flds.TrainingProblem(
        dataset.inputs[:9], dataset.targets[:9], loss="cross_entropy", steps=1, batch_size=9, batch_order="random",
        learning_rate=1.0, test_inputs=dataset.test_inputs[:5], test_targets=dataset.test_targets[:5],
    )  # fmt: skip
    ours = run(tmp_path / "grid", {"learning_rate": [0.25, 0.5]}, problem, particles=50, depth=8)
    app(arguments, standalone_mode=False)  # finds all of it done
    printed = capsys.readouterr().out
    assert "reused     2 that were there" in printed
    assert printed.endswith(
        f"results  {os.path.join('grid', 'sweep.nc')}\npicture  {os.path.join('grid', 'sweep.png')}\n"
    )
    assert (tmp_path / "grid" / "sweep.png").stat().st_size > 5000
    assert flds.load("grid/sweep.nc").data.identical(ours.data)
    app(["info", "grid/sweep.nc"], standalone_mode=False)
    printed = capsys.readouterr().out
    assert "best       test loss" in printed
    assert "rerun" not in printed
    with pytest.raises(ValueError, match="solution must be of one of solve_flds"):
        flds.rerun(flds.load("grid/sweep.nc"))
    assert json.loads((tmp_path / "grid" / "sweep.json").read_text())["grid"] == ["learning_rate"]
