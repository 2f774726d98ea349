"""Checkpoints that ranks write together, read by as many ranks, by others and by one process."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.killed_runs import held
from tests.mpi.ranks import ROOT, run

pytest.importorskip("mpi4py")


def command(name, folder, when="never"):
    return sys.executable, "-m", "tests.killed_runs", name, folder, when


def last(out):
    found, status, step = out.splitlines()[-1].split(" | ")[1:]
    assert status == "completed"
    return found, step


def alone(name, folder):
    done = subprocess.run(list(map(str, command(name, folder))), cwd=ROOT, capture_output=True, text=True, check=True)
    return last(done.stdout)


@pytest.mark.parametrize("name", ["training", "equation"])
def test_ranks_that_are_killed_while_they_save(name, tmp_path):
    """Two ranks are killed, three go on and are killed, and one process, or two ranks, end with the bits of one."""
    (tmp_path / "whole").mkdir()
    expected, _ = alone(name, tmp_path / "whole")
    for ranks in (1, 2):
        folder = tmp_path / f"{ranks}"
        folder.mkdir()
        places = [(0, 0)]
        for killed, call in ((2, 19), (3, 25)):
            assert run(killed, *command(name, folder, call))[0] == signal.SIGKILL
            places.append(held(folder / "run.checkpoint"))
        assert places[0] < places[1] < places[2]
        if ranks == 1:
            found, step = alone(name, folder)
        else:
            status, out, err = run(2, *command(name, folder))
            assert status == 0, err
            found, step = last(out)
        assert (found, step) == (expected, str(places[-1][1]))
        assert list(folder.iterdir()) == []


def test_a_checkpoint_that_ranks_cannot_have(tmp_path):
    status, _, err = run(2, *command("training", tmp_path / "nowhere"))
    assert status != 0
    assert f"checkpoint: the folder '{tmp_path / 'nowhere'}' does not exist" in err
