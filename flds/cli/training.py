"""What the commands share: data by name, the problem trained on them, and the solver's run with its warnings."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flds.cli.console import as_options, note

if TYPE_CHECKING:
    from pathlib import Path

    from flds.datasets import Dataset
    from flds.results.limit import LimitEstimate
    from flds.results.solution import Solution
    from flds.training.optimizers import Optimizer
    from flds.training.problem import TrainingProblem

# How `flds solve` and `flds sweep` train by default.
DEFAULT_DEPTH = 8
DEFAULTS: dict[str, Any] = {
    "activation": "tanh",
    "horizon": 1.0,
    "learning_rate": None,
    "steps": 25,
    "loss": None,
    "batch_size": None,
    "batch_order": "random",
    "batch_seed": 0,
    "optimizer": "sgd",
    "weight_decay": 0.0,
    "gradient_clip": None,
    "residual": "single_matrix",
    "hidden_ratio": 1.0,
    "normalization": None,
    "gain": False,
    "bias": False,
    "branch_exponent": 0.5,
}
SCHEDULES = ("constant", "cosine", "linear")
# What the default run may take; the cost model chooses the number of particles within it. A run that is to fit this
# machine takes its time and at most this share of its free memory, and where that is short one of the smaller numbers.
DEFAULT_SECONDS, DEFAULT_BYTES, DEFAULT_SHARE = 5.8, 3.5e9, 0.8
SMALL_CHOICES = (100, 200, 300, 500, 700)
PARTICLE_CHOICES = (1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 8_000, 12_000, 16_000, 20_000, 30_000, 50_000, 100_000)


def load_data(data: str) -> Dataset:
    from flds import datasets

    if data == "digits":
        return datasets.load_digits()
    if data.startswith("cifar10:"):
        return datasets.load_cifar10(data.removeprefix("cifar10:"))
    if data.endswith(".npz"):
        return datasets.load_npz(data)
    raise ValueError(f"--data must be digits, cifar10:FOLDER or FILE.npz, got {data!r}")


def training_problem(
    dataset: Dataset,
    activation: str,
    horizon: float,
    learning_rate: float | None,
    steps: int,
    loss: str | None,
    batch_size: int | None,
    batch_order: str,
    batch_seed: int,
    train_samples: int | None,
    test_samples: int | None,
    schedule: str = "constant",
    **rules: Any,
) -> TrainingProblem:
    from flds.training.problem import TrainingProblem
    from solvers.checks import positive_integer

    train = len(dataset.inputs) if train_samples is None else positive_integer("train_samples", train_samples)
    test = 1000 if test_samples is None else positive_integer("test_samples", test_samples)
    tested = dataset.test_inputs is not None
    default = "cross_entropy" if dataset.classes else "squared"
    rate = default_rate(rules["optimizer"]) if learning_rate is None else learning_rate
    return TrainingProblem(
        dataset.inputs[:train],
        dataset.targets[:train],
        activation=activation,
        horizon=horizon,
        learning_rate=scheduled(rate, schedule, steps),
        steps=steps,
        loss=loss or default,
        batch_size=min(16, train, len(dataset.inputs)) if batch_size is None else batch_size,
        batch_order=batch_order,
        batch_seed=batch_seed,
        test_inputs=dataset.test_inputs[:test] if tested else None,  # type: ignore[index]
        test_targets=dataset.test_targets[:test] if dataset.test_targets is not None else None,
        **rules,
    )


def rule_of(name: str, momentum: float | None, nesterov: bool | None) -> Optimizer:
    """Return the optimiser of this name; what is None is its default."""
    from flds.training.groups import SHORT_NAMES
    from flds.training.optimizers import Adam, Muon
    from solvers.checks import choice

    kind: Any = SHORT_NAMES[choice("--optimizer", name, tuple(SHORT_NAMES))]
    settings = {"momentum": momentum, "nesterov": nesterov}
    given = {option: value for option, value in settings.items() if value is not None}
    if given and kind is Adam:
        raise ValueError(f"--{next(iter(given))} is for sgd and muon; leave it out with --optimizer adam")
    if kind is Muon and momentum == 0 and nesterov is None:
        given["nesterov"] = False
    return kind(**given)


def default_rate(rule: Any) -> float:
    """Return the η_c at which a rule, or that of a short name, learns digits well; one's own takes that of SGD.

    Momentum μ moves as far as a rate larger by 1/(1 − μ); steps of Muon and Adam have a size that does not depend on
    the gradient's.
    """
    from flds.training.groups import SHORT_NAMES
    from flds.training.optimizers import SGD, Adam, Muon

    kind: Any = SHORT_NAMES.get(rule) if isinstance(rule, str) else type(rule)
    of_sgd = 1.0 - rule.momentum if isinstance(rule, SGD) else 1.0
    return {Muon: 0.2, Adam: 0.1}.get(kind, of_sgd)


def scheduled(learning_rate: float, schedule: str, steps: int) -> float | list[float]:
    """Return η_c, or η_c of every step k of K: η_c ½ (1 + cos πk/K), or η_c (1 − k/K)."""
    from solvers.checks import choice

    parts: dict[str, Callable[[float], float]] = {
        "cosine": lambda part: 0.5 * (1 + math.cos(math.pi * part)),
        "linear": lambda part: 1 - part,
    }
    if choice("--schedule", schedule, SCHEDULES) == "constant":
        return learning_rate
    return [learning_rate * parts[schedule](step / steps) for step in range(steps)]


def numbers_of(option: str, text: str) -> int | list[int]:
    """Return the whole number in a text, or the list of those that commas part."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} must be a whole number, or several as 0,3,5, got {text!r}") from None
    return found if "," in text else found[0]


