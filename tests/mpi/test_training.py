"""Training over the ranks of a real MPI: the bits of one process, and errors that end all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import flds
from tests.mpi.ranks import PATIENCE, ROOT, program, run, seconds_to_end, started

pytest.importorskip("mpi4py")
FLDS = (sys.executable, "-m", "flds")


@pytest.mark.parametrize(("name", "lines"), [("training", 15), ("equations", 26)])
def test_the_bits_of_one_process(name, lines, tmp_path):
    """For 1, 2, 3 and 4 ranks, with one thread or two."""
    alone = subprocess.run(program(name, "2", tmp_path), cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert (len(alone.splitlines()), alone.count("completed")) == (lines, lines)
    for ranks, threads in ((1, 1), (2, 2), (3, 1), (4, 1)):
        status, out, err = run(ranks, *program(name, threads, tmp_path))
        assert status == 0, err
        assert out == alone


@pytest.mark.parametrize(
    ("how", "said"),
    [("raise", "ArithmeticError: a number that I do not like"), ("memory", "MemoryError: no room")],
)
def test_a_rank_that_fails_ends_all_and_is_named(how, said):
    with started(3, *program("failing", how, "1")) as job:
        taken, err = seconds_to_end(job)
        assert job.returncode != 0
        assert f"rank 1 of 3 ended all: {said}" in err
        assert taken < 60  # of which most is for starting three interpreters


def test_ranks_that_are_given_different_arguments():
    status, out, err = run(2, *program("failing", "differ", "0"))
    assert status == 0, err
    said = "the ranks of a communicator must be given the same arguments, but seed differs"
    assert out.splitlines() == [f"{name} {said}" for name in ("training", "equation", "forward")]


def at_work(job, ranks):
    """Wait until all ranks are at work; return their processes."""
    found = []
    while len(found) < ranks:
        line = job.stdout.readline()
        assert line, job.communicate()
        found += [int(line.split()[-1])] if "at work" in line else []
    return found


@pytest.mark.parametrize("to", ["all", "one"])
def test_an_interrupt_ends_all_ranks_at_the_same_step(to):
    """Whether mpiexec hands it on, or it reaches one rank alone."""
    with started(2, *program("failing", "wait", "0")) as job:
        ranks = at_work(job, 2)
        if to == "all":
            job.send_signal(signal.SIGINT)
        else:
            os.kill(ranks[1], signal.SIGINT)
        out, err = job.communicate(timeout=60)
        ended = [line for line in out.splitlines() if line.startswith("interrupted at ")]
        assert len(ended) == 2, (out, err)
        assert ended[0] == ended[1]


def test_a_field_that_one_rank_cannot_have_ends_all():
    with started(2, *program("failing", "field", "1")) as job:
        _, err = seconds_to_end(job)
        assert job.returncode != 0
        assert "rank 1 of 2 ended all: ValueError: no field here" in err


def test_a_command_that_is_interrupted_keeps_its_checkpoint(tmp_path):
    """Ranks that are ended by SIGTERM keep what they came to, and another number of them goes on."""
    asked = (*FLDS, "solve", "--mpi", *LONG, "--checkpoint", "run.ckpt", "--checkpoint-every", "0", "--quiet")
    with started(2, *asked, cwd=tmp_path) as job:
        deadline = time.monotonic() + PATIENCE
        while not (tmp_path / "run.ckpt").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        job.send_signal(signal.SIGTERM)
        _, err = job.communicate(timeout=PATIENCE)
        assert job.returncode == 128 + signal.SIGTERM, err
        early = flds.load(tmp_path / "flds.nc")
        assert early.status == "interrupted"
        assert (tmp_path / "run.ckpt").exists()
        status, _, err = run(3, *asked, cwd=tmp_path)
        assert status == 0, err
        found = flds.load(tmp_path / "flds.nc")
        assert found.settings["continued_from_step"] > early.steps[-1]
        assert sorted(os.listdir(tmp_path)) == ["flds.nc", "flds.png"]


def test_a_rank_that_is_killed_ends_all():
    with started(2, *program("failing", "wait", "0")) as job:
        os.kill(at_work(job, 2)[1], signal.SIGKILL)
        taken, _ = seconds_to_end(job)
        assert job.returncode != 0
        assert taken < 10


LONG = (
    "--particles", "4000", "--depth", "2", "--steps", "30", "--train-samples", "100", "--test-samples", "20",
    "--threads", "1",
)  # fmt: skip
SMALL = ("--particles", "4000", "--depth", "2", "--steps", "3", "--train-samples", "60", "--test-samples", "20")


def test_the_command(tmp_path):
    status, out, err = run(2, *FLDS, "solve", "--mpi", *SMALL, "--out", tmp_path / "two.nc")
    assert status == 0, err
    assert out.count("test accuracy") == 1
    subprocess.run(
        [*FLDS, "solve", *SMALL, "--operator", "lazy", "--quiet", "--out", str(tmp_path / "one.nc")], check=True
    )
    two, one = flds.load(tmp_path / "two.nc"), flds.load(tmp_path / "one.nc")
    for name, item in one.variables.items():
        np.testing.assert_array_equal(two.variables[name].values, item.values)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.nc", "one.png", "two.nc", "two.png"]


def test_a_network_that_ranks_keep_is_trained_on(tmp_path):
    """By as many ranks, by others, and by one process."""
    kept = (*SMALL, "--keep-state", "--quiet", "--record-every", "1")
    assert run(2, *FLDS, "solve", "--mpi", *kept, "--out", tmp_path / "run.nc")[0] == 0
    for ranks in (2, 3):
        out = tmp_path / f"{ranks}.nc"
        status, _, err = run(
            ranks, *FLDS, "resume", tmp_path / "run.nc", "--mpi", "--steps", 2, "--quiet", "--out", out
        )
        assert status == 0, err
    out = tmp_path / "1.nc"
    subprocess.run([*FLDS, "resume", tmp_path / "run.nc", "--steps", "2", "--quiet", "--out", out], check=True)
    one, two, three = (flds.load(tmp_path / f"{ranks}.nc") for ranks in (1, 2, 3))
    assert one.steps.tolist() == [0, 1, 2, 3, 4, 5]
    for other in (two, three):
        for where in ("", "state_0"):
            mine, theirs = (run.groups[where] if where else run.variables for run in (one, other))
            assert mine.keys() == theirs.keys()
            for name, item in mine.items():
                np.testing.assert_array_equal(theirs[name].values, item.values)
    assert not [path for path in tmp_path.iterdir() if "part" in path.name]


@pytest.mark.parametrize(
    ("ranks", "options", "status", "said"),
    [
        (2, ("--operator", "dense"), 2, "--operator dense holds whole matrices in one process"),
        (3, ("--particles", "800"), 2, "3 ranks are more than the 2 groups of 800 particles; use fewer ranks"),
        (2, ("--out", "nowhere/run.nc"), 2, "the folder 'nowhere' does not exist"),
        (2, ("--fit",), 2, "--fit chooses for one process"),
        (2, ("--learning-rate", "1e6"), 3, "warning: training diverged after step 0"),
    ],
)
def test_what_goes_wrong_is_one_line(ranks, options, status, said, tmp_path):
    sizes = SMALL[2:] if options[0] in ("--fit", "--particles") else SMALL
    ended, _, err = run(ranks, *FLDS, "solve", "--mpi", "--quiet", *sizes, *options, cwd=tmp_path)
    assert ended == status, err
    assert err.count(said) == 1
    assert "Traceback" not in err


def test_without_mpiexec(tmp_path):
    done = subprocess.run([*FLDS, "solve", "--mpi"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "flds: --mpi runs under mpiexec: mpiexec -n 4 flds … --mpi\n"


def test_without_mpi4py(tmp_path):
    (tmp_path / "mpi4py.py").write_text("raise ImportError('no MPI')")
    done = subprocess.run([*FLDS, "solve", "--mpi"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--mpi needs mpi4py and an MPI: pip install 'flds[mpi]' (no MPI)" in done.stderr


@pytest.mark.parametrize("wrong", [1, "world", object()])
def test_a_communicator_of_another_kind(wrong):
    problem = flds.TrainingProblem([[1.0]], [1.0], steps=1)
    with pytest.raises(TypeError, match=r"communicator must be an mpi4py.MPI.Comm, such as MPI.COMM_WORLD, got"):
        flds.solve_flds(problem, particles=100, depth=2, communicator=wrong)
