"""`torch.nn.Linear` with Gaussian weights that are sampled where training looks, and never stored."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from flds.nn.sampled import STATE, SampledMatrix, UnrevealedEntries
from solvers import checks
from solvers.matrices.operator import RankBudgetExceeded

Tensor = torch.Tensor

# Relative size of what is left of a vector that rounding makes, with room.
ROUNDING = {torch.float64: 1e-13, torch.float32: 3e-6}
# Gradients are taken for 0 below so many roundings of the largest of their pass.
_NOTHING = 10
# Of a seed that is drawn.
_SEEDS = 2**63 - 1


class GaussianLinear(nn.Module):
    """y = 𝒲x + b with 𝒲 of M = `out_features` by N = `in_features`, whose entries begin as independent N(0, 1/N).

    The weights are 𝒲 = ω 𝒲_0 + Pᵀ A Q/√(MN). 𝒲_0 is sampled in the directions, rows of Q and P, that inputs and
    gradients have had, given all that was sampled before; so outputs, gradients and trained networks have the joint law
    of a dense layer's. A, `learned`, is an ordinary parameter: a step of SGD on A is the step on 𝒲, and so are
    momentum, Nesterov's momentum, clipping of the norm of the gradients of matrices, and Muon, unmodified. Adam on A is
    not Adam on 𝒲: see `check_optimizer`.

    In training mode, where gradients are on, a pass remembers what it reveals. Elsewhere it leaves the layer as it was,
    repeats its result in the same state, and needs no rank; the joint law then holds within one call. A has gradients
    in training mode alone.

    Parameters
    ----------
    in_features, out_features : int
        N and M.
    bias : bool
        Whether there is a vector b, (M,), which begins at 0.
    device, dtype
        As for `torch.nn.Linear`, float32 or float64; by default those of torch.
    rank : int or (int, int)
        The most directions of inputs and of gradients, 512 each by default. Every vector that comes in training adds
        one, so it is tokens times steps, until a fixed batch repeats itself; never more than N, and M. A has so many
        columns and rows. More cost no memory before they are used, but those of A.
    tied : bool
        Whether gradients are multiplied by 𝒲ᵀ, or by an independent copy with the same A, as in Definition 1 of paper
        F.
    tolerance : float, optional
        What is left of a vector beside the directions is dropped below this part of its norm; by default at rounding.
        Errors of outputs are of that order.
    seed : int, optional
        Of the weights; by default torch's generator draws it.

    Attributes
    ----------
    learned : nn.Parameter
        A, (rank of gradients, rank of inputs), zero where nothing was revealed.
    bias : nn.Parameter or None
        b.
    weight_share : float
        ω, 1 before `decay_weights`.
    used : (int, int)
        Directions of inputs and of gradients so far.

    Raises
    ------
    ValueError, TypeError
        If an argument is not valid, or in a pass inputs have another length or type, or are not finite.
    RuntimeError
        In a pass, if the rank does not suffice, or under autocast, DataParallel, or over several processes.

    References
    ----------
    E. Bolthausen, "An iterative construction of solutions of the TAP equations for the Sherrington–Kirkpatrick model",
    Comm. Math. Phys. 325 (2014), for the law of a Gaussian matrix given some of its products.
    """

    learned: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        rank: int | tuple[int, int] = 512,
        tied: bool = True,
        tolerance: float | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.in_features = checks.positive_integer("in_features", in_features)
        self.out_features = checks.positive_integer("out_features", out_features)
        self.tied = checks.flag("tied", tied)
        self.tolerance = None if tolerance is None else checks.tolerance(tolerance)
        forward, backward = _ranks(rank)
        forward, backward = min(forward, self.in_features), min(backward, self.out_features)
        made = {"device": device, "dtype": _checked_dtype(torch.get_default_dtype() if dtype is None else dtype)}
        self.learned = nn.Parameter(torch.zeros((backward, forward), **made))
        rows = nn.Parameter(torch.zeros(self.out_features, **made)) if checks.flag("bias", bias) else None
        self.register_parameter("bias", rows)
        self.name = ""
        self.matrix = self._matrix(_drawn_seed() if seed is None else checks.seed_number("seed", seed))

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, x: Tensor) -> Tensor:
        """Return 𝒲x + b, (…, M), of inputs x, (…, N)."""
        self._check(x)
        self.name = self.name or _name_in_stack(self)
        rows = x.reshape(-1, self.in_features).contiguous()
        watched = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        remember = watched and self.training
        y = _Product.apply(rows, self.learned, self, remember, watched)  # type: ignore[no-untyped-call]
        y = y.reshape(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias

    def decay_weights(self, factor: float) -> None:
        """Multiply 𝒲 by a factor, 𝒲_0 included, which `weight_decay` of torch's optimisers does not reach.

        Parameters
        ----------
        factor : float
            1 − rate × decay.
        """
        factor = checks.positive_number("factor", factor)
        self.matrix.operator.share *= factor
        with torch.no_grad():
            self.learned.mul_(factor)

    def reset_parameters(self) -> None:
        """Draw the weights anew, from torch's generator, and forget all that was learned."""
        with torch.no_grad():
            self.learned.zero_()
            if self.bias is not None:
                self.bias.zero_()
        self.matrix = self._matrix(_drawn_seed())

    @property
    def label(self) -> str:
        """What messages call the layer: by its name in the network, once that was called."""
        sizes = f"GaussianLinear({self.in_features}, {self.out_features})"
        return f"{sizes} {self.name!r}" if self.name else sizes

    @property
    def weight_share(self) -> float:
        """ω: what is left of the weights before training."""
        return self.matrix.operator.share

    @property
    def used(self) -> tuple[int, int]:
        """How many directions of inputs and of gradients were revealed."""
        return self.matrix.operator.rank

    def extra_repr(self) -> str:
        """Return sizes, the ranks used so far, and the memory that they take."""
        backward, forward = self.learned.shape
        used, size = self.used, self.matrix.bytes + self.learned.nbytes
        ranks = f"rank={used[0]} of {forward} and {used[1]} of {backward}, {size / 1e6:.3g} MB"
        sizes = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return f"{sizes}, {ranks}" + ("" if self.tied else ", tied=False")

    def _matrix(self, seed: int) -> SampledMatrix:
        if self.learned.is_meta:
            raise ValueError("GaussianLinear cannot be on the device meta, which keeps no numbers")
        backward, forward = self.learned.shape
        shape = self.out_features, self.in_features
        tolerance = ROUNDING[self.learned.dtype] if self.tolerance is None else self.tolerance
        return SampledMatrix(shape, seed, self.tied, tolerance, (forward, backward), self.learned)

    def _check(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(f"inputs must be a tensor, got {checks.shown(x)}")
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"inputs must be (…, {self.in_features}), got {tuple(x.shape)}")
        if torch.is_autocast_enabled(x.device.type):
            raise RuntimeError("GaussianLinear has no form in autocast: turn it off around the layer")
        if x.dtype != self.learned.dtype:
            raise TypeError(
                f"inputs must have the type of the layer, {_name(self.learned.dtype)}, got {_name(x.dtype)}"
            )
        if x.device != self.learned.device:
            raise ValueError(f"inputs must be where the layer is, on {self.learned.device}, got {x.device}")
        if not _in_range(x):
            raise ValueError(f"inputs must be finite, and below {_largest(x):.0e} in {_name(x.dtype)}, at {self.label}")
        if self.training and not torch.is_grad_enabled() and _in_reentrant_checkpoint():
            raise RuntimeError("GaussianLinear has no form in a reentrant checkpoint: give use_reentrant=False")
        if _processes() > 1:
            raise RuntimeError("GaussianLinear works in one process: in several each would draw other weights")

    @contextmanager
    def _at_work(self, rows: str) -> Iterator[None]:
        """Name the layer in what goes wrong in a product with rows."""
        try:
            yield
        except RankBudgetExceeded as error:
            raise self._outgrown(f"{rows}: {error}") from None
        except UnrevealedEntries:
            raise RuntimeError(
                f"learned of {self.label} has entries where nothing was revealed: its gradients alone may change it, "
                "no initialisation or average of networks; a state to come back to is "
                "copy.deepcopy(model.state_dict())"
            ) from None

    def _outgrown(self, needed: str) -> RuntimeError:
        backward, forward = self.learned.shape
        return RuntimeError(
            f"{self.label} has met more directions than its rank of ({forward}, {backward}), of inputs and of "
            f"gradients: {needed}; make it with a larger rank"
        )

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Keep, beside the parameters, what was revealed: directions and images, (rank, N) or (rank, M), and more."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.update({f"{prefix}{name}": one for name, one in self.matrix.state().items()})

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Take in A with the directions that it belongs to, those of another rank as far as it was used."""
        own = {f"{prefix}{name}": name for name in STATE}
        state = {own[key]: one for key, one in state_dict.items() if key in own}
        parameters = {key: one for key, one in state_dict.items() if key not in own}
        saved: Any = parameters.get(f"{prefix}learned")
        if saved is not None or state:
            self._check_state(state, saved)
            used = [len(state[f"{side}_directions"]) for side in ("gradient", "feature")]
            if any(one > most for one, most in zip(used, self.learned.shape, strict=True)):
                raise self._outgrown(f"the state has {used[1]} and {used[0]}")
            fitting = torch.zeros_like(self.learned, device=saved.device)
            fitting[: used[0], : used[1]] = saved[: used[0], : used[1]]
            parameters[f"{prefix}learned"] = fitting
            self._take_over(state)
        super()._load_from_state_dict(parameters, prefix, *rest)

    def _check_state(self, state: Mapping[str, Tensor], learned: Any) -> None:
        """Raise ValueError unless a state is whole, and of a layer as this one."""
        if learned is None or not state.keys() >= STATE - {"response"}:
            raise ValueError(f"the state of {self.label} must hold learned and the directions that it belongs to")
        sizes = tuple(state[f"{side}_directions"].shape[1] for side in ("feature", "gradient"))
        if sizes != (self.in_features, self.out_features) or ("response" in state) != self.tied:
            raise ValueError(f"the state must be that of {self.label} with tied={self.tied}, got one of sizes {sizes}")

    def _take_over(self, state: Mapping[str, Tensor]) -> None:
        self.matrix = self._matrix(0)
        self.matrix.restore(state)

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> GaussianLinear:
        """Move what was revealed as well, or refuse a type."""
        _checked_dtype(function(torch.zeros((), dtype=self.learned.dtype, device=self.learned.device)).dtype)
        state = self.matrix.state()
        super()._apply(function, recurse)  # type: ignore[no-untyped-call]
        self._take_over(state)
        return self

    def _replicate_for_data_parallel(self) -> Any:
        raise RuntimeError("GaussianLinear has no form in DataParallel: its copies would draw other weights")


class _Product(torch.autograd.Function):
    """𝒲x of rows, with gradients by x and A."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, learned: Tensor, layer: GaussianLinear, remember: bool, watched: bool) -> Tensor:
        ctx.layer, ctx.revealed, ctx.remember = layer, None, remember
        with layer._at_work("inputs"):
            if watched and not remember and x.requires_grad:
                y, ctx.coordinates, ctx.revealed = layer.matrix.look(x, learned)
            else:
                y, ctx.coordinates = layer.matrix.forward(x, learned, remember)
        ctx.save_for_backward(learned)
        return y

    @staticmethod
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        (learned,), layer = ctx.saved_tensors, ctx.layer
        if torch.is_grad_enabled():  # as with create_graph=True
            raise RuntimeError(f"{layer.label} has no second derivatives: leave out create_graph")
        if ctx.needs_input_grad[1] and not ctx.remember:
            raise RuntimeError(
                f"{layer.label} has no gradient by its weights in eval mode: train in training mode, or call "
                "requires_grad_(False) for gradients by inputs"
            )
        if not _in_range(gradients):
            raise RuntimeError(f"gradients at {layer.label} must be finite, and below {_largest(gradients):.0e}")
        sizes = gradients.abs().amax(dim=1)
        # what is rounding beside others has no direction, such as of a query with one key to look at
        least = _NOTHING * torch.finfo(sizes.dtype).eps * sizes.max() if len(sizes) else 0.0
        active = (sizes > least).nonzero()[:, 0]
        pulled = gradients.new_zeros((len(gradients), layer.in_features))
        step = torch.zeros_like(learned) if ctx.needs_input_grad[1] else None
        if len(active):
            rows = gradients[active].contiguous()
            with layer._at_work("gradients"):
                pulled[active], found = layer.matrix.backward(rows, active.tolist(), learned, ctx.revealed)
            if step is not None:
                root = math.sqrt(layer.in_features * layer.out_features)
                by_matrix = root * found.T @ ctx.coordinates[active.cpu().numpy()]
                step[: by_matrix.shape[0], : by_matrix.shape[1]] = torch.as_tensor(by_matrix)
        return pulled, step, None, None, None