def run(
    problem: TrainingProblem,
    particles: int | None,
    width: int | None,
    depth: int,
    sampling: str,
    options: dict[str, Any],
    fit: bool,
    quiet: bool,
) -> Solution:
    from flds.training.solve import estimate_cost, simulate_resnet, solve_flds

    if width is not None:
        sampling, particles = "law", width
    by_default = particles is None
    if particles is None:
        particles = affordable_particles(problem, depth, sampling, options, fit)
    cost = estimate_cost(problem, particles=particles, depth=depth, sampling=sampling, **options)
    if by_default and not (fit or cost.fits):
        raise MemoryError(
            f"the {particles} particles of the default run need {cost.memory / 1e9:.2g} GB and "
            f"{cost.available / 1e9:.2g} GB are available; --fit chooses fewer, or give --particles"
        )
    if cost.fits and not quiet:
        note(f"{particles} {'neurons' if width else 'particles'}, depth {depth}: {cost}")
    progress = not quiet and sys.stderr.isatty()
    with show_warnings():
        if width is not None:
            solution = simulate_resnet(problem, width=width, depth=depth, progress=progress, **options)
        else:
            solution = solve_flds(
                problem, particles=particles, depth=depth, sampling=sampling, progress=progress, **options
            )
    return solution


def estimate(
    problem: TrainingProblem,
    target_error: float,
    options: dict[str, Any],
    sizes: dict[str, Any],
    checkpoint: Path | None,
    quiet: bool,
) -> LimitEstimate:
    """Estimate the limit to an error, with those of the options that `estimate_limit` has."""
    from flds.limit.estimate import estimate_limit

    taken = ("backward_weights", "operator", "seed", "record_every", "recorded_samples", "threads", "device")
    with show_warnings():
        return estimate_limit(
            problem,
            target_error=target_error,
            checkpoint=checkpoint,
            progress=not quiet and sys.stderr.isatty(),
            **{name: options[name] for name in taken} | sizes,
        )


@contextmanager
def show_warnings() -> Iterator[None]:
    """Print warnings as lines on standard error once the work is done."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        yield
    for warning in caught:
        note(f"warning: {as_options(str(warning.message))}")


@contextmanager
def whole_runs() -> Iterator[None]:
    """End the command where one of its runs is interrupted: solvers keep what there is and warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "interrupted", RuntimeWarning)
        try:
            yield
        except RuntimeWarning:
            raise KeyboardInterrupt from None


def affordable_particles(
    problem: TrainingProblem, depth: int, sampling: str, options: dict[str, Any], fit: bool = False
) -> int:
    """The largest number of particles that the cost model puts within the default time and memory.

    It is the same on every machine, and for any number of ranks, unless it is to fit this one: its speed and what it
    has free. Numbers that leave room to match noise come first: with it fewer particles go further. Where time is short
    PARTICLE_CHOICES[0] are taken, and to fit a machine where memory is short fewer; a run may still be refused.
    """
    from flds.training.solve import estimate_cost

    options = {**options, "communicator": None}
    affordable, smallest = {"lazy": 0, "dense": 0}, SMALL_CHOICES[0] if fit else PARTICLE_CHOICES[0]
    for particles in SMALL_CHOICES + PARTICLE_CHOICES if fit else PARTICLE_CHOICES:
        cost = estimate_cost(problem, particles=particles, depth=depth, sampling=sampling, **options)
        if cost.memory + cost.device_memory > DEFAULT_BYTES:
            break
        beyond = cost.memory > DEFAULT_SHARE * cost.available
        if fit and (beyond or cost.device_memory > DEFAULT_SHARE * cost.device_available):
            break
        if particles <= PARTICLE_CHOICES[0]:
            smallest = particles
        seconds = cost.seconds if fit else cost.reference_seconds
        if seconds <= DEFAULT_SECONDS and particles >= PARTICLE_CHOICES[0]:
            affordable[cost.operator] = particles
    return affordable["lazy"] if affordable["lazy"] > PARTICLE_CHOICES[0] else max(*affordable.values(), smallest)


def assignments(grid: list[str], fixed: list[str]) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Return the values of NAME=A,B,… and of NAME=VALUE texts: numbers or truth values where they read as such.

    Raises
    ------
    ValueError
        If there is no name or no value, a name comes twice, or there are several values where one is meant.
    """
    varied, constant = [_assignment(text) for text in grid], [_assignment(text) for text in fixed]
    names = [name for name, _ in varied + constant]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} is given twice; list all its values in one --grid {name}=A,B")
    for name, values in constant:
        if len(values) > 1:
            raise ValueError(f"--set takes one value, got {len(values)} for {name}; use --grid for several")
    return dict(varied), {name: values[0] for name, values in constant}


def _assignment(text: str) -> tuple[str, list[Any]]:
    name, equals, values = text.partition("=")
    if not (name and equals and values):
        raise ValueError(f"--grid and --set need NAME=VALUE, got {text!r}")
    return name.strip().replace("-", "_"), [_value(part.strip()) for part in values.split(",")]


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
