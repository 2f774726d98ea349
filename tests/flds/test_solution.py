"""Solutions: options, status, fields, files."""

from __future__ import annotations

import copy
import json
import pickle
import re
import shutil

import h5py
import numpy as np
import pytest
import xarray

import flds
from flds.training.method import plan
from flds.training.notes import _EXPLANATIONS
from solvers.results import files
from tests.conftest import one_sample, three_samples


@pytest.fixture(scope="module")
def solution():
    return flds.solve_flds(three_samples("tanh"), particles=500, depth=3, replicates=2, record_kernels=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"particles": 0}, "particles must be at least 1, got 0"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"backward_weights": "shared"}, "backward_weights must be one of tied, independent, got 'shared'"),
        ({"operator": "sparse"}, "operator must be one of auto, lazy, dense, got 'sparse'"),
        ({"sampling": "sobol"}, "sampling must be one of matched, law, matched_all, got 'sobol'"),
        ({"tolerance": -1.0}, "tolerance must be a finite number of at least 0, got -1"),
        ({"tolerance": float("nan")}, "tolerance must be a finite number of at least 0, got nan"),
        ({"tolerance": 1.0}, "tolerance must be below 1, or everything is dropped, got 1"),
        ({"record_kernels": "no"}, "record_kernels must be True or False, got 'no'"),
        ({"recorded_samples": 0}, "recorded_samples must be at least 1, got 0"),
        ({"rank_budget": 5}, r"rank_budget must be a pair \(forward, backward\), got 5"),
        ({"rank_budget": (0, 5)}, r"rank_budget\[0\] must be at least 1, got 0"),
        ({"noise_depth": 5, "depth": 3}, r"noise_depth must be a multiple of depth \(3\), got 5"),
        ({"record_every": 0}, "record_every must be at least 1, got 0"),
        ({"recorded_samples": [3]}, "recorded_samples must be sample indices from 0 to 2, got 3 to 3"),
        ({"recorded_samples": []}, "recorded_samples must be a number of samples or a list of their indices"),
        ({"dtype": "half"}, "dtype must be one of float64, float32, got 'half'"),
        ({"threads": -2}, "threads must be at least 1, got -2"),
        ({"replicates": 0}, "replicates must be at least 1, got 0"),
        ({"seed": 2**63}, r"seed must be below 2\*\*63"),
        ({"particels": 3}, "unknown option 'particels'; valid options are backward_weights, seed"),
    ],
)
def test_bad_options_give_one_line_before_any_work(options, message):
    with pytest.raises((ValueError, TypeError), match=message) as error:
        flds.solve_flds(three_samples(), **options)
    assert "\n" not in str(error.value)


def test_something_else_than_a_problem():
    with pytest.raises(TypeError, match=r"problem must be a flds.TrainingProblem, got dict"):
        flds.solve_flds({})


@pytest.mark.parametrize("options", [{"operator": "dense", "sampling": "law"}, {"rank_budget": (51, 51)}])
def test_runs_that_do_not_fit_say_what_they_need(options):
    with pytest.raises(MemoryError, match=r"needs .* GB and .* GB are available; lower particles"):
        flds.solve_flds(three_samples(steps=50), particles=10**8, **options)


def test_divergence_keeps_what_was_computed():
    with pytest.warns(RuntimeWarning, match="training diverged after step .*: lower learning_rate"):
        solution = flds.solve_flds(one_sample("identity", rate=50.0, steps=40), particles=500, depth=3)
    assert solution.status == "diverged"
    assert 1 < len(solution.steps) < 41
    assert np.all(np.isfinite(solution.outputs))
    assert len(solution.batch_loss) == len(solution.steps)


@pytest.mark.parametrize("sampling", ["law", "matched"])
def test_divergence_within_the_first_steps(sampling):
    with pytest.warns(RuntimeWarning, match="training diverged"):
        solution = flds.solve_flds(one_sample("relu", rate=1e200, steps=5), particles=500, depth=3, sampling=sampling)
    assert solution.status == "diverged"


def test_divergence_in_single_precision_with_matched_noise():
    x = np.random.default_rng(1).standard_normal((4, 4))
    y = np.sign(np.random.default_rng(100).standard_normal(4))
    problem = flds.TrainingProblem(x, y, learning_rate=10, steps=25)
    with pytest.warns(RuntimeWarning, match="training diverged"):
        solution = flds.solve_flds(problem, particles=400, depth=3, operator="lazy", dtype="float32")
    assert solution.status == "diverged"


