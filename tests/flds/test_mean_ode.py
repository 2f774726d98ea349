"""The Mean ODE and the tangent ODE against exact answers, each other and their own refinement."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.special import gammaincinv

import flds
from flds.mean_ode.depth import integrate
from flds.mean_ode.draws import draw_units
from flds.mean_ode.network import MeanDynamics, TangentDynamics
from flds.mean_ode.options import MeanSettings
from flds.mean_ode.train import train
from validation.linear_units import linear_mean_ode

GENERATOR = np.random.default_rng(3)
X, Y = GENERATOR.normal(size=(5, 4)), GENERATOR.normal(size=(5, 4))
TOKENS = GENERATOR.normal(size=(3, 4, 5))
MARGIN = 4.0


def problem(**options):
    return flds.MeanFieldProblem(X, Y, **({"steps": 5} | options))


def skewed(p):
    """Quantiles of (G − 2)/√2 with G of the gamma law of shape 2: mean 0, variance 1, not symmetric."""
    return (gammaincinv(2.0, p) - 2) / np.sqrt(2)


def rms(x):
    return float(np.sqrt(np.mean(np.square(x))))


@pytest.mark.parametrize("block", ["two_layer_perceptron", "gated_linear_unit", "matrix_after_activation",
                                   "matrix_before_activation"])  # fmt: skip
def test_the_untrained_limit_is_the_identity(block):
    solution = flds.solve_mean_ode(problem(block=block, steps=0), units=64, depth=4)
    assert np.max(np.abs(solution.outputs[0] - X)) < 1e-13  # pairs of opposite units cancel to rounding


def test_draws_are_those_of_the_law():
    p = problem(sigma_v=3.0, initial_laws={"v": skewed})
    for sampling, error in (("iid", 1.0), ("sobol", 0.2)):  # Sobol points do far better than independent ones
        u, v = (draw_units(p, 4, 2048, 0, sampling)[0][name] for name in "uv")
        count = u[:, 0].size
        assert u.shape == (4, 4, 2048)
        assert np.max(np.abs(u.mean(axis=(0, 2)))) < MARGIN * error * 2 / np.sqrt(count)
        assert np.max(np.abs(v.var(axis=(0, 2)) - 9)) < MARGIN * error * 9 * np.sqrt(5 / count)  # kurtosis 6
        third = np.mean((v / 3) ** 3)
        assert abs(third - np.sqrt(2)) < MARGIN * error * np.sqrt(30 / v.size) + 0.02


def test_perceptrons_that_are_linear_follow_their_exact_moments():
    p = problem(activation="identity", steps=20, sigma_v=1.5)
    exact = linear_mean_ode(p, depth=128)
    assert rms(exact - linear_mean_ode(p, depth=64)) < 1e-5  # fourth order: sixteen times the error of `exact`
    solution = flds.solve_mean_ode(p, units=4000, depth=32, sampling="iid", replicates=6)
    z = (solution.outputs - exact)[[1, 5, 20]] / solution.outputs_standard_error[[1, 5, 20]]
    # errors are estimated from six replicates: z has Student's law with 5 degrees of freedom
    assert np.max(np.abs(z)) < 9
    assert rms(z) < 1.8
    even = flds.solve_mean_ode(p, units=4096, depth=32)
    assert rms(even.outputs - exact) < 0.2 * rms(solution.outputs_standard_error[1:])


def test_the_error_in_depth_is_of_order_three():
    p = problem(activation="identity", steps=6)
    exact = linear_mean_ode(p, depth=128)[-1]
    # sixteen units whose first and second moments are exact
    eye = 2 * np.sqrt(8) * np.concatenate([np.eye(8), -np.eye(8)], axis=1)
    initial = [{"u": eye[None, :4], "v": eye[None, 4:]}]
    errors = []
    for depth in (8, 16, 32):
        same = [{name: np.repeat(a, depth + 1, axis=0) for name, a in z.items()} for z in initial]
        settings = MeanSettings(16, depth)
        errors.append(rms(train(MeanDynamics(p, same), settings).records[-1].outputs - exact))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert orders[-1] > 2.6  # three, up to the next order at these steps
    assert errors[-1] < 1e-4


def test_the_field_is_evaluated_once_at_each_node_in_order():
    seen = []
    end = integrate(np.ones(1), lambda node, x: (seen.append(node), x)[1], 64)
    assert seen == list(range(65))
    assert abs(end[0] - np.e) < 1e-5  # third order, e/24 64^-3 and the first step


def run(kind, p, initial, depth):
    dynamics = kind(p, initial)
    units = initial[0]["u"].shape[-1]
    records = train(dynamics, MeanSettings(units, depth)).records
    return dynamics, np.array([record.outputs for record in records])


def product(initial, count=16):
    """Every u with every v, and the mean of v exactly zero: E v ρ(u·h) = 0 without symmetry."""
    u, v = (initial[0][name][..., :count] for name in "uv")
    v = v - v.mean(axis=-1, keepdims=True)
    return [{"u": np.repeat(u, count, axis=-1), "v": np.tile(v, count)}]


@pytest.mark.parametrize(("activation", "laws", "rate"), [("tanh", {}, 2.0), ("silu", {"v": skewed}, 1.0)])
def test_the_tangent_ode_is_the_limit_of_large_alpha(activation, laws, rate):
    depth, options = 4, {"learning_rates": 2.0, "activation": activation, "initial_laws": laws}
    initial = draw_units(problem(**options), depth + 1, 256, 0, "sobol")
    initial = product(initial) if laws else initial
    tangent, expected = run(TangentDynamics, problem(steps=3, **options), initial, depth)
    first = run(TangentDynamics, problem(steps=1, **options), initial, depth)[0].moved[0]["u"]
    outputs, units = [], []
    for alpha in (8.0, 16.0, 32.0):
        mean, found = run(MeanDynamics, problem(steps=3, alpha=alpha, **options), initial, depth)
        outputs.append(rms(found[-1] - expected[-1]))
        units.append(rms(alpha * (mean.moved[0]["u"] - initial[0]["u"]) - tangent.moved[0]["u"]))
        once = run(MeanDynamics, problem(steps=1, alpha=alpha, **options), initial, depth)[0].moved[0]["u"]
        assert rms(alpha * (once - initial[0]["u"]) - first) < 1e-10 * alpha * rms(first)  # exact for every α
    # the next order in 1/α moves a slope by about 1/α of the middle
    for errors, expected_rate in ((outputs, rate), (units, 1.0)):
        slopes = np.log2(np.array(errors[:-1]) / errors[1:])
        assert np.all(np.abs(slopes - expected_rate) < 0.3)


def test_blocks_that_are_linear_have_one_dynamics_at_every_alpha():
    solved = [
        flds.solve_mean_ode(problem(block="matrix_after_activation", alpha=alpha), units=64, depth=8).outputs
        for alpha in (0.5, 4.0)
    ]
    tangent = flds.solve_tangent_ode(problem(block="matrix_after_activation"), units=64, depth=8).outputs
    assert np.max(np.abs(solved[0] - tangent)) < 1e-12
    assert np.max(np.abs(solved[1] - tangent)) < 1e-12


def test_threads_do_not_change_a_bit_and_refinement_converges():
    base = {"units": 3000, "depth": 4}
    one, two = (flds.solve_mean_ode(problem(), threads=t, **base).outputs for t in (1, 2))
    assert np.array_equal(one, two)
    single = flds.solve_mean_ode(problem(), dtype="float32", **base).outputs
    assert 0 < np.max(np.abs(single - one)) < 1e-4  # float32 rounding over some thousand sums


def test_replicates_and_depth_error_are_reported():
    p = problem(steps=20)
    solution = flds.solve_mean_ode(p, units=512, depth=8, replicates=3, depth_error=True, record_every=10)
    assert list(solution.steps) == [0, 10, 20]
    assert solution.outputs.shape == solution.outputs_standard_error.shape == (3, 5, 4)
    assert solution.travel_u.shape == (3, 9)
    assert np.all(solution.outputs_depth_error[0] < 1e-12)
    assert 0 < solution.outputs_depth_error.max() < 0.05


def test_test_data_see_the_trained_limit_and_do_not_train():
    alone = flds.solve_mean_ode(problem(), units=256, depth=4)
    tested = flds.solve_mean_ode(problem(test_inputs=X[:2], test_targets=Y[:2]), units=256, depth=4)
    assert np.array_equal(alone.outputs, tested.outputs)
    assert np.allclose(tested.test_outputs, tested.outputs[:, :2], atol=1e-13)
    assert tested.test_loss.shape == (6,)


def test_transformers_learn_the_next_token():
    generator = np.random.default_rng(0)
    start = generator.integers(0, 6, size=(12, 1))
    tokens = (start + np.arange(7)) % 6  # the next token is one more
    dimension = 12
    p = flds.MeanFieldProblem(
        tokens[:, :-1], tokens[:, 1:], block=(flds.TwoLayerPerceptron(), flds.Attention(2, causal=True)),
        loss="cross_entropy", steps=60, embedding=generator.normal(size=(6, dimension)),
        unembedding=generator.normal(size=(dimension, 6)) / dimension,
        learning_rates={"u": 5, "v": 5, "W_Q": 0.05, "W_K": 0.05, "W_V": 0.05, "W_O": 5},
    )  # fmt: skip
    solution = flds.solve_mean_ode(p, units=64, depth=4, record_every=20)
    assert solution.outputs.shape == (4, 12, 6, 6)
    assert solution.loss[0] > 1.5  # log 6 = 1.79 for no knowledge
    assert solution.loss[-1] < 0.05
    assert solution.accuracy[-1] == 1.0
    # a causal head cannot see later tokens
    h = generator.normal(size=(1, 4, dimension))
    changed = h.copy()
    changed[0, -1] += 1
    z = {name: a[0] for name, a in draw_units(p, 1, 8, 0, "iid")[1].items()}
    first, second = (p.blocks[1].value(states, z) for states in (h, changed))
    assert np.array_equal(first[0, :-1], second[0, :-1])
    assert not np.allclose(first[0, -1], second[0, -1])


def test_solutions_are_saved_and_loaded(tmp_path):
    solution = flds.solve_mean_ode(problem(), units=64, depth=4, record_features=True)
    loaded = flds.load(solution.save(tmp_path / "run.nc"))
    assert isinstance(loaded, flds.MeanFieldSolution)
    assert np.array_equal(loaded.features, solution.features)
    assert loaded.settings == solution.settings
    assert "two_layer_perceptron" in loaded.summary()
    loaded.plot(tmp_path / "run.png")
    assert (tmp_path / "run.png").stat().st_size > 5000


def test_divergence_ends_a_run_and_keeps_what_there_was():
    with pytest.warns(RuntimeWarning, match="diverged"):
        solution = flds.solve_mean_ode(problem(activation="identity", learning_rates=1e6, steps=30), units=64, depth=4)
    assert solution.status == "diverged"
    assert 0 < len(solution.steps) < 31
    assert np.all(np.isfinite(solution.outputs))


def test_followed_units_move_as_the_units_of_the_limit_do():
    p = problem(steps=4)
    initial = draw_units(p, 9, 256, 0, "sobol")
    solution = flds.solve_mean_ode(p, units=256, depth=8, record_features=True)
    dynamics, _ = run(MeanDynamics, p, initial, 8)
    followed = flds.follow_units(p, solution, initial, np.linspace(0, 1, 9))
    for name in "uv":  # at the nodes nothing is interpolated
        assert np.max(np.abs(followed[0][name][-1] - dynamics.moved[0][name])) < 1e-10
    with pytest.raises(ValueError, match="record_features=True"):
        flds.follow_units(p, flds.solve_mean_ode(p, units=64, depth=4), initial, [0.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "alpha must be a finite number above 0"),
        ({"alpha": -1.0}, "alpha must be a finite number above 0"),
        ({"block": "convolution"}, "block must be one of two_layer_perceptron, gated_linear_unit"),
        ({"block": "attention"}, r"inputs must have shape \(samples, tokens, D\)"),
        ({"block": "matrix_after_activation", "sigma_v": 1.0}, "sigma_v needs a block with a parameter 'v'"),
        ({"deviations": {"w": 1.0}}, "deviations must name parameters of the block"),
        ({"learning_rates": (1.0, 2.0, 3.0)}, "learning_rates must be a pair"),
        ({"learning_rates": -1.0}, r"learning_rates\['u'\] must not be negative, got -1"),
        ({"initial_laws": {"v": lambda p: p}}, "must have mean 0 and variance 1"),
        ({"loss": "logistic"}, "targets must be -1 or 1"),
        ({"test_inputs": X}, "test_inputs and test_targets must be given together"),
        ({"unembedding": np.ones((3, 2))}, "unembedding must have D = 4 rows"),
    ],
)  # fmt: skip
def test_bad_problems_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        problem(**options)


def test_bad_shapes_and_runs_are_refused():
    with pytest.raises(ValueError, match=r"targets must have shape \(5, 4\)"):
        flds.MeanFieldProblem(X, Y[:, :2])
    with pytest.raises(ValueError, match="must be finite"):
        flds.MeanFieldProblem(np.full((2, 3), np.nan), np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"must be tokens from 0 to 2"):
        flds.MeanFieldProblem([[0, 5]], [[0, 1]], embedding=np.ones((3, 4)), loss="cross_entropy")
    with pytest.raises(TypeError, match=r"must be a flds\.MeanFieldProblem"):
        flds.solve_mean_ode(X)
    with pytest.raises(ValueError, match="sampling must be one of sobol, iid"):
        flds.solve_mean_ode(problem(), sampling="grid")
    with pytest.raises(ValueError, match="depth must be even"):
        flds.solve_mean_ode(problem(), depth=5, depth_error=True)
    with pytest.raises(MemoryError, match="lower units or depth"):
        flds.solve_mean_ode(problem(), units=10**11)


@pytest.mark.parametrize(
    "options",
    [
        {"block": "matrix_before_activation", "activation": "softplus"},
        {"block": "matrix_before_activation", "activation": "gelu", "deviations": {"W": 1e-2}},
    ],
)
def test_the_tangent_ode_needs_centred_blocks(options):
    with pytest.raises(ValueError, match="Assumption B"):
        flds.solve_tangent_ode(problem(**options))
    flds.solve_mean_ode(problem(**options), units=8, depth=2)


def test_skewed_laws_of_mean_zero_are_centred():
    p = problem(block="two_layer_perceptron", initial_laws={"v": skewed})
    assert flds.solve_tangent_ode(p, units=64, depth=2).status == "completed"


class Shift(flds.Block):
    """φ(h, w) = w, whatever h."""

    name = "shift"
    flipped = ("w",)

    def shapes(self, dimension):
        return {"w": (dimension,)}

    def deviations(self, dimension):
        return {"w": 1.0}

    def rates(self, dimension, deviations):
        return {"w": 1.0}

    def value(self, h, z):
        return np.broadcast_to(z["w"].sum(-1), h.shape)

    def pull(self, h, b, z):
        return np.zeros_like(h), {"w": np.broadcast_to(b.sum(0)[:, None], z["w"].shape)}


def test_a_block_of_ones_own_trains():
    p = problem(block=Shift(), steps=10)
    solution = flds.solve_mean_ode(p, units=8, depth=4)
    # the shift moves towards mean(y − x) by (1 − 1/D)^k
    expected = X + (1 - (1 - 1 / 4) ** 10) * (Y - X).mean(axis=0)
    assert np.max(np.abs(solution.outputs[-1] - expected)) < 1e-12
    with pytest.raises(NotImplementedError, match="has no method tangent"):
        flds.solve_tangent_ode(p)


def test_regimes_of_the_phase_diagram():
    names = {
        sigma: flds.residual_regime(100, 100, 100, sigma_v=sigma).name for sigma in (0.0, 1.0, 10.0, 50.0, 200.0)
    }  # fmt: skip
    assert names == {0.0: "semi-complete", 1.0: "semi-complete", 10.0: "complete", 50.0: "lazy ODE",
                     200.0: "beyond the ODE"}  # fmt: skip
    regime = flds.residual_regime(100, 1000, 10, sigma_v=20.0)
    assert regime.alpha == 2.0
    assert regime.recommended_rates == (25.0, 100.0)
    assert np.isclose(regime.sampling_error, (0.3 * 20 + 0.5 + 0.4) / 100)
    assert not flds.residual_regime(100, 1000, 10).advice
    advice = " ".join(flds.residual_regime(100, 2, 10, sigma_u=100.0, learning_rates=(1.0, 1e6)).advice)
    for word in ("LM = 20", "preactivations", "η_u = 1 is small", "η_v = 1e+06 is large"):
        assert word in advice
    small = flds.residual_regime(100, 10, 5)  # σ_v = √D is beyond √(LM), and still not to be lowered
    assert small.name == "beyond the ODE"
    assert not any("features hardly move" in line for line in small.advice)
    for sigma in (1e-200, 1e200):
        assert np.isfinite(flds.residual_regime(10, 10, 10, sigma_v=sigma).recommended_rates).all()
    with pytest.raises(ValueError, match="learning_rates must be a pair"):
        flds.residual_regime(10, 10, 10, learning_rates=(1.0,))
    with pytest.raises(ValueError, match="depth must be at least 1"):
        flds.residual_regime(10, 0, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": lambda self, h, z: z["w"].sum(-1)}, "value of the block 'shift' must return the shape of h"),
        ({"pull": lambda self, h, b, z: (0 * h, {})}, "pull of the block 'shift' must return gradients of shapes"),
        ({"pull": lambda self, h, b, z: (0 * h, {"w": b.sum(0)})}, "must return gradients of shapes"),
        ({"name": ""}, "a block must have a name"),
        ({"flipped": ("v",)}, "flipped of the block 'shift' must name its parameters"),
        ({"deviations": lambda self, dimension: {"w": -1.0}}, "must be a finite number of at least 0, got -1"),
        ({"deviations": lambda self, dimension: {}}, "deviations of the block 'shift' must name its parameters w"),
        ({"rates": lambda self, dimension, d: {"w": np.nan}}, "must be a finite number of at least 0, got nan"),
        ({"shapes": lambda self, dimension: {"w": 3}}, "shapes of the block 'shift' must be a dictionary of tuples"),
    ],
)
def test_mistakes_in_a_block_come_before_work(change, message):
    with pytest.raises(ValueError, match=message):
        problem(block=type("Broken", (Shift,), change)())


def test_blocks_share_parameters_of_one_name_only_if_they_agree():
    larger = type("Larger", (Shift,), {"deviations": lambda self, dimension: {"w": 5.0}})
    with pytest.raises(ValueError, match="blocks that share the parameter 'w' must agree"):
        problem(block=[Shift(), larger()])
    assert problem(block=[Shift(), Shift()]).scales == {"w": 1.0}


def test_units_drawn_in_pairs_are_even():
    with pytest.raises(ValueError, match="units must be even"):
        flds.solve_mean_ode(problem(), units=65)
    assert flds.solve_mean_ode(problem(), units=65, depth=2, sampling="iid").status == "completed"
    for options, message in (({"sampling": "foo"}, "sampling must be"), ({"units": -4}, "units must be at least 1")):
        with pytest.raises(ValueError, match=message):
            draw_units(problem(), **({"nodes": 2, "units": 4} | options))


def test_units_that_do_not_fit_are_not_followed():
    p = problem()
    solution = flds.solve_mean_ode(p, units=16, depth=4, record_features=True)
    units = draw_units(p, 5, 2, 0, "iid")
    with pytest.raises(ValueError, match=r"'u' must have shape \(2, 4\)"):
        flds.follow_units(p, solution, units, [0.0, 0.5])
    with pytest.raises(ValueError, match="units must be a list"):
        flds.follow_units(p, solution, units[0], np.linspace(0, 1, 5))
    other = flds.MeanFieldProblem(X + 1, Y)
    with pytest.raises(ValueError, match="problem must be the one that was solved"):
        flds.follow_units(other, solution, units, np.linspace(0, 1, 5))


def interrupted(monkeypatch, after):
    """Interrupt the training at the forward pass number `after`."""
    forward, calls = MeanDynamics.forward, []

    def stop(self, *arguments):
        calls.append(0)
        if len(calls) > after:
            raise KeyboardInterrupt
        return forward(self, *arguments)

    monkeypatch.setattr(MeanDynamics, "forward", stop)


def test_interrupts_keep_what_is_complete(monkeypatch, tmp_path):
    options = {"units": 16, "depth": 4}
    whole = flds.solve_mean_ode(problem(), replicates=2, **options)
    interrupted(monkeypatch, 13)  # in the third replicate of six passes each
    with pytest.warns(RuntimeWarning, match="interrupted; the last step recorded is 5; variables are of the 2 of"):
        found = flds.solve_mean_ode(problem(), replicates=3, **options)
    assert found.status == "interrupted"
    assert np.array_equal(found.outputs, whole.outputs)
    monkeypatch.undo()
    interrupted(monkeypatch, 8)  # in the runs that estimate the error of depth
    with pytest.warns(RuntimeWarning, match="interrupted"):
        found = flds.solve_mean_ode(problem(), depth_error=True, **options)
    assert found.status == "interrupted"
    assert len(found.steps) == 6
    assert "outputs_depth_error" not in found.variables
    found.save(tmp_path / "run.nc")


def test_memory_does_not_grow_with_the_square_of_the_samples():
    generator = np.random.default_rng(0)
    peaks = []
    for samples in (500, 2000):
        x = generator.normal(size=(samples, 20))
        p = flds.MeanFieldProblem(x, x, steps=0)
        flds.solve_mean_ode(p, units=16, depth=1, threads=1)
        tracemalloc.start()
        flds.solve_mean_ode(p, units=512, depth=1, threads=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 5 * peaks[0]  # four times the samples


def test_a_growing_loss_is_noted():
    p = problem(activation="identity", learning_rates=20.0, steps=1)
    solution = flds.solve_mean_ode(p, units=64, depth=8)
    assert solution.status == "completed"
    assert "the loss grew from" in solution.notes[0]
    assert "note" in solution.summary()
