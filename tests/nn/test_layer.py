"""A Gaussian layer as a module of torch: modes, states, copies, and what it refuses."""

from __future__ import annotations

import copy
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from flds.nn import GaussianLinear, parameter_groups
from tests.nn import networks
from tests.nn.networks import NETWORKS, pair, train

ROOT = Path(__file__).parents[2]


def layer(inputs=40, outputs=30, **rest):
    return GaussianLinear(inputs, outputs, **{"dtype": torch.float64, "seed": 5} | rest)


def rows(count=4, size=40, seed=0, **rest):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, size, dtype=torch.float64, generator=generator).requires_grad_(**rest)


def state(one):
    return [one.used, one.matrix.calls, one.learned.detach().clone().sum().item()]


def test_it_takes_any_shape_and_repeats_what_it_has_shown():
    one, x = layer(), rows()
    y = one(x)
    assert y.shape == (4, 30)
    torch.testing.assert_close(one(x[:2].reshape(1, 2, 40)), y[:2].reshape(1, 2, 30), rtol=0, atol=1e-12)
    torch.testing.assert_close(one(2 * x[0] - x[1]), 2 * y[0] - y[1], rtol=0, atol=1e-12)
    assert one.used == (4, 0)
    assert one(x[:0]).shape == (0, 30)
    assert one(torch.zeros(2, 40, dtype=torch.float64)).abs().max() == 0
    assert one.used == (4, 0)
    one(x[:0]).sum().backward()
    (0.0 * one(x)).sum().backward()
    assert one.used == (4, 0)
    assert one(x[0]).shape == (30,)


def test_two_passes_before_their_gradients():
    """As one pass of all rows, whichever gradient comes first."""
    whole, parts = layer(), layer()
    x = [rows(3, seed=seed) for seed in (0, 1)]
    expected = whole(torch.cat(x))
    found = [parts(one) for one in x]
    torch.testing.assert_close(found[0], expected[:3], rtol=0, atol=1e-12)
    for one in x[::-1]:
        assert one.grad is None
    found[1].square().sum().backward()
    found[0].square().sum().backward()
    pulled = [one.grad for one in x]
    again = parts(torch.cat([one.detach() for one in x]).requires_grad_())
    inputs = torch.cat([one.detach() for one in x]).requires_grad_()
    parts(inputs).square().sum().backward()
    torch.testing.assert_close(torch.cat(pulled), inputs.grad, rtol=0, atol=1e-10)
    torch.testing.assert_close(again, torch.cat(found), rtol=0, atol=1e-12)


@pytest.mark.parametrize("how", ["no_grad", "eval", "inference", "frozen"])
def test_a_pass_that_is_not_trained_on_changes_nothing(how):
    one = layer()
    one(rows()).square().sum().backward()
    before, x = state(one), rows(7, seed=1, requires_grad=False)
    if how == "eval":
        one.eval()
    elif how == "frozen":
        one.requires_grad_(False)
    without = {"no_grad": torch.no_grad, "inference": torch.inference_mode}.get(how, nullcontext)
    with without():
        y, again, part = (one(given).clone() for given in (x, x, x[:3]))
    assert state(one) == before
    assert torch.equal(y, again)
    torch.testing.assert_close(part, y[:3], rtol=0, atol=1e-12)  # a row's noise is that of its place
    one.train().requires_grad_(True)
    torch.testing.assert_close(one(x), y, rtol=0, atol=1e-11)  # the next pass that is remembered shows the same