def gaussian_layers(model: Any) -> dict[str, GaussianLinear]:
    """Return the layers of a network that are sampled, by name; raise TypeError if it is no module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {checks.shown(model)}")
    return {name: one for name, one in model.named_modules() if isinstance(one, GaussianLinear)}


def _largest(rows: Tensor) -> float:
    """Return the size from which sums of squares might overflow."""
    return float(1e-3 * torch.finfo(rows.dtype).max ** 0.5)


def _in_range(rows: Tensor) -> bool:
    """Return whether all numbers, if there are any, are finite and have squares; NaN is not."""
    return not rows.numel() or bool(rows.abs().max() < _largest(rows))


def _in_reentrant_checkpoint() -> bool:
    """Return whether `torch.utils.checkpoint` is at work in the form that calls twice, first without gradients."""
    return any(
        frame.f_code.co_name == "forward" and frame.f_globals.get("__name__") == "torch.utils.checkpoint"
        for frame in _stack()
    )


def _processes() -> int:
    """Return how many processes train together."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if together else 1


def _ranks(rank: Any) -> tuple[int, int]:
    pair = rank if isinstance(rank, (tuple, list)) else (rank, rank)
    if len(pair) != 2:
        raise ValueError(f"rank must be a number or a pair, of inputs and of gradients, got {checks.shown(rank)}")
    forward, backward = (checks.positive_integer("rank", one) for one in pair)
    return forward, backward


def _checked_dtype(dtype: Any) -> torch.dtype:
    if dtype not in ROUNDING:
        raise TypeError(f"GaussianLinear computes in float32 or float64, got {_name(dtype)}")
    found: torch.dtype = dtype
    return found


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _drawn_seed() -> int:
    return int(torch.randint(_SEEDS, ()).item())


def _name_in_stack(layer: nn.Module) -> str:
    """Return the name of a layer in the outermost module whose forward pass is at work."""
    found = ""
    for frame in _stack():
        outer = frame.f_locals.get("self")
        if isinstance(outer, nn.Module) and outer is not layer:
            found = next((name for name, module in outer.named_modules() if module is layer), found)
    return found


def _stack() -> Iterator[Any]:
    """Yield the frames of the calls that are at work, the innermost first."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
