"""Files last: each names its schema, says what every array is, and opens with plain xarray."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
import xarray

import flds
import solvers
from tests.conftest import three_samples

X = np.eye(4)


def swept(path):
    grid = {"learning_rate": [0.1, 0.2], "backward_weights": ["tied", "independent"]}
    with ThreadPoolExecutor(1) as executor:
        options = {"folder": path.parent / "runs", "executor": executor, "particles": 50, "depth": 1}
        return flds.sweep(three_samples(steps=1), grid, **options).save(path)


FILES = {
    "limit": lambda path: flds.solve_flds(
        three_samples(test_inputs=np.eye(5), test_targets=np.ones(5)), particles=300, depth=3, replicates=2,
        record_kernels=True, keep_state=True,
    ).save(path),
    "network": lambda path: flds.simulate_resnet(
        flds.TrainingProblem(X, [0, 1, 2, 0], loss="cross_entropy", steps=1), width=20, depth=2, operator="dense",
        backward_weights="independent", keep_state=True,
    ).save(path),
    "untrained": lambda path: flds.solve_backward(particles=50, depth=3).save(path),
    "estimate": lambda path: flds.estimate_limit(
        three_samples(steps=1), target_error=0.5, particles=300, depth=2, replicates=2
    ).save(path),
    "mean ODE": lambda path: flds.solve_mean_ode(
        flds.MeanFieldProblem(X, X, steps=2, test_inputs=X, test_targets=X), units=16, depth=2, replicates=2,
        depth_error=True, record_features=True, keep_state=True,
    ).save(path),
    "transformer": lambda path: flds.solve_mean_ode(
        flds.MeanFieldProblem(np.array([[0, 1], [1, 2]]), np.array([[1, 2], [2, 0]]), loss="cross_entropy", steps=1,
                              block="transformer", embedding=np.eye(3), unembedding=np.eye(3), learning_rates=0.1),
        units=16, depth=2,
    ).save(path),
    "equation": lambda path: solvers.solve(
        solvers.equations.ornstein_uhlenbeck(), np.ones((10, 1)), 0.0, 1.0, steps=4
    ).save(path),
    "sweep": swept,
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_every_variable_of_a_file_is_described(kind, tmp_path):
    path = FILES[kind](tmp_path / "run.nc")
    with xarray.open_dataset(path) as dataset:
        assert dataset.attrs["schema"].endswith("/1")
        assert dataset.variables
        for name, variable in dataset.variables.items():
            assert variable.attrs["long_name"].strip(), name
            assert variable.attrs["units"], name
    stored = flds.load(path)
    assert bool(stored.groups) == (kind in ("limit", "network", "mean ODE"))
    for group in stored.groups.values():
        for name, item in group.items():
            assert item.long_name.strip(), name
            assert item.units, name
            assert len(item.dims) == item.values.ndim, name
    assert type(stored).schema == stored.data.attrs["schema"]
    with xarray.open_dataset(path) as dataset:
        dataset.attrs.pop("state", None)  # the name and checksum of the file beside it
        counted = [name for name, item in stored.data.coords.items() if "counted" in item.attrs]
        xarray.testing.assert_identical(dataset.load(), stored.data.drop_vars(counted))


def test_a_later_schema_is_refused(tmp_path):
    path = FILES["untrained"](tmp_path / "run.nc")
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = "solvers.Solution/99"
    with pytest.raises(ValueError, match=r"this version reads no schema 'solvers.Solution/99'"):
        flds.load(path)
