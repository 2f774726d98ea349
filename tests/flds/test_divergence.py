"""Training that blows up is "diverged" by one definition, in every solver and network, and keeps what it recorded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import flds
from flds.sweeps import sweep
from flds.training.divergence import Divergence, outcome
from tests.conftest import three_samples
from validation import networks
from validation.unit_networks import train_units

X, Y = np.random.default_rng(1).standard_normal((2, 4, 3))


def steep(rate: float = 8.0, **rest) -> flds.TrainingProblem:
    """Three classes at a rate that lets the loss grow without end, and stay finite at first."""
    rng = np.random.default_rng(2)
    arguments = {
        "activation": "relu", "loss": "cross_entropy", "learning_rate": rate, "steps": 12,
    } | rest  # fmt: skip
    return flds.TrainingProblem(2 * rng.standard_normal((7, 4)), [0, 1, 2, 0, 1, 2, 1], **arguments)


def wild(rate: float = 40.0, **rest) -> flds.MeanFieldProblem:
    arguments = {"activation": "identity", "learning_rates": rate, "steps": 12, "sigma_u": 1.0, "sigma_v": 1.0} | rest
    return flds.MeanFieldProblem(X, Y, **arguments)


RUNS = {
    "solve_flds": lambda **rest: flds.solve_flds(steep(**rest), particles=1500, depth=2, record_every=1),
    "lazy": lambda **rest: flds.simulate_resnet(steep(**rest), width=300, depth=2, record_every=1, operator="lazy"),
    "dense": lambda **rest: flds.simulate_resnet(steep(**rest), width=60, depth=2, record_every=1, operator="dense"),
    "network": lambda **rest: networks.train(steep(**rest), width=60, depth=2),
    "mean_ode": lambda **rest: flds.solve_mean_ode(wild(**rest), units=64, depth=4),
    "tangent_ode": lambda **rest: flds.solve_tangent_ode(wild(**rest), units=64, depth=4),
}


@pytest.mark.filterwarnings("ignore:training diverged")
@pytest.mark.filterwarnings("ignore:the loss grew")
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_a_run_ends_where_loss_or_outputs_exceed_the_factor(run):
    """Without a bound the same run shows by what it exceeds it first: the record after the last one that is kept."""
    bounded, free = run(), run(divergence_factor=1e250)
    assert bounded.status == "diverged"
    kept = len(bounded.steps)
    assert 1 <= kept < len(free.steps)
    np.testing.assert_array_equal(bounded.outputs, free.outputs[:kept])
    assert np.isfinite(free.loss[kept])
    sizes = np.maximum(free.loss, (free.outputs**2).mean(axis=(1, 2)))
    bound = 1e6 * max(1.0, sizes[0])
    assert np.all(sizes[:kept] <= bound)
    assert sizes[kept] > bound


def test_the_definition():
    def ends(loss, square, factor=1e6):
        watch = Divergence(factor)
        return [bool(watch.at(*sizes)) for sizes in zip(loss, square, strict=True)]

    assert ends([0.5, 1e6, 1.1e6], [0, 0, 0]) == [False, False, True]  # small values at step 0 count as one
    assert ends([3.0, 2.9e6, 3.1e6], [0, 0, 0]) == [False, False, True]
    assert ends([0, 0, 0], [2.0, 2e6, 2.1e6]) == [False, False, True]
    assert ends([0.5e8, 1.0, 1.0], [0, 1e8, 1e14]) == [False, False, True]  # targets of 10⁴ are no divergence
    assert ends([0.1, 5.1], [0, 0], 5.0) == [False, True]
    assert ends([np.nan], [0]) == ends([0], [np.inf]) == ends([np.inf], [0]) == [True]
    watch = Divergence(10.0)
    watch.at([1.0, 5.0], [0.0, 0.0])
    np.testing.assert_array_equal(watch.at([20.0, 20.0], [0.0, 60.0]), [True, True])
    np.testing.assert_array_equal(watch.at([2.0, 20.0], [0.0, 6.0]), [False, False])


def test_networks_of_units_are_lost_one_by_one():
    runs = train_units(wild(), hidden_width=4, depth=4, seeds=6, record_every=1)
    free = train_units(wild(divergence_factor=1e250), hidden_width=4, depth=4, seeds=6, record_every=1)
    lost = np.isnan(runs.loss)
    assert lost.any()
    assert not lost[:, 0].any()
    assert np.all(np.diff(lost, axis=1) >= 0)  # once lost, for good
    np.testing.assert_array_equal(runs.loss[~lost], free.loss[~lost])
    np.testing.assert_array_equal(np.isnan(runs.outputs).all(axis=(2, 3)), lost)


def test_a_sweep_and_a_resumed_run_tell(tmp_path):
    with ThreadPoolExecutor(1) as executor:
        rates = {"learning_rate": [0.1, 8.0]}
        found = sweep(steep(), rates, folder=tmp_path, executor=executor, particles=300, depth=2)
    assert found.data.status.values.tolist() == ["completed", "diverged"]
    kept = flds.solve_flds(steep(0.1, steps=2), particles=1500, depth=2, keep_state=True)
    path = kept.save(tmp_path / "kept.nc")
    with pytest.warns(RuntimeWarning, match="training diverged after step"):
        longer = flds.resume(flds.load(path), 10, learning_rate=8.0)
    assert longer.status == "diverged"
    assert np.isfinite(longer.loss).all()


@pytest.mark.filterwarnings("ignore:training diverged")
def test_a_resumed_run_compares_with_step_0():
    """With a factor between the growth up to step 2 and up to step 3, it ends where one long run does."""
    free = RUNS["lazy"](divergence_factor=1e250)
    sizes = np.maximum(free.loss, (free.outputs**2).mean(axis=(1, 2)))
    factor = float(np.sqrt(sizes[2] * sizes[3])) / max(1.0, sizes[0])
    options = {"width": 300, "depth": 2, "record_every": 1, "operator": "lazy", "tolerance": 1e-3}
    whole = flds.simulate_resnet(steep(divergence_factor=factor), **options)
    kept = flds.simulate_resnet(steep(divergence_factor=factor, steps=2), keep_state=True, **options)
    longer = flds.resume(kept, 10)
    assert whole.status == longer.status == "diverged"
    assert len(whole.steps) == 3
    np.testing.assert_array_equal(longer.loss, whole.loss)


def test_an_old_state_without_sizes_still_goes_on():
    kept = flds.solve_flds(three_samples(), particles=300, depth=2, keep_state=True)
    del kept.groups["state_0"]["initial_sizes"]
    assert flds.resume(kept, 2).status == "completed"


@pytest.mark.parametrize("kind", ["training", "mean_ode"])
def test_complete_replicates_keep_their_means_and_errors(kind):
    """Each replicate alone, by its seed, says which are complete; with a factor that some of them exceed."""

    def solve(replicates, seed=0, **rest):
        if kind == "training":
            problem = three_samples("relu", steps=4, **rest)
            return flds.simulate_resnet(problem, width=30, depth=2, replicates=replicates, seed=seed)
        return flds.solve_mean_ode(wild(steps=3, **rest), units=16, depth=4, replicates=replicates, seed=seed)

    free = solve(8, divergence_factor=1e250)
    outputs = free.replicate_outputs
    squares = (outputs**2).mean(axis=tuple(range(2, outputs.ndim)))
    targets = [1.0, -1.0, 0.5] if kind == "training" else Y
    scale = 0.5 * len(np.atleast_2d(targets)) if kind == "training" else 0.5
    losses = scale * ((outputs - targets) ** 2).mean(axis=tuple(range(2, outputs.ndim)))
    sizes = np.maximum(squares, losses)
    ratio = (sizes / np.maximum(1, sizes[:, :1])).max(axis=1)
    factor = float(np.sort(ratio)[4])  # three replicates go further
    complete = ratio <= factor * (1 + 1e-12)
    assert complete.sum() == 5
    with pytest.warns(RuntimeWarning, match="diverged"):
        found = solve(8, divergence_factor=factor * (1 + 1e-9))
    assert found.status == "diverged"
    count = int(complete.sum())
    assert found.settings["replicates_completed"] == count
    assert f"variables are of the {count} of 8 replicates that completed; {8 - count} diverged" in "; ".join(
        found.notes
    )
    np.testing.assert_array_equal(found.replicate_outputs, outputs[complete])
    np.testing.assert_array_equal(found.outputs, outputs[complete].mean(0))
    np.testing.assert_allclose(found.outputs_standard_error, outputs[complete].std(0, ddof=1) / np.sqrt(count))
    assert "loss_standard_error" in found.variables


def test_what_is_kept_of_several_replicates():
    assert outcome(["completed"] * 3, 3) == ("completed", 0, [0, 1, 2], "")
    assert outcome(["diverged", "diverged"], 2) == (
        "diverged", 0, [0], "variables are of replicate 1, which diverged",
    )  # fmt: skip
    assert outcome(["interrupted"], 4)[3] == "variables are of replicate 1, which was interrupted"
    assert outcome(["diverged", "rank_budget"], 4)[1:] == (
        1, [1], "variables are of replicate 2, which outgrew its rank budget, or memory",
    )  # fmt: skip
    for status in ("completed", "diverged", "interrupted", "rank_budget"):
        assert outcome([status], 1) == (status, 0, [0], "")
    status, ended, kept, note = outcome(["completed", "diverged", "completed", "interrupted"], 9)
    assert (status, ended, kept) == ("interrupted", 3, [0, 2])
    assert note == "variables are of the 2 of 9 replicates that completed; 1 diverged, so means may be biased"


@pytest.mark.parametrize("kind", ["training", "mean_ode"])
@pytest.mark.parametrize("replicates", [1, 3])
def test_summaries_say_of_which_replicate_fields_are(kind, replicates):
    solve = {
        "training": lambda: flds.simulate_resnet(
            steep(divergence_factor=1.0), width=300, depth=2, replicates=replicates
        ),
        "mean_ode": lambda: flds.solve_mean_ode(wild(divergence_factor=1.0), units=16, depth=4, replicates=replicates),
    }
    with pytest.warns(RuntimeWarning, match="diverged"):
        found = solve[kind]()
    assert found.settings["replicates_completed"] == 0
    summary = found.summary()
    assert "replicates 0" not in summary
    several = replicates > 1
    assert ("none of 3 replicates completed" in summary) == several
    assert ("variables are of replicate 1, which diverged" in summary) == several
    assert ("replicates 1\n" in summary) != several


@pytest.mark.parametrize("kind", [steep, wild])
@pytest.mark.parametrize(("factor", "message"), [(0.0, "above 0"), (np.inf, "finite"), ("big", "must be a number")])
def test_bad_factors(kind, factor, message):
    with pytest.raises((ValueError, TypeError), match=f"divergence_factor must be .*{message}|{message}"):
        kind(divergence_factor=factor)


@pytest.mark.parametrize(("activation", "kernel"), [("identity", 7.8), ("tanh", 3.5), ("relu", 4.0)])
def test_training_diverges_from_about_two_over_the_tangent_kernel_on(activation, kernel):
    """The rule of the README: of one sample with |x|²/d = 1 and y = 1, stable at 0.8 and not at 1.7 times 2/K."""

    def train(rate, steps):
        problem = flds.TrainingProblem([[1.0]], [1.0], activation=activation, learning_rate=rate, steps=steps)
        return flds.solve_flds(problem, particles=2000, depth=16, threads=1)

    small = 1e-3
    first = train(small, 1).outputs[:, 0]
    found = (first[1] - first[0]) / small / (1 - first[0])
    assert found == pytest.approx(kernel, rel=0.03)  # rounded to two digits; spread of K at this N below 1 %
    assert train(0.8 * 2 / found, 20).batch_loss[-1] < 1e-6
    with pytest.warns(RuntimeWarning, match="diverged"):
        assert train(1.7 * 2 / found, 60).status == "diverged"
