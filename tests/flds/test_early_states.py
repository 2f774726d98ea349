"""Runs that end early keep a state that goes on to what an undisturbed run gives, bit for bit."""

from __future__ import annotations

import signal

import numpy as np
import pytest

import flds
from solvers.ensemble.threads import ThreadParticles
from tests.conftest import three_samples
from tests.flds import forks

X = np.random.default_rng(3).standard_normal((6, 4))


def minibatches(**rest) -> flds.TrainingProblem:
    arguments = {
        "batch_size": 2,
        "batch_order": "random",
        "steps": 5,
        "learning_rate": [0.5, 0.4, 0.3, 0.2, 0.1],
    } | rest
    return flds.TrainingProblem(
        X, [1.0, -1.0, 1.0, -1.0, 1.0, -1.0], test_inputs=X[:2] + 0.1, test_targets=[1.0, 1.0], **arguments
    )


SOLVES = {
    "matched": lambda: flds.solve_flds(minibatches(), particles=400, depth=3, keep_state=True, threads=1),
    "law": lambda: flds.simulate_resnet(
        minibatches(), width=300, depth=3, operator="lazy", keep_state=True, threads=1, record_kernels=True
    ),
    "dense": lambda: flds.simulate_resnet(
        minibatches(), width=40, depth=3, operator="dense", backward_weights="independent", keep_state=True, threads=1
    ),
    "mean_ode": lambda: flds.solve_mean_ode(
        flds.MeanFieldProblem(X, X, steps=5, test_inputs=X[:2], test_targets=X[:2]), units=32, depth=4, keep_state=True,
        record_features=True, record_every=2, threads=1,
    ),
    "tangent_ode": lambda: flds.solve_tangent_ode(
        flds.MeanFieldProblem(X, X, steps=5), units=32, depth=4, keep_state=True, threads=1
    ),
}  # fmt: skip


def interrupt_after(monkeypatch, calls: int) -> list[int]:
    """Let the signal of Ctrl-C be noted after so many pieces of work; return the counter."""
    count = [0]
    original = ThreadParticles._run

    def run(self, work, items, size=np.inf):
        solving = getattr(signal.getsignal(signal.SIGINT), "__name__", "") == "_note"
        count[0] += solving
        if solving and count[0] == calls:
            signal.raise_signal(signal.SIGINT)
        original(self, work, items, size)

    monkeypatch.setattr(ThreadParticles, "_run", run)
    return count


