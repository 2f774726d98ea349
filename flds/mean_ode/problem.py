"""What is trained in the Neural Mean ODE: data, blocks, initial laws, learning rates and loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flds.mean_ode import recipe
from flds.mean_ode.attention import Attention
from flds.mean_ode.blocks import (
    Block,
    GatedLinearUnit,
    MatrixAfterActivation,
    MatrixBeforeActivation,
    Parameters,
    TwoLayerPerceptron,
)
from flds.mean_ode.laws import Quantile, checked_law, gaussian
from flds.mean_ode.losses import Loss, get_loss
from flds.mean_ode.recipe import Rates
from flds.training.activations import Activation
from flds.training.batches import Batches
from flds.training.optimizers import PLAIN, Optimizer
from solvers import checks

Array = NDArray[np.float64]

_BLOCKS: dict[str, Callable[[str | Activation], tuple[Block, ...]]] = {
    "two_layer_perceptron": lambda rho: (TwoLayerPerceptron(rho),),
    "gated_linear_unit": lambda rho: (GatedLinearUnit(rho),),
    "matrix_after_activation": lambda rho: (MatrixAfterActivation(rho),),
    "matrix_before_activation": lambda rho: (MatrixBeforeActivation(rho),),
    "attention": lambda rho: (Attention(),),
    "transformer": lambda rho: (TwoLayerPerceptron(rho), Attention()),
}
BLOCKS = tuple(_BLOCKS)
BLOCK_TYPES: dict[str, type[Block]] = {
    kind.__name__: kind
    for kind in (TwoLayerPerceptron, GatedLinearUnit, MatrixAfterActivation, MatrixBeforeActivation, Attention)
}


@dataclass(frozen=True, eq=False)
class MeanFieldProblem:
    """A ResNet whose residual branches are averages of units, and the gradient descent that trains it (paper H).

    h_ℓ = h_{ℓ-1} + α/(LM) Σ_j φ(h_{ℓ-1}, z^{jℓ}), H-(1); the limit L → ∞ is the Neural Mean ODE, whatever M.

    Parameters
    ----------
    inputs : (samples, D) or (samples, tokens, D) array
        h(0) = x. With `embedding`, (…, d) arrays or integer tokens (samples, tokens).
    targets : (samples, outputs) or (samples, tokens, outputs) array
        Numbers for the loss "mean_squared" and ±1 for "logistic", one for each output; of one output also (samples,) or
        (samples, tokens). Class indices, (samples,) or (samples, tokens), for "cross_entropy".
    block : str, Block or sequence of Block
        two_layer_perceptron, gated_linear_unit, matrix_after_activation (W ρ(h)), matrix_before_activation (ρ(W h)),
        attention, transformer (perceptron and attention), or blocks of one's own, whose fields are added. Parameters of
        one name share deviations, laws and rates.
    activation : str or Activation
        ρ of named blocks.
    alpha : float
        α, the branch multiplier of H-(10); learning rates are divided by α², H-(11).
    sigma_u, sigma_v : float, optional
        Standard deviations of the entries of the parameters "u" and "v"; default √D.
    deviations : dict, optional
        Standard deviations by parameter name, for other blocks.
    learning_rates : float, callable, dict or (η_u, η_v), optional
        One for all parameters, or by name: a number, one per step as an array, or a function of the step; default the
        block's own, for perceptrons η_u = D min(1, D/σ_v²), η_v = D.
        They suit the loss "mean_squared" and inputs with entries of order 1; "cross_entropy" mostly needs smaller ones.
    steps : int
        K, the number of updates.
    loss : str
        "mean_squared" ‖f−y‖²/(2 outputs); "logistic", Σ log(1 + exp(−y f)) over the outputs, divided by how many they
        are; or "cross_entropy" −log softmax(f)_y. Each is averaged over samples and tokens.
    embedding : (d, D) array, optional
        W_E, fixed: h(0) = x W_E, or the rows named by integer tokens.
    unembedding : (D, outputs) array, optional
        W_U, fixed: f = h(1) W_U; without it f = h(1).
    initial_laws : dict, optional
        Quantile functions by parameter name, of mean 0 and variance 1, from (0, 1) to the line; default Gaussian.
    test_inputs, test_targets : arrays, optional
        Samples that are evaluated and not trained on, any number, shaped like `inputs` and `targets`.
    divergence_factor : float
        As for `TrainingProblem`.
    batch_size : int, optional
        As for `TrainingProblem`, as what follows.
    batch_order : str or (steps, batch) integer array
        "sequential", "random" or sample indices.
    batch_seed : int
        Seed of "random".
    optimizer : Optimizer or str
        `flds.SGD`, `flds.Adam`, or a rule of your own that moves each unit for itself; it sees the gradient that
        learning rates multiply.
    weight_decay : float or dict
        λ, decoupled, for all parameters or by name: before a step parameters are multiplied by 1 − η λ.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks the rules above; the message names it.

    References
    ----------
    Paper H: Chizat, "The Hidden Width of Deep ResNets", eqs. (1), (5), (10)–(14), (24), (25).
    """

    inputs: ArrayLike
    targets: ArrayLike
    block: str | Block | Sequence[Block] = "two_layer_perceptron"
    activation: str | Activation = "tanh"
    alpha: float = 1.0
    sigma_u: float | None = None
    sigma_v: float | None = None
    deviations: Mapping[str, float] | None = None
    learning_rates: Any = None
    steps: int = 100
    loss: str = "mean_squared"
    embedding: ArrayLike | None = None
    unembedding: ArrayLike | None = None
    initial_laws: Mapping[str, Quantile] | None = None
    test_inputs: ArrayLike | None = None
    test_targets: ArrayLike | None = None
    divergence_factor: float = 1e6
    batch_size: int | None = None
    batch_order: str | ArrayLike = "sequential"
    batch_seed: int = 0
    optimizer: Optimizer | str = PLAIN
    weight_decay: float | Mapping[str, float] = 0.0
    blocks: tuple[Block, ...] = field(init=False, repr=False)
    loss_function: Loss = field(init=False, repr=False)
    x: Array = field(init=False, repr=False)
    y: NDArray[Any] = field(init=False, repr=False)
    test_x: Array = field(init=False, repr=False)
    test_y: NDArray[Any] = field(init=False, repr=False)
    laws: dict[str, Quantile] = field(init=False, repr=False)
    scales: dict[str, float] = field(init=False, repr=False)
    rates: dict[str, Rates] = field(init=False, repr=False)
    decays: dict[str, float] = field(init=False, repr=False)
    batches: Batches = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._set("loss_function", get_loss(self.loss))
        self._set("alpha", checks.positive_number("alpha", self.alpha))
        self._set("divergence_factor", checks.positive_number("divergence_factor", self.divergence_factor))
        self._set("steps", checks.positive_integer("steps", self.steps, smallest=0))
        self._set("blocks", self._checked_blocks())
        for name in ("embedding", "unembedding"):
            given = getattr(self, name)
            if given is not None:
                self._set(name, checks.matrix(name, given))
        self._set("x", self.embed("inputs", self.inputs))
        if not all(block.tokenwise for block in self.blocks) and self.x.ndim != 3:
            raise ValueError(f"inputs must have shape (samples, tokens, D) for attention, got {self.x.shape}")
        unembedding = self.unembedding
        if unembedding is not None and len(np.asarray(unembedding)) != self.dimension:
            raise ValueError(f"unembedding must have D = {self.dimension} rows, got {np.shape(unembedding)}")
        self._set("y", self._checked_targets("targets", self.targets, self.x))
        if (self.test_inputs is None) != (self.test_targets is None):
            raise ValueError("test_inputs and test_targets must be given together, got only one of them")
        tested = self.test_inputs is not None
        self._set("test_x", self.embed("test_inputs", self.test_inputs) if tested else self.x[:0])
        if self.test_x.shape[1:] != self.x.shape[1:]:
            raise ValueError(
                f"test_inputs must have the shape of inputs past the first, {self.x.shape[1:]}, "
                f"got {self.test_x.shape[1:]}"
            )
        self._set(
            "test_y", self._checked_targets("test_targets", self.test_targets, self.test_x) if tested else self.y[:0]
        )
        self._set("laws", self._named("initial_laws", self.initial_laws or {}, checked_law))
        self._set("scales", self._checked_scales())
        self._set_recipe()
        two_units = self.initial([np.full((self.numbers(block), 2), 0.3) for block in self.blocks])
        for block, z in zip(self.blocks, two_units, strict=True):
            self._try(block, z)

    @property
    def samples(self) -> int:
        """Number of training samples n."""
        return len(self.x)

    @property
    def dimension(self) -> int:
        """Embedding dimension D."""
        return int(self.x.shape[-1])

    @property
    def outputs(self) -> int:
        """Number of outputs for every sample (and token)."""
        return self.dimension if self.unembedding is None else int(np.shape(self.unembedding)[1])

    @property
    def shapes(self) -> list[dict[str, tuple[int, ...]]]:
        """Shapes of the parameters of a unit, by name, for each block."""
        return [block.shapes(self.dimension) for block in self.blocks]

    @property
    def rule(self) -> Optimizer:
        """The rule that moves the units."""
        return self.optimizer  # type: ignore[return-value]

    def rate(self, name: str, step: int) -> float:
        """Return the learning rate of a parameter in an update."""
        rates = self.rates[name]
        return float(rates if np.ndim(rates) == 0 else rates[step])  # type: ignore[index]

    def embed(self, name: str, inputs: Any) -> Array:
        """Return inputs as states h(0), (samples[, tokens], D), called `name` in errors.

        Raises ValueError if they do not have the form of the problem's inputs.
        """
        values = checks.finite(name, inputs)
        if self.embedding is None:
            if values.ndim not in (2, 3):
                raise ValueError(f"{name} must have shape (samples, D) or (samples, tokens, D), got {values.shape}")
            return np.ascontiguousarray(values, np.float64)
        embedding = np.asarray(self.embedding)
        if values.dtype.kind in "iu" and values.ndim == 2:
            if values.min() < 0 or values.max() >= len(embedding):
                raise ValueError(
                    f"{name} must be tokens from 0 to {len(embedding) - 1}, the rows of embedding, "
                    f"got {values.min()} to {values.max()}"
                )
            return np.asarray(embedding[values])
        if values.ndim not in (2, 3) or values.shape[-1] != len(embedding):
            raise ValueError(
                f"{name} must be tokens (samples, tokens) of integer dtype, or vectors as long as the {len(embedding)} "
                f"rows of embedding, got {values.dtype} of shape {values.shape}"
            )
        return np.asarray(values @ embedding)

    def read(self, h: Array) -> Array:
        """Return the outputs f, (…, outputs), of states h(1), (…, D)."""
        return h if self.unembedding is None else np.asarray(h @ np.asarray(self.unembedding))

    def squeezed(self, outputs: Array) -> Array:
        """Return outputs f, (…, outputs), as a solution has them: without the last axis where there is one output."""
        return outputs[..., 0] if self.outputs == 1 else outputs

    def losses(self, outputs: Array, targets: NDArray[Any]) -> Array:
        """Return the loss of each sample (and token), from outputs (…, outputs) and targets like `y`."""
        return self.loss_function.values(outputs, targets)

    def loss_gradient(self, h: Array, targets: NDArray[Any] | None = None) -> Array:
        """Return ∇loss with respect to h(1) of every sample (and token), in the shape of h; by default of all that are
        trained on."""
        slope = self.loss_function.slope(self.read(h), self.y if targets is None else targets)
        return slope if self.unembedding is None else np.asarray(slope @ np.asarray(self.unembedding).T)

    def initial(self, uniforms: list[Array]) -> list[Parameters]:
        """Turn uniform draws into initial parameters.

        Parameters
        ----------
        uniforms : list of (..., numbers, units) arrays
            One for each block, with as many numbers as a unit has.

        Returns
        -------
        list of dict
            For each block, arrays (..., *shape, units) by name.
        """
        drawn = []
        for shapes, values in zip(self.shapes, uniforms, strict=True):
            parameters, first = {}, 0
            for name, shape in shapes.items():
                count = math.prod(shape)
                part = self.laws.get(name, gaussian)(values[..., first : first + count, :])
                parameters[name] = self.scales[name] * part.reshape(*values.shape[:-2], *shape, values.shape[-1])
                first += count
            drawn.append(parameters)
        return drawn

    def symmetric(self, block: Block) -> bool:
        """Whether changing the sign of the block's `flipped` parameters changes that of φ and not the law."""
        grid = np.linspace(0.05, 0.95, 20)  # without ½, where a law may jump
        laws = [self.laws.get(name, gaussian) for name in block.flipped]
        return bool(laws) and all(np.allclose(law(grid), -law(1 - grid), atol=1e-9) for law in laws)

    def _set(self, name: str, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.flags.writeable:
            value = value.copy()
            value.flags.writeable = False
        object.__setattr__(self, name, value)

    def _set_recipe(self) -> None:
        defaults = self._defaults("rates", lambda block: block.rates(self.dimension, self.scales))
        given, decay = self.learning_rates, self.weight_decay
        for label, named in (("learning_rates", given), ("weight_decay", decay)):
            if isinstance(named, Mapping):
                self._named(label, named, lambda _, value: value)
        self._set("optimizer", recipe.unit_rule(self.optimizer))
        self._set("rates", recipe.rates_of(given, defaults, self.optimizer, self.steps))  # type: ignore[arg-type]
        self._set("decays", recipe.decays_of(decay, self.rates))
        chosen = self.samples, self.steps, self.batch_size, self.batch_order, self.batch_seed
        self._set("batches", Batches(*chosen))
        for name, value in self.batches.arguments.items():
            self._set(name, value)

    def _checked_blocks(self) -> tuple[Block, ...]:
        if isinstance(self.block, str):
            return _BLOCKS[checks.choice("block", self.block, BLOCKS)](self.activation)
        blocks = tuple(self.block) if isinstance(self.block, (tuple, list)) else (self.block,)
        if not blocks or not all(isinstance(block, Block) for block in blocks):
            given = checks.shown(self.block)
            raise TypeError(f"block must be a name ({', '.join(BLOCKS)}), a Block or a tuple of them, got {given}")
        for block in blocks:
            if not (isinstance(block.name, str) and block.name):
                raise ValueError(f"a block must have a name, got {block.name!r} in {type(block).__name__}")
            shapes = block.shapes(1)
            if not shapes or not all(isinstance(shape, tuple) for shape in shapes.values()):
                raise ValueError(f"shapes of the block {block.name!r} must be a dictionary of tuples, got {shapes!r}")
            if not all(isinstance(name, str) and name.isidentifier() for name in shapes):
                raise ValueError(
                    f"parameters of the block {block.name!r} must have names like variables, "
                    f"got {', '.join(map(repr, shapes))}"
                )
            if not set(block.flipped) <= set(shapes):
                raise ValueError(f"flipped of the block {block.name!r} must name its parameters, got {block.flipped!r}")
        return blocks

    def _checked_targets(self, name: str, targets: Any, x: Array) -> NDArray[Any]:
        return self.loss_function.checked(name, checks.finite(name, targets), x.shape[:-1], self.outputs)

    def _named(self, label: str, given: Mapping[str, Any], check: Callable[[str, Any], Any]) -> dict[str, Any]:
        """Check values by parameter name; unknown names are errors."""
        known = [name for shapes in self.shapes for name in shapes]
        if not isinstance(given, Mapping):
            raise TypeError(
                f"{label} must be a dictionary by parameter name ({', '.join(known)}), got {checks.shown(given)}"
            )
        for name in given:
            if name not in known:
                raise ValueError(f"{label} must name parameters of the block ({', '.join(known)}), got {name!r}")
        return {name: check(f"{label}[{name!r}]", value) for name, value in given.items()}

    def _checked_scales(self) -> dict[str, float]:
        given = dict(self._named("deviations", self.deviations or {}, lambda label, v: v))
        for name, value in (("u", self.sigma_u), ("v", self.sigma_v)):
            if value is not None:
                if not any(name in shapes for shapes in self.shapes):
                    raise ValueError(f"sigma_{name} needs a block with a parameter {name!r}; use deviations instead")
                if name in given:
                    raise ValueError(f"give sigma_{name} or deviations[{name!r}], not both")
                given[name] = checks.positive_number(f"sigma_{name}", value, zero=True)
        checked = self._named("deviations", given, lambda label, v: checks.positive_number(label, v, zero=True))
        return self._defaults("deviations", lambda block: block.deviations(self.dimension)) | checked

    def _defaults(self, label: str, of: Callable[[Block], Mapping[str, float]]) -> dict[str, float]:
        """Collect the defaults of all blocks; a name that two blocks share must mean one thing."""
        found: dict[str, float] = {}
        for block, shapes in zip(self.blocks, self.shapes, strict=True):
            given = of(block)
            if set(given) != set(shapes):
                raise ValueError(
                    f"{label} of the block {block.name!r} must name its parameters {', '.join(shapes)}, "
                    f"got {', '.join(given)}"
                )
            for name, value in given.items():
                number = checks.positive_number(f"{label}[{name!r}] of the block {block.name!r}", value, zero=True)
                if found.setdefault(name, number) != number:
                    raise ValueError(
                        f"blocks that share the parameter {name!r} must agree on its default {label}, got "
                        f"{found[name]:g} and {number:g}; rename one"
                    )
        return found

    def numbers(self, block: Block) -> int:
        """Return how many numbers the parameters of one unit of a block have."""
        return sum(math.prod(shape) for shape in block.shapes(self.dimension).values())

    def _try(self, block: Block, z: Parameters) -> None:
        """Call a block on one sample, so that mistakes in one's own blocks come before work."""
        h = self.x[:1].reshape(-1, self.dimension) if block.tokenwise else self.x[:1]
        value, (back, gradient) = block.value(h, z), block.pull(h, h, z)
        for label, found in (("value", value), ("pull", back)):
            if np.shape(found) != h.shape:
                raise ValueError(
                    f"{label} of the block {block.name!r} must return the shape of h, {h.shape}, got {np.shape(found)}"
                )
        shapes, given = ({name: np.shape(a) for name, a in arrays.items()} for arrays in (z, gradient))
        if given != shapes:
            raise ValueError(f"pull of the block {block.name!r} must return gradients of shapes {shapes}, got {given}")
