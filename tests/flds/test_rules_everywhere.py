"""Rules in everything that trains: limits, sweeps, predictions, costs, the Mean ODE and the command line."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import flds
from flds.plotting import plot_transfer
from flds.results import recipe
from flds.training.branches import SingleMatrix
from flds.training.groups import groups_of
from flds.training.optimizers import BUILT_IN
from tests.conftest import three_samples
from tests.flds.forks import run

ADAM = flds.Adam(betas=(0.8, 0.95), epsilon=1e-3)
MIXED = {"hidden": flds.Muon(), "input": ADAM, "readout": ADAM}
X, Y = np.random.default_rng(4).normal(size=(2, 6, 3))


class Signs(flds.Optimizer):
    """Steps of one size."""

    def step(self, gradient, state, rate):
        return -rate * np.sign(gradient), state


@pytest.mark.filterwarnings("ignore:round .* took .* longer than budget_seconds")  # beside other work
def test_limits_are_those_of_the_rule():
    """The estimate contains what independent seeds of the solver give, and is not that of plain descent."""
    problem = three_samples(steps=3, optimizer=MIXED, learning_rate=0.1, weight_decay=0.1)
    sizes = {"particles": 400, "depth": 4, "threads": 1, "budget_seconds": 10.0}
    found = flds.estimate_limit(problem, replicates=8, **sizes)
    plain = flds.estimate_limit(three_samples(steps=3, learning_rate=0.1), replicates=8, **sizes)
    assert "trained by hidden Muon (momentum 0.95, nesterov, newton_schulz), input Adam" in found.summary()
    width = np.hypot(found.outputs_half_width[-1], plain.outputs_half_width[-1])
    assert np.abs(found.outputs[-1] - plain.outputs[-1]).max() > 2 * width.max()
    runs = [flds.solve_flds(problem, particles=800, depth=16, seed=seed, threads=1).outputs for seed in range(100, 108)]
    error = np.std(runs, axis=0, ddof=1) / 8**0.5
    # half widths are 1.96 standard errors and more; depth 16 is off by a quarter of what depth 4 is
    allowed = 4 * np.hypot(error, found.outputs_half_width / 1.96) + found.depth_error
    assert np.all(np.abs(np.mean(runs, axis=0) - found.outputs) <= allowed + 1e-12)


def test_sweeps_over_rules(tmp_path):
    """Runs are those of the rule alone, coordinates say which, and a second call finds them."""
    problem = three_samples(steps=2, learning_rate=0.1)
    rules = ["sgd", "muon", flds.Muon(momentum=0.5), MIXED]
    grid = {"optimizer": rules, "weight_decay": [0.0, {"hidden": 0.5}]}
    options = {"folder": tmp_path, "workers": 1, "particles": 200, "depth": 2}
    found = flds.sweep(problem, grid, **options)
    adam = "Adam(betas=(0.8, 0.95), epsilon=0.001)"
    assert found.grid["optimizer"] == ["sgd", "muon", "Muon(momentum=0.5)",
                                       f"hidden Muon(), input {adam}, readout {adam}"]  # fmt: skip
    assert found.grid["weight_decay"] == ["0.0", "hidden 0.5"]
    for place, rule in enumerate(rules):
        for at, decay in enumerate(grid["weight_decay"]):
            own = three_samples(steps=2, learning_rate=0.1, optimizer=rule, weight_decay=decay)
            alone = flds.solve_flds(own, particles=200, depth=2, threads=1)
            np.testing.assert_array_equal(found.data.outputs.values[place, at], alone.outputs)
    assert flds.sweep(problem, grid, **options).reused == 8
    found.plot(tmp_path / "rules.png")
    with pytest.raises(ValueError, match="the sweep must vary learning_rate, but varies optimizer"):
        plot_transfer(found)


def test_sweeps_over_rates_by_group(tmp_path):
    rates = [0.1, {"hidden": 0.2, "input": 0.1}, np.array([0.3, 0.1])]
    found = flds.sweep(
        three_samples(steps=2), {"learning_rate": rates}, folder=tmp_path, workers=1, particles=200, depth=2
    )
    assert found.grid["learning_rate"] == ["0.1", "hidden 0.2, input 0.1", "item2"]
    found.plot(tmp_path / "rates.png")
    with pytest.raises(ValueError, match="must vary learning_rate over numbers, but some of its values are others"):
        plot_transfer(found)


@pytest.mark.parametrize("operator", ["lazy", "dense"])
def test_predictions_are_those_of_what_was_trained(operator):
    """Of what was trained on they are the outputs, whose directions are known to the tolerance."""
    problem = three_samples(steps=4, optimizer=MIXED, learning_rate=0.1, weight_decay=0.5, gradient_clip=0.5)
    found = flds.simulate_resnet(problem, width=60, depth=2, operator=operator, tolerance=1e-7, keep_state=True)
    np.testing.assert_allclose(found.predict(problem.inputs), found.outputs[-1], rtol=0, atol=1e-5)
    assert np.abs(found.outputs[-1] - found.outputs[0]).max() > 0.1


def test_costs_know_what_rules_remember_and_do():
    plain = flds.estimate_cost(three_samples(steps=50), particles=20_000, depth=4)
    adam = flds.estimate_cost(three_samples(steps=50, optimizer={"input": ADAM}), particles=20_000, depth=4)
    muon = flds.estimate_cost(three_samples(steps=50, optimizer="muon"), particles=20_000, depth=4)
    assert adam.memory > plain.memory
    assert muon.seconds > plain.seconds


def test_what_is_for_matrices_only_is_said():
    assert {name for name, kind in BUILT_IN.items() if kind.matrices_only} == recipe.MATRICES_ONLY
    found = groups_of(SingleMatrix(), 0.1, flds.Muon(), 0.0, 1.0, 3)
    assert {name: type(group.optimizer).__name__ for name, group in found.items()} == {
        "input": "SGD", "hidden": "Muon", "readout": "SGD"
    }  # fmt: skip
    run = flds.solve_flds(three_samples(optimizer="muon"), particles=100, depth=2)
    assert "Muon (momentum 0.95, nesterov, newton_schulz) on hidden matrices, SGD elsewhere;" in run.summary()


UNITS = {
    "batches": {"batch_size": 2, "batch_order": "random", "batch_seed": 3},
    "momentum": {"optimizer": flds.SGD(momentum=0.8, nesterov=True), "learning_rates": 0.3, "weight_decay": 0.1},
    "adam": {
        "optimizer": ADAM, "batch_order": [[0, 1], [2, 5], [4, 4], [3, 0], [1, 2], [0, 5]],
        "learning_rates": {"u": lambda k: 0.2 / (1 + k), "v": 0.1}, "weight_decay": {"v": 0.2},
    },
    "own": {"optimizer": Signs(), "learning_rates": 0.05},
}  # fmt: skip


def units(steps, **rest):
    if not isinstance(rest.get("batch_order", ""), str):
        rest["batch_order"] = rest["batch_order"][:steps]
    return flds.MeanFieldProblem(X, Y, steps=steps, test_inputs=X[:2], test_targets=Y[:2], **rest)


@pytest.mark.parametrize("rule", UNITS)
def test_units_go_on_as_if_they_had_never_stopped(rule, tmp_path):
    """In memory and in files, on two threads and one, and a run done again has the bits of the first."""
    options = {"units": 64, "depth": 3, "sampling": "iid", "record_every": 1, "keep_state": True}
    whole = flds.solve_mean_ode(units(6, **UNITS[rule]), threads=1, **options)
    assert np.abs(whole.outputs[-1] - whole.outputs[0]).max() > 0.02
    first = flds.solve_mean_ode(units(6, **UNITS[rule]), threads=2, callback=lambda r: r.step == 2, **options)
    assert first.status == "stopped"
    own = units(6, **UNITS[rule]) if rule == "own" else None
    kept = flds.load(first.save(tmp_path / "part.nc"))
    for run_ in (first, kept):
        np.testing.assert_array_equal(flds.resume(run_, problem=own).outputs, whole.outputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = flds.rerun(flds.load(whole.save(tmp_path / "whole.nc")), problem=own)
    np.testing.assert_array_equal(again.outputs, whole.outputs)
    np.testing.assert_allclose(kept.predict(X, problem=own), whole.outputs[2], rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"optimizer": "muon"}, r"optimizer must be a rule for units, such as flds\.SGD or flds\.Adam, got Muon"),
        ({"optimizer": "adagrad"}, r"optimizer must be one of sgd, muon, adam, got 'adagrad'"),
        ({"optimizer": "adam"}, r"learning_rates must be given with Adam: the default ones are for SGD"),
        ({"learning_rates": lambda k: np.nan if k == 3 else 0.1}, r"learning_rates\['u'\]\(3\) must be a finite"),
        ({"learning_rates": {"w": 0.1}}, r"learning_rates must name parameters of the block \(u, v\), got 'w'"),
        ({"learning_rates": [0.1, 0.2, 0.3]}, r"must be a pair \(η_u, η_v\) only for perceptrons"),
        ({"learning_rates": np.full(2, 0.1), "steps": 2}, r"may mean \(η_u, η_v\) or one for each of 2 steps"),
        ({"learning_rates": np.full(3, 0.1)}, r"must be a number, one per step \(4\) or a function"),
        ({"weight_decay": -1.0}, r"weight_decay must be a finite number of at least 0, got -1"),
        ({"weight_decay": {"v": 0.5}, "learning_rates": 2.0}, r"weight_decay times the learning rate must be below 1"),
        ({"batch_size": 7}, r"batch_size must"),
        ({"batch_order": [[0, 9]] * 4}, r"batch_order must"),
    ],
)  # fmt: skip
def test_mistakes_in_what_moves_units_are_one_line(options, said):
    with pytest.raises((TypeError, ValueError), match=said) as caught:
        units(**({"steps": 4} | options))
    assert "\n" not in str(caught.value)


FAST = ["--depth", "2", "--steps", "4", "--train-samples", "20", "--test-samples", "10", "--learning-rate", "0.4"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--optimizer", "sgd", "--momentum", 0.9, "--nesterov"], flds.SGD(momentum=0.9, nesterov=True)),
        (["--optimizer", "muon", "--momentum", 0.5, "--no-nesterov"], flds.Muon(momentum=0.5, nesterov=False)),
        (["--optimizer", "adam"], flds.Adam()),
    ],
)
def test_rules_of_the_command_line(given, expected, tmp_path):
    rest = ("--weight-decay", 0.1, "--gradient-clip", 2, "--schedule", "linear", "--width", 50, "--quiet")
    done = run("solve", *FAST, *given, *rest, "--out", "x.nc", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = flds.load(tmp_path / "x.nc")
    described = found.extra["problem"]["optimizer"]
    assert described.pop("rule") == type(expected).__name__
    assert all(np.all(getattr(expected, name) == np.array(value)) for name, value in described.items())
    assert (found.extra["problem"]["weight_decay"], found.extra["problem"]["gradient_clip"]) == (0.1, 2.0)
    np.testing.assert_allclose(found.variables["problem_learning_rate"].values, [0.4, 0.3, 0.2, 0.1])
    shown = run("info", "x.nc", cwd=tmp_path).stdout
    assert f"trained by {type(expected).__name__}" in shown
    assert "learning rate 0.4 to 0.1; weight decay 0.1; gradient clipped at 2" in shown


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--optimizer", "adagrad"], "--optimizer must be one of sgd, muon, adam, got 'adagrad'"),
        (["--optimizer", "adam", "--momentum", "0.9"], "--momentum is for sgd and muon; leave it out with"),
        (["--optimizer", "adam", "--operator", "lazy"], "needs steps of low rank, but Adam treats entries"),
        (["--momentum", "1"], "momentum must be below 1, or nothing is forgotten, got 1"),
        (["--nesterov"], "nesterov needs a momentum above 0"),
        (["--schedule", "step"], "--schedule must be one of constant, cosine, linear, got 'step'"),
        (["--weight-decay", "-1"], "weight_decay must be a finite number of at least 0, got -1"),
        (["--weight-decay", "3"], "weight_decay times the learning rate must be below 1, got 1.2"),
        (["--gradient-clip", "0"], "gradient_clip must be a finite number above 0, got 0"),
    ],
)
def test_mistakes_of_the_command_line_are_one_line(given, said, tmp_path):
    done = run("solve", *FAST, *given, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
