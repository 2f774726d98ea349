"""Arguments that are arrays or numbers: what NumPy would change without a word or fail on is refused in one line."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy import sparse

import flds
import solvers
from flds.mean_ode.cost import peak_memory
from flds.mean_ode.options import resolve_mean
from solvers import checks
from tests.conftest import one_sample, three_samples
from tests.solvers.equations import GEOMETRIC

MASKED = np.ma.array([1.0, 1e40], mask=[False, True])
TRUTHS = [True, False]
MASK = "got masked entries, which have no value; fill them, such as with numpy.ma.filled"
TRUTH = r"got (dtype bool|True); convert truth values to numbers, such as with numpy.asarray\(values, float\)"
HUGE = 10**400  # more than a float holds; repr of ten times as many digits is refused by Python


def torch_of(make):
    """A tensor that is made when the test runs, where torch is installed."""
    return lambda: make(pytest.importorskip("torch"))


def same(value):
    return lambda: value


# What each argument must not be, and what is said of it.
UNREADABLE = {
    "masked": (same(MASKED), MASK),
    "list of masked": (same([1.0, np.ma.masked]), MASK),
    "truth values": (same(TRUTHS), TRUTH),
    "array of truth values": (same(np.array(TRUTHS)), TRUTH),
    "some truth values": (same([1.0, True]), TRUTH),
    "requires grad": (torch_of(lambda torch: torch.ones(2, requires_grad=True)), r"requires grad; .*\.detach\(\)"),
    "list of tensors": (torch_of(lambda torch: list(torch.ones(2, requires_grad=True))), r"\.detach\(\)"),
    "bfloat16": (torch_of(lambda torch: torch.ones(2, dtype=torch.bfloat16)), "convert them to float32 or float64"),
    "sparse tensor": (torch_of(lambda torch: torch.ones(2).to_sparse()), r"a sparse tensor; .*\.to_dense\(\)"),
    "tensor elsewhere": (torch_of(lambda torch: torch.ones(2, device="meta")), "got Tensor that NumPy cannot read: "),
    "sparse array": (same(sparse.eye_array(2)), r"a sparse array; fill it up, with \.toarray\(\)"),
    "function": (same(np.sin), "got the function sin; give its values as an array"),
    "huge integers": (same([1, 2**70]), "got .* which 64 bits do not hold; write it as a float"),
    "integers of many digits": (same([1, 10**5000]), "got an integer of 16610 bits, which 64 bits do not hold"),
    "numbers as objects": (
        same(np.array([1, 2.5], object)),
        r"got dtype object, though it holds numbers; convert it, such as with numpy.asarray\(values, float\)",
    ),
    "huge integers as objects": (same(np.array([1, -(10**30)], object)), "got -1000.*, which 64 bits do not hold"),
    "complex numbers as objects": (same(np.array([np.complex128(1j)], object)), "got entries such as"),
    "objects": (same([None, 1.0]), "got entries such as None"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_is_not_a_number_is_refused(case):
    make, message = UNREADABLE[case]
    with pytest.raises(TypeError, match=f"x must be an array of real numbers, .*{message}") as error:
        checks.finite("x", make())
    assert "\n" not in str(error.value)


def problem(**arguments):
    return flds.TrainingProblem(**{"inputs": np.ones((2, 2)), "targets": [1.0, -1.0], "steps": 2} | arguments)


def mean_problem(**arguments):
    return flds.MeanFieldProblem(**{"inputs": np.ones((2, 2)), "targets": np.ones((2, 2)), "steps": 1} | arguments)


def solve(**arguments):
    given = {"equation": GEOMETRIC, "x0": np.ones(4), "t0": 0.0, "t1": 1.0, "steps": 2}
    return solvers.solve(**given | arguments)


def followed(units, depths):
    given = mean_problem()
    solution = flds.solve_mean_ode(given, units=2, depth=2, record_features=True)
    return flds.follow_units(given, solution, units, depths)


TRAINED = {"particles": 50, "depth": 1, "keep_state": True, "operator": "lazy", "sampling": "law"}
UNITS = np.ones((1, 2, 3))

# Every argument of a public function that is an array, and its name in errors.
ARGUMENTS = {
    "inputs": lambda bad: problem(inputs=[bad, bad] if isinstance(bad, list) else bad),
    "targets": lambda bad: problem(targets=bad),
    "learning_rate": lambda bad: problem(learning_rate=bad),
    "batch_order": lambda bad: problem(batch_order=bad),
    "test_inputs": lambda bad: problem(test_inputs=bad, test_targets=[1.0]),
    "test_targets": lambda bad: problem(test_inputs=np.ones((2, 2)), test_targets=bad),
    "recorded_samples": lambda bad: flds.solve_flds(problem(), particles=50, depth=1, recorded_samples=bad),
    "learning_rate (resume)": lambda bad: flds.resume(flds.solve_flds(problem(), **TRAINED), 2, learning_rate=bad),
    "learning_rate (sweep)": lambda bad: flds.sweep(problem(), {"learning_rate": [bad]}, folder="unused"),
    "inputs (predict)": lambda bad: flds.solve_flds(problem(), **TRAINED).predict(bad),
    "inputs (mean ODE)": lambda bad: mean_problem(inputs=bad),
    "targets (mean ODE)": lambda bad: mean_problem(targets=bad),
    "embedding": lambda bad: mean_problem(embedding=bad),
    "unembedding": lambda bad: mean_problem(unembedding=bad),
    "test_inputs (mean ODE)": lambda bad: mean_problem(test_inputs=bad, test_targets=np.ones((2, 2))),
    "the value of initial_laws['u']": lambda bad: mean_problem(initial_laws={"u": lambda grid: bad}),
    "depths": lambda bad: followed([{"u": UNITS, "v": UNITS}], bad),
    "units: 'v'": lambda bad: followed([{"u": UNITS, "v": bad}], [0.5]),
    "x0": lambda bad: solve(x0=bad) if not callable(bad) else checks.finite("x0", bad),
    "a value of x0": lambda bad: solve(x0=lambda rng, n: bad, particles=4),
    "save_at": lambda bad: solve(save_at=bad),
    "field": lambda bad: solve(field=bad),
    "times of the field": lambda bad: solvers.ExternalField([1.0, 2.0], times=bad),
    "levels": lambda bad: solvers.quantiles(bad),
    "indices of particles": lambda bad: solvers.particles(bad),
    "low of a boundary": lambda bad: solvers.Reflecting(bad, 10.0),
    "high of a boundary": lambda bad: solvers.Absorbing(-10.0, bad),
    "edges": lambda bad: solvers.density(bad),
    "args": lambda bad: solve(args=bad),
}


CASES = ("masked", "truth values", "requires grad", "bfloat16", "sparse tensor", "function")


@pytest.mark.parametrize(
    ("name", "case"),
    # rates may be a function of the step
    [(n, c) for n in ARGUMENTS for c in CASES if not (c == "function" and n.startswith("learning_rate"))],
)
def test_every_array_is_checked(name, case):
    make, message = UNREADABLE[case]
    label = re.escape(name.partition(" (")[0])
    with pytest.raises(TypeError, match=f"{label} must be .*{message}") as error:
        ARGUMENTS[name](make())
    assert "\n" not in str(error.value)


def test_numbers_have_no_index():
    with pytest.raises(ValueError, match=r"^learning_rate must be finite, got nan; replace it$"):
        problem(learning_rate=np.nan)
    with pytest.raises(
        ValueError, match=r"^learning_rate must be finite, got inf at index \(1\); remove or replace it$"
    ):
        problem(learning_rate=[0.1, np.inf])


def test_a_mask_that_hides_nothing_is_no_obstacle():
    given = problem(inputs=np.ma.array(np.eye(2)), targets=np.ma.array([1.0, 2.0], mask=False))
    np.testing.assert_array_equal(given.x, np.eye(2))
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(problem(inputs=torch.eye(2)).x, np.eye(2))


def test_saved_statistics_may_be_truth_values_and_hide_nothing():
    run = solve(save={"inside": lambda t, x: x > 0})
    assert run.inside.dtype == bool
    with pytest.raises(TypeError, match="the value of hidden must be an array of real numbers, got masked"):
        solve(save={"hidden": lambda t, x: MASKED})


def stops(*arguments):
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: solve(x0=stops, particles=4), r"x0 failed as a function of \(generator, n\): SystemExit: 3"),
        (lambda: solve(save={"x": stops}), r"x failed at t = 0: SystemExit: 3; save takes functions of .*\(t, x\)"),
        (lambda: solve(save=np.mean), r"mean failed at t = 0: TypeError: .*; save takes functions of .*\(t, x\)"),
        (
            lambda: flds.Activation(stops, stops),
            "derivative must be a function of .*: SystemExit: 3",
        ),
        (lambda: mean_problem(initial_laws={"u": stops}), r"initial_laws\['u'\] must be .*: SystemExit: 3"),
        (
            lambda: solvers.weak_order(GEOMETRIC, np.ones(4), 0, 1, (1, 2, 4), function=stops, replicates=3),
            "function failed: SystemExit: 3",
        ),
        (lambda: solve(particles=True), "particles must be an integer, got True"),
        (lambda: solve(particles=4.0), "particles must be an integer, got 4.0"),
        (lambda: solve(x0=lambda rng, n: np.ones(n), particles=3.0), "particles must be an integer, got 3.0"),
        (lambda: problem(learning_rate=[True, False]), r"learning_rate must be a number, one per step .*, got True"),
        (lambda: problem(activation=np.ones((2, 2))), r"activation must be a name or .*, got array\(.*\)"),
        (lambda: flds.solve_flds(problem(), sampling=np.ones(2)), "sampling must be one of matched, law"),
    ],
)
def test_functions_and_counts_of_the_wrong_kind(call, message):
    with pytest.raises((TypeError, ValueError), match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: problem(horizon=HUGE), "horizon must be a number that a float holds, below 1.8e308, got an int"),
        (lambda: problem(horizon=10**5000), "horizon must be a number that a float holds"),
        (lambda: solve(t0=-HUGE), "t0 must be a number that a float holds"),
        (lambda: solve(t1=HUGE), "t1 must be a number that a float holds"),
        (lambda: solve(t0=-1e308, t1=1e308), "t1 - t0 must be a number that a float holds"),
        (lambda: solvers.BrownianMotion(0, HUGE, 4), "t1 must be a number that a float holds"),
        (lambda: mean_problem(alpha=HUGE), "alpha must be a number that a float holds"),
        (lambda: mean_problem(learning_rates=HUGE), r"learning_rates\['u'\] must be a number that a float holds"),
        (lambda: problem(steps=2**63), r"steps must be below 2\*\*63, got 9223372036854775808"),
        (lambda: mean_problem(steps=2**63), r"steps must be below 2\*\*63"),
        (lambda: solve(steps=2**63), r"steps must be below 2\*\*63"),
        (lambda: solve(steps=10**5000), r"steps must be below 2\*\*63, got an integer of 16610 bits"),
        (lambda: solvers.BrownianMotion(0, 1, 2**63), r"steps must be below 2\*\*63"),
        (lambda: solvers.BrownianMotion(0, 1, 4, noise_steps=2**64), r"noise_steps must be below 2\*\*63"),
        (lambda: solve(x0=lambda rng, n: np.ones(n), particles=2**63), r"particles must be below 2\*\*63"),
        (lambda: flds.solve_flds(problem(), particles=2**64), r"particles must be below 2\*\*63"),
        (lambda: flds.solve_flds(problem(), depth=2**64), r"depth must be below 2\*\*63"),
        (lambda: flds.solve_forward(depth=2**63), r"depth must be below 2\*\*63"),
        (lambda: flds.simulate_resnet(problem(), width=2**63), r"width must be below 2\*\*63"),
        (lambda: flds.solve_mean_ode(mean_problem(), units=2**63), r"units must be below 2\*\*63"),
    ],
)
def test_numbers_that_are_too_large_for_64_bits(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda steps: solve(steps=steps),
        lambda steps: solvers.BrownianMotion(0.0, 1.0, steps),
        lambda steps: problem(steps=steps),
        lambda steps: problem(steps=steps, batch_size=1, batch_order="random"),
        lambda steps: flds.solve_mean_ode(mean_problem(steps=steps), units=2, depth=2),
        lambda steps: flds.solve_forward(depth=steps, particles=2),
    ],
)
@pytest.mark.parametrize("steps", [10**12, 2**63 - 1])  # 8 TB at least
def test_steps_that_do_not_fit_in_memory_are_refused_before_anything_is_allocated(call, steps):
    with pytest.raises(MemoryError, match=r"^this run needs .* GB and .* GB are available; .*(fewer steps|depth)"):
        call(steps)


@pytest.mark.parametrize("threads", [4097, 10**12, 2**40])
@pytest.mark.parametrize(
    "call",
    [
        lambda threads: solve(threads=threads),
        lambda threads: solvers.resume(GEOMETRIC, solve(), 2.0, 2, threads=threads),
        lambda threads: flds.solve_flds(problem(), particles=50, depth=1, threads=threads),
        lambda threads: flds.simulate_resnet(problem(), width=50, depth=1, threads=threads),
        lambda threads: flds.estimate_cost(problem(), width=50, depth=1, threads=threads),
        lambda threads: flds.rerun(flds.solve_flds(problem(), **TRAINED), threads=threads),
        lambda threads: flds.resume(flds.solve_flds(problem(), **TRAINED), 1, threads=threads),
        lambda threads: flds.solve_mean_ode(mean_problem(), units=2, depth=2, threads=threads),
        lambda threads: flds.solve_forward(particles=50, depth=1, threads=threads),
        lambda threads: flds.estimate_limit(problem(), threads=threads),
    ],
)
def test_absurd_numbers_of_threads_are_refused(call, threads):
    with pytest.raises(ValueError, match=f"^threads must be at most 4096, got {threads}; leave it out") as error:
        call(threads)
    assert "\n" not in str(error.value)


def test_threads_beyond_the_work_cost_nothing():
    one, many = (flds.simulate_resnet(problem(), width=50, depth=2, threads=threads) for threads in (1, 4096))
    np.testing.assert_array_equal(one.outputs, many.outputs)
    costs = [flds.estimate_cost(problem(), width=50, depth=2, threads=threads).memory for threads in (16, 4096)]
    assert costs[0] == costs[1]
    settings = (resolve_mean(mean_problem(), 64, 2, {"threads": threads}) for threads in (16, 4096))
    costs = [peak_memory(mean_problem(), one) for one in settings]
    assert costs[0] == costs[1]


def test_values_are_shown_in_one_line_and_not_at_length():
    assert checks.shown(np.ones((2, 2))) == "array([[1., 1.], [1., 1.]])"
    assert len(checks.shown(list(range(1000)))) == 120
    assert checks.shown([10**5000]) == "list that cannot be shown"


def test_rates_of_no_steps():
    for given, steps in ((problem(learning_rate=[], steps=0), 0), (one_sample(), 1), (three_samples(), 3)):
        assert {name: group.rates.shape for name, group in given.groups.items()} == dict.fromkeys(
            ("input", "hidden", "readout"), (steps,)
        )
