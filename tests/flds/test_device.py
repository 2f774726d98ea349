"""Training on a device of torch: what threads compute, to rounding, and states that go from one to the other."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

import flds
from flds.training.method import decide
from flds.training.network import Network
from tests.conftest import one_sample, three_samples
from tests.flds import forks

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
    "bare two layers, Muon": {
        "residual": "two_layer", "hidden_ratio": 1.5, "optimizer": "muon", "learning_rate": 0.1,
    },
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


def test_a_checkpoint_goes_on_elsewhere(device, tmp_path):
    problem, options = three_samples(steps=6), {"particles": 200, "depth": 2, "dtype": "float64"}
    whole = flds.solve_flds(problem, **options)

    def stop(record):
        if record.step == 3:
            raise KeyboardInterrupt

    for first, second in ((device, None), (None, device)):
        kept = tmp_path / f"{first}.checkpoint"
        with pytest.warns(RuntimeWarning, match="interrupted"):
            flds.solve_flds(problem, checkpoint=kept, checkpoint_every=0, callback=stop, device=first, **options)
        resumed = flds.solve_flds(problem, checkpoint=kept, device=second, **options)
        assert (resumed.settings["continued_from_step"], resumed.settings["device"]) == (3, second)
        np.testing.assert_allclose(resumed.outputs, whole.outputs, rtol=0, atol=1e-9)


def test_runs_of_a_device_that_is_not_there_go_on_on_threads(tmp_path):
    problem, options = three_samples(steps=3), {"particles": 200, "depth": 2, "dtype": "float64", "keep_state": True}
    run = flds.solve_flds(problem, device="cpu", **options)
    run.settings["device"] = "cuda:99"
    stored = flds.load(run.save(tmp_path / "run.nc"))
    for again in (flds.rerun(stored), flds.resume(stored, 2)):
        assert again.settings["device"] is None
        np.testing.assert_allclose(again.outputs[:4], run.outputs, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match=r"^device 'cuda:99' is not there"):
        flds.resume(stored, 2, device="cuda:99")


@pytest.mark.parametrize("name", ["momentum, decay, clipping", "RMSNorm", "Newton–Schulz"])
def test_no_rows_of_particles_leave_the_device_within_a_step(name, device, monkeypatch, steady_speed):
    """Nor are they made on the host: what goes to or from it is smaller than one vector."""
    from solvers.ensemble.device.particles import TorchParticles

    particles, moved = 5000, []
    for method in ("cpu", "numpy", "tolist", "item", "__array__"):
        plain = getattr(torch.Tensor, method)
        monkeypatch.setattr(
            torch.Tensor, method, lambda self, *rest, plain=plain: moved.append(self.numel()) or plain(self, *rest)
        )
    plain_tensor = torch.as_tensor
    monkeypatch.setattr(
        torch, "as_tensor", lambda values, **rest: moved.append(np.size(values)) or plain_tensor(values, **rest)
    )

    forward, begun = Network.forward, []

    def whole(self, *rest, plain):
        assert not begun, "particles went to or from the host"
        return plain(self, *rest)

    for method in ("to_host", "from_host", "from_state", "put"):
        plain = getattr(TorchParticles, method)
        monkeypatch.setattr(TorchParticles, method, lambda self, *rest, plain=plain: whole(self, *rest, plain=plain))

    def begin(*rest, **named):
        if not begun:
            moved.clear()
        begun.append(True)
        return forward(*rest, **named)

    monkeypatch.setattr(Network, "forward", begin)
    problem = replace(three_samples(steps=4, **TESTS), **CASES[name])
    monkeypatch.setattr("flds.training.options.check_elementwise", lambda *rest: None)  # before the run
    run = flds.solve_flds(problem, particles=particles, depth=2, device=device, record_kernels=True)
    assert run.status == "completed"
    assert len(begun) > 5
    assert len(moved) > 100
    assert 0 < max(moved) < particles


def test_estimates_of_the_limit(device):
    problem, options = three_samples(steps=2), {"particles": 300, "depth": 2, "replicates": 3, "budget_seconds": 1e-3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        one, other = (
            flds.estimate_limit(problem, **options, **there) for there in ({"threads": 2}, {"device": device})
        )
    np.testing.assert_allclose(other.outputs, one.outputs, rtol=0, atol=1e-5)  # float32
    np.testing.assert_allclose(other.outputs_half_width, one.outputs_half_width, rtol=0, atol=1e-4)
    assert (one.settings["device"], other.settings["device"]) == (None, device)
    with pytest.raises(ValueError, match=r"^device and threads exclude each other"):
        flds.estimate_limit(problem, device=device, threads=2)


@pytest.fixture
def imagined_card(monkeypatch, steady_speed):
    """A device with 2 GB, as far as plans go."""
    monkeypatch.setattr("flds.training.options.check_device", lambda device, *rest: device)
    monkeypatch.setattr("flds.training.options.check_elementwise", lambda *rest: None)
    monkeypatch.setattr("flds.training.method.memory_of_device", lambda device: 2e9 if device else np.inf)


def test_memory_of_a_device_is_estimated_and_bounds_ranks(imagined_card):
    problem, options = three_samples(steps=200), {"particles": 200_000, "depth": 8, "sampling": "law"}
    here, there = flds.estimate_cost(problem, **options), flds.estimate_cost(problem, device="cuda", **options)
    assert (here.device_memory, here.device_available) == (0.0, np.inf)
    bases = 2 * sum(there.rank) * 8 * 200_000 * 8  # directions and images of all layers, in float64
    assert bases < there.device_memory < 1.5 * bases + 1e9
    assert there.memory < 1e9 < here.memory
    assert not there.fits
    assert "on the device " in str(there)
    assert "more than the 2 GB available" in str(there)
    message = r"^this run needs [\d.]+ GB on device 'cuda' and 2 GB are available; lower particles, depth, rank_budget"
    with pytest.raises(MemoryError, match=message):
        flds.solve_flds(problem, device="cuda", **options)
    fits = decide(one_sample(steps=10_000), 10_000, 8, "law", {"operator": "lazy", "device": "cuda"})
    assert 100 < fits.settings.rank_budget[0] < 1000  # 4 vectors of 80 kB for each direction in each layer
    assert 0.7 * 2e9 < 4 * 8 * 8e4 * fits.settings.rank_budget[0] < 0.9 * 2e9


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason=f"torch {torch.__version__} finds no CUDA device")
def test_memory_of_a_card_is_that_predicted():
    problem = three_samples(steps=20)
    for dtype in ("float32", "float64"):
        options = {"particles": 500_000, "depth": 4, "dtype": dtype, "device": "cuda", "sampling": "law"}
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        run = flds.solve_flds(problem, **options)
        peak = torch.cuda.max_memory_allocated()
        predicted = flds.estimate_cost(problem, **options | {"rank_budget": run.rank.max(axis=0)}).device_memory
        assert abs(predicted - peak) < 0.3 * peak


@pytest.mark.parametrize(
    "error", [torch.cuda.OutOfMemoryError("CUDA out of memory."), RuntimeError("no: can't allocate memory")]
)
def test_a_device_that_runs_out_of_memory_ends_a_run_with_its_records(error, device, monkeypatch):
    from solvers.ensemble.device import particles as home

    fill = home.fill_normals

    def full(out, draw):
        if draw.step == 3:
            raise error
        fill(out, draw)

    monkeypatch.setattr(home, "fill_normals", full)
    options = {"particles": 200, "depth": 2, "device": device, "keep_state": True}
    with pytest.warns(RuntimeWarning, match="outgrew rank_budget .*, or memory, after step"):
        run = flds.solve_flds(three_samples(steps=6), **options)
    assert run.status == "rank_budget"
    assert len(run.outputs) == 3
    monkeypatch.setattr(home, "fill_normals", fill)
    whole = flds.solve_flds(three_samples(steps=6), **options)
    np.testing.assert_allclose(flds.resume(run).outputs, whole.outputs, rtol=0, atol=1e-6)


def test_other_errors_are_not_taken_for_a_lack_of_memory(device, monkeypatch):
    from solvers.ensemble.device import particles as home

    def broken(out, draw):
        raise RuntimeError("something else")

    monkeypatch.setattr(home, "fill_normals", broken)
    with pytest.raises(RuntimeError, match=r"^something else$"):
        flds.solve_flds(three_samples(steps=2), particles=200, depth=2, device=device)


def test_commands_take_a_device(device, tmp_path):
    small = ["--particles", 300, "--depth", 2, "--steps", 2, "--train-samples", 20, "--test-samples", 5,
             "--batch-size", 4, "--dtype", "float64", "--keep-state"]  # fmt: skip
    done = forks.run("solve", *small, "--device", device, "--out", "there.nc", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f", on {device}" in done.stdout
    assert forks.run("solve", *small, "--quiet", "--out", "here.nc", cwd=tmp_path).returncode == 0
    there, here = flds.load(tmp_path / "there.nc"), flds.load(tmp_path / "here.nc")
    np.testing.assert_allclose(there.outputs, here.outputs, rtol=0, atol=1e-9)
    more = ("resume", "here.nc", "--steps", 1, "--device", device, "--quiet", "--out", "more.nc")
    assert forks.run(*more, cwd=tmp_path).returncode == 0
    assert flds.load(tmp_path / "more.nc").settings["device"] == device
    for wrong, said in (
        (["--device", "cuda:99"], "device 'cuda:99' is not there: torch"),
        (["--device", device, "--threads", 2], "device and threads exclude each other: leave out threads, or device"),
        (["--device", device, "--mpi"], "--device keeps the particles in one process; leave out --device or --mpi"),
    ):
        done = forks.run("solve", *small, *wrong, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_functions_of_ones_own_are_made_of_numpy(device):
    own = flds.Activation(lambda x: np.tanh(x) + 0.1 * x, lambda x: 1.1 - np.tanh(x) ** 2, name="own")
    one, other = both(three_samples(steps=3, activation=own), device)
    np.testing.assert_allclose(other.outputs, one.outputs, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("problem", "options", "error", "message"),
    [
        ({}, {"device": "gpu"}, ValueError, '^device must be "cuda", "cuda:NUMBER" or "cpu", got \'gpu\'$'),
        ({}, {"device": "cuda:"}, ValueError, "^device must be "),
        ({}, {"device": "cpu:0"}, ValueError, "^device must be "),
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