def test_more_samples_than_neurons_is_no_divergence():
    rng = np.random.default_rng(19)
    problem = flds.TrainingProblem(
        rng.standard_normal((64, 6)), np.sign(rng.standard_normal(64)), activation="gelu", steps=6, batch_size=5,
        learning_rate=0.2,
    )  # fmt: skip
    for seed in range(5):
        solution = flds.simulate_resnet(problem, width=40, depth=3, tolerance=0.0, operator="lazy", seed=seed)
        assert solution.status == "completed"
        assert solution.rank.max() <= 40


def test_rank_budget_ends_the_run_with_a_status():
    with pytest.warns(RuntimeWarning, match=r"the rank outgrew rank_budget \(2, 2\), or memory, after step 1"):
        solution = flds.solve_flds(one_sample(steps=9), particles=500, depth=3, rank_budget=(2, 2))
    assert solution.status == "rank_budget"
    np.testing.assert_array_equal(solution.steps, [0, 1])


def test_a_replicate_that_ends_early_is_left_out():
    problem = three_samples(steps=8, batch_size=1)
    options = {"record_kernels": True, "record_every": 1, "operator": "lazy", "rank_budget": (5, 5), "tolerance": 0.1}
    with pytest.warns(RuntimeWarning, match="the rank outgrew"):
        solution = flds.simulate_resnet(problem, width=200, depth=2, replicates=4, seed=3, **options)
    assert solution.status == "rank_budget"
    assert solution.settings["replicates_completed"] == 2  # the third one outgrew the budget
    records = len(solution.steps)
    assert records == 9
    assert solution.feature_kernel.shape == solution.gradient_kernel.shape == (2, records, records)
    assert solution.replicate_outputs.shape[0] == solution.settings["replicates_completed"]


def test_interrupt_keeps_what_was_computed(monkeypatch):
    from flds.training.network import Network

    update, calls = Network.update, []

    def interrupted(self, *arguments):
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        update(self, *arguments)

    monkeypatch.setattr(Network, "update", interrupted)
    with pytest.warns(RuntimeWarning, match="interrupted after step 2"):
        solution = flds.solve_flds(one_sample(steps=9), particles=300, depth=3)
    assert solution.status == "interrupted"
    np.testing.assert_array_equal(solution.steps, [0, 1, 2])


def test_every_early_end_has_an_explanation():
    from solvers.results.solution import STATUSES

    assert set(_EXPLANATIONS) == set(STATUSES) - {"completed", "failed", "stopped"}


def test_matched_noise_that_runs_out_of_room_says_so():
    with pytest.warns(RuntimeWarning, match="too little room to match noise"):
        solution = flds.solve_flds(
            three_samples(steps=6), particles=30, depth=2, operator="lazy", sampling="matched_all"
        )
    assert solution.status == "completed"
    assert "too little room" in solution.notes[0]


def test_fewer_particles_than_inputs():
    problem = flds.TrainingProblem(np.eye(30), np.ones(30), steps=2, batch_size=1)
    with pytest.warns(RuntimeWarning, match="matched noise needs at least 66 particles here"):
        solution = flds.solve_flds(problem, particles=20, depth=2, operator="lazy")
    assert solution.status == "completed"


@pytest.mark.parametrize(("particles", "sampling", "narrowed"), [
    (100, "matched", ", narrowed by orthonormal input weights and readouts alone"), (11, "law", ""),
])  # fmt: skip
def test_a_dense_network_says_what_of_matched_noise_it_has(particles, sampling, narrowed):
    told = f'width {particles}, with the fluctuations of one{narrowed}: matched noise needs operator="lazy"'
    with pytest.warns(RuntimeWarning, match=told):
        solution = flds.solve_flds(three_samples(), particles=particles, depth=2, operator="dense")
    assert solution.settings["sampling"] == sampling


def test_many_samples_make_a_dense_network_of_a_limit_and_the_note_says_what_keeps_it():
    rng = np.random.default_rng(0)
    many = flds.TrainingProblem(rng.standard_normal((40, 8)), rng.standard_normal(40), steps=3, batch_size=4)
    with pytest.warns(
        RuntimeWarning, match=r"dense network of width 30, with .* some (\d+) particles here, for about 16 directions"
    ):
        dense = flds.solve_flds(many, particles=30, depth=2, record_every=3, recorded_samples=4)
    assert (dense.settings["operator"], dense.settings["sampling"]) == ("dense", "matched")
    named = int(re.search(r"some (\d+) particles", dense.notes[0])[1])
    for particles, operator in ((named, "lazy"), (named - 1, "dense")):
        method = plan(many, particles, 2, "matched", {"record_every": 3, "recorded_samples": 4})
        assert method.settings.operator == operator