def halfway(monkeypatch, solve):
    """Return what is left of a run that is interrupted after half of its work."""
    with monkeypatch.context() as patch:
        pieces = interrupt_after(patch, 0)
        solve()
    with monkeypatch.context() as patch:
        interrupt_after(patch, pieces[0] // 2)
        with pytest.warns(RuntimeWarning, match="interrupted"):
            return solve()


def go_on_from(kind, count, monkeypatch, tmp_path):
    """Interrupt a run at so many places, one after the other, and see that each goes on as if it had not been."""
    whole = SOLVES[kind]()
    with monkeypatch.context() as patch:
        pieces = interrupt_after(patch, 0)
        SOLVES[kind]()
    rng = np.random.default_rng(5)
    early, places = 0, np.linspace(2, pieces[0] - 1, count).astype(int) + rng.integers(0, 3, count)
    for number, place in enumerate(places):
        with monkeypatch.context() as patch:
            interrupt_after(patch, int(place))
            part = SOLVES[kind]()
        if part.status == "completed":  # it came after the last step
            assert place > pieces[0] - 20
            _same(part, whole)
            continue
        assert part.status == "interrupted"
        if not part.states:
            early += 1
            continue
        if number % 3 == 0:
            part = flds.load(part.save(tmp_path / "part.nc"))
        longer = flds.resume(part)
        assert longer.status == "completed"
        _same(longer, whole)
    assert early <= 0.36 * count  # in the first of six steps, and before it, there is nothing to keep


@pytest.mark.filterwarnings("ignore:interrupted")
@pytest.mark.parametrize("kind", SOLVES)
def test_a_run_interrupted_anywhere_goes_on_as_if_it_had_not_been(kind, monkeypatch, tmp_path):
    """At a few of the places that `tests/test_endurance.py` takes."""
    go_on_from(kind, 6, monkeypatch, tmp_path)


def _same(found, expected):
    for name, item in expected.variables.items():
        np.testing.assert_array_equal(found.variables[name].values, item.values, err_msg=name)
    for one, other in zip(found.states, expected.states, strict=True):
        for name, item in other.items():
            np.testing.assert_array_equal(one[name].values, item.values, err_msg=name)


def test_more_or_fewer_steps_than_were_planned(monkeypatch):
    part = halfway(monkeypatch, SOLVES["law"])
    done = int(part.states[0]["next_step"].values)
    assert 0 < done < 5
    longer = flds.resume(part, 7 - done)
    assert longer.steps[-1] == 7
    planned = [0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1]  # then the last one
    np.testing.assert_array_equal(longer.problem_learning_rate, planned)
    other = flds.resume(part, 1, learning_rate=0.9)
    np.testing.assert_array_equal(other.problem_learning_rate, [*planned[:done], 0.9])
    assert part.predict(X[:1]).shape == (1,)
    with pytest.raises(ValueError, match="steps must be given: the run made all those that were planned"):
        flds.resume(longer)


def test_listed_batches_go_on_to_their_end(monkeypatch):
    problem = minibatches(batch_order=[[0, 1], [2, 3], [4, 5], [0, 2], [1, 3]], batch_size=None)
    options = {"width": 200, "depth": 2, "keep_state": True, "operator": "lazy", "threads": 1}
    whole = flds.simulate_resnet(problem, **options)
    part = halfway(monkeypatch, lambda: flds.simulate_resnet(problem, **options))
    _same(flds.resume(part), whole)
    with pytest.raises(ValueError, match="the problem lists its batches, which end after 5 steps"):
        flds.resume(part, 9)


def test_a_rank_that_was_outgrown_goes_on_with_more():
    problem = three_samples(steps=8, batch_size=1)
    options = {"width": 200, "depth": 2, "seed": 3, "operator": "lazy", "tolerance": 0.1, "keep_state": True}
    with pytest.warns(RuntimeWarning, match="the rank outgrew"):
        part = flds.simulate_resnet(problem, rank_budget=(3, 3), **options)
    assert part.status == "rank_budget"
    _same(flds.resume(part), flds.simulate_resnet(problem, **options))


def test_several_replicates_keep_none(monkeypatch):
    options = {"width": 300, "depth": 3, "operator": "lazy", "keep_state": True, "replicates": 3, "threads": 1}
    assert halfway(monkeypatch, lambda: flds.simulate_resnet(minibatches(), **options)).states == []


def test_nothing_comes_between_the_halves_of_an_update():
    blocks = ThreadParticles(10)
    reached = []

    def work():
        with blocks.running():
            with blocks.whole():
                signal.raise_signal(signal.SIGINT)
                blocks.each(lambda share: reached.append(1), blocks.shares)
                reached.append(2)
            blocks.each(lambda share: reached.append(3), blocks.shares)
            reached.append(4)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == [1, 2, 3]


# Says when the training was ended, and goes on once another signal has come.
ENDING = """
import sys, time
from flds.cli.console import Interrupts
interrupt, finish, calls = Interrupts.interrupt, Recorder.finish, []
def counted(*rest):
    calls.append(1)
    interrupt(*rest)
def waiting(self):
    print("ending", file=sys.stderr, flush=True)
    while len(calls) < 2:
        time.sleep(0.005)
    return finish(self)
Interrupts.interrupt, Recorder.finish = counted, waiting
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_signals_end_a_command_with_what_it_has(number, status, tmp_path):
    command = [
        "solve", "--width", 200, "--depth", 4, "--steps", 3000, "--test-samples", 2, "--recorded-samples", 2,
        "--train-samples", 64, "--record-every", 1, "--keep-state", "--operator", "dense",
    ]  # fmt: skip
    with forks.start(*command, cwd=tmp_path, code=forks.AT_WORK + ENDING + forks.MAIN) as process:
        for moment in ("ready", "ending"):  # the second signal belongs to the first one
            assert any(line == f"{moment}\n" for line in process.stderr)
            process.send_signal(number)
        errors = process.communicate()[1]
    assert process.returncode == status
    assert "interrupted after step" in errors
    assert "Traceback" not in errors
    found = flds.load(tmp_path / "flds.nc")
    assert found.status == "interrupted"
    assert 0 < len(found.steps) < 3001
    longer = flds.resume(found, 1)
    assert longer.status == "completed"
    np.testing.assert_array_equal(longer.outputs[: len(found.steps) - 1], found.outputs[:-1])
