"""What a run will need: rank, memory and time, estimated before it starts.

The unit of work is one multiply–add of a product of a (batch, n) block with bases or weights. Counts
follow the passes of `solvers.weight_operator`; the speed of this machine is measured once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

import numpy as np

from flds.problem import TrainingProblem
from solvers.blocks import Blocks

# Probes share their fresh noise within a chunk; the size bounds memory and the cost of factoring.
PROBE_CHUNK = 64
# Resident memory of the interpreter with the libraries a solve imports.
INTERPRETER_BYTES = 170e6
# Python's share of one pass through one layer, and of conditioning its noise.
CALL_SECONDS = 150e-6
# Per particle, sample, layer and direction: one normal, φ or φ', the update of the state.
ELEMENTWISE_SECONDS = 20e-9
NORMAL_SECONDS = 1.5e-9
# Larger training sets are not searched for repeated rows.
_COMPARED = 1_000
# Threads share the memory's bandwidth: T of them were measured to be about T^0.5 times as fast as one.
THREAD_EXPONENT = 0.5


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
    """

    operator: str
    reason: str
    rank: tuple[int, int]
    memory: float
    seconds: float

    def __str__(self) -> str:
        rank = f", rank {self.rank[0]}/{self.rank[1]}" if self.operator == "lazy" else ""
        return f"{self.operator} operator{rank}, {self.memory / 1e9:.2g} GB, about {self.seconds:.2g} s ({self.reason})"


@dataclass(frozen=True)
class Workload:
    """The sizes that decide the cost of a run."""

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
    kernels: int
    networks: int

    @staticmethod
    def of(problem: TrainingProblem, particles: int, depth: int, *, probes: int, tied: bool, sampling: str = "law",
           itemsize: int = 8, threads: int = 1, refinement: int = 1, kernels: int = 0,
           networks: int = 1) -> Workload:  # fmt: skip
        """Read the sizes off a problem; `kernels` counts the records whose kernels are kept, `networks` those held."""
        visited = np.unique(problem.batches)
        if len(visited) <= _COMPARED:  # repeated rows add no direction
            visited = np.unique(problem.x[visited], axis=0)
        distinct = len(visited)
        return Workload(
            particles, depth, problem.steps, problem.batch, distinct, problem.x.shape[1], problem.outputs, probes,
            tied, sampling, itemsize, threads, refinement, kernels, networks,
        )  # fmt: skip

    @property
    def visits(self) -> int:
        """Vectors each basis meets: no rank exceeds this or N."""
        return min((self.steps + 1) * self.batch, self.particles)

    @property
    def expected_rank(self) -> int:
        """A rank seen in practice: every new sample adds about one direction, old ones a few in all.

        Few samples saturate near 10 n^1.5 directions at the default tolerance (1 sample: 4–9, 5 samples:
        about 110, 16 samples: 600 and more); random batches over a large set do not saturate.
        """
        return int(min(self.visits, round(10 * self.distinct**1.5)))

    def matching_room(self) -> bool:
        """Whether the constraints of matched noise stay below half of the space, as it requires."""
        constraints = 4 * self.expected_rank + self.inputs + self.outputs
        return 2 * (constraints + 3 * max(self.batch, min(PROBE_CHUNK, self.probes))) <= self.particles

    def lazy_work(self) -> float:
        """Multiply–adds with bases that grow to the expected rank."""
        rank, size = self.expected_rank, self.particles * self.depth
        grown = min(1.0, rank / max(self.visits, 1))  # share of the steps that add directions
        mean = rank * (1 - grown / 2)
        trained = (self.steps + 1) * self.batch
        training = trained * (5 + 6 * grown) * 2 * mean
        probing = self.probes * (3 * 2 * mean + 4 * min(PROBE_CHUNK, self.probes))
        # matching multiplies the constraints with what is new and subtracts them from the fresh noise
        constraints = 4 * mean + self.inputs + self.outputs
        matching = 0.0
        if self.sampling == "matched":
            matching = constraints * (10 * trained * grown + 4 * self.probes)
        elif self.sampling == "matched_all":  # every draw meets all earlier ones, in all layers, four times
            matching = 4 * rank * (2 * rank * self.depth)
        return (training + probing + matching) * size

    def dense_work(self) -> float:
        """Multiply–adds with weights held as matrices: forward, backward, update."""
        matrices = 3.0 if self.tied else 4.0
        return ((self.steps + 1) * self.batch * matrices + self.probes) * self.particles**2 * self.depth

    def lazy_memory(self, rank: tuple[int, int]) -> float:
        """Peak bytes at these final ranks."""
        forward, backward = rank
        vectors = 2 * (forward + backward) * self.depth + self._vectors()
        small = (
            8 * (forward * backward * 2 + (2 * (forward + backward)) ** 2 * (self.sampling == "matched")) * self.depth
        )
        return INTERPRETER_BYTES + self.networks * (vectors * self.particles * self.itemsize + small)

    def dense_memory(self) -> float:
        """Peak bytes with weights held as matrices; coordinates are then whole vectors."""
        matrices = self.particles**2 * self.depth * (1 if self.tied else 2)
        coordinates = 2 * self.depth * self.batch * (1 + self.kernels)
        numbers = matrices + (coordinates + self._vectors()) * self.particles
        return INTERPRETER_BYTES + self.networks * numbers * self.itemsize

    def _vectors(self) -> float:
        """Vectors held besides the bases: constants, states at all depths, temporaries of one pass."""
        constants = (self.inputs + self.outputs) * (1 if self.sampling == "law" else 2)
        return constants + (self.depth + 4) * self.batch + 6 * min(PROBE_CHUNK, self.probes)

    def seconds(self, operator: str) -> float:
        """Expected time on this machine."""
        work = self.lazy_work() if operator == "lazy" else self.dense_work()
        blocks = len(Blocks(self.particles).groups) if operator == "lazy" else self.particles / 256
        threads = max(1.0, min(self.threads, blocks))
        passes = 2 * (self.steps + 1) + -(-self.probes // PROBE_CHUNK)
        samples = 2 * (self.steps + 1) * self.batch + self.probes
        elementwise = samples * self.particles * self.depth * ELEMENTWISE_SECONDS
        if operator == "lazy":
            draws = (2 * self.expected_rank + self.probes) * self.particles * self.depth
        else:
            draws = self.particles**2 * self.depth * (1 if self.tied else 2)
        elementwise += draws * self.refinement * NORMAL_SECONDS
        overhead = passes * self.depth * CALL_SECONDS * (1 if self.sampling == "law" else 3)
        rate = multiply_adds_per_second(self.batch, self.itemsize)
        return overhead + (work / rate + elementwise) / threads**THREAD_EXPONENT


@cache
def multiply_adds_per_second(batch: int, itemsize: int) -> float:
    """Measure one thread on products of the shape the bases need, (batch, n) times (n, 64)."""
    dtype = np.dtype(f"f{itemsize}")
    bases = np.ones((64, 1 << 16), dtype)
    vectors = np.ones((min(batch, PROBE_CHUNK), 1 << 16), dtype)
    best = np.inf
    with Blocks(1).running():
        for _ in range(5):
            start = time.perf_counter()
            for first in range(0, bases.shape[1], 4096):
                vectors[:, first : first + 4096] @ bases[:, first : first + 4096].T
            best = min(best, time.perf_counter() - start)
    return float(len(vectors) * bases.size / best)
