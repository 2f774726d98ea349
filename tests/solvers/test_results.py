"""What a solution is to xarray and to a table: coordinates, the external field, long and wide CSV."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import xarray
from numba import njit

import solvers
from solvers import ExternalField, McKeanVlasov
from tests.solvers.equations import DRIVEN

N = 40
PULLED = McKeanVlasov(njit(lambda t, x, m, c: c - x), noise="additive")


def pulled(field, t1=1.0, **rest):
    return solvers.solve(PULLED, np.zeros(N), 0.0, t1, 10, field=field, **rest)


@pytest.fixture(scope="module")
def run():
    return pulled(0.5, save=("mean", "quantiles"), save_at=[0.5, 1.0])


def test_times_and_labels_are_coordinates(run, tmp_path):
    data = run.data
    assert set(data.coords) == set(data.dims)
    assert data.sel(time=1.0)["mean"] == run.mean[1]
    assert data.time.attrs == {"long_name": "time", "units": "1"}
    median = data.quantiles.sel(time=0.5, quantiles_quantile_level=0.5)
    assert median == run.quantiles[0, 2]
    run.save(tmp_path / "run.nc")
    with xarray.open_dataset(tmp_path / "run.nc", engine="h5netcdf") as stored:
        assert stored["mean"].sel(time=0.5) == run.mean[0]
    loaded = solvers.load(tmp_path / "run.nc")
    assert set(loaded.variables) == set(run.variables)
    assert loaded.data.identical(data)


@pytest.mark.parametrize(
    "field",
    [
        0.3, [0.3, -0.2], ExternalField(np.linspace(0, 1, N), per_particle=True),
        ExternalField([0.0, 1.0, -3.0], times=[0.0, 1.0, 2.0]),
        ExternalField(np.random.default_rng(0).random((3, N)), times=[2.0, 1.0, 0.0], per_particle=True),
    ],
    ids=["number", "vector", "of each particle", "in time", "of each particle in time"],
)  # fmt: skip
def test_the_external_field_is_kept_and_gone_on_with(field, tmp_path):
    equation = DRIVEN if np.ndim(getattr(field, "values", field)) != 1 or isinstance(field, ExternalField) else None
    equation = equation or McKeanVlasov(njit(lambda t, x, m, c: c[0] + c[1]), noise="additive")
    whole = solvers.solve(equation, np.zeros(N), 0.0, 2.0, 20, field=field)
    solvers.solve(equation, np.zeros(N), 0.0, 1.0, 10, field=field).save(tmp_path / "half.nc")
    half = solvers.load(tmp_path / "half.nc")
    np.testing.assert_array_equal(solvers.resume(equation, half, 2.0, 10).final_particles, whole.final_particles)
    given = field if isinstance(field, ExternalField) else ExternalField(field)
    np.testing.assert_array_equal(half.external_field, given.values)
    if given.times is not None:
        np.testing.assert_array_equal(half.data.field_time, given.times)


def test_large_fields_and_those_of_ones_own_are_not_kept(monkeypatch):
    class Own(ExternalField):
        def at(self, t):
            return super().at(t) * 2

    assert "external_field" not in pulled(Own(0.5)).variables
    assert "external_field" in pulled(0.5).variables
    monkeypatch.setattr("solvers.sde.field._KEPT", 8 * N - 1)
    large = pulled(ExternalField(np.ones(N), per_particle=True))
    assert "external_field" not in large.variables
    with pytest.raises(TypeError, match="drift takes one argument more than \\(t, x, m\\): pass field= or args="):
        solvers.resume(PULLED, large, 2.0, 10)


def test_a_long_table_has_a_row_for_each_number(run, tmp_path):
    rows = list(csv.DictReader(run.to_csv(tmp_path / "run.csv", long=True).read_text().splitlines()))
    assert list(rows[0]) == ["variable", "time", "quantiles_quantile_level", "value"]
    assert len(rows) == 2 + 2 + 2 * 5
    means = [float(row["value"]) for row in rows if row["variable"] == "mean"]
    assert means == run.mean.tolist()
    found = next(r for r in rows if (r["time"], r["quantiles_quantile_level"]) == ("1.0", "0.95"))
    assert float(found["value"]) == run.quantiles[1, 4]
    with pytest.raises(TypeError, match="long must be True or False"):
        run.to_csv(tmp_path / "run.csv", long=1)


def test_a_wide_table_has_a_row_for_each_time(run, tmp_path):
    rows = list(csv.DictReader(run.to_csv(tmp_path / "run.csv").read_text().splitlines()))
    assert [float(row["mean"]) for row in rows] == run.mean.tolist()
    assert [float(row["quantiles[4]"]) for row in rows] == run.quantiles[:, 4].tolist()
