"""The work of a run: its sizes, the rank that is expected, multiply–adds and time.

The unit of work is one multiply–add of a product of (batch, n) vectors with bases or weights. Counts
follow the passes of `solvers.matrices.lazy`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from flds.training.batches import TABLED
from flds.training.narrow import NARROW
from flds.training.network import PROBE_CHUNK
from flds.training.optimizers import PLAIN, Optimizer
from flds.training.options import RecordSteps, Settings
from flds.training.problem import TrainingProblem
from flds.training.speed import Speed, measured_speed, reference_speed
from solvers.ensemble.threads import FEW
from solvers.matrices.matched import ROOM
from solvers.partition import most_held

# What one pass through one layer takes besides work on particles, in calls: compiled for few particles or written out
# for narrow networks, of many operations, and of those that condition its noise as well.
_FEW_CALLS, _CALLS, _MATCHED_CALLS = 15, 50, 88
# Neurons of the dense networks of an ensemble: fewer take nearly as long, and are further from the limit. Half as many
# have room, too, for the vectors that are made orthonormal.
_WIDTH, _ENSEMBLE_ROOM = 256, 2 * ROOM
# Variance of dense networks in pairs over that of as many particles with matched noise: 1.5 (digits, batches of 16) to
# 3.7 (three samples, tanh). Where it is close the ensemble can begin with less work.
_VARIANCE = 1.5
# What a particle of a sample that is probed takes in one layer, where one that is trained on takes 1.
_PROBED = 0.7
# Particles for each direction that leave matched noise worth the work of bases.
_WORTH = 1.5
# Rows of the matrix that a rule's memory is counted of.
_PROBED_ROWS = 8
# Larger training sets are not searched for repeated rows.
_COMPARED = 1_000


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
    device: str | None = None

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
        held = sum(count * round(remembered(groups[name].optimizer)) for name, count in rows.items())
        for vector in branch.vectors.values():
            each = sizes[vector.space] * (1 + round(remembered(groups[vector.group].optimizer)))
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
            device=settings.device,
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
    def ensemble_width(self) -> int:
        """The width that an ensemble of dense networks begins with."""
        return max(_WIDTH, _ENSEMBLE_ROOM * self.constants)

    @property
    def ensemble_pays(self) -> bool:
        """Whether pairs of dense networks take less work for an error than these particles with matched noise.

        The work is that on a reference machine, so that the answer is the same on every one.
        """
        dense = replace(self, particles=self.ensemble_width)
        return _VARIANCE * dense._reference_seconds("dense") < self._reference_seconds("lazy")

    def _reference_seconds(self, operator: str) -> float:
        """Return the time of one replicate on one thread of a machine of reference, for each particle."""
        load = replace(self, refinement=1, threads=1)
        return load.seconds(operator, reference_speed(load.chunks, load.itemsize, 1)) / load.particles

    @property
    def few(self) -> bool:
        """Whether a pass through a layer is one compiled call, on one thread."""
        few = self.particles <= FEW and self.sampling != "matched_all"
        return few and self.ranks == 1 and self.device is None

    @property
    def narrow(self) -> bool:
        """Whether passes of a dense network are written out."""
        return self.few and self.particles <= NARROW and len(self.rules) == 1 and not self.vectors

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
        products = any(rule.work for rule in self.rules)
        here = measured_speed(self.chunks, self.itemsize, threads, self.few, bases, products, self.device)
        return here, reference_speed(self.chunks, self.itemsize, most)

    def seconds(self, operator: str, speed: Speed) -> float:
        """Expected time of one replicate."""
        lazy = operator == "lazy"
        training, probing = self.lazy_work() if lazy else (self.dense_work(), 0.0)
        passes = 2 * (self.steps + 1) + -(-self.probes // PROBE_CHUNK)
        calls = _MATCHED_CALLS if lazy and self.sampling != "law" else _CALLS
        if self.few if lazy else self.narrow:
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


def remembered(rule: Optimizer) -> float:
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
