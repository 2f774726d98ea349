"""Training on a device of torch: what threads compute, to rounding, and states that go from one to the other."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

import flds
from tests.conftest import three_samples

torch = pytest.importorskip("torch")
from validation.law import law_of  # noqa: E402

ADAM = flds.Adam(betas=(0.9, 0.95), epsilon=1e-3)
TESTS = {"test_inputs": np.eye(5)[:2], "test_targets": [0.0, 1.0]}
# What is trained, and whether matrices must be held whole.
CASES = {
    **{name: {"activation": name} for name in ("identity", "relu", "gelu", "erf", "softplus", "silu", "sin")},
    "minibatches": {"batch_size": 2},
    "momentum, decay, clipping": {
        "optimizer": flds.SGD(momentum=0.9), "learning_rate": 0.1, "weight_decay": 0.1, "gradient_clip": 1.0,
    },
    "Nesterov": {"optimizer": flds.SGD(momentum=0.8, nesterov=True), "learning_rate": 0.2},
    "Newton–Schulz": {"optimizer": "muon", "learning_rate": 0.1},
    "polar": {"optimizer": flds.Muon(orthogonalization="polar"), "learning_rate": 0.1},
    "Adam of vectors": {"optimizer": {"input": ADAM, "readout": ADAM}, "learning_rate": {"input": 0.1, "readout": 0.1}},
    "Adam of matrices": {"optimizer": ADAM, "learning_rate": 0.05},
    "RMSNorm": {"residual": "two_layer", "hidden_ratio": 0.5, "normalization": "rms_norm", "gain": True, "bias": True},
    "LayerNorm, exponent 1": {
        "residual": "two_layer", "hidden_ratio": 2.0, "normalization": "layer_norm", "gain": True, "bias": True,
        "branch_exponent": 1.0,
    },
    "bare two layers, Muon": {"residual": "two_layer", "optimizer": "muon", "learning_rate": 0.1},
}  # fmt: skip
WAYS = [("lazy", "law"), ("lazy", "matched"), ("dense", "law")]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} finds no CUDA device")
    return request.param


def both(problem, device, particles=120, depth=2, **options):
    """Train on threads and on a device."""
    options = {"dtype": "float64", "seed": 3} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where there is no room to match noise
        return [
            flds.solve_flds(problem, particles=particles, depth=depth, **options, **there)
            for there in ({"threads": 2}, {"device": device})
        ]


INDEPENDENT = ("minibatches", "momentum, decay, clipping", "Newton–Schulz", "Adam of vectors", "RMSNorm", "relu")


@pytest.mark.parametrize(
    ("name", "weights"), [(name, "tied") for name in CASES] + [(name, "independent") for name in INDEPENDENT]
)
def test_ten_steps_are_those_of_threads(name, weights, device):
    problem = replace(three_samples(steps=10, **TESTS), **CASES[name])
    for operator, sampling in WAYS:
        if name == "Adam of matrices" and operator == "lazy":
            continue
        one, other = both(problem, device, operator=operator, sampling=sampling, backward_weights=weights)
        np.testing.assert_allclose(other.outputs, one.outputs, rtol=0, atol=1e-9)
        np.testing.assert_allclose(other.test_outputs, one.test_outputs, rtol=0, atol=1e-9)
        np.testing.assert_allclose(other.gradient_variance, one.gradient_variance, rtol=1e-8)
        assert np.array_equal(other.rank, one.rank)


def test_matched_noise_of_everything_and_kernels(device, classes):
    problem = three_samples("identity", steps=3)
    one, other = both(problem, device, particles=600, sampling="matched_all")
    np.testing.assert_allclose(other.outputs, one.outputs, rtol=0, atol=1e-9)
    one, other = both(classes, device, record_kernels=True, noise_depth=6, replicates=2)
    for name in ("outputs", "outputs_standard_error", "feature_kernel", "gradient_kernel", "test_feature_kernel"):
        np.testing.assert_allclose(other.variables[name].values, one.variables[name].values, rtol=0, atol=1e-9)
    assert other.settings["device"] == device
    assert f", on {device}" in other.summary()


def test_single_precision_rounds_as_that_of_threads(device):
    """Against float64 over six seeds: no bias, a twentieth of their spread; what threads round otherwise is less."""
    problem, seeds = three_samples(steps=10), range(6)
    exact = np.array([flds.solve_flds(problem, particles=400, depth=2, dtype="float64", seed=s).outputs for s in seeds])
    runs = [both(problem, device, particles=400, dtype="float32", seed=seed) for seed in seeds]
    threads, found = (np.array([run.outputs for run in kind]) for kind in zip(*runs, strict=True))
    off, spread = (found - exact)[:, -1], exact[:, -1].std(axis=0, ddof=1).max()
    assert 0 < np.sqrt(np.mean(off**2)) < 0.05 * spread
    assert np.all(np.abs(off.mean(axis=0)) < 4 * off.std(axis=0, ddof=1) / len(seeds) ** 0.5)
    assert np.abs(found - threads).max() < 1e-5


def test_the_law_of_a_network_is_that_of_dense_ones(device, monkeypatch):
    simulate = flds.simulate_resnet
    monkeypatch.setattr(
        flds, "simulate_resnet", lambda problem, *, threads, **rest: simulate(problem, device=device, **rest)
    )
    assert law_of("SGD", {"steps": 3}, range(100)).verdict != "refuted"
    fill = "solvers.ensemble.device.particles.fill_normals"
    monkeypatch.setattr(fill, lambda out, draw: out.normal_(0, 1.3))
    assert law_of("SGD", {"steps": 3}, range(100)).verdict == "refuted"


@pytest.mark.parametrize("operator", ["lazy", "dense"])
@pytest.mark.parametrize("name", ["momentum, decay, clipping", "RMSNorm", "Adam of vectors"])
def test_a_state_goes_on_elsewhere(name, operator, device, tmp_path):
    problem = replace(three_samples(steps=6, **TESTS), **CASES[name])
    options = {"particles": 200, "depth": 2, "operator": operator, "dtype": "float64", "keep_state": True}
    options["sampling"] = "matched" if operator == "lazy" else "law"
    whole = flds.solve_flds(problem, **options)
    half = replace(problem, steps=3)
    here, there = flds.solve_flds(half, **options), flds.solve_flds(half, device=device, **options)
    stored = flds.load(there.save(tmp_path / "half.nc"))
    for run, place in ((here, device), (there, None), (there, device), (stored, None)):
        resumed = flds.resume(run, 3, device=place)
        np.testing.assert_allclose(resumed.outputs, whole.outputs, rtol=0, atol=1e-9)
        assert resumed.settings["device"] == place
    x = np.ones((2, 5))
    np.testing.assert_allclose(there.predict(x), here.predict(x), rtol=0, atol=1e-9)
    np.testing.assert_allclose(stored.predict(x), there.predict(x), rtol=0, atol=1e-12)


def test_a_run_that_stopped_goes_on_from_its_checkpoint(device, tmp_path):
    problem, kept = three_samples(steps=6), tmp_path / "run.checkpoint"
    options = {"particles": 200, "depth": 2, "device": device, "dtype": "float64"}
    whole = flds.solve_flds(problem, **options)

    def stop(record):
        if record.step == 3:
            raise KeyboardInterrupt

    with pytest.warns(RuntimeWarning, match="interrupted"):
        flds.solve_flds(problem, checkpoint=kept, checkpoint_every=0, callback=stop, **options)
    assert kept.exists()
    resumed = flds.solve_flds(problem, checkpoint=kept, **options)
    np.testing.assert_allclose(resumed.outputs, whole.outputs, rtol=0, atol=1e-12)


def test_functions_of_ones_own_are_made_of_numpy(device):
    own = flds.Activation(lambda x: np.tanh(x) + 0.1 * x, lambda x: 1.1 - np.tanh(x) ** 2, name="own")
    one, other = both(three_samples(steps=3, activation=own), device)
    np.testing.assert_allclose(other.outputs, one.outputs, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("problem", "options", "error", "message"),
    [
        ({}, {"device": "gpu"}, ValueError, '^device must be "cuda", "cuda:NUMBER" or "cpu", got \'gpu\'$'),
        ({}, {"device": "cuda:"}, ValueError, "^device must be "),
        ({}, {"device": 1}, TypeError, '^device must be a string such as "cuda" or "cpu", got 1$'),
        ({}, {"device": "cuda:99"}, ValueError, r"^device 'cuda:99' is not there: torch .* finds \d+ CUDA devices$"),
        ({}, {"device": "cpu", "threads": 2}, ValueError, "^device and threads exclude each other: leave out threads"),
        (
            {"activation": flds.Activation(lambda x: np.cumsum(x * 0.0) + x, lambda x: np.ones_like(x), name="sum")},
            {"device": "cpu"}, TypeError, "^activation 'sum' has no form on device 'cpu', where it must be",
        ),
    ],
)  # fmt: skip
def test_bad_devices(problem, options, error, message):
    with pytest.raises(error, match=message) as found:
        flds.solve_flds(three_samples(**problem), particles=50, depth=2, **options)
    assert "\n" not in str(found.value)
