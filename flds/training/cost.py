"""What a run will need: rank, memory and time, estimated before it starts.

The unit of work is one multiply–add of a product of (batch, n) vectors with bases or weights. Counts
follow the passes of `solvers.matrices.lazy`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flds.training.batches import TABLED
from flds.training.network import PROBE_CHUNK
from flds.training.optimizers import PLAIN, Optimizer
from flds.training.options import RecordSteps, Settings
from flds.training.problem import TrainingProblem
from flds.training.speed import Speed, measured_speed, reference_speed
from solvers.ensemble.threads import FEW
from solvers.matrices.matched import ROOM
from solvers.memory import INTERPRETER_BYTES
from solvers.partition import most_held

# What one pass through one layer takes besides work on particles, in calls: compiled for few particles, of many
# operations, and of those that condition its noise as well.
_FEW_CALLS, _CALLS, _MATCHED_CALLS = 15, 50, 88
# What a particle of a sample that is probed takes in one layer, where one that is trained on takes 1.
_PROBED = 0.7
# Bytes besides numbers: Python's objects of a layer and of a record, and the loss of a step with its place in the table
# of batches for each sample.
_LAYER, _RECORD, _STEP = 10_000, 1_600, 48
# Particles for each direction that leave matched noise worth the work of bases.
_WORTH = 1.5
# Rows of the matrix that a rule's memory is counted of, and matrices that a thread holds while it makes a step.
_PROBED_ROWS, _AT_WORK = 8, 5
# Vectors that a sample has in one pass through one layer, of training and where it is probed.
_PASS, _PROBE = 8, 5
# Larger training sets are not searched for repeated rows.
_COMPARED = 1_000


@dataclass(frozen=True)
class CostEstimate:
    """What `estimate_cost` returns.

    Attributes
    ----------
    operator : str
        "lazy" or "dense", as the run would use it.
    reason : str
        Why.
    rank : (int, int)
        Expected final ranks of the forward and the backward basis in each layer.
    memory : float
        Expected peak memory in bytes.
    seconds : float
        Expected time of the solve on this machine.
    reference_seconds : float
        The same on two threads of fixed speed, whatever this machine is.
    available : float
        Bytes that were available when this was estimated.
    """

    operator: str
    reason: str
    rank: tuple[int, int]
    memory: float
    seconds: float
    reference_seconds: float
    available: float

    @property
    def fits(self) -> bool:
        """Whether the memory was available; a run that does not fit is refused before it starts."""
        return self.memory <= self.available

    @staticmethod
    def of(load: Workload, settings: Settings, reason: str, available: float) -> CostEstimate:
        """Estimate a run of this load and with these settings, whose operator was chosen for this reason."""
        lazy, expected = settings.operator == "lazy", load.expected_rank
        rank = min(expected, settings.rank_budget[0]), min(expected, settings.rank_budget[1])
        memory = load.lazy_memory(rank) if lazy else load.dense_memory()
        here, reference = (load.replicates * load.seconds(settings.operator, speed) for speed in load.speeds())
        shown = rank if lazy else (load.particles, load.particles)
        return CostEstimate(settings.operator, reason, shown, memory, here, reference, available)

    def __str__(self) -> str:
        rank = f", rank {self.rank[0]}/{self.rank[1]}" if self.operator == "lazy" else ""
        size = f"{self.memory / 1e9:.2g} GB"
        if not self.fits:
            size += f", more than the {self.available / 1e9:.2g} GB available"
        return f"{self.operator} operator{rank}, {size}, about {self.seconds:.2g} s ({self.reason})"


@dataclass(frozen=True)
class Workload:
    """The sizes that decide the cost of a run; `probes` and `recorded` count samples, in all records and in one.

    `rules` are those of the matrices of a layer and `shapes` their outputs and inputs over n; `vectors` is how many
    vectors are held besides, all told, for parameters and what rules remember of them, and `hidden` is H/n where there
    is something inside branches.
    """

    particles: int
    depth: int
    steps: int
    batch: int
    distinct: int
    inputs: int
    outputs: int
    probes: int
    tied: bool
    sampling: str
    itemsize: int
    threads: int
    refinement: int
    records: int
    recorded: int
    tests: int
    kernels: bool
    kept: bool
    replicates: int
    data: float
    rules: tuple[Optimizer, ...] = (PLAIN,)
    shapes: tuple[tuple[float, float], ...] = ((1.0, 1.0),)
    hidden: float = 0.0
    vectors: int = 0
    ranks: int = 1

    @staticmethod
    def of(problem: TrainingProblem, settings: Settings, ranks: int = 1) -> Workload:
        """Read the sizes off a problem and the settings of its run."""
        arrays = (problem.x, problem.y, problem.test_x, problem.test_y)
        data = 2.0 * sum(array.nbytes for array in arrays)  # the caller's and ours
        data += TABLED * (problem.steps + 1) * problem.batch
        tests, samples = len(problem.test_x), len(settings.recorded_samples)
        records = RecordSteps(problem.steps, settings.record_every).count
        branch, groups = problem.branch, problem.groups
        hidden = branch.hidden(settings.particles) / settings.particles
        sizes = {"residual": 1.0, "hidden": hidden}
        matrices = branch.matrices.values()
        rows = {"input": float(problem.x.shape[1]), "readout": float(problem.outputs)}
        held = sum(count * round(_numbers(groups[name].optimizer)) for name, count in rows.items())
        for vector in branch.vectors.values():
            each = sizes[vector.space] * (1 + round(_numbers(groups[vector.group].optimizer)))
            held += settings.depth * each
        return Workload(
            particles=settings.particles,
            depth=settings.depth,
            steps=problem.steps,
            batch=problem.batch,
            distinct=_distinct(problem),
            inputs=problem.x.shape[1],
            outputs=problem.outputs,
            probes=records * (tests + (0 if problem.full_batch else samples))
            + (records * (tests + samples) if settings.record_kernels and tests else 0),
            tied=settings.backward_weights == "tied",
            sampling=settings.sampling,
            itemsize=settings.numpy_dtype.itemsize,
            threads=settings.threads,
            refinement=settings.noise_depth // settings.depth,
            records=records,
            recorded=tests + samples,
            tests=tests,
            kernels=settings.record_kernels,
            kept=settings.keep_state,
            replicates=settings.replicates,
            data=data,
            rules=tuple(groups[matrix.group].optimizer for matrix in matrices),
            shapes=tuple((sizes[matrix.outputs], sizes[matrix.inputs]) for matrix in matrices),
            hidden=hidden if branch.has_inside else 0.0,
            vectors=math.ceil(held),
            ranks=ranks,
        )

    @property
    def held(self) -> int:
        """Particles that a rank holds at most."""
        return most_held(self.particles, self.ranks)

    @property
    def constants(self) -> int:
        """Vectors that matched noise meets from the start: input weights and readout."""
        return self.inputs + self.outputs

    @property
    def visits(self) -> int:
        """Vectors each basis meets: no rank exceeds this or the longer of N and H."""
        return min((self.steps + 1) * self.batch, math.ceil(max(1.0, self.hidden) * self.particles))

    @property
    def expected_rank(self) -> int:
        """A rank seen in practice: every new sample adds about one direction, old ones a few in all.

        Few samples saturate near 10 n^1.5 directions at the default tolerance (1 sample: 4–9, 5 samples:
        about 110, 16 samples: 600 and more), by law near 13 n^1.5; random batches over a large set do not saturate.
        """
        return min(self.directions, self.particles)

    @property
    def directions(self) -> int:
        """The rank that is expected among any number of particles."""
        each = 13 if self.sampling == "law" else 10
        return int(min((self.steps + 1) * self.batch, round(each * self.distinct**1.5)))

    @property
    def spread(self) -> float:
        """Vectors of n numbers that a direction and its image take, over two, in all matrices of a layer."""
        return sum(outputs + inputs for outputs, inputs in self.shapes) / 2

    @property
    def area(self) -> float:
        """Entries of all matrices of a layer, over n²."""
        return sum(outputs * inputs for outputs, inputs in self.shapes)

    @property
    def plain(self) -> bool:
        """Whether all matrices move by plain gradient descent."""
        return all(rule.plain for rule in self.rules)

    @property
    def room(self) -> int:
        """The number of particles from which bases with matched noise are worth their work.

        Where the rank is near N, a dense network of so many more particles that it costs as much has smaller errors.
        """
        return max(self.matched_room, math.ceil(_WORTH * self.directions))

    @property
    def matched_room(self) -> int:
        """The number of particles that matched noise needs: what it is matched to takes at most half of the space."""
        return ROOM * (self.constants + max(2 * self.batch, 0 if self.tied else PROBE_CHUNK))

    @property
    def few(self) -> bool:
        """Whether a pass through a layer is one compiled call, on one thread."""
        return self.particles <= FEW and self.sampling != "matched_all" and self.ranks == 1

    @property
    def chunks(self) -> tuple[int, int]:
        """Vectors that meet the bases at a time, in training and when they are probed."""
        records = max(1, self.records)
        return min(self.batch, PROBE_CHUNK), max(1, min(PROBE_CHUNK, -(-self.probes // records)))

    def lazy_work(self) -> tuple[float, float]:
        """Multiply–adds with bases that grow to the expected rank: of training and of probes."""
        rank, size = self.expected_rank, self.particles * self.depth
        grown = min(1.0, rank / max(self.visits, 1))  # share of the steps that add directions
        mean = rank * (1 - grown / 2)
        trained = (self.steps + 1) * self.batch
        training = trained * (5 + 4 * grown) * 2 * mean
        chunk = min(PROBE_CHUNK, self.probes)
        probing = self.probes * ((5 if self.tied else 3) * mean + 2 * chunk)
        # matching multiplies the constraints with what is new and subtracts them from the fresh noise
        matching = 0.0
        if self.sampling == "matched":
            matching = trained * grown * 6 * (self.constants + 2 * self.batch)
            probing += 0 if self.tied else self.probes * 2 * (self.constants + chunk)
        elif self.sampling == "matched_all":  # every draw meets all earlier ones, in all layers, four times
            matching = 4 * rank * (2 * rank * self.depth)
        return (training + matching) * size * self.spread, probing * size * self.spread

    def dense_work(self) -> float:
        """Multiply–adds with weights held as matrices: forward, backward, update."""
        matrices = 3.0 if self.tied else 4.0
        vectors = (self.steps + 1) * self.batch * matrices + self.probes
        return vectors * self.area * self.particles**2 * self.depth

    def lazy_memory(self, rank: tuple[int, int]) -> float:
        """Peak bytes of the process at these final ranks of the forward and the backward basis."""
        total = sum(rank)
        drawn = 2 * total * self.depth if self.sampling == "matched_all" else 0  # all draws, and as they grow
        bases = 2 * total * self.depth * self.spread
        numbers: float = (bases + self._constants() + drawn) * self.held * self.itemsize
        numbers += 8 * self.depth * rank[0] * rank[1] * (2 if self.tied else 1) * len(self.rules)
        if not self.plain:
            numbers += self._rule_memory(min(self.threads, self.depth)) * rank[0] * rank[1]
        grown = [side * (1 - min(1.0, side / max(self.visits, 1)) / 2) for side in rank]  # mean over the steps
        return self._peak(numbers, 8 * total * len(self.rules), 8 * sum(grown), 8 * max(rank))

    def dense_memory(self) -> float:
        """Peak bytes of the process with weights held as matrices; coordinates are then whole vectors."""
        entries = self.area * self.particles**2
        numbers: float = entries * self.depth * (1 if self.tied else 2) + self._constants() * self.particles
        # those of gradients are recorded in float64
        recorded, widest = (self.itemsize + 8) * self.particles, 8 * self.particles
        numbers *= self.itemsize
        if not self.plain:
            numbers += self._rule_memory(1) * entries / len(self.rules)
        return self._peak(numbers, 2 * self.itemsize * self.particles * self.spread, recorded, widest)

    def rows(self) -> float:
        """Bytes of the records of one replicate, but for kernels."""
        return self._each() + self.records * _RECORD + (self.steps + 1) * _STEP

    def _each(self) -> float:
        """Bytes of the arrays in the records of one replicate, but for kernels."""
        return self.records * (self.recorded * self.outputs + 2 * self.depth + 4) * 8.0

    def _rule_memory(self, at_once: int) -> float:
        """Bytes for each entry of a matrix of what its rule remembers and, of so many layers at once, works with."""
        return self.itemsize * (self.depth * sum(map(_numbers, self.rules)) + at_once * _AT_WORK)

    def _constants(self) -> int:
        return (self.inputs + self.outputs) * (1 if self.sampling == "law" else 2) + self.vectors

    def _peak(self, network: float, coordinates: float, recorded: float, widest: float) -> float:
        """Peak bytes: in the last replicate's training, or when its records and those of all others become variables.

        The last three are bytes of the coordinates of one sample in one layer: of the last step and of a mean step,
        both sides, and of the wider side at the end.
        """
        replicates, passes = self.replicates, self.records * self.batch
        network += self.depth * (_LAYER + self.batch * coordinates)
        each, rows = self._each(), self.rows()
        kernels = of_tests = temporaries = 0.0
        if self.kernels:
            of_tests = 8.0 * self.records * self.depth * self.tests * self.recorded
            rows += self.depth * passes * recorded + of_tests
            kernels = 2.0 * self.depth * passes**2 * 8
            temporaries = passes * (3 * widest + 8 * passes)
        state = network + 2 * self.batch * self.held * self.itemsize + rows
        kept = replicates * state if self.kept else 0.0
        held = INTERPRETER_BYTES + self.data + replicates * rows
        variables = replicates * kernels + temporaries
        if replicates > 1:
            # what is stacked and its differences from the mean, where one takes the place of kernels; means and errors
            variables += replicates * max(2 * each, kernels / 2, 2 * of_tests) + 3 * (each + of_tests) + 2 * kernels
        training = max(0.0, kept - state) + network + self._temporaries()
        return held + max(training, kept + variables)

    def _temporaries(self) -> float:
        """Bytes of the states at all depths, and of one pass through one layer, of the batch or of what is probed."""
        probed = min(PROBE_CHUNK, self.probes // self.records)
        if self.kernels and self.tests:  # which meet each other all at once
            probed = self.recorded
        states = self.depth * (1 + self.hidden) + 1
        held = (states + _PASS) * self.batch, (states + 1) * self.batch + _PROBE * probed
        return max(held) * self.held * self.itemsize

    def rule_work(self, operator: str) -> float:
        """Multiply–adds of the steps of the hidden matrices on one thread, as they grow."""
        rows = self.expected_rank if operator == "lazy" else self.particles
        grown = min(1.0, rows / max(self.visits, 1)) if operator == "lazy" else 0.0
        cubes = rows**3 * (1 - 0.75 * grown)  # mean over the steps
        work = sum(rule.work for rule in self.rules)
        return work * self.steps * self.depth * cubes / min(self.threads, self.depth)

    def draws(self, operator: str) -> int:
        """Vectors of all particles that are drawn in all layers."""
        lazy = (2 * self.expected_rank + self.probes) * self.spread
        dense = self.area * self.particles * (1 if self.tied else 2)
        return math.ceil(self.depth * (lazy if operator == "lazy" else dense))

    def speeds(self) -> tuple[Speed, Speed]:
        """Return the speed of this machine, and that of a machine of reference."""
        bases = round(4 * self.expected_rank * self.depth * self.held * self.itemsize * self.spread)
        threads, most = (1, 1) if self.few else (self.threads, 2)
        here = measured_speed(
            self.chunks, self.itemsize, threads, self.few, bases, any(rule.work for rule in self.rules)
        )
        return here, reference_speed(self.chunks, self.itemsize, most)

    def seconds(self, operator: str, speed: Speed) -> float:
        """Expected time of one replicate."""
        lazy = operator == "lazy"
        training, probing = self.lazy_work() if lazy else (self.dense_work(), 0.0)
        passes = 2 * (self.steps + 1) + -(-self.probes // PROBE_CHUNK)
        calls = _CALLS if self.sampling == "law" else _MATCHED_CALLS
        if lazy and self.few:
            calls = _FEW_CALLS
        samples = (2 * (self.steps + 1) * self.batch + _PROBED * self.probes) * self.spread
        shared = (
            training / speed.rate
            + probing / speed.probe_rate
            + samples * self.particles * self.depth * speed.elementwise
            + self.draws(operator) * self.particles * self.refinement * speed.normal
        )
        calls *= len(self.rules)
        return passes * self.depth * calls * speed.call + shared / self.ranks + self.rule_work(operator) / speed.product


def _numbers(rule: Optimizer) -> float:
    """Return how many numbers a rule remembers of a square matrix, over its entries."""
    square = np.zeros((_PROBED_ROWS, _PROBED_ROWS))
    return float(sum(np.size(array) for array in rule.init(square).values()) / square.size)


def _distinct(problem: TrainingProblem) -> int:
    """Count the different samples that are trained on, without making the table of batches where it is large."""
    visits = (problem.steps + 1) * problem.batch
    if not isinstance(problem.batch_order, str) or (problem.batch_order == "random" and visits < problem.samples):
        visited = np.unique(problem.batches)
    else:  # each sample comes once before any comes again
        visited = np.arange(min(visits, problem.samples))
    if len(visited) <= _COMPARED:  # repeated rows add no direction
        return len(np.unique(problem.x[visited], axis=0))
    return len(visited)
