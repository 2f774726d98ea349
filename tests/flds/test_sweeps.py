"""Sweeps: files, resuming, failures, interrupts, and numbers that do not depend on who computed them."""

from __future__ import annotations

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import current_process

import numpy as np
import pytest

import flds
from tests.flds import forks

GENERATOR = np.random.default_rng(0)
X, Y = GENERATOR.normal(size=(3, 4)), GENERATOR.normal(size=3)
PROBLEM = flds.TrainingProblem(X, Y, steps=3)
GRID = {"learning_rate": [0.5, 1.0], "depth": [2, 4]}
FIXED = {"particles": 200}


def test_points_of_a_grid_are_those_of_single_runs(tmp_path):
    found = flds.sweep(PROBLEM, GRID, folder=tmp_path, workers=2, **FIXED).data
    assert found.outputs.dims == ("learning_rate", "depth", "step", "sample")
    assert np.all(found.status == "completed")
    for rate in GRID["learning_rate"]:
        for depth in GRID["depth"]:
            alone = flds.solve_flds(flds.TrainingProblem(X, Y, steps=3, learning_rate=rate), depth=depth, **FIXED)
            assert np.array_equal(found.outputs.sel(learning_rate=rate, depth=depth), alone.outputs)
    assert "feature_variance" not in found  # its shape depends on the depth
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[:2] == [".sweep.lock", "learning_rate=0.5,depth=2.nc"]
    assert names[-2:] == ["sweep.json", "sweep.nc"]
    assert len(names) == 7


def test_a_second_call_does_only_what_is_missing(tmp_path):
    with ThreadPoolExecutor(2) as executor:
        with pytest.raises(ValueError, match="leave it out with an executor"):
            flds.sweep(PROBLEM, GRID, folder=tmp_path / "one", executor=executor, workers=2, **FIXED)
        one = flds.sweep(PROBLEM, GRID, folder=tmp_path / "one", executor=executor, **FIXED)
        flds.sweep(PROBLEM, GRID, folder=tmp_path / "two", executor=executor, **FIXED)
        times = {path: path.stat().st_mtime_ns for path in (tmp_path / "two").iterdir()}
        lost = tmp_path / "two" / "learning_rate=1.0,depth=2.nc"
        lost.unlink()
        two = flds.sweep(PROBLEM, GRID, folder=tmp_path / "two", executor=executor, **FIXED)
    changed = [path for path, before in times.items() if path.suffix == ".nc" and path.stat().st_mtime_ns != before]
    assert sorted(changed) == [lost, tmp_path / "two" / "sweep.nc"]
    assert (one.reused, two.reused) == (0, 3)
    assert one.data.equals(two.data)
    with pytest.raises(
        ValueError, match="holds another sweep: particles is 200 there and 300 here; choose another folder"
    ):
        flds.sweep(PROBLEM, GRID, folder=tmp_path / "two", particles=300)


def test_a_run_that_fails_does_not_stop_the_others(tmp_path):
    with ThreadPoolExecutor(1) as executor:
        grid = {"depth": [2, 4], "tolerance": [0.1, 2.0]}  # a tolerance above 1 is refused
        found = flds.sweep(PROBLEM, grid, folder=tmp_path, executor=executor, **FIXED).data
        assert found.status.values.tolist() == [["completed", "failed"]] * 2
        assert np.isnan(found.outputs.sel({"tolerance": 2.0})).all()
        assert np.isfinite(found.outputs.sel({"tolerance": 0.1})).all()
        error = json.loads((tmp_path / "depth=2,tolerance=2.0.error.json").read_text())
        assert error["error"].startswith("ValueError: tolerance must be below 1")
        rates = {"learning_rate": [0.1, 1e6]}  # runs that diverge end early
        linear = flds.TrainingProblem(X, Y, steps=60, activation="identity")
        found = flds.sweep(linear, rates, folder=tmp_path / "rates", executor=executor, depth=2, **FIXED).data
    assert found.status.values.tolist() == ["completed", "diverged"]
    assert np.isfinite(found.loss.sel(learning_rate=0.1)).all()
    assert np.isnan(found.loss.sel(learning_rate=1e6)).any()


def test_networks_and_the_mean_ode_are_swept_too(tmp_path):
    with ThreadPoolExecutor(1) as executor:
        found = flds.sweep(PROBLEM, {"width": [50, 100]}, folder=tmp_path / "a", executor=executor, depth=2)
        assert found.outputs.shape == (2, 4, 3)
        p = flds.MeanFieldProblem(X, X[::-1], steps=2)
        found = flds.sweep(p, {"sigma_v": [1.0, 2.0], "seed": range(3)}, folder=tmp_path / "b", executor=executor,
                           units=16, depth=2).data  # fmt: skip
    assert found.travel_u.dims == ("sigma_v", "seed", "step", "s")
    assert not np.array_equal(found.outputs[0, 0], found.outputs[0, 1])


