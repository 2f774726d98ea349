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

from flds.nn import GaussianLinear, gaussian, parameter_groups
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


@pytest.mark.parametrize("how", ["no_grad", "eval", "inference"])
def test_a_pass_that_is_not_trained_on_changes_nothing(how):
    one = layer()
    one(rows()).square().sum().backward()
    before, x = state(one), rows(7, seed=1, requires_grad=False)
    if how == "eval":
        one.eval()
    without = {"no_grad": torch.no_grad, "inference": torch.inference_mode}.get(how, nullcontext)
    with without():
        y, again, part = (one(given).clone() for given in (x, x, x[:3]))
    assert state(one) == before
    assert torch.equal(y, again)
    torch.testing.assert_close(part, y[:3], rtol=0, atol=1e-12)  # a row's noise is its own
    one.train()
    one(rows(2, seed=3)).square().sum().backward()
    one.eval()
    near = one(x[:1])  # what is new of it, 34 of 40 parts, has the noise that it had
    assert torch.nn.functional.cosine_similarity(near, y[:1]) > 0.9


def cosine(one, other):
    return torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0).abs().item()


@pytest.mark.parametrize("how", ["eval", "no_grad", "frozen"])
def test_different_rows_have_independent_images(how):
    """In passes apart, of one layer twice in a row, and of gradients one by one; 1,000 particles scatter by 0.03."""
    one = layer(1000, 1000, bias=False)
    one = one.eval().requires_grad_(False) if how == "eval" else one.requires_grad_(how != "frozen")
    x, z = rows(1, 1000, requires_grad=how == "eval"), rows(1, 1000, seed=1, requires_grad=False)
    with torch.set_grad_enabled(how != "no_grad"):
        y = one(x)
        assert max(cosine(y, one(z)), cosine(one(y), y), cosine(one(one(y)), y)) < 0.15
        if how == "eval":
            pulled = [torch.autograd.grad(y[0, place], x, retain_graph=True)[0] for place in (0, 1)]
            assert cosine(*pulled) < 0.15
    assert one.used == ((0, 0) if how != "frozen" else (4, 0))  # frozen layers remember what they have shown


def test_a_frozen_layer_is_one_matrix():
    one, x = layer().requires_grad_(False), rows(6, requires_grad=False)
    parts = [one(part) for part in x.split(2)]
    torch.testing.assert_close(torch.cat(parts), one(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(one(x[[3, 1]]), torch.cat(parts)[[3, 1]], rtol=0, atol=1e-12)


def test_gradients_of_a_pass_in_eval_are_its_own_and_are_forgotten():
    one = layer().eval().requires_grad_(False)
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
    assert one.eval().requires_grad_(False)(rows(20)).sum().backward() is None


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


def test_a_state_is_tensors_that_are_kept_by_copies():
    _, network, loss = pair("two layers, ratio 0.5")
    train(network, "SGD", loss, 2)
    state = {name: one.clone() for name, one in network.state_dict().items()}
    here = train(network, "SGD", loss, 2)
    assert network.load_state_dict(state).missing_keys == []
    assert torch.equal(train(network, "SGD", loss, 2), here)
    with pytest.raises(RuntimeError, match="Missing key"):
        network.load_state_dict({})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        network.load_state_dict(state | {"other": torch.zeros(1)})


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


def test_activations_may_be_computed_anew():
    """`torch.utils.checkpoint` calls a layer twice; where the first is without gradients it is refused."""
    _, plain, loss = pair("biases")
    _, saving, _ = pair("biases")
    layers = saving.layers.forward
    saving.layers.forward = lambda x: checkpoint(layers, x, use_reentrant=False)
    torch.testing.assert_close(train(saving, "SGD", loss, 3), train(plain, "SGD", loss, 3), rtol=0, atol=1e-11)
    with pytest.raises(RuntimeError, match="has no form in a reentrant checkpoint: give use_reentrant=False"):
        checkpoint(layer(), rows(), use_reentrant=True)


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
    torch.autograd.grad(layer()(x).sum(), x, create_graph=True)


def trained_in_eval():
    layer().eval()(rows()).square().sum().backward()


def loaded_from_another_width():
    layer(rank=8).load_state_dict(layer(50, 30, rank=8).state_dict())


def loaded_without(name):
    state = {key: one.clone() for key, one in layer().state_dict().items() if key != name}
    layer().load_state_dict(state, strict=False)


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
        (lambda: layer()(rows() / 0), ValueError, r"^inputs must be finite, and below 1e\+151 in float64, at Gaussian"),
        (lambda: layer()(rows() * torch.nan), ValueError, "^inputs must be finite"),
        (
            lambda: layer().float()(rows().float() * 1e17),
            ValueError,
            r"^inputs must be finite, and below 2e\+16 in float32",
        ),
        (in_autocast, RuntimeError, "^GaussianLinear has no form in autocast"),
        (twice_differentiated, RuntimeError, "has no second derivatives: leave out create_graph$"),
        (trained_in_eval, RuntimeError, "has no gradient by its weights in eval mode: train in training mode"),
        (loaded_from_another_width, ValueError, r"^the state must be that of GaussianLinear\(40, 30\) with tied=True"),
        (lambda: gaussian(8, seed=1), ValueError, "^seed would give all layers the same noise"),
        (initialised, RuntimeError, r"^learned of GaussianLinear\(40, 30\) has entries where nothing was revealed"),
        (lambda: loaded_without("feature_images"), ValueError, r"^the state of GaussianLinear\(40, 30\) must hold lea"),
        (lambda: loaded_without("learned"), ValueError, r"^the state of GaussianLinear\(40, 30\) must hold learned"),
        (lambda: layer().to("meta"), ValueError, "^GaussianLinear cannot be on the device meta"),
        (lambda: layer()([1.0, 2.0]), TypeError, r"^inputs must be a tensor, got \[1.0, 2.0\]$"),
        (diverged, RuntimeError, r"^gradients at GaussianLinear\(40, 30\) must be finite"),
        (changed_between, RuntimeError, "modified by an inplace operation"),
        (layer()._replicate_for_data_parallel, RuntimeError, "^GaussianLinear has no form in DataParallel"),
        (lambda: layer().decay_weights(float("nan")), ValueError, "^factor must be "),
        (lambda: layer().decay_weights(0.0), ValueError, "^factor must be "),
    ],
)
def test_bad_input(work, error, message):
    with pytest.raises(error, match=message) as found:
        work()
    assert "\n" not in str(found.value) or "inplace" in message


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
