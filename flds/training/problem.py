"""What is trained: data, network constants, learning rates, loss and batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flds.training.activations import Activation, get_activation
from flds.training.losses import Loss, Squared, get_loss
from solvers import checks
from solvers.memory import require_memory

Array = NDArray[np.float64]

# Bytes for each entry of the table of batches: the entry, and what making it takes.
TABLED = 16


@dataclass(frozen=True, eq=False)
class TrainingProblem:
    """A depth-scaled ResNet, F-(1), and the stochastic gradient descent that trains it.

    Parameters
    ----------
    inputs : (samples, d) array
        Training inputs x; they enter as U x / sqrt(d).
    targets : (samples,) or (samples, outputs) array
        Real numbers for the loss "squared", ±1 for "logistic", class indices for "cross_entropy".
    activation : str or Activation
        φ: identity, tanh, relu, gelu, erf, softplus, silu, sin, or one of your own.
    horizon : float
        T, the length of the depth interval; a residual branch carries sqrt(T/L).
    learning_rate : float or (steps,) array
        η_c; the rate of width n is η_c n.
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
    divergence_factor : float
        Training has diverged when the loss of a batch or the mean square of its outputs exceeds this factor times the
        largest of 1 and both at step 0, or is not finite.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks the rules above; the message names it.
    MemoryError
        If the batches of so many steps do not fit in memory.

    References
    ----------
    Paper F: Yao, Wu, Gao, "Understanding Scaling Laws via Neural Feature Learning Dynamics", eq. (1).
    """

    inputs: ArrayLike
    targets: ArrayLike
    activation: str | Activation = "tanh"
    horizon: float = 1.0
    learning_rate: float | ArrayLike = 0.5
    steps: int = 50
    loss: str | None = None
    batch_size: int | None = None
    batch_order: str | ArrayLike = "sequential"
    batch_seed: int = 0
    test_inputs: ArrayLike | None = None
    test_targets: ArrayLike | None = None
    divergence_factor: float = 1e6
    phi: Activation = field(init=False, repr=False)
    loss_function: Loss = field(init=False, repr=False)
    x: Array = field(init=False, repr=False)
    y: Array = field(init=False, repr=False)
    test_x: Array = field(init=False, repr=False)
    test_y: Array = field(init=False, repr=False)
    rates: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._set("x", checks.matrix("inputs", self.inputs))
        self._set("inputs", self.x)
        self._set("loss_function", get_loss(_default_loss(self.targets) if self.loss is None else self.loss))
        self._set("loss", self.loss_function.name)
        self._set("phi", get_activation(self.activation))
        self._set("y", self._encoded("targets", self.targets, "inputs", self.x))
        self._set("targets", np.array(self.targets))
        self._set("horizon", checks.positive_number("horizon", self.horizon))
        self._set("steps", checks.positive_integer("steps", self.steps, smallest=0))
        self._set("divergence_factor", checks.positive_number("divergence_factor", self.divergence_factor))
        self._set("batch_seed", checks.seed_number("batch_seed", self.batch_seed))
        self._check_batches()
        require_memory(TABLED * (self.steps + 1) * self.batch, "take fewer steps")
        self._set("rates", checked_rates(self.learning_rate, self.steps, "step"))
        scalar = np.ndim(self.learning_rate) == 0
        self._set("learning_rate", float(self.learning_rate) if scalar else self.rates)  # type: ignore[arg-type]
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
        if not isinstance(self.batch_order, str):
            return int(np.shape(self.batch_order)[1])
        return self.batch_size or self.samples

    @property
    def full_batch(self) -> bool:
        """Whether every step trains on all samples, in their own order."""
        return isinstance(self.batch_order, str) and self.batch == self.samples

    @cached_property
    def batches(self) -> NDArray[np.intp]:
        """Sample indices, (steps + 1, batch): the last row is only recorded, never trained on."""
        rows, batch = self.steps + 1, self.batch
        if not isinstance(self.batch_order, str):
            order = np.asarray(self.batch_order, np.intp)
            return order[np.arange(rows) % len(order)]
        if self.full_batch or self.batch_order == "sequential":
            return (np.arange(rows * batch) % self.samples).reshape(rows, batch)
        epochs = -(-rows * batch // self.samples)
        generator = np.random.default_rng(self.batch_seed)
        order = np.concatenate([generator.permutation(self.samples) for _ in range(epochs)])
        return order[: rows * batch].reshape(rows, batch)

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

    def _check_batches(self) -> None:
        if self.batch_size is not None:
            size = checks.positive_integer("batch_size", self.batch_size)
            self._set("batch_size", size)
            if size > self.samples:
                raise ValueError(f"batch_size must be at most the {self.samples} samples, got {size}")
        if isinstance(self.batch_order, str):
            checks.choice("batch_order", self.batch_order, ("sequential", "random"))
            return
        order = checks.numeric("batch_order", self.batch_order)
        self._set("batch_order", order)
        if order.ndim != 2 or order.dtype.kind not in "iu" or order.shape[0] != self.steps or order.size == 0:
            raise ValueError(
                f"batch_order must be an integer array of shape (steps, batch) with {self.steps} steps, "
                f"got dtype {order.dtype} and shape {order.shape}"
            )
        if order.min() < 0 or order.max() >= self.samples:
            raise ValueError(
                f"batch_order must hold sample indices from 0 to {self.samples - 1}, got {order.min()} to {order.max()}"
            )
        if self.batch_size is not None and self.batch_size != order.shape[1]:
            raise ValueError(
                f"batch_size must be left out or equal the columns of batch_order ({order.shape[1]}), "
                f"got {self.batch_size}"
            )


def _default_loss(targets: Any) -> str:
    """Return the loss of numbers; refuse what may be class labels."""
    values = checks.finite("targets", targets)
    if values.ndim == 1 and values.size and values.dtype.kind in "iu" and values.min() >= 0:
        raise ValueError(
            f"targets look like class labels, whole numbers from {values.min()} to {values.max()}: say "
            'loss="cross_entropy" to tell classes apart, or loss="squared" to fit them as numbers'
        )
    return Squared.name


def checked_rates(given: Any, steps: int, each: str) -> Array:
    """Return learning rates, (steps,), from a number or from one for `each` step.

    Raises
    ------
    ValueError, TypeError
        If they are something else, or negative.
    """
    rule = f"a number or one per {each}"
    if steps == 0 and np.shape(checks.numeric("learning_rate", given, rule)) == (0,):
        return np.empty(0)
    rates = np.asarray(checks.finite("learning_rate", given, rule), np.float64)
    if rates.ndim > 1 or (rates.ndim == 1 and len(rates) != steps):
        raise ValueError(f"learning_rate must be {rule} ({steps}), got shape {rates.shape}")
    if np.any(rates < 0):
        raise ValueError(f"learning_rate must not be negative, got {rates.min():g}")
    return np.broadcast_to(rates, (steps,))
