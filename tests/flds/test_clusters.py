"""Sweeps and replicates on a real cluster of dask, with two worker processes."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings

import numpy as np
import pytest

import flds
from tests.killed_runs import TRAINED
from tests.mpi.digest import digest

distributed = pytest.importorskip("distributed")
RATES = [round(0.05 * rate, 2) for rate in range(1, 13)]
OPTIONS = {"particles": 500, "depth": 2, "operator": "lazy"}


@pytest.fixture
def client(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ports and of clocks
        with (
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=str(tmp_path)
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client


def test_a_worker_that_dies_costs_only_its_run(client, tmp_path):
    """Twelve runs, of which all come to their end though one of two workers is killed half-way."""
    here = flds.sweep(TRAINED, {"learning_rate": RATES}, folder=tmp_path / "here", workers=1, **OPTIONS)
    folder, before = tmp_path / "there", {}

    def kill_half_way():
        while len(list(folder.glob("learning_rate=*.nc"))) < 6:
            time.sleep(0.02)
        before.update({path: path.stat().st_mtime_ns for path in folder.glob("learning_rate=*.nc")})
        victim = next(iter(client.scheduler_info()["workers"]))
        os.kill(client.run(os.getpid, workers=[victim])[victim], signal.SIGKILL)

    killer = threading.Thread(target=kill_half_way)
    killer.start()
    found = flds.sweep(TRAINED, {"learning_rate": RATES}, folder=folder, executor=client.get_executor(), **OPTIONS)
    killer.join()
    assert found.variables["status"].values.tolist() == ["completed"] * 12
    for name, item in here.variables.items():
        if name != "seconds":
            np.testing.assert_array_equal(found.variables[name].values, item.values)
    assert len(before) >= 6
    assert {path: path.stat().st_mtime_ns for path in before} == before  # none of them was done again
    assert not list(folder.glob("*checkpoint*"))


def test_replicates_on_a_cluster(client):
    executor = client.get_executor()
    found = flds.solve_flds(TRAINED, replicates=4, executor=executor, **OPTIONS)
    assert digest(found) == digest(flds.solve_flds(TRAINED, replicates=4, threads=1, **OPTIONS))
