"""Checkpoints and executors of what trains several networks: replicates, sweeps, rounds and sections."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

import flds
import flds.limit.estimate
import flds.training.network
from flds.sweeps.grid import Grid
from flds.sweeps.runs import run as run_task
from tests.killed_runs import SINE, TRAINED
from tests.mpi.digest import digest


class Killed(BaseException):
    """What ends a run in the middle, as no handler expects."""


def killed_after(monkeypatch, home, name, calls):
    """Let a method end with `Killed` when it is called so many times."""
    plain, count = getattr(home, name), [0]

    def counted(*arguments, **rest):
        count[0] += 1
        if count[0] == calls:
            raise Killed
        return plain(*arguments, **rest)

    monkeypatch.setattr(home, name, counted)


def network(**options):
    return flds.solve_flds(TRAINED, particles=600, depth=2, operator="lazy", replicates=3, **options)


def mean_ode(**options):
    return flds.solve_mean_ode(SINE, units=128, depth=2, replicates=3, **options)


def equal(one, other):
    assert digest(one) == digest(other)
    assert one.groups.keys() == other.groups.keys()
    for group, state in one.groups.items():
        assert state.keys() == other.groups[group].keys()
        for name, item in state.items():
            np.testing.assert_array_equal(item.values, other.groups[group][name].values)


@pytest.mark.parametrize("solve", [network, mean_ode])
def test_replicates_on_an_executor(solve, tmp_path):
    """Processes or threads; each replicate is kept as it ends, and only those that are missing are trained again."""
    here = solve(threads=1)
    with ThreadPoolExecutor(2) as threads:
        equal(solve(executor=threads), here)
    with ProcessPoolExecutor(1, get_context("spawn")) as processes:
        equal(solve(executor=processes, keep_state=True), solve(threads=1, keep_state=True))

    class OneAtATime(Executor):
        """Trains the first replicate and then dies."""

        left = 1

        def submit(self, work, *arguments):
            with ThreadPoolExecutor(1) as thread:
                if self.left:
                    self.left -= 1
                    return thread.submit(work, *arguments)
                return thread.submit(lambda: 1 / 0)

    kept = tmp_path / "run.ckpt"
    with pytest.raises(RuntimeError, match="replicate 2 failed: ZeroDivisionError: division by zero"):
        solve(executor=OneAtATime(), checkpoint=kept)
    assert kept.exists()
    finisher = OneAtATime()
    finisher.left = 2
    found = solve(executor=finisher, checkpoint=kept)
    equal(found, here)
    assert finisher.left == 0
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_executor():
    with pytest.raises(TypeError, match=r"executor must be a concurrent\.futures\.Executor, such as dask"):
        network(executor="dask")
    with pytest.raises(TypeError, match=r"executor must be a concurrent\.futures\.Executor"):
        mean_ode(executor=3)


@pytest.mark.parametrize("given", ["dask", 2, ProcessPoolExecutor])
def test_what_is_no_executor_leaves_no_folder(given, tmp_path):
    """Nor does what submits and is none, such as dask's client, whose tasks may end in another order."""
    with pytest.raises(TypeError, match=r"executor must be .*Client\(\.\.\.\)\.get_executor\(\)"):
        flds.sweep(TRAINED, {"depth": [1]}, folder=tmp_path / "runs", particles=50, executor=given)
    assert not list(tmp_path.iterdir())


def test_training_that_goes_on_from_a_file_is_kept_as_well(tmp_path, monkeypatch):
    run = flds.solve_flds(TRAINED, particles=600, depth=2, keep_state=True, operator="lazy")
    whole, kept = flds.resume(run, 20), tmp_path / "run.ckpt"
    with monkeypatch.context() as patched:
        killed_after(patched, flds.training.network.Network, "update", 15)
        with pytest.raises(Killed):
            flds.resume(run, 20, checkpoint=kept, checkpoint_every=0)
    with pytest.raises(ValueError, match="is that of another run: steps is 44 there and 34 here"):
        flds.resume(run, 10, checkpoint=kept)
    with pytest.raises(ValueError, match="is that of another run: steps is 44 there and 24 here"):
        flds.rerun(run, checkpoint=kept)
    found = flds.resume(run, 20, checkpoint=kept)
    assert found.settings["continued_from_step"] > 25
    equal(found, whole)


