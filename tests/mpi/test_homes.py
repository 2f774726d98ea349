"""The algebra of particles over ranks of a real MPI: the tests of every home, on every rank."""

from __future__ import annotations

import re
import sys

import pytest

from tests.mpi.ranks import ROOT, run

pytest.importorskip("mpi4py")


@pytest.mark.parametrize("ranks", [1, 3])
def test_what_holds_for_every_home(ranks):
    suite = "-m pytest -n 0 -q -p no:cacheprovider -k on_ranks tests/solvers/test_particles.py"
    status, out, err = run(ranks, sys.executable, *suite.split(), cwd=ROOT)
    assert status == 0, out + err
    passed = [int(count) for count in re.findall(r"(\d+) passed", out)]
    assert len(passed) == ranks
    assert min(passed) > 50