def test_gradients_of_a_pass_in_eval_are_its_own_and_are_forgotten():
    one = layer().eval()
    x = rows()
    y = one(x)
    before = state(one)
    (pulled,) = torch.autograd.grad(y, x, torch.ones_like(y), retain_graph=True)
    (again,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert state(one) == before == [(0, 0), 0, 0.0]
    assert torch.equal(pulled, again)
    # ⟨𝒲x, 1⟩ = ⟨x, 𝒲ᵀ1⟩ for the one matrix that the pass has shown
    torch.testing.assert_close((x.detach() * pulled).sum(1), y.detach().sum(1), rtol=0, atol=1e-11)


def test_it_needs_no_rank_where_nothing_is_remembered():
    one = layer(rank=3)
    with torch.no_grad():
        assert one(rows(20)).shape == (20, 30)
    assert one.eval()(rows(20)).sum().backward() is None


@pytest.mark.parametrize("name", ["two layers, ratio 0.5", "transformer", "biases"])
def test_a_state_goes_on_in_a_new_process(name, tmp_path):
    _, network, loss = pair(name)
    _, whole, _ = pair(name)
    expected = train(whole, "momentum", loss, 6)
    del whole
    train(network, "momentum", loss, 3)
    program = f"""
import sys, torch
from tests.nn.networks import pair, train
_, network, loss = pair({name!r}, seed=9)
network.load_state_dict(torch.load("state.pt", weights_only=True))
torch.save(train(network, "SGD", loss, 3), "more.pt")
"""
    torch.save(network.state_dict(), tmp_path / "state.pt")
    here = train(copy.deepcopy(network), "SGD", loss, 3)
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, env={"PYTHONPATH": str(ROOT)})
    # another process may have other threads, which round otherwise
    torch.testing.assert_close(torch.load(tmp_path / "more.pt"), here, rtol=0, atol=1e-11)
    torch.testing.assert_close(expected[:4], train(pair(name)[1], "momentum", loss, 3), rtol=0, atol=1e-11)


def test_states_of_another_rank_come_in_as_far_as_they_were_used():
    one, other, small = layer(rank=20), layer(rank=10, seed=1), layer(rank=2)
    x = rows(6)
    one(x).square().sum().backward()
    with torch.no_grad():
        one.learned.add_(one.learned.grad, alpha=-1e-3)
    other.load_state_dict(one.state_dict())
    assert torch.equal(other(x), one(x))
    assert other.learned.shape == (10, 10)
    with pytest.raises(RuntimeError, match=r"has met more directions than its rank .* the state has 6 and 6"):
        small.load_state_dict(one.state_dict())


def test_copies_and_moves_keep_what_was_revealed():
    one, x = layer(), rows()
    one(x).square().sum().backward()
    twin = copy.deepcopy(one)
    later = rows(3, seed=2)
    assert torch.equal(twin(later), one(later))
    single = copy.deepcopy(one).float()
    assert single(later.detach().float()).dtype == torch.float32
    torch.testing.assert_close(single(x.detach().float()).double(), one(x), rtol=0, atol=1e-5)
    assert single.double().used == one.used
    drawn = one.reset_parameters() or one(x)
    assert one.used == (4, 0)
    assert not torch.allclose(drawn, twin(x))


def test_single_precision_rounds_the_same_network():
    """Same seeds, same noise: eight steps in float32 are those in float64 to some thousand roundings of 6e-8."""
    for name in ("two layers, ratio 2.5", "transformer"):
        _, exact, loss = pair(name, tolerance=1e-4)  # by which both keep the same directions
        rounded = copy.deepcopy(exact).float()
        difference = train(rounded, "momentum", loss).double() - train(exact, "momentum", loss)
        assert 0 < difference.abs().max() < 2e-4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason=f"torch {torch.__version__} finds no CUDA device")
def test_a_card_computes_the_same(monkeypatch):
    for name in ("two layers, ratio 2.5", "transformer"):
        _, here, loss = pair(name)
        there = copy.deepcopy(here).cuda()
        expected = train(here, "momentum", loss)
        for data in ("X", "Y", "TOKENS"):
            monkeypatch.setattr(networks, data, getattr(networks, data).cuda())
        found = train(there, "momentum", loss).cpu()
        monkeypatch.undo()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_seeds_are_those_of_torch():
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(GaussianLinear(5, 5)(torch.ones(1, 5)))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("reentrant", [False, True])
def test_activations_may_be_computed_anew(reentrant):
    """`torch.utils.checkpoint` calls a layer twice, in one of its forms the first time without gradients."""
    _, plain, loss = pair("biases")
    _, saving, _ = pair("biases")
    layers = saving.layers.forward
    saving.layers.forward = lambda x: checkpoint(layers, x, use_reentrant=reentrant)
    torch.testing.assert_close(train(saving, "SGD", loss, 3), train(plain, "SGD", loss, 3), rtol=0, atol=1e-11)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # which torch looks at
def test_compiled_networks_call_it_as_it_is():
    _, network, loss = pair("biases")
    _, twin, _ = pair("biases")
    compiled = torch.compile(twin.layers, backend="eager")
    twin.forward = lambda x: compiled(x @ twin.embedding.T / 5**0.5) @ twin.readout.T / 60
    torch.testing.assert_close(train(twin, "SGD", loss, 2), train(network, "SGD", loss, 2), rtol=0, atol=1e-12)