def test_many_samples_are_recorded_sparsely_and_the_solution_says_which():
    problem = flds.TrainingProblem(
        np.random.default_rng(0).standard_normal((300, 2)), np.ones(300), steps=100, batch_size=1, learning_rate=0.1
    )
    solution = flds.simulate_resnet(problem, width=20, depth=1)
    assert solution.outputs.shape == (len(solution.steps), 256)
    assert len(solution.steps) <= 20
    assert solution.steps[-1] == 100
    assert len(solution.recorded_samples) == 256


def test_fields_of_one_and_several_outputs(classes, solution):
    assert solution.outputs.shape == (4, 3)
    several = flds.solve_flds(classes, particles=2000, depth=2)
    assert several.outputs.shape == (6, 7, 3)
    assert several.test_outputs.shape == (6, 3, 3)
    assert several.accuracy.shape == several.test_accuracy.shape == several.loss.shape == (6,)
    assert several.feature_variance.shape == several.gradient_variance.shape == (6, 3)
    assert several.rank.shape == several.truncation.shape == (2, 2)


def test_a_field_that_is_not_there_names_those_that_are(solution):
    with pytest.raises(AttributeError, match=r"has no variable 'accuracy'; it has steps, .*outputs"):
        _ = solution.accuracy
    assert not hasattr(solution, "accuracy")
    assert "outputs" in dir(solution)


def test_data_has_units_and_names(solution):
    data = solution.data
    assert isinstance(data, xarray.Dataset)
    assert all("units" in v.attrs and "long_name" in v.attrs for v in data.variables.values())
    assert data.outputs.dims == ("step", "sample")


def test_save_and_load_round_trip(solution, tmp_path):
    path = solution.save(tmp_path / "run.nc")
    assert [p.name for p in tmp_path.iterdir()] == ["run.nc"]
    loaded = flds.load(path)
    assert set(loaded.variables) == set(solution.variables)
    for name, field in solution.variables.items():
        np.testing.assert_array_equal(loaded.variables[name].values, field.values)
        assert loaded.variables[name][0::2] == field[0::2]
    for name in ("status", "timings", "seed", "notes", "versions", "extra"):
        assert getattr(loaded, name) == getattr(solution, name)
    assert loaded.settings == json.loads(json.dumps(solution.settings))
    assert loaded.summary() == solution.summary()
    assert xarray.open_dataset(path, engine="h5netcdf").attrs["status"] == "completed"


def test_the_file_holds_what_a_rerun_needs(solution, tmp_path):
    loaded = flds.load(solution.save(tmp_path / "run.nc"))
    described = loaded.extra["problem"]
    problem = flds.TrainingProblem(
        loaded.problem_inputs, loaded.problem_targets, activation=described["activation"],
        horizon=described["horizon"], learning_rate=described["learning_rate"], steps=described["steps"],
    )  # fmt: skip
    again = flds.solve_flds(
        problem, particles=loaded.settings["particles"], depth=loaded.settings["depth"], replicates=2
    )
    np.testing.assert_array_equal(again.outputs, loaded.outputs)


def test_the_first_pass_can_be_saved_too(tmp_path):
    forward = flds.solve_forward("tanh", particles=100, depth=4)
    loaded = flds.load(forward.save(tmp_path / "forward.nc"))
    np.testing.assert_array_equal(loaded.variance, forward.variance)
    assert "activation         tanh" in loaded.summary()


def test_solutions_can_be_copied_and_compared(solution):
    copied = pickle.loads(pickle.dumps(copy.deepcopy(solution)))
    np.testing.assert_array_equal(copied.outputs, solution.outputs)
    assert copied != solution  # identity, not arrays
    assert copied.settings == solution.settings


def test_the_saved_problem_is_the_one_that_was_solved():
    inputs = np.eye(2)
    problem = flds.TrainingProblem(inputs, [1.0, 2.0], steps=1)
    inputs[:] = 0.0
    np.testing.assert_array_equal(flds.simulate_resnet(problem, width=20, depth=1).problem_inputs, np.eye(2))


