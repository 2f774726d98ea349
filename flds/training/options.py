"""How a problem is to be solved: particles, depth, operator, sampling, precision and what is recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import numpy as np

from flds.training.optimizers import Optimizer
from flds.training.problem import TrainingProblem
from solvers import checks
from solvers.ensemble.homes import check_device, check_elementwise, usable_device
from solvers.processors import available_threads
from solvers.ranks import check_communicator, threads_of_rank

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Kind = TypeVar("Kind", bound=DataclassInstance)

OPERATORS = ("auto", "lazy", "dense")
BACKWARD_WEIGHTS = ("tied", "independent")
SAMPLINGS = ("matched", "law", "matched_all")
DTYPES = ("float64", "float32")

# Default tolerances over the largest step and 1/√N. For the limit a tenth of the statistical error. The smallest joint
# fluctuations of a network's outputs are some thousandths of those of one output, and its law holds for them too.
_DROPPED = {"matched": 0.1, "matched_all": 0.1, "law": 1e-3}

# Where less is dropped, float32 would drop more: it keeps nothing below 1e-5, and rounds at 1e-7.
_COARSE = 1e-4

# A training set up to this size, or one trained on as a whole, is recorded at every step.
FEW_SAMPLES = 32
MOST_RECORDED = 256
MOST_RECORDS = 20


@dataclass(frozen=True)
class Settings:
    """Checked solver settings with every default decided; they are saved with the result."""

    particles: int
    depth: int
    backward_weights: str
    seed: int
    operator: str
    sampling: str
    tolerance: float
    rank_budget: tuple[int, int]
    noise_depth: int
    record_every: int
    recorded_samples: tuple[int, ...]
    record_kernels: bool
    keep_state: bool
    dtype: str
    threads: int
    replicates: int
    device: str | None = None

    @property
    def numpy_dtype(self) -> np.dtype:
        return np.dtype(self.dtype)


def stored_settings(kind: type[Kind], saved: dict[str, Any]) -> Kind:
    """Return the settings that a solution was computed with, on all CPUs of this machine."""
    # those with a default are newer than some files
    known = [item.name for item in fields(kind) if item.name in saved or item.default is MISSING]
    values = {name: saved[name] for name in known} | {"threads": available_threads()}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return kind(**_where_it_is(values))


def stored_options(kind: Any, saved: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a solver, a TypedDict, that a solution was computed with, but for the threads."""
    known = {name: saved[name] for name in kind.__annotations__ if name in saved and name != "threads"}
    return _where_it_is(known)