def test_what_it_shows_of_itself():
    one = layer(rank=(7, 9))
    assert repr(one) == (
        "GaussianLinear(in_features=40, out_features=30, bias=True, rank=0 of 7 and 0 of 9, 0.000504 MB)"
    )
    one(rows(5))
    assert "rank=5 of 7 and 0 of 9" in repr(one)
    assert "tied=False" in repr(layer(tied=False))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_rank_that_does_not_suffice_is_named_with_its_layer(name):
    _, network, loss = pair(name, rank=4)
    if name == "biases":
        network.layers[2].learned = nn.Parameter(network.layers[2].learned[:4, :4].detach())
        network.layers[2].reset_parameters()
    with pytest.raises(RuntimeError, match=r"GaussianLinear\(\d+, \d+\) '[a-z.0-9]+' has met more directions") as found:
        train(network, "SGD", loss, 5)
    assert "make it with a larger rank" in str(found.value)
    assert "exceeds the budget of 4" in str(found.value)


def in_autocast():
    with torch.autocast("cpu"):
        layer()(rows())


def twice_differentiated():
    x = rows()
    (pulled,) = torch.autograd.grad(layer()(x).square().sum(), x, create_graph=True)
    pulled.sum().backward()


def initialised():
    one = layer()
    nn.init.normal_(one.learned)
    one(rows())


def diverged():
    one = layer()
    (one(rows()) * torch.inf).sum().backward()


def changed_between():
    one = layer()
    y = one(rows()).sum()
    with torch.no_grad():
        one.learned.add_(1.0)
    y.backward()


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [
        (lambda: layer(0), ValueError, "^in_features must be at least 1, got 0$"),
        (lambda: layer(4.5), TypeError, "^in_features must be "),
        (lambda: layer(rank=0), ValueError, "^rank must be at least 1, got 0$"),
        (lambda: layer(rank=(1, 2, 3)), ValueError, "^rank must be a number or a pair"),
        (lambda: layer(tolerance=1.0), ValueError, "^tolerance must be below 1"),
        (lambda: layer(tied="yes"), TypeError, "^tied must be "),
        (lambda: layer(seed=-1), ValueError, "^seed must be "),
        (lambda: layer(dtype=torch.float16), TypeError, "^GaussianLinear computes in float32 or float64, got float16$"),
        (lambda: layer().half(), TypeError, "^GaussianLinear computes in float32 or float64, got float16$"),
        (lambda: layer()(rows(2, 39)), ValueError, r"^inputs must be \(…, 40\), got \(2, 39\)$"),
        (lambda: layer()(torch.ones(40)), TypeError, "^inputs must have the type of the layer, float64, got float32$"),
        (lambda: layer()(rows() / 0), ValueError, "^inputs must be finite, got NaN or infinity$"),
        (in_autocast, RuntimeError, "^GaussianLinear has no form in autocast"),
        (twice_differentiated, RuntimeError, "differentiate twice"),
        (initialised, RuntimeError, "^learned has entries where nothing was revealed"),
        (diverged, RuntimeError, r"^gradients at GaussianLinear\(40, 30\) must be finite"),
        (changed_between, RuntimeError, "modified by an inplace operation"),
        (layer()._replicate_for_data_parallel, RuntimeError, "^GaussianLinear has no form in DataParallel"),
        (lambda: layer().decay_weights(float("nan")), ValueError, "^factor must be finite"),
    ],
)
def test_bad_input(work, error, message):
    with pytest.raises(error, match=message) as found:
        work()
    assert "\n" not in str(found.value) or "inplace" in message or "twice" in message


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(RuntimeError, match=r"^GaussianLinear works in one process"):
        layer()(rows())


def test_a_step_of_an_optimiser_leaves_what_was_not_revealed_at_zero():
    one = layer(rank=20)
    optimizer = torch.optim.SGD(parameter_groups(one, 0.1, 0.1, width=40), momentum=0.9, nesterov=True)
    for seed in range(3):
        one(rows(2, seed=seed)).square().sum().backward()
        optimizer.step()
    assert one.used == (6, 6)
    assert torch.count_nonzero(one.learned) == 36
