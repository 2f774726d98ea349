"""Dense networks of finite width in torch, trained by torch.optim: the networks the theory is about."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

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
from validation.blocks import ACTIVATIONS, Matrix, block
from validation.rules import Rules

Array = NDArray[np.float64]

# Networks of this width and more are trained on all of torch's threads.
_MANY_THREADS = 512


class ResNet(torch.nn.Module):
    """A depth-scaled ResNet of paper F, all entries of U, v and of the matrices of its branches drawn from N(0, 1).

    With ``residual="pre"`` h_0 = U x/√d, h_ℓ = h_{ℓ-1} + s branch(h_{ℓ-1}), with s = (T/L)^e. With "post", the network
    of Proposition 1: h_0 = φ(U x/√d), h_ℓ = h_{ℓ-1} + s φ(W_ℓ h_{ℓ-1}/√n), the weights scaled here instead of
    where they are drawn, so that one learning rate serves both. f = vᵀ h_L / n.

    Parameters
    ----------
    problem : TrainingProblem
        Supplies the numbers of inputs and outputs, φ, T and the branch.
    width, depth : int
        n, L.
    independent : bool
        Whether backpropagation uses copies of the matrices.
    residual : str
        "pre" or "post".
    generator : torch.Generator
        Source of the initial weights.
    dtype : torch.dtype
        Of weights and states.

    Raises
    ------
    ValueError
        If the branch is not built in, or not of one matrix in a network with "post".

    References
    ----------
    Paper F, eq. (1), and Proposition 1 for "post".
    """

    def __init__(
        self,
        problem: TrainingProblem,
        width: int,
        depth: int,
        *,
        independent: bool = False,
        residual: str = "pre",
        generator: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=dtype)

        self.post = residual == "post"
        self.input_weights = torch.nn.Parameter(normal(width, problem.x.shape[1]))
        self.blocks = [block(problem, normal, width, self.post) for _ in range(depth)]
        self.readout = torch.nn.Parameter(normal(problem.outputs, width))
        for matrix in self.matrices if independent else ():
            matrix.separate(normal)
        for layer, one in enumerate(self.blocks):
            self.add_module(f"block_{layer}", one)
        self.phi = ACTIVATIONS[problem.phi.name]
        self.branch_scale = (problem.horizon / depth) ** problem.branch_exponent

    @property
    def matrices(self) -> list[Matrix]:
        """The matrices of all branches, (outputs, inputs) each, from the input to the output."""
        return [matrix for one in self.blocks for matrix in one.matrices.values()]

    @torch.no_grad()
    def scale(self, problem: TrainingProblem) -> None:
        """Multiply the initial weights by the standard deviations of their groups."""
        groups = problem.groups
        self.input_weights.mul_(groups["input"].standard_deviation)
        self.readout.mul_(groups["readout"].standard_deviation)
        for one in self.blocks:
            for name, matrix in one.matrices.items():
                for weight in (matrix.weight, matrix.copy):
                    if weight is not None:
                        weight.mul_(groups[problem.branch.matrices[name].group].standard_deviation)

    def states(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return h_0 … h_L, (samples, n) each, for inputs x, (samples, d)."""
        h = x @ self.input_weights.T / math.sqrt(x.shape[1])
        states = [self.phi(h) if self.post else h]
        for one in self.blocks:
            states.append(states[-1] + self.branch_scale * one(states[-1]))
        return states

    def read(self, h: torch.Tensor) -> torch.Tensor:
        """Return f = vᵀ h / n, (samples, outputs), of states h_L, (samples, n)."""
        return h @ self.readout.T / self.readout.shape[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return f, (samples, outputs), for inputs x, (samples, d)."""
        return self.read(self.states(x)[-1])


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
        With a built-in activation, branch and optimisers.
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
        If the activation or the branch is not built in, the device does not exist, or another argument is not valid.

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
        problem,
        width,
        depth,
        independent=backward_weights == "independent",
        residual=residual,
        generator=torch.Generator().manual_seed(seed),
        dtype=real,
    ).to(device)
    network.scale(problem)
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
    rules = Rules(problem, network.input_weights, network.readout, network.blocks)
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
    before = [matrix.weight.detach().clone() for matrix in network.matrices if matrix.copy is not None]
    rules.step(step)
    shrunk = rules.shrunk(step)
    with torch.no_grad():
        for matrix, old in zip(network.matrices, before, strict=False):
            if matrix.copy is not None:
                factor = shrunk[matrix.weight]
                matrix.copy.mul_(factor).add_(matrix.weight - factor * old)


def _loss(problem: TrainingProblem, f: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The batch mean of the loss, by torch's own functions."""
    functional = torch.nn.functional
    if problem.loss == "squared":
        return 0.5 * ((f - y) ** 2).sum(dim=1).mean()
    if problem.loss == "logistic":
        return functional.softplus(-y * f).mean()
    return functional.cross_entropy(f, y.argmax(dim=1))
