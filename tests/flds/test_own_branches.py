"""Branches of one's own: the page's example, what is refused, and where they go."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import flds
from flds.training.branches import SingleMatrix, TwoLayer
from tests.conftest import three_samples
from tests.flds.test_branches import BRANCHES, outputs
from tests.flds.test_branches import Network as Plain
from tests.held import HeldNetwork
from validation.branches import check_residual_branch

PAGE = (Path(flds.__file__).parents[1] / "docs" / "branches.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def gated():
    (code,) = (part.partition("```")[0] for part in PAGE.split("```python\n") if "class Gated" in part)
    names = {"np": np, "flds": flds, "x": np.eye(3), "y": np.ones(3), "__name__": __name__}
    exec(code, names)
    return names["Gated"]


@pytest.mark.parametrize("weights", ["tied", "independent"])
def test_the_page_writes_a_branch_that_is_trained(gated, weights):
    problem = three_samples(steps=6, residual=gated(), horizon=2.0, learning_rate={"hidden": 0.3})
    lazy = outputs(HeldNetwork, problem, operator="lazy", backward_weights=weights)
    dense = outputs(Plain, problem, operator="dense", backward_weights=weights)
    assert np.abs(dense - dense[0]).max() > 0.05
    np.testing.assert_allclose(lazy, dense, rtol=0, atol=1e-11)


def torch_two_layer(branch):
    """The built-in branch of two layers, in torch."""
    functional = pytest.importorskip("torch").nn.functional

    def twin(h, w, vectors):
        if branch.normalization == "rms_norm":
            h = functional.rms_norm(h, h.shape[-1:], vectors.get("gain"), 1e-6)
        elif branch.normalization == "layer_norm":
            h = functional.layer_norm(h, h.shape[-1:], vectors.get("gain"), eps=1e-6)
        a = h @ w["inner"].T + vectors.get("bias", 0.0)
        return a.tanh() @ w["outer"].T

    return twin


@pytest.mark.parametrize("name", BRANCHES)
def test_built_in_branches_are_their_own_derivatives(name):
    branch = TwoLayer(**BRANCHES[name])
    assert set(check_residual_branch(branch)) == {"h", *branch.matrices, *branch.vectors}
    assert max(check_residual_branch(branch, torch_two_layer(branch)).values()) < 1e-13
    check_residual_branch(SingleMatrix(), activation="gelu")


def test_the_checker_names_what_is_wrong(gated):
    check_residual_branch(gated())

    class Forgetful(gated):
        def backward(self, g, h, tape, layer):
            pull = super().backward(g, h, tape, layer)
            return pull._replace(gradients=pull.gradients | {"gate": 0.5 * pull.gradients["gate"]})

    with pytest.raises(ValueError, match=r"^backward of Forgetful: the gradient by 'gate' differs from .* by 5\.0e-01"):
        check_residual_branch(Forgetful())

    class Sideways(gated):
        def backward(self, g, h, tape, layer):
            pull = super().backward(g, h, tape, layer)
            return pull._replace(slope=np.full_like(h, 1.01))

    with pytest.raises(
        ValueError, match=r"^backward of Sideways: the gradient pulled back to h differs .* by 1\.0e-02"
    ):
        check_residual_branch(Sideways())
    pytest.importorskip("torch")
    with pytest.raises(ValueError, match=r"^forward of Gated differs from its twin by"):
        check_residual_branch(gated(), lambda h, w, vectors: h @ w["inner"].T @ w["outer"].T)
    for returned in (lambda h, w, vectors: h.detach().numpy(), lambda h, w, vectors: h[:, :2], lambda *_: None):
        with pytest.raises(TypeError, match=r"^the twin must return a tensor of shape \(3, 7\) that depends on its"):
            check_residual_branch(gated(), returned)
    with pytest.raises(
        TypeError, match=r"^residual must be .* an object of a subclass of flds\.ResidualBranch, got 3$"
    ):
        check_residual_branch(3)


class Sum(flds.ResidualBranch):
    """A bias in the residual space alone, beside a matrix."""

    matrices: ClassVar = {"hidden": flds.BranchMatrix()}
    vectors: ClassVar = {"shift": flds.BranchVector("residual", "bias", 0.1)}
    factor = 1.0

    def forward(self, h, layer):
        image, met = layer.multiply("hidden", h, against=h)
        layer.residual.apply(add, image, layer.vectors["shift"])
        return image, {"hidden": met}

    def backward(self, g, h, tape, layer):
        image, pulled = layer.pull("hidden", g, against=g)
        return flds.BranchPull(image, {"hidden": pulled, "shift": layer.residual.copy(g)})


def add(part, shift):
    part += shift


def test_it_is_kept_by_name_and_wanted_again(tmp_path):
    problem = three_samples(steps=3, residual=Sum())
    run = flds.solve_flds(problem, particles=300, depth=2, keep_state=True)
    assert "branches Sum" in run.summary()
    read = flds.load(run.save(tmp_path / "run.nc"))
    with pytest.raises(ValueError, match=r"^the branch Sum is not built in: give the problem= itself$"):
        flds.resume(read, 1)
    longer = flds.resume(read, 1, problem=problem)
    np.testing.assert_array_equal(longer.outputs[:4], run.outputs)

    class Other(Sum):
        def forward(self, h, layer):
            image, tape = super().forward(h, layer)
            return 2 * image, tape

    Other.__name__ = "Sum"
    with pytest.raises(ValueError, match="branch"):
        flds.resume(read, 1, problem=three_samples(steps=3, residual=Other()))


def zeroed(array, found):
    array *= 0.0
    return found


def nan(image, tape):
    return np.nan * image, tape


def keeping(self, h, layer):
    """A pass that keeps in the branch what the way back needs, where the next layer's pass writes over it."""
    self.kept = h.copy()
    return Sum.forward(self, h, layer)