@pytest.mark.parametrize(
    ("grid", "options", "message"),
    [
        ({}, {}, "grid must be a dictionary"),
        ({"rate": [1.0]}, {}, "grid must name fields of the problem or arguments of the solver, got 'rate'"),
        ({"depth": 4}, {}, r"grid\['depth'\] must be a list of values"),
        ({"depth": "48"}, {}, r"grid\['depth'\] must be a list of values"),
        ({"depth": []}, {}, r"grid\['depth'\] must be a list of values"),
        ({"depth": [2, 2]}, {}, "grid must not repeat values, got depth=2 twice"),
        ({"learning_rate": [-1.0]}, {}, "learning_rate must not be negative"),
        ({"depth": [2]}, {"solver": "solve_mean_ode"}, "solver must be one of solve_flds, simulate_resnet"),
    ],
)
def test_bad_grids_are_refused_before_any_work(tmp_path, grid, options, message):
    with pytest.raises(ValueError, match=message):
        flds.sweep(PROBLEM, grid, folder=tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_options_that_no_solver_takes_are_refused(tmp_path):
    with pytest.raises(TypeError, match="solve_flds takes no 'widht'"):
        flds.sweep(PROBLEM, GRID, folder=tmp_path, widht=3)
    with pytest.raises(TypeError, match="problem must be a"):
        flds.sweep(X, GRID, folder=tmp_path)
    square = flds.Activation(lambda x: x**2, lambda x: 2 * x)
    with pytest.raises(TypeError, match="activation must be something that can be sent to another process"):
        flds.sweep(flds.TrainingProblem(X, Y, activation=square), GRID, folder=tmp_path)


@pytest.mark.parametrize("ours", [True, False])
def test_a_script_without_a_guard_is_ended_before_any_work(tmp_path, ours, monkeypatch):
    """Where a worker process imports it; `test_processes.py` has what its parent then says."""
    monkeypatch.setattr(current_process(), "_inheriting", True, raising=False)
    with ThreadPoolExecutor(1) as executor, pytest.raises(SystemExit) as ended:
        flds.sweep(PROBLEM, GRID, folder=tmp_path / "new", executor=None if ours else executor, **FIXED)
    assert ended.value.code == 97 if ours else "must call flds.sweep under  if __name__" in ended.value.code
    assert not (tmp_path / "new").exists()


SCRIPT = """
import sys, numpy as np, flds
g = np.random.default_rng(0)
p = flds.TrainingProblem(g.normal(size=(3, 4)), g.normal(size=3), steps=25)
try:
    flds.sweep(p, {"seed": range(6)}, folder=sys.argv[1], workers=2, particles=300, depth=4, threads=1)
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_a_sweep_interrupted_and_started_again_ends_as_one_that_was_not(tmp_path):
    half, whole = tmp_path / "half", tmp_path / "whole"
    code = forks.FORKED_WORKERS + SCRIPT
    with forks.start(half, cwd=tmp_path, code=code) as process:
        while process.poll() is None and not list(half.glob("*.nc")):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        errors = process.communicate()[1]
    done = len(list(half.glob("*.nc")))
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert 1 <= done < 6
    assert not list(half.glob("*.error.json"))
    for folder in (half, whole):
        assert forks.run(folder, cwd=tmp_path, code=code).returncode == 0
    for path in whole.glob("*.nc"):
        assert np.array_equal(flds.load(path).outputs, flds.load(half / path.name).outputs)
    assert len(list(half.glob("*.nc"))) == len(list(whole.glob("*.nc"))) == 7


def test_runs_of_versions_with_an_axis_for_a_single_output_are_stacked_with_others(tmp_path):
    problem = flds.MeanFieldProblem(np.arange(6.0).reshape(3, 2), np.ones(3), unembedding=np.ones((2, 1)), steps=1)
    grid = {"alpha": [1.0, 2.0]}
    with ThreadPoolExecutor(1) as executor:
        options = {"folder": tmp_path, "units": 8, "depth": 2, "executor": executor}
        expected = flds.sweep(problem, grid, **options).data.outputs
    path = tmp_path / "alpha=2.0.nc"
    old = flds.load(path)
    for name in ("outputs", "targets"):
        item = old.variables[name]
        old.variables[name] = item._replace(dims=(*item.dims, "output"), values=item.values[..., None])
    old.save(path)
    again = flds.sweep(problem, grid, **options).data.outputs  # all there
    assert again.dims == expected.dims
    np.testing.assert_array_equal(again.values, expected.values)
