"""What a callback sees, and that a run which it ends is one that can be gone on with."""

from __future__ import annotations

import numpy as np
import pytest

import flds
from tests.conftest import three_samples

X, Y = np.random.default_rng(0).normal(size=(2, 4, 3))


def mean_problem(steps=6, **rest):
    return flds.MeanFieldProblem(X, Y, steps=steps, test_inputs=X[:2], test_targets=Y[:2], **rest)


SOLVERS = {
    "limit": lambda problem, **o: flds.solve_flds(problem, particles=200, depth=2, **o),
    "network": lambda problem, **o: flds.simulate_resnet(problem, width=50, depth=2, **o),
    "dense": lambda problem, **o: flds.simulate_resnet(problem, width=50, depth=2, operator="dense", **o),
    "mean ode": lambda problem, **o: flds.solve_mean_ode(problem, units=32, depth=2, **o),
    "tangent ode": lambda problem, **o: flds.solve_tangent_ode(problem, units=32, depth=2, **o),
}


def problem_of(name, steps=6, **rest):
    if "ode" in name:
        return mean_problem(steps, **rest)
    tests = {"test_inputs": np.eye(5)[:2], "test_targets": [0.0, 1.0]}
    return three_samples(steps=steps, **tests, **rest)


@pytest.mark.parametrize("name", SOLVERS)
def test_it_sees_what_the_solution_has(name):
    seen = []
    found = SOLVERS[name](problem_of(name), callback=seen.append, record_every=2)
    assert [record.step for record in seen] == found.steps.tolist()
    for variable in ("outputs", "test_outputs", "loss", "test_loss"):
        np.testing.assert_allclose([getattr(one, variable) for one in seen], getattr(found, variable), rtol=1e-15)
    assert all(np.isnan(one.accuracy) for one in seen)
    assert found.status == "completed"


@pytest.mark.parametrize("rule", [{}, {"optimizer": flds.SGD(momentum=0.9)}])
@pytest.mark.parametrize("name", SOLVERS)
def test_a_run_that_it_ends_goes_on_with_the_bits_of_one_that_was_not(name, rule, tmp_path):
    whole = SOLVERS[name](problem_of(name, **rule))
    options = {"keep_state": True, "callback": lambda record: record.step == 3}
    ended = SOLVERS[name](problem_of(name, **rule), checkpoint=tmp_path / "run.ckpt", **options)
    assert ended.status == "stopped"
    assert list(tmp_path.iterdir()) == []
    assert ended.notes == []
    np.testing.assert_array_equal(ended.outputs, whole.outputs[:4])
    kept = flds.load(ended.save(tmp_path / "ended.nc"))
    np.testing.assert_allclose(
        kept.predict(X if "ode" in name else np.eye(5)[:2])[:2],
        whole.outputs[3][:2] if "ode" in name else whole.test_outputs[3],
        atol=0 if "ode" in name else 1,
    )
    longer = flds.resume(kept)
    assert longer.status == "completed"
    np.testing.assert_array_equal(longer.outputs, whole.outputs)
    again = flds.resume(kept, callback=lambda record: record.step >= 4)
    assert (again.status, again.steps[-1]) == ("stopped", 4)


def test_the_last_record_ends_nothing():
    found = SOLVERS["limit"](problem_of("limit"), callback=lambda record: record.step == 6)
    assert found.status == "completed"
    found = SOLVERS["mean ode"](mean_problem(), callback=lambda record: record.step == 6)
    assert found.status == "completed"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"callback": 3}, "callback must be a function of a record, got 3"),
        ({"callback": lambda record: 1}, "callback must return True, to end the run, or False or nothing, got 1"),
        ({"callback": print, "replicates": 2}, r"callback watches one run, got replicates=2"),
    ],
)
@pytest.mark.parametrize("name", ["limit", "mean ode"])
def test_mistakes_are_one_line(name, options, said):
    with pytest.raises((TypeError, ValueError), match=said):
        SOLVERS[name](problem_of(name), **options)


def test_an_error_of_ones_own_comes_through():
    def broken(record):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        SOLVERS["limit"](problem_of("limit"), callback=broken)


def test_others_refuse_it():
    with pytest.raises(TypeError, match="takes no 'callback'"):
        flds.sweep(three_samples(), {"depth": [1]}, folder="nowhere", callback=print)
    with pytest.raises(TypeError, match="callback"):
        flds.estimate_limit(three_samples(), callback=print)