@pytest.mark.parametrize("error", [OSError, RuntimeError])  # h5py raises either where the disk is full
def test_saving_is_all_or_nothing(solution, tmp_path, monkeypatch, error):
    """Also where the file is too large to be made in memory, and HDF5 writes it."""
    path = tmp_path / "run.nc"
    path.write_bytes(b"older")
    monkeypatch.setattr(files, "_SHARE", 0.0)
    monkeypatch.setattr(xarray.Dataset, "to_netcdf", lambda *a, **k: (_ for _ in ()).throw(error("disk full")))
    with pytest.raises(OSError, match="disk full"):
        solution.save(path)
    assert path.read_bytes() == b"older"
    assert [p.name for p in tmp_path.iterdir()] == ["run.nc"]


def test_large_files_are_sealed_as_well(solution, tmp_path, monkeypatch):
    small = solution.save(tmp_path / "small.nc")
    monkeypatch.setattr(files, "_SHARE", 0.0)
    large = solution.save(tmp_path / "large.nc")
    xarray.testing.assert_identical(xarray.load_dataset(small), xarray.load_dataset(large))
    large.write_bytes(large.read_bytes().replace(b"completed", b"cOmpleted"))
    with pytest.raises(ValueError, match="its checksum does not fit its contents"):
        flds.load(large)
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(OSError, match=r"has 0 GB left, and .* GB are needed"):
        solution.save(tmp_path / "larger.nc")


