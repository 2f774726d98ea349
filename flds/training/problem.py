"""What is trained: data, network constants, learning rates, loss and batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flds.training import groups
from flds.training.activations import Activation, get_activation
from flds.training.batches import Batches
from flds.training.branches import ResidualBranch, try_branch
from flds.training.groups import Group, by_group
from flds.training.inside import branch_of, checked_exponent, is_own_branch, require_states
from flds.training.losses import Loss, Squared, get_loss
from flds.training.optimizers import PLAIN, Optimizer
from solvers import checks

Array = NDArray[np.float64]
Rate = float | ArrayLike | Callable[[int], float]


@dataclass(frozen=True, eq=False)
class TrainingProblem:
    """A depth-scaled ResNet, F-(1), and how it is trained.

    Some arguments are one value for all parameters, or a dictionary of values by group: "input" (U), "hidden" (all
    matrices of the branches), "readout" (v), and in branches of two layers also "inner" (W) and "outer" (V) for
    themselves, "gain" and "bias". A group that is not named has learning rate 0.5, no weight decay, standard deviation
    1 and plain SGD.

    Parameters
    ----------
    inputs : (samples, d) array
        Training inputs x; they enter as U x / sqrt(d).
    targets : (samples,) or (samples, outputs) array
        Real numbers for the loss "squared", ±1 for "logistic", class indices for "cross_entropy".
    activation : str or Activation
        φ: identity, tanh, relu, gelu, erf, softplus, silu, sin, or one of your own.
    horizon : float
        T, the length of the depth interval; a residual branch carries (T/L)^branch_exponent.
    learning_rate : float, (steps,) array, callable or dict
        η_c; the rate of width n is η_c n. A callable is a function of the step k, and kept as its values.
    steps : int
        K, the number of updates; outputs are defined at steps 0 to K.
    loss : str, optional
        "squared" ½(f−y)² summed over outputs, "logistic", or "cross_entropy"; the mean over the batch is trained on. By
        default "squared", but class labels, whole numbers from 0 on in an array of integers, need it to be said.
    batch_size : int, optional
        Samples a step; by default all of them.
    batch_order : str or (steps, batch) integer array
        "sequential" cycles through the samples, "random" draws without replacement in each epoch, and an
        array gives the sample indices themselves.
    batch_seed : int
        Seed of "random"; it belongs to the problem, so that every solver sees the same batches.
    test_inputs, test_targets : arrays, optional
        Samples that are evaluated and not trained on, any number, shaped like `inputs` and `targets`.
    optimizer : Optimizer, str or dict
        `flds.SGD`, `flds.Adam`, `flds.Muon`, or a rule of your own; "sgd", "adam" and "muon" are those with their
        defaults. `Muon` given alone is for the hidden matrices, and
        the rest takes plain SGD; with Adam on vectors it is ``{"hidden": Muon(), "input": Adam(), "readout": Adam()}``.
    weight_decay : float or dict
        λ, decoupled: before a step parameters are multiplied by 1 − η_c λ, which must be above 0.
    gradient_clip : float, optional
        Gradients are scaled down where their norm exceeds it: the root of Σ ‖G‖² over matrices, with G in coordinates
        of their bases, plus n Σ ‖∇‖² over vectors, which is of order 1 at any width.
    standard_deviations : float or dict
        Of the initial entries of U, v and the matrices of the branches, these over the root of their inputs. Gains are
        1 and biases 0 at first.
    residual : str or ResidualBranch
        What a layer adds to its state: "single_matrix" W φ(h), "two_layer" V φ(W ν(h) + b), or a branch of your own.
    hidden_ratio : float
        Of "two_layer", H/n with W (H, n).
    normalization : str, optional
        Of "two_layer", ν: "rms_norm" or "layer_norm", with 10⁻⁶ added to the mean square; by default the identity.
    gain, bias : bool
        Of "two_layer": whether ν is multiplied by trainable gains, and whether there is b.
    branch_exponent : float
        e of the branch scale (T/L)^e: 0.5, the limit of which is an SDE, or 1, an ODE. Learning rates inside branches
        are multiplied by (T/L)^(1 − 2e), so that at 1 an update moves features as much at any depth, too.
    divergence_factor : float
        Training has diverged when the loss of a batch or the mean square of its outputs exceeds this factor times the
        largest of 1 and both at step 0, or is not finite.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks the rules above; the message names it. Also if states of a normalized network are zero.
    MemoryError
        If the batches of so many steps do not fit in memory.

    References
    ----------
    Paper F: Yao, Wu, Gao, "Understanding Scaling Laws via Neural Feature Learning Dynamics", eq. (1). For exponent 1:
    Dey et al., "Don't be lazy: CompleteP enables compute-efficient deep transformers" (2025).
    """

    inputs: ArrayLike
    targets: ArrayLike
    activation: str | Activation = "tanh"
    horizon: float = 1.0
    learning_rate: Rate | Mapping[str, Rate] = groups.RATE
    steps: int = 50
    loss: str | None = None
    batch_size: int | None = None
    batch_order: str | ArrayLike = "sequential"
    batch_seed: int = 0
    test_inputs: ArrayLike | None = None
    test_targets: ArrayLike | None = None
    divergence_factor: float = 1e6
    optimizer: Optimizer | str | Mapping[str, Optimizer | str] = PLAIN
    weight_decay: float | Mapping[str, float] = 0.0
    gradient_clip: float | None = None
    standard_deviations: float | Mapping[str, float] = 1.0
    residual: str | ResidualBranch = "single_matrix"
    hidden_ratio: float = 1.0
    normalization: str | None = None
    gain: bool = False
    bias: bool = False
    branch_exponent: float = 0.5
    branch: ResidualBranch = field(init=False, repr=False)
    phi: Activation = field(init=False, repr=False)
    loss_function: Loss = field(init=False, repr=False)
    x: Array = field(init=False, repr=False)
    y: Array = field(init=False, repr=False)
    test_x: Array = field(init=False, repr=False)
    test_y: Array = field(init=False, repr=False)
    groups: dict[str, Group] = field(init=False, repr=False)
    batching: Batches = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._set("x", checks.matrix("inputs", self.inputs))
        self._set("inputs", self.x)
        self._set("loss_function", get_loss(_default_loss(self.targets) if self.loss is None else self.loss))
        self._set("loss", self.loss_function.name)
        self._set("phi", get_activation(self.activation))
        self._set("y", self._encoded("targets", self.targets, "inputs", self.x))
        self._set("targets", np.array(self.targets))
        self._set("horizon", checks.positive_number("horizon", self.horizon))
        self._set("branch_exponent", checked_exponent(self.branch_exponent))
        self._set("branch", branch_of(self))
        self._set("steps", checks.positive_integer("steps", self.steps, smallest=0))
        self._set("divergence_factor", checks.positive_number("divergence_factor", self.divergence_factor))
        given = self.samples, self.steps, self.batch_size, self.batch_order, self.batch_seed
        self._set("batching", Batches(*given))
        self.batching.require_memory()
        for name, value in self.batching.arguments.items():
            self._set(name, value)
        self._check_groups()
        self._check_tests()
        require_states(self)
        if is_own_branch(self.branch):
            try_branch(self.branch, self.phi)

    def _check_tests(self) -> None:
        if (self.test_inputs is None) != (self.test_targets is None):
            raise ValueError("test_inputs and test_targets must be given together, got only one of them")
        if self.test_inputs is None:
            self._set("test_x", self.x[:0])
            self._set("test_y", self.y[:0])
            return
        test_x = checks.matrix("test_inputs", self.test_inputs)
        if test_x.shape[1] != self.x.shape[1]:
            raise ValueError(
                f"test_inputs must have as many columns as inputs ({self.x.shape[1]}), got {test_x.shape[1]}"
            )
        self._set("test_x", test_x)
        self._set("test_inputs", self.test_x)
        self._set("test_y", self._encoded("test_targets", self.test_targets, "test_inputs", test_x))
        self._set("test_targets", np.array(self.test_targets))
        if self.test_y.shape[1] != self.outputs:
            raise ValueError(
                f"test_targets must have as many outputs as targets ({self.outputs}), got {self.test_y.shape[1]}"
            )

    @property
    def samples(self) -> int:
        """Number of training samples."""
        return len(self.x)

    @property
    def outputs(self) -> int:
        """Number of outputs of the network."""
        return int(self.y.shape[1])

    @property
    def batch(self) -> int:
        """Samples in one step."""
        return self.batching.size

    @property
    def full_batch(self) -> bool:
        """Whether every step trains on all samples, in their own order."""
        return self.batching.full

    @property
    def batches(self) -> NDArray[np.intp]:
        """Sample indices, (steps + 1, batch): the last row is only recorded, never trained on."""
        return self.batching.table

    @property
    def largest_rate(self) -> float:
        """The largest learning rate of all groups and steps."""
        return max(float(group.rates.max(initial=0.0)) for group in self.groups.values())

    def _check_groups(self) -> None:
        checked: dict[str, Callable[[str, Any], Any]] = {
            "learning_rate": lambda name, given: groups.checked_rates(name, given, self.steps),
            "optimizer": groups.checked_rule,
            "weight_decay": groups.checked_number,
            "standard_deviations": groups.checked_number,
        }
        for name, check in checked.items():
            self._set(name, by_group(name, getattr(self, name), check, self.branch))
        if self.gradient_clip is not None:
            self._set("gradient_clip", checks.positive_number("gradient_clip", self.gradient_clip))
        rates, rule = self.learning_rate, self.optimizer
        decay, deviations = self.weight_decay, self.standard_deviations
        self._set("groups", groups.groups_of(self.branch, rates, rule, decay, deviations, self.steps))

    def _set(self, name: str, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.flags.writeable:
            value = value.copy()
            value.flags.writeable = False
        object.__setattr__(self, name, value)

    def _encoded(self, name: str, targets: Any, inputs_name: str, inputs: Array) -> Array:
        values = checks.finite(name, targets)
        if values.ndim not in (1, 2) or len(values) != len(inputs):
            raise ValueError(
                f"{name} must have shape (samples,) or (samples, outputs) with the {len(inputs)} samples of "
                f"{inputs_name}, got {values.shape}"
            )
        return self.loss_function.encode(values, name)


def _default_loss(targets: Any) -> str:
    """Return the loss of numbers; refuse what may be class labels."""
    values = checks.finite("targets", targets)
    if values.ndim == 1 and values.size and values.dtype.kind in "iu" and values.min() >= 0:
        raise ValueError(
            f"targets look like class labels, whole numbers from {values.min()} to {values.max()}: say "
            'loss="cross_entropy" to tell classes apart, or loss="squared" to fit them as numbers'
        )
    return Squared.name
