"""Training with the tangent kernel as it is at initialisation: the lazy limit, in which features do not move."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flds.frozen.kernel import Kernels, by_quadrature, total, untrained_kernels
from flds.results.solution import Solution
from flds.training.assemble import output_variables
from flds.training.description import describe
from flds.training.divergence import Divergence
from flds.training.optimizers import SGD
from flds.training.options import RecordSteps, records_of
from flds.training.problem import TrainingProblem
from solvers import checks
from solvers.memory import require_memory
from solvers.results.solution import Variable
from solvers.results.versions import library_versions

Array = NDArray[np.float64]

# Arrays of the size of a kernel that are held at once: those of three groups and more, and what making them takes.
_HELD = 10


def solve_frozen(
    problem: TrainingProblem,
    *,
    backward_weights: str = "tied",
    depth: int = 64,
    particles: int = 20_000,
    seed: int = 0,
    record_every: int | None = None,
    recorded_samples: Any = None,
) -> Solution:
    """Train with the tangent kernel frozen at initialisation, to see what features that move add.

    It is what infinitely wide networks do in the lazy scaling, and at small learning rates for few steps. Outputs
    follow f ← f − Σ η_c K · mean over the batch of L', with the kernel K of each group of parameters, at infinite
    width and depth L: by quadrature where branches have one matrix, and else from particles.

    Parameters
    ----------
    problem : TrainingProblem
        Its rule is SGD, with momentum or without, for all parameters, and without weight decay.
    backward_weights : str
        "tied" or "independent".
    depth : int
        L.
    particles, seed : int
        Of the kernel, where branches are not of one matrix.
    record_every, recorded_samples
        As for `solve_flds`.

    Returns
    -------
    Solution
        Outputs, losses, accuracies, and the `kernel` between recorded training samples, at equal learning rates.

    Raises
    ------
    ValueError, TypeError
        If an argument is not valid, or the rule is not one that the kernel decides, with the reason.
    MemoryError
        If the kernel does not fit in memory.

    Warns
    -----
    RuntimeWarning
        If training diverged.

    References
    ----------
    Jacot, Gabriel and Hongler, "Neural Tangent Kernel" (2018); Chizat, Oyallon and Bach, "On Lazy Training in
    Differentiable Programming" (2019).
    """
    _require_decided(problem)
    every, recorded = records_of(problem, record_every, recorded_samples)
    checks.positive_integer("depth", depth)
    size = problem.samples + len(problem.test_x)
    require_memory(_HELD * 8.0 * size**2, "use fewer samples")
    start = time.perf_counter()
    points = np.concatenate([problem.x, problem.test_x])
    kernels = untrained_kernels(problem, points, backward_weights, depth, particles, seed)
    norm = kernels
    if problem.gradient_clip is not None and backward_weights != "tied":  # that of what is pulled back, by the copies
        norm = untrained_kernels(problem, points, "tied", depth, particles, seed)
    drawn = time.perf_counter()
    run = _Training(problem, kernels, norm, depth).run(RecordSteps(problem.steps, every), list(recorded))
    variables = output_variables(problem, run.steps, list(recorded), np.array(run.outputs), np.array(run.tests))
    variables["batch_loss"] = Variable(("every_step",), np.array(run.losses), "loss of the batch")
    known = total(kernels)[np.ix_(recorded, recorded)]
    variables["kernel"] = Variable(("sample", "other_sample"), known, "tangent kernel at initialisation")
    description, arrays = describe(problem)
    settings = {
        "solver": "solve_frozen",
        "particles": particles,
        "depth": depth,
        "backward_weights": backward_weights,
        "kernel": "quadrature" if by_quadrature(problem) else "particles",
        "record_every": every,
        "recorded_samples": list(recorded),
        "replicates": 1,
    }
    notes = [f"training diverged at step {run.steps[-1]}"] if run.status == "diverged" else []
    for note in notes:
        warnings.warn(note, RuntimeWarning, stacklevel=2)
    timings = {"kernel": drawn - start, "solve": time.perf_counter() - drawn}
    extra = {"problem": description}
    return Solution(variables | arrays, run.status, timings, seed, settings, notes, library_versions(), extra=extra)


def _require_decided(problem: Any) -> None:
    """Refuse what the kernel does not decide."""
    if not isinstance(problem, TrainingProblem):
        raise TypeError(f"problem must be a flds.TrainingProblem, got {type(problem).__name__}")
    reason = "is frozen only where steps are sums of gradients: "
    for name, group in problem.groups.items():
        if group.weight_decay:
            raise ValueError(f"the kernel {reason}weight decay of {name} shrinks the weights that it is made of")
        if type(group.optimizer) is not SGD:
            raise ValueError(
                f"the kernel {reason}{group.optimizer!r} of {name} makes other steps of them; use flds.SGD()"
            )


@dataclass
class _Run:
    """What was recorded."""

    steps: list[int]
    outputs: list[Array]
    tests: list[Array]
    losses: list[float]
    status: str = "completed"


class _Training:
    """Outputs on all points under steps of SGD, in coefficients: a gradient is a sum over training samples."""

    def __init__(self, problem: TrainingProblem, kernels: Kernels, norm: Kernels, depth: int) -> None:
        self.problem, self.samples = problem, problem.samples
        self.kernels = {name: kernel[:, : self.samples] for name, kernel in kernels.items()}
        # n‖∇‖² = L'ᵀ K L', with gradients by matrices and vectors of branches over what multiplies their rates
        inside = (problem.horizon / depth) ** (1 - 2 * problem.branch_exponent)
        outside = ("input", "readout")
        scaled = {name: one if name in outside else one / inside for name, one in norm.items()}
        self.norm = total(scaled)[: self.samples, : self.samples]
        self.momenta = {name: np.zeros((self.samples, problem.outputs)) for name in kernels}

    def run(self, due: RecordSteps, recorded: list[int]) -> _Run:
        """Loss, record, update; for every step, unless training diverges."""
        problem, f = self.problem, np.zeros((len(next(iter(self.kernels.values()))), self.problem.outputs))
        run, divergence = _Run([], [], [], []), Divergence(problem.divergence_factor)
        for step, batch in enumerate(problem.batches):
            targets = problem.y[batch]
            loss = float(problem.loss_function.value(f[batch], targets).mean())
            if divergence.at(loss, np.mean(f[batch] ** 2)):
                run.status = "diverged"
                break
            run.losses.append(loss)
            if step in due:
                run.steps.append(step)
                run.outputs.append(f[recorded])
                run.tests.append(f[self.samples :])
            if step < problem.steps:
                slopes = np.zeros((self.samples, problem.outputs))
                np.add.at(slopes, batch, problem.loss_function.derivative(f[batch], targets) / len(batch))
                f = f + self._move(self._clipped(slopes), step)
        return run

    def _clipped(self, slopes: Array) -> Array:
        if self.problem.gradient_clip is None:
            return slopes
        size = float(np.sum(slopes * (self.norm @ slopes))) ** 0.5
        return slopes * min(1.0, self.problem.gradient_clip / size) if size > 0 else slopes

    def _move(self, slopes: Array, step: int) -> Array:
        """Return by how much all outputs change."""
        change = np.zeros((len(next(iter(self.kernels.values()))), self.problem.outputs))
        for name, kernel in self.kernels.items():
            group = self.problem.groups[name]
            rule: Any = group.optimizer
            momentum = self.momenta[name] = rule.momentum * self.momenta[name] + slopes
            seen = slopes + rule.momentum * momentum if rule.nesterov else momentum
            change -= float(group.rates[step]) * (kernel @ seen)
        return change
