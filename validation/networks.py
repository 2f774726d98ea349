"""Dense networks of finite width in torch, trained by torch.optim: the networks the theory is about."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from flds.results.solution import Solution
from flds.training.assemble import depth_variables, output_variables
from flds.training.description import describe
from flds.training.divergence import Divergence
from flds.training.options import BACKWARD_WEIGHTS, DTYPES, RecordSteps
from flds.training.problem import TrainingProblem
from solvers import checks
from solvers.results.solution import Variable
from solvers.results.versions import library_versions
from validation.rules import Rules

Array = NDArray[np.float64]

# Networks of this width and more are trained on all of torch's threads.
_MANY_THREADS = 512

ACTIVATIONS = {
    "identity": lambda x: x,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
    "erf": torch.erf,
    "softplus": torch.nn.functional.softplus,
    "silu": torch.nn.functional.silu,
    "sin": torch.sin,
}


class _IndependentLinear(torch.autograd.Function):
    """x Wᵀ whose gradient with respect to x uses W̃ instead of W; the gradient with respect to W is the usual one."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, backward_weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, backward_weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        (gradient,) = gradients
        x, backward_weight = ctx.saved_tensors
        return gradient @ backward_weight, gradient.T @ x, None


class ResNet(torch.nn.Module):
    """A depth-scaled ResNet of paper F, all entries of U, W_ℓ and v drawn from N(0, 1).

    With ``residual="pre"`` h_0 = U x/√d, h_ℓ = h_{ℓ-1} + √(T/(Ln)) W_ℓ φ(h_{ℓ-1}). With "post", the network
    of Proposition 1: h_0 = φ(U x/√d), h_ℓ = h_{ℓ-1} + √(T/L) φ(W_ℓ h_{ℓ-1}/√n), the weights scaled here instead of
    where they are drawn, so that one learning rate serves both. f = vᵀ h_L / n.

    Parameters
    ----------
    inputs, outputs, width, depth : int
        d, number of outputs, n, L.
    activation : str
        φ.
    horizon : float
        T.
    independent : bool
        Whether backpropagation uses copies W̃_ℓ of the weights instead of W_ℓᵀ.
    residual : str
        "pre" or "post".
    generator : torch.Generator
        Source of the initial weights.
    dtype : torch.dtype
        Of weights and states.

    References
    ----------
    Paper F, eq. (1), and Proposition 1 for "post".
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        depth: int,
        activation: str,
        horizon: float,
        independent: bool,
        residual: str,
        generator: torch.Generator,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=dtype)

        self.input_weights = torch.nn.Parameter(normal(width, inputs))
        self.weights = torch.nn.ParameterList([normal(width, width) for _ in range(depth)])
        self.readout = torch.nn.Parameter(normal(outputs, width))
        copies = [normal(width, width) for _ in range(depth)] if independent else []
        self.backward_weights = torch.nn.ParameterList(
            [torch.nn.Parameter(copy, requires_grad=False) for copy in copies]
        )
        self.phi, self.post = ACTIVATIONS[activation], residual == "post"
        self.root_tau, self.root_width = math.sqrt(horizon / depth), math.sqrt(width)

    @torch.no_grad()
    def scale(self, deviations: dict[str, float]) -> None:
        """Multiply the initial weights by the standard deviations of their groups."""
        for name, weights in (
            ("input", [self.input_weights]),
            ("readout", [self.readout]),
            ("hidden", [*self.weights, *self.backward_weights]),
        ):
            for weight in weights:
                weight.mul_(deviations[name])

    def states(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return h_0 … h_L, (samples, n) each, for inputs x, (samples, d)."""
        h = x @ self.input_weights.T / math.sqrt(x.shape[1])
        states = [self.phi(h) if self.post else h]
        for layer in range(len(self.weights)):
            h = states[-1]
            branch = self.phi(self._image(layer, h)) if self.post else self._image(layer, self.phi(h))
            states.append(h + self.root_tau * branch)
        return states

    def read(self, h: torch.Tensor) -> torch.Tensor:
        """Return f = vᵀ h / n, (samples, outputs), of states h_L, (samples, n)."""
        return h @ self.readout.T / self.readout.shape[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return f, (samples, outputs), for inputs x, (samples, d)."""
        return self.read(self.states(x)[-1])

    def _image(self, layer: int, features: torch.Tensor) -> torch.Tensor:
        """W_ℓ times features over √n."""
        if self.backward_weights:
            image = _IndependentLinear.apply(features, self.weights[layer], self.backward_weights[layer])
        else:
            image = features @ self.weights[layer].T
        return image / self.root_width


def train(
    problem: TrainingProblem,
    *,
    width: int = 512,
    depth: int = 64,
    backward_weights: str = "tied",
    residual: str = "pre",
    seed: int = 0,
    record_every: int = 1,
    dtype: str = "float64",
    device: str = "cpu",
) -> Solution:
    """Train a dense network by torch autograd and torch.optim, SGD with rate η_c n or another rule of the problem.

    Parameters
    ----------
    problem : TrainingProblem
        With a built-in activation and built-in optimisers.
    width, depth : int
        n and L.
    backward_weights : str
        "tied" for ordinary backpropagation, "independent" for copies W̃_ℓ that receive the same updates.
    residual : str
        "pre" or "post", as for `ResNet`.
    seed : int
        Seed of the initial weights, which are the same on every device.
    record_every : int
        Steps between records; the first and the last step are recorded in any case.
    dtype : str
        "float64" or "float32".
    device : str
        "cpu", or "cuda" where there is one.

    Returns
    -------
    flds.Solution
        Outputs, losses and accuracies on all training and test samples, `batch_loss`, and the mean squares
        `feature_variance` and `gradient_variance` over depth, mean over the batch of the step, as a solver returns.

    Raises
    ------
    ValueError, TypeError
        If the activation is not built in, the device does not exist, or another argument is not valid.

    References
    ----------
    Paper F, eq. (1), and Proposition 1 for "post".
    """
    checks.choice("activation", problem.phi.name, tuple(ACTIVATIONS))
    checks.choice("backward_weights", backward_weights, BACKWARD_WEIGHTS)
    checks.choice("residual", residual, ("pre", "post"))
    checks.choice("dtype", dtype, DTYPES)
    checks.choice("device", device, ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",))
    sizes = {"width": checks.positive_integer("width", width), "depth": checks.positive_integer("depth", depth)}
    due = RecordSteps(problem.steps, checks.positive_integer("record_every", record_every))
    real = torch.float64 if dtype == "float64" else torch.float32
    start = time.perf_counter()
    network = ResNet(
        problem.x.shape[1],
        problem.outputs,
        width,
        depth,
        problem.phi.name,
        problem.horizon,
        backward_weights == "independent",
        residual,
        torch.Generator().manual_seed(seed),
        real,
    ).to(device)
    network.scale({name: group.standard_deviation for name, group in problem.groups.items()})
    drawn = time.perf_counter()
    # the last records of a diverging run overflow
    with threads_for(width < _MANY_THREADS), np.errstate(over="ignore", invalid="ignore"):
        records, batch_loss, status = _train(problem, network, due)
    fields = output_variables(
        problem,
        [record.step for record in records],
        list(range(problem.samples)),
        *(
            np.array([getattr(record, name) for record in records]).reshape(len(records), len(x), problem.outputs)
            for name, x in (("outputs", problem.x), ("test_outputs", problem.test_x))
        ),
    )
    over_depth = [
        np.array([getattr(record, name) for record in records]).reshape(len(records), depth + 1)
        for name in ("feature_variance", "gradient_variance")
    ]
    fields |= depth_variables(problem.horizon, *over_depth)
    fields["batch_loss"] = Variable(("every_step",), np.array(batch_loss), "loss of the batch")
    description, arrays = describe(problem)
    settings = sizes | {
        "solver": "dense network",
        "particles": width,
        "operator": "dense",
        "sampling": "law",
        "tolerance": 0.0,
        "replicates": 1,
        "replicates_completed": int(status == "completed"),
        "backward_weights": backward_weights,
        "residual": residual,
        "dtype": dtype,
        "device": device,
        "record_every": record_every,
    }
    timings = {"draw": drawn - start, "solve": time.perf_counter() - drawn}
    versions = library_versions() | {"torch": torch.__version__}
    return Solution(fields | arrays, status, timings, seed, settings, versions=versions, extra={"problem": description})


@contextmanager
def threads_for(small: bool) -> Iterator[None]:
    """Return a context with one of torch's threads for small tensors: waking the others takes longer than the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if small else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Record(NamedTuple):
    step: int
    outputs: Array
    test_outputs: Array
    feature_variance: Array
    gradient_variance: Array


def _train(problem: TrainingProblem, network: ResNet, due: RecordSteps) -> tuple[list[_Record], list[float], str]:
    """Forward, loss, record, backward, update; for every step, unless training diverges. Return also the status."""
    like = network.readout
    x, y, test_x = (
        torch.tensor(array, dtype=like.dtype, device=like.device) for array in (problem.x, problem.y, problem.test_x)
    )
    rules = Rules(problem, {"input": network.input_weights, "readout": network.readout}, list(network.weights))
    records: list[_Record] = []
    batch_loss: list[float] = []
    divergence = Divergence(problem.divergence_factor)
    for step, batch in enumerate(problem.batches):
        states = network.states(x[batch])
        f = network.read(states[-1])
        loss = _loss(problem, f, y[batch])
        if divergence.at(loss.item(), (f.detach().double() ** 2).mean().item()):
            return records, batch_loss, "diverged"
        batch_loss.append(loss.item())
        if step in due:
            with torch.no_grad():
                shown = f.detach() if problem.full_batch else network(x), network(test_x)
            outputs, test_outputs = (values.cpu().numpy().astype(np.float64) for values in shown)
            variances = _variances(problem, f, states, batch)
            records.append(_Record(step, outputs, test_outputs, *variances))
        if step < problem.steps:
            _update(network, rules, loss, step)
    return records, batch_loss, "completed"


def _variances(
    problem: TrainingProblem, f: torch.Tensor, states: list[torch.Tensor], batch: NDArray[np.intp]
) -> tuple[Array, Array]:
    """Return E h² and E g² over depth, mean over the batch; g = n ∂f/∂h, along L' where there are several outputs."""
    slopes = problem.loss_function.derivative(f.detach().cpu().numpy().astype(np.float64), problem.y[batch])
    norms = np.linalg.norm(slopes, axis=1, keepdims=True)
    if problem.outputs == 1:
        along = np.ones_like(slopes)
    else:
        along = np.divide(slopes, norms, out=np.zeros_like(slopes), where=norms > 0)
    direction = torch.as_tensor(along, dtype=f.dtype, device=f.device)
    gradients = torch.autograd.grad(f, states, direction, retain_graph=True)
    features = np.array([(h.detach() ** 2).mean().item() for h in states])
    width = states[0].shape[1]
    return features, np.array([((width * g) ** 2).mean().item() for g in gradients])


def _update(network: ResNet, rules: Rules, loss: torch.Tensor, step: int) -> None:
    """One step; copies for the backward pass decay as the weights do, and receive the same update."""
    network.zero_grad()
    loss.backward()
    before = [weight.detach().clone() for weight in network.weights] if network.backward_weights else []
    rules.step(step)
    hidden = rules.problem.groups["hidden"]
    shrunk = 1.0 - float(hidden.rates[step]) * hidden.weight_decay
    with torch.no_grad():
        for copy, weight, old in zip(network.backward_weights, network.weights, before, strict=False):
            copy.mul_(shrunk).add_(weight - shrunk * old)


def _loss(problem: TrainingProblem, f: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The batch mean of the loss, by torch's own functions."""
    functional = torch.nn.functional
    if problem.loss == "squared":
        return 0.5 * ((f - y) ** 2).sum(dim=1).mean()
    if problem.loss == "logistic":
        return functional.softplus(-y * f).mean()
    return functional.cross_entropy(f, y.argmax(dim=1))