def test_a_dense_run_goes_on(tmp_path, monkeypatch):
    def dense(**options):
        options |= {"operator": "dense", "backward_weights": "independent"}
        return flds.simulate_resnet(TRAINED, width=40, depth=2, **options)

    with monkeypatch.context() as patched:
        killed_after(patched, flds.training.network.Network, "update", 20)
        with pytest.raises(Killed):
            dense(checkpoint=tmp_path / "run.ckpt", checkpoint_every=0)
    found = dense(checkpoint=tmp_path / "run.ckpt")
    assert found.settings["continued_from_step"] > 0
    equal(found, dense())


def test_an_interrupted_run_keeps_where_it_was(tmp_path, monkeypatch):
    plain, count = flds.training.network.Network.forward, [0]

    def forward(self, *arguments, **rest):
        count[0] += 1
        if count[0] == 40:
            signal.raise_signal(signal.SIGINT)
        return plain(self, *arguments, **rest)

    with monkeypatch.context() as patched:
        patched.setattr(flds.training.network.Network, "forward", forward)
        with pytest.warns(RuntimeWarning, match="interrupted"):
            early = network(checkpoint=tmp_path / "run.ckpt")
    assert early.status == "interrupted"
    found = network(checkpoint=tmp_path / "run.ckpt")
    assert found.settings["continued_from_step"] >= 1
    equal(found, network())


def test_a_run_of_a_sweep_goes_on(tmp_path, monkeypatch):
    (task,) = Grid(TRAINED, {"learning_rate": [0.2]}, None, {"particles": 600, "checkpoint_every": 0}).tasks(tmp_path)
    with monkeypatch.context() as patched:
        killed_after(patched, flds.training.network.Network, "update", 12)
        with pytest.raises(Killed):
            run_task(task)
    assert task.checkpoint.exists()
    assert run_task(task) == ""
    found = flds.load(task.path)
    assert 0 < found.settings["continued_from_step"] <= 12
    assert [path.name for path in tmp_path.iterdir()] == [task.path.name]
    (other,) = Grid(TRAINED, {"learning_rate": [0.2]}, None, {"particles": 600}).tasks(tmp_path)
    assert other.fingerprint == task.fingerprint  # how often a run is kept decides no numbers


@pytest.mark.parametrize("name", ["checkpoint", "communicator", "executor"])
def test_what_a_sweep_decides_itself(name, tmp_path):
    with pytest.raises(TypeError, match=f"solve_flds takes no '{name}'"):
        Grid(TRAINED, {"depth": [2]}, None, {name: None})


def test_rounds_of_an_estimate_are_kept(tmp_path, monkeypatch):
    problem = flds.TrainingProblem([[1.0, 0.5]], [1.0], steps=2)
    asked = {"target_error": 0.003, "particles": 100, "depth": 2, "replicates": 4, "threads": 1}
    whole = flds.estimate_limit(problem, **asked)
    assert len(whole.settings["rounds"]) > 2
    kept = tmp_path / "limit.ckpt"
    with monkeypatch.context() as patched:
        killed_after(patched, flds.limit.search, "run_round", 3)
        with pytest.raises(Killed):
            flds.estimate_limit(problem, checkpoint=kept, **asked)
    with pytest.raises(ValueError, match=r"is that of another run: target_error is 0\.003 there and 0\.1 here"):
        flds.estimate_limit(problem, checkpoint=kept, **asked | {"target_error": 0.1})
    found = flds.estimate_limit(problem, checkpoint=kept, **asked)
    assert found.settings["continued_from_round"] == 2
    assert len(found.settings["rounds"]) == len(whole.settings["rounds"])
    np.testing.assert_array_equal(found.outputs_half_width, whole.outputs_half_width)
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_is_missed_leaves_the_rounds_for_a_larger_budget(tmp_path):
    """The first round is the same, and is not run again; a budget that has not grown adds none."""
    problem = flds.TrainingProblem([[1.0, 0.5]], [1.0], steps=2)
    asked = {"target_error": 0.01, "particles": 100, "depth": 2, "replicates": 4, "threads": 1}
    kept = tmp_path / "limit.ckpt"
    for continued in (None, 1):
        with pytest.warns(RuntimeWarning) as told:
            early = flds.estimate_limit(problem, checkpoint=kept, budget_seconds=1e-3, **asked)
        assert "with which the same call goes on from its checkpoint" in " ".join(str(one.message) for one in told)
        assert early.settings.get("continued_from_round") == continued
        assert len(early.settings["rounds"]) == 1
        assert kept.exists()
    found = flds.estimate_limit(problem, checkpoint=kept, budget_seconds=600.0, **asked)
    assert found.settings["continued_from_round"] == 1
    assert found.settings["rounds"][0] == early.settings["rounds"][0]
    assert np.max(found.outputs_half_width) <= 0.01
    assert list(tmp_path.iterdir()) == []