def _where_it_is(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings or options, without a device that is not there."""
    return values | {"device": usable_device(values["device"])} if "device" in values else values


@dataclass(frozen=True)
class RecordSteps:
    """Steps at which outputs are recorded: 0, every, 2 every, … and always the last; there may be very many."""

    steps: int
    every: int

    def __contains__(self, step: int) -> bool:
        return step == self.steps or step % self.every == 0

    def __iter__(self) -> Iterator[int]:
        yield from range(0, self.steps, self.every)
        yield self.steps

    @property
    def count(self) -> int:
        """How many there are."""
        return 1 + -(-self.steps // self.every)


def records_of(
    problem: TrainingProblem, record_every: int | None, recorded_samples: Any
) -> tuple[int, tuple[int, ...]]:
    """Decide at which steps and on which training samples outputs are recorded."""
    few = problem.samples <= FEW_SAMPLES or problem.full_batch
    if record_every is None:
        # both ends are recorded, so 19 intervals make 20 records
        record_every = 1 if few else max(1, -(-problem.steps // (MOST_RECORDS - 1)))
    checks.positive_integer("record_every", record_every)
    if recorded_samples is None:
        recorded_samples = problem.samples if problem.full_batch else min(problem.samples, MOST_RECORDED)
    if isinstance(recorded_samples, (int, np.integer)) and type(recorded_samples) is not bool:
        count = min(checks.positive_integer("recorded_samples", recorded_samples), problem.samples)
        recorded_samples = np.linspace(0, problem.samples - 1, count).astype(int)
    rule = "a number of samples or a list of their indices"
    indices = checks.numeric("recorded_samples", recorded_samples, rule)
    if indices.ndim != 1 or indices.size == 0 or indices.dtype.kind not in "iu":
        given = checks.shown(recorded_samples)
        raise ValueError(f"recorded_samples must be {rule}, got {given}")
    if indices.min() < 0 or indices.max() >= problem.samples:
        raise ValueError(
            f"recorded_samples must be sample indices from 0 to {problem.samples - 1}, "
            f"got {indices.min()} to {indices.max()}"
        )
    return int(record_every), tuple(int(i) for i in indices)


class Options(TypedDict, total=False):
    """Options that every training solver takes.

    Parameters
    ----------
    backward_weights : str
        "tied" uses W_ℓᵀ as backpropagation does; "independent" uses a copy, as Definition 1 of paper F.
    seed : int
        Seed of all noise, 0 to 2**63 - 1.
    operator : str
        "lazy" samples the weights where training looks, "dense" holds them, "auto" takes the cheaper.
    tolerance : float
        Residuals below this fraction of a vector's norm are dropped; default 0.1/sqrt(particles), with sampling "law"
        0.001/sqrt(particles), times the largest learning rate where that is below 1. Zero means rounding (1e-7, in
        float32 1e-5).
    rank_budget : (int, int)
        Largest ranks of the forward and backward bases; by default what memory allows.
    noise_depth : int
        A multiple of `depth`: the grid on which noise is drawn. Runs with the same value share a path.
    record_every : int
        Steps between records; by default every step for few samples, else at most 20 records.
    recorded_samples : int or sequence of int
        Training samples whose outputs are recorded: so many, spread evenly, or these indices; by default at most 256.
    record_kernels : bool
        Record Σ and Θ across recorded steps and batch samples, Σ of test inputs, and its alignment with the targets.
    keep_state : bool
        Keep the trained network, for `Solution.predict` and `resume`. A saved solution then takes about the memory of
        the run. Not with ``sampling="matched_all"``.
    dtype : str
        Storage, "float32" or "float64"; by default float32 for matched noise where the tolerance is 1e-4 or more, which
        changes outputs by a fiftieth of their spread over seeds at most, else float64. With float32, inner products are
        summed in float32 within 512 particles and in float64 across them; norms and pivots are float64 throughout.
    threads : int
        Number of threads, up to 4,096; by default all available CPUs. Results do not depend on it.
    replicates : int
        Independent seeds; variables become means with standard errors.
    device : str
        "cuda", "cuda:1", or "cpu": the particles live in tensors of torch on that device. Noise has the same numbers,
        and results are those of threads to rounding; a state or a checkpoint goes on anywhere. Without threads and
        communicator.
    communicator : mpi4py.MPI.Comm
        Ranks that share the particles; every one of them calls the solver with the same arguments and gets the same
        solution, that of one process to the bit; of a state that is kept each has its own particles, and all call the
        methods `save` and `predict` together. Threads are those of each rank. Needs the lazy operator.
    executor : concurrent.futures.Executor
        What trains the replicates, each in one of its workers, such as ``dask.distributed.Client(...).get_executor()``;
        by default they are trained here, one after the other. Threads are those of each worker, 1 by default.
    checkpoint : path
        A file in which the run is kept while it goes on. The same call again, should the process end before it, goes on
        from there and ends with the same bits; ``settings["continued_from_step"]`` says where. The file is removed when
        training is done, and stays where it was interrupted. Another run, or another version, is refused.
    checkpoint_every : float
        Seconds between checkpoints, by default 600; more where writing them would take more than a fortieth of the
        time.
    callback : callable
        Called with each record, a `flds.TrainingRecord`, before the update of its step. Where it returns True the run
        ends with the status "stopped", as early stopping needs; with ``keep_state=True`` it can be gone on with if
        there was an update. One run only, without replicates and executor; of several ranks the first calls it.
    """

    backward_weights: str
    seed: int
    operator: str
    tolerance: float | None
    rank_budget: tuple[int, int] | None
    noise_depth: int | None
    record_every: int | None
    recorded_samples: int | Sequence[int] | None
    record_kernels: bool
    keep_state: bool
    dtype: str | None
    threads: int | None
    replicates: int
    device: str | None
    communicator: Any
    executor: Any
    checkpoint: Any
    checkpoint_every: float
    callback: Any


def checked(problem: TrainingProblem, particles: int, depth: int, sampling: str, options: Options) -> Settings:
    """Check the options, and return them with the defaults that no cost decides.

    The operator may still be "auto", the sampling one that turns out not to fit, and the budget what would never be
    outgrown.

    Raises
    ------
    ValueError, TypeError
        If an option is not valid.
    """
    if not isinstance(problem, TrainingProblem):
        raise TypeError(f"problem must be a flds.TrainingProblem, got {type(problem).__name__}")
    unknown = sorted(set(options) - set(Options.__annotations__))
    if unknown:
        raise TypeError(f"unknown option {unknown[0]!r}; valid options are {', '.join(Options.__annotations__)}")
    particles = checks.positive_integer("particles", particles)
    depth = checks.positive_integer("depth", depth)
    every, samples = records_of(problem, options.get("record_every"), options.get("recorded_samples"))
    operator = checks.choice("operator", options.get("operator", "auto"), OPERATORS)
    sampling = checks.choice("sampling", sampling, SAMPLINGS)
    tolerance = _tolerance(problem, particles, sampling, options.get("tolerance"))
    dtype = options.get("dtype")
    if dtype is None:
        # outputs of the limit scatter much more than this rounds; joint laws of networks, and what moves little, do not
        dtype = "float32" if sampling == "matched" and tolerance >= _COARSE else "float64"
    budget = options.get("rank_budget")
    communicator = check_communicator(options.get("communicator"))
    device = check_device(options.get("device"), communicator, options.get("threads"))
    if device is not None:
        phi = problem.phi
        check_elementwise(device, f"activation {phi.name!r}", phi.value, phi.derivative)
    for name, group in problem.groups.items():
        if group.matrix:
            operator = _for_rule(name, group.optimizer, operator)
    if sampling == "matched_all" and problem.branch.has_inside:
        raise ValueError('sampling="matched_all" is for branches without a hidden space; use "matched" or "law"')
    longest = max(particles, problem.branch.hidden(particles))
    if operator == "auto" and (budget is not None or communicator is not None):
        operator = "lazy"  # only the lazy operator has ranks, and matrices held whole are held by one process
    if operator == "dense" and communicator is not None:
        raise ValueError(
            'operator="dense" holds whole matrices in one process; leave communicator out or use operator="lazy"'
        )
    return Settings(
        particles=particles,
        depth=depth,
        backward_weights=checks.choice("backward_weights", options.get("backward_weights", "tied"), BACKWARD_WEIGHTS),
        seed=checks.seed_number("seed", options.get("seed", 0)),
        operator=operator,
        sampling=sampling,
        tolerance=tolerance,
        rank_budget=_budget(budget, min((problem.steps + 1) * problem.batch, longest)),
        noise_depth=checks.noise_grid(options.get("noise_depth"), depth),
        record_every=every,
        recorded_samples=samples,
        record_kernels=checks.flag("record_kernels", options.get("record_kernels", False)),
        keep_state=checks.flag("keep_state", options.get("keep_state", False)),
        dtype=checks.choice("dtype", dtype, DTYPES),
        threads=threads_of_rank(options.get("threads"), communicator),
        replicates=checks.positive_integer("replicates", options.get("replicates", 1)),
        device=device,
    )


def _for_rule(name: str, rule: Optimizer, operator: str) -> str:
    """Return the operator; a rule that treats entries of matrices needs them whole."""
    if rule.entrywise and operator == "lazy":
        raise ValueError(
            f'operator="lazy" needs steps of low rank, but {type(rule).__name__} treats entries of the hidden matrices '
            f'each for itself; use operator="dense", or another rule for "{name}", such as flds.Muon()'
        )
    return "dense" if rule.entrywise else operator


def _tolerance(problem: TrainingProblem, particles: int, sampling: str, given: float | None) -> float:
    if given is None:
        # Features move by about η_c a step, so a fixed tolerance would drop the movement at small rates.
        movement = min(1.0, problem.largest_rate)
        given = _DROPPED[sampling] * movement / particles**0.5
    return checks.tolerance(given)


def _budget(given: tuple[int, int] | None, visits: int) -> tuple[int, int]:
    """Check the largest ranks; by default the number of vectors that a basis meets."""
    try:
        forward, backward = (visits, visits) if given is None else given
    except (TypeError, ValueError):
        raise ValueError(f"rank_budget must be a pair (forward, backward), got {checks.shown(given)}") from None
    return (
        checks.positive_integer("rank_budget[0]", forward),
        checks.positive_integer("rank_budget[1]", backward),
    )