def test_bad_files(solution, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist; create it first"):
        solution.save(tmp_path / "missing" / "run.nc")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        flds.load(tmp_path / "none.nc")
    with pytest.raises(FileNotFoundError, match="is a folder without results"):
        flds.load(tmp_path)
    (tmp_path / "text.nc").write_text("not a results file")
    with pytest.raises(ValueError, match="is not a readable results file"):
        flds.load(tmp_path / "text.nc")
    whole = solution.save(tmp_path / "run.nc").read_bytes()
    with pytest.raises(FileNotFoundError, match=r"is a folder; results in it are .*run\.nc"):
        flds.load(tmp_path)
    (tmp_path / "run.nc.state").write_bytes(b"flds arrays 1\n")
    with pytest.raises(ValueError, match=r"looks like the state of run\.nc, which is the file to load"):
        flds.load(tmp_path / "run.nc.state")
    (tmp_path / "cut.nc").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is not a readable results file"):
        flds.load(tmp_path / "cut.nc")
    with h5py.File(solution.save(tmp_path / "bare.nc"), "a") as bare:
        del bare.attrs["settings"]
    with pytest.raises(ValueError, match="is not a readable results file"):
        flds.load(tmp_path / "bare.nc")
    with h5py.File(tmp_path / "other.nc", "w") as other:
        other["x"] = np.arange(3)
    with pytest.raises(ValueError, match=r"is not a results file of flds"):
        flds.load(tmp_path / "other.nc")


def test_plot_draws_what_it_should(classes, solution, tmp_path):
    figure = solution.plot(tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 10_000
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:2] == ["Loss", "Outputs"]
    figure = flds.solve_flds(classes, particles=2000, depth=2).plot()
    axes = {axes.get_title(): axes for axes in figure.axes}
    assert set(axes) >= {"Loss", "Accuracy", "Rank of the bases", "Features over depth", "Gradients over depth"}
    for axis in axes.values():
        if axis.get_title():
            assert axis.get_xlabel()
            assert axis.get_ylabel()
    np.testing.assert_array_equal(axes["Features over depth"].lines[0].get_xdata(), [0.0, 0.5, 1.0])


def test_a_table_of_what_changes_with_the_step(tmp_path):
    import csv

    problem = flds.TrainingProblem(np.eye(3), [1.0, -1.0, 0.5], steps=2)
    solution = flds.solve_flds(problem, particles=200, depth=2, replicates=2)
    with solution.to_csv(tmp_path / "run.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["steps"] for row in rows] == ["0", "1", "2"]
    assert [float(row["outputs[1]"]) for row in rows] == solution.outputs[:, 1].tolist()
    assert [float(row["loss_standard_error"]) for row in rows] == solution.loss_standard_error.tolist()
    assert "replicate_outputs[0]" not in rows[0]
    several = flds.solve_mean_ode(flds.MeanFieldProblem(np.eye(3), np.eye(3), steps=1), units=16, depth=2)
    with several.to_csv(tmp_path / "run.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["outputs[2,1]"]) for row in rows] == several.outputs[:, 2, 1].tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["run.csv"]
    with pytest.raises(FileNotFoundError, match="does not exist"):
        solution.to_csv(tmp_path / "no" / "run.csv")


def test_steps_depths_and_samples_are_coordinates(tmp_path):
    problem = flds.TrainingProblem(np.eye(4), [1.0, -1.0, 2.0, 0.5], steps=4, batch_size=3, horizon=2.0)
    run = flds.solve_flds(problem, particles=300, depth=4, record_every=2, recorded_samples=[3, 0], record_kernels=True)
    data = run.data
    assert set(data.coords) == set(data.dims)
    assert data.outputs.sel(step=2, sample=0) == run.outputs[1, 1]
    assert data.feature_variance.sel(step=4, t=0.5) == run.feature_variance[2, 1]
    assert data.batch_loss.sel(every_step=3) == run.batch_loss[3]
    again = flds.load(run.save(tmp_path / "run.nc"))
    assert again.data.identical(data)
    kernel = run.step_kernel("gradient_kernel")
    assert kernel.dims == ("step", "t", "place", "other_place")
    np.testing.assert_array_equal(kernel.sample, problem.batches[[0, 2, 4]])
    np.testing.assert_array_equal(kernel.sel(step=2, t=0.5), run.gradient_kernel[0, 3:6, 3:6])
    assert run.step_kernel().t.values.tolist() == [0.0, 0.5, 1.0, 1.5]


def test_kernels_of_full_batches_have_the_samples_as_coordinates(solution):
    kernel = solution.step_kernel()
    assert kernel.dims == ("step", "t", "sample", "other_sample")
    found = kernel.sel(step=3, t=0.0, sample=2, other_sample=1)
    assert found == solution.feature_kernel[0, 11, 10]
    with pytest.raises(ValueError, match="name must be one of feature_kernel, gradient_kernel"):
        solution.step_kernel("kernel")
    with pytest.raises(AttributeError, match="no feature_kernel, which takes record_kernels=True"):
        flds.solve_flds(one_sample(), particles=50, depth=1).step_kernel()


def test_files_with_the_axes_of_older_versions_open(solution, tmp_path):
    names = {"step": "record", "every_step": "step", "t": "depth_point"}
    arrays = {
        name: (
            tuple(names.get(dim, dim) for dim in item.dims),
            item.values,
            {"long_name": item.long_name, "units": "1"},
        )
        for name, item in solution.variables.items()
    }
    arrays["depth_grid"][2]["units"] = "horizon units"
    files.write_dataset(tmp_path / "old.nc", xarray.Dataset(arrays, attrs=solution.data.attrs))
    found = flds.load(tmp_path / "old.nc")
    assert found.data.identical(solution.data)
    found.plot()


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({}, "float32"),
        ({"sampling": "law"}, "float64"),
        ({"dtype": "float64"}, "float64"),
        ({"tolerance": 0.0}, "float64"),
    ],
)
def test_the_limit_is_stored_in_float32_unless_asked_otherwise(options, dtype):
    found = flds.solve_flds(three_samples(steps=1), particles=100, depth=1, keep_state=True, **options)
    assert found.settings["dtype"] == dtype
    assert found.states[0]["readout"].values.dtype == dtype
    assert flds.simulate_resnet(three_samples(steps=1), width=100, depth=1).settings["dtype"] == "float64"


def test_what_moves_little_is_stored_in_float64():
    """At a rate of 1e-4 outputs move by 1e-4, of which float32 would lose some hundredths without a sign."""
    base = three_samples(steps=1)
    little = flds.TrainingProblem(base.inputs, base.targets, learning_rate=1e-4, steps=1)
    assert flds.solve_flds(little, particles=100, depth=1).settings["dtype"] == "float64"


@pytest.mark.parametrize("activation", ["tanh", "relu", "identity"])
def test_float32_errs_by_much_less_than_outputs_scatter(activation):
    problem = three_samples(activation, steps=5)
    single, double = (
        flds.solve_flds(problem, particles=500, depth=4, replicates=8, dtype=dtype).replicate_outputs[:, 1:]
        for dtype in ("float32", "float64")
    )
    # measured: 0.002 to 0.01, most of it from directions at the tolerance that one keeps and the other does not
    assert np.sqrt(np.mean((single - double) ** 2)) < 0.05 * np.sqrt(double.var(axis=0, ddof=1).mean())