PROGRAM = """
import atexit, sys
from validation import report
from validation.claims import check
done, dies = [], sys.argv.pop() == "dies"
def section(name, fails):
    def run(scale):
        "A section."
        if fails:
            raise KeyboardInterrupt
        done.append(name)
        yield check(name, "1", "1", True)
    return run
report.SECTIONS = {"first": section("first", False), "second": section("second", dies)}
atexit.register(lambda: print("ran", *done))
from flds.cli.commands import main
main()
"""


def test_sections_of_a_validation_are_kept(tmp_path):
    def validate(how):
        command = [sys.executable, "-c", PROGRAM, "validate", "--checkpoint", "v.ckpt", "--out", "report", how]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    ended = validate("dies")
    assert ended.returncode == 130
    assert (tmp_path / "v.ckpt").exists()
    done = validate("lives")
    assert done.returncode == 0, done.stderr
    assert "ran second\n" in done.stdout
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert list(report["sections"]) == ["first", "second"]
    assert "2 confirmed" in done.stdout
    assert not (tmp_path / "v.ckpt").exists()


def test_a_rank_that_is_outgrown_on_an_executor():
    asked = {"rank_budget": (1, 1), "replicates": 2, "particles": 600, "depth": 2, "operator": "lazy"}
    with ThreadPoolExecutor(1) as executor, pytest.warns(RuntimeWarning, match="rank"):
        found = flds.solve_flds(TRAINED, executor=executor, **asked)
    assert found.status == "rank_budget"


def test_a_result_that_could_not_be_written_lets_go_of_its_checkpoint(tmp_path, monkeypatch):
    """In a worker that lives on the next try finds it free."""
    with monkeypatch.context() as patched:

        def full(self, path):
            raise OSError(28, "No space left on device")

        patched.setattr(flds.Solution, "save", full)
        (task,) = Grid(TRAINED, {"learning_rate": [0.2]}, None, {"particles": 600}).tasks(tmp_path)
        assert "No space left" in run_task(task)
    assert run_task(task) == ""
    assert [path.name for path in tmp_path.iterdir()] == [task.path.name]


def tail(k):
    """tanh with wings beyond ±3, and its derivative."""
    return (
        lambda h: np.tanh(h) + k * np.maximum(np.abs(h) - 3.0, 0.0) ** 2,
        lambda h: 1 - np.tanh(h) ** 2 + 2 * k * np.maximum(np.abs(h) - 3.0, 0.0) * np.sign(h),
    )


def test_an_activation_is_known_by_its_code(tmp_path, monkeypatch):
    """Two that agree where they are tried are told apart."""

    def run(k):
        own = flds.Activation(*tail(k))
        problem = flds.TrainingProblem(TRAINED.x, TRAINED.y[:, 0], activation=own, steps=10)
        return flds.solve_flds(problem, particles=600, depth=2, checkpoint=tmp_path / "run.ckpt", checkpoint_every=0)

    with monkeypatch.context() as patched:
        killed_after(patched, flds.training.network.Network, "update", 8)
        with pytest.raises(Killed):
            run(0.0)
    with pytest.raises(ValueError, match="is that of another run: other functions"):
        run(0.5)
    assert run(0.0).status == "completed"