def wrong(**change):
    return type("Wrong", (Sum,), change)()


@pytest.mark.parametrize(
    ("branch", "error", "message"),
    [
        (Sum, TypeError, r"^residual must be .* an object of a subclass of flds\.ResidualBranch, got <class"),
        (wrong(matrices=[1]), TypeError, r"^matrices of Wrong must be a dictionary of flds\.BranchMatrix, got \[1\]$"),
        (wrong(matrices={}), ValueError, "^Wrong must have a matrix at least$"),
        (wrong(matrices={"a_b": flds.BranchMatrix()}), ValueError, "^matrices of Wrong must have names of letters and"),
        (wrong(matrices={"hidden": flds.BranchMatrix("inside")}), ValueError, "^a space of 'hidden' of Wrong"),
        (wrong(matrices={"hidden": flds.BranchMatrix(group="input")}), ValueError, "^group of 'hidden' of Wrong must"),
        (wrong(vectors={"shift": flds.BranchVector("residual", "hidden")}), ValueError, "or one group, got 'hidd"),
        (wrong(hidden_ratio=0), ValueError, "^hidden_ratio of Wrong must be"),
        (wrong(forward=lambda self, h, layer: h), TypeError, "^forward of Wrong must return an image and a dictionary"),
        (wrong(forward=lambda self, h, layer: (h, {})), TypeError, "^the tape of Wrong must hold under 'hidden' the c"),
        (wrong(forward=lambda self, h, layer: 1 / 0), TypeError, "^forward of Wrong failed: ZeroDivisionError"),
        (wrong(forward=lambda self, h, layer: Sum.forward(self, h + h.mean(), layer)), ValueError,
         "^forward of Wrong must treat each sample alone"),
        (wrong(backward=lambda self, g, h, tape, layer: g), TypeError, r"^backward of Wrong must return a flds"),
        (wrong(backward=lambda self, g, h, tape, layer: flds.BranchPull(g, {"hidden": g})), TypeError,
         "^backward of Wrong must return gradients by hidden, shift, got hidden$"),
        (wrong(backward=lambda self, g, h, tape, layer: flds.BranchPull(g, {"hidden": g[:, :2], "shift": g})),
         TypeError, "^the gradient by 'hidden' of Wrong must be the coordinates"),
        (wrong(vectors={"weights": flds.BranchVector("residual", "bias")}), ValueError,
         "^vectors of Wrong must not be called 'weights', as arrays of a kept state are$"),
        (wrong(forward=lambda self, h, layer: zeroed(h, Sum.forward(self, h, layer))), ValueError,
         "^forward of Wrong must not change h, which other layers read; work on a new array$"),
        (wrong(backward=lambda self, g, h, tape, layer: zeroed(g, Sum.backward(self, g, h, tape, layer))), ValueError,
         "^backward of Wrong must not change g, which other layers read"),
        (wrong(forward=lambda self, h, layer: nan(*Sum.forward(self, h, layer))), ValueError,
         "^the passes of Wrong must give finite numbers"),
        (wrong(forward=keeping, backward=lambda self, g, h, tape, layer: flds.BranchPull(
            self.kept * g, Sum.backward(self, g, h, tape, layer).gradients)), ValueError,
         "^backward of Wrong must give the same for the same arguments, whatever passes came between"),
        (wrong(backward=lambda self, g, h, tape, layer: flds.BranchPull(g * np.nan, {"hidden": g, "shift": g})),
         ValueError, "^the passes of Wrong must give finite numbers"),
    ],
)  # fmt: skip
def test_bad_branches(branch, error, message):
    with pytest.raises(error, match=message) as found:
        three_samples(residual=branch)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"residual": "three_layer"}, "^residual must be one of single_matrix, two_layer, got 'three_layer'$"),
        ({"hidden_ratio": 2}, r'^hidden_ratio is of residual="two_layer", got 2: residual="single_matrix" has one m'),
        ({"normalization": "rms_norm"}, '^normalization is of residual="two_layer"'),
        ({"bias": True}, '^bias is of residual="two_layer"'),
        ({"residual": Sum(), "gain": True}, '^gain is of residual="two_layer", got True: residual Sum says so itself'),
        ({"residual": "two_layer", "hidden_ratio": 0}, "^hidden_ratio must be a finite number above 0, got 0$"),
        ({"residual": "two_layer", "hidden_ratio": "4"}, "^hidden_ratio must be"),
        ({"residual": "two_layer", "normalization": "batch_norm"}, "^normalization must be one of rms_norm, "),
        ({"residual": "two_layer", "gain": True}, "^gain needs a normalization, one of rms_norm, layer_norm$"),
        ({"residual": "two_layer", "bias": 1}, "^bias must be True or False"),
        ({"branch_exponent": 0.75}, "^branch_exponent must be one of 0.5 and 1, got 0.75$"),
        ({"branch_exponent": True}, "^branch_exponent must be"),
        ({"residual": "two_layer", "learning_rate": {"bias": 0.1}},
         r"^learning_rate must name groups of parameters \(input, hidden, inner, outer, readout\), got 'bias'$"),
        ({"learning_rate": {"inner": 0.1}}, r"^learning_rate must name .* \(input, hidden, readout\)"),
        ({"residual": "two_layer", "bias": True, "optimizer": {"bias": "muon"}},
         r"^optimizer\['bias'\] must be a rule for vectors, got Muon\(.*\), which is for matrices \(inner, outer\)$"),
        ({"residual": "two_layer", "normalization": "layer_norm", "inputs": [[1.0], [0.0], [2.0]]},
         "^inputs must not be zero in a normalized network, whose features would be zero, got row 1$"),
        ({"residual": "two_layer", "normalization": "rms_norm", "standard_deviations": {"input": 0.0}},
         "^standard_deviations of input must not be 0 in a normalized network"),
    ],
)  # fmt: skip
def test_bad_options(options, message):
    with pytest.raises((ValueError, TypeError), match=message) as error:
        flds.TrainingProblem(**{"inputs": np.ones((3, 1)), "targets": [1.0, 2.0, 3.5]} | options)
    assert "\n" not in str(error.value)


def test_bad_sizes():
    problem = three_samples(residual="two_layer", hidden_ratio=0.01)
    with pytest.raises(ValueError, match=r"^hidden_ratio 0\.01 gives no hidden neuron at width 40; raise either$"):
        flds.simulate_resnet(problem, width=40, depth=2)
    with pytest.raises(ValueError, match=r'^sampling="matched_all" is for branches without a hidden space'):
        flds.solve_flds(problem, particles=400, depth=2, sampling="matched_all")
    with pytest.raises(ValueError, match='another rule for "inner"'):
        flds.solve_flds(three_samples(residual="two_layer", optimizer="adam"), particles=90, depth=2, operator="lazy")
