"""How many bytes a run takes at its peak, where its particles live and beside them."""

from __future__ import annotations

from typing import NamedTuple

from flds.training.network import PROBE_CHUNK
from flds.training.workload import Workload, remembered
from solvers.ensemble.homes import has_memory
from solvers.memory import INTERPRETER_BYTES

# Bytes besides numbers: Python's objects of a layer and of a record, and the loss of a step with its place in the table
# of batches for each sample.
_LAYER, _RECORD, _STEP = 10_000, 1_600, 48
# Matrices that a thread holds while it makes a step.
_AT_WORK = 5
# Vectors that a sample has in one pass through one layer, of training and where it is probed.
_PASS, _PROBE = 8, 5
# Bytes that torch takes of the process once it is imported, and those it works with where the particles are.
_TORCH, _TORCH_WORK = 250e6, 300e6


class Footprint(NamedTuple):
    """Peak bytes of the process, and of a device beside it: 0 where the particles live in the process."""

    host: float
    device: float

    def within(self, available: Footprint, share: float = 1.0) -> bool:
        """Whether a share of the bytes that are available suffices."""
        return self.host <= share * available.host and self.device <= share * available.device


def lazy_footprint(load: Workload, rank: tuple[int, int]) -> Footprint:
    """Return what a run takes at these final ranks of the forward and the backward basis."""
    total = sum(rank)
    drawn = 2 * total * load.depth if load.sampling == "matched_all" else 0  # all draws, and as they grow
    bases = 2 * total * load.depth * load.spread
    particles = (bases + _constants(load) + drawn) * load.held * load.itemsize
    matrices: float = 8 * load.depth * rank[0] * rank[1] * (2 if load.tied else 1) * len(load.rules)
    if not load.plain:
        matrices += _rule_memory(load, min(load.threads, load.depth)) * rank[0] * rank[1]
    grown = [side * (1 - min(1.0, side / max(load.visits, 1)) / 2) for side in rank]  # mean over the steps
    coordinates = _Coordinates(8 * total * len(load.rules), 8 * sum(grown), 8 * max(rank))
    return _peak(load, particles, matrices, coordinates)


def dense_footprint(load: Workload) -> Footprint:
    """Return what a run takes with weights held as matrices; coordinates are then whole vectors."""
    entries = load.area * load.particles**2
    numbers: float = entries * load.depth * (1 if load.tied else 2) + _constants(load) * load.particles
    numbers *= load.itemsize
    if not load.plain:
        numbers += _rule_memory(load, 1) * entries / len(load.rules)
    # those of gradients are recorded in float64
    recorded, widest = (load.itemsize + 8) * load.particles, 8 * load.particles
    coordinates = _Coordinates(2 * load.itemsize * load.particles * load.spread, recorded, widest)
    return _peak(load, numbers, 0.0, coordinates)


def record_bytes(load: Workload) -> float:
    """Return the bytes of the records of one replicate, but for kernels."""
    return _arrays(load) + load.records * _RECORD + (load.steps + 1) * _STEP


class _Coordinates(NamedTuple):
    """Bytes of the coordinates of one sample in one layer: both sides of the last step and of a mean step, and the
    wider side at the end."""

    last: float
    mean: float
    widest: float


def _peak(load: Workload, particles: float, matrices: float, coordinates: _Coordinates) -> Footprint:
    """Return the peak: in the last replicate's training, or when all records become variables.

    Of the network, `particles` are bytes where the particles live and `matrices` those of small ones.
    """
    replicates, passes = load.replicates, load.records * load.batch
    matrices += load.depth * (_LAYER + load.batch * coordinates.last)
    each, rows = _arrays(load), record_bytes(load)
    kernels = of_tests = temporaries = 0.0
    if load.kernels:
        of_tests = 8.0 * load.records * load.depth * load.tests * load.recorded
        rows += load.depth * passes * coordinates.mean + of_tests
        kernels = 2.0 * load.depth * passes**2 * 8
        temporaries = passes * (3 * coordinates.widest + 8 * passes)
    state = particles + matrices + 2 * load.batch * load.held * load.itemsize + rows
    kept = replicates * state if load.kept else 0.0
    held = INTERPRETER_BYTES + load.data + replicates * rows + (_TORCH if load.device else 0.0)
    variables = replicates * kernels + temporaries
    if replicates > 1:
        # what is stacked and its differences from the mean, where one takes the place of kernels; means and errors
        variables += replicates * max(2 * each, kernels / 2, 2 * of_tests) + 3 * (each + of_tests) + 2 * kernels
    there = particles + _temporaries(load) + (_TORCH_WORK if load.device else 0.0)
    apart = has_memory(load.device)
    training = max(0.0, kept - state) + matrices + (0.0 if apart else there)
    return Footprint(held + max(training, kept + variables), there if apart else 0.0)


def _temporaries(load: Workload) -> float:
    """Bytes of the states at all depths, and of one pass through one layer, of the batch or of what is probed."""
    probed = min(PROBE_CHUNK, load.probes // load.records)
    if load.kernels and load.tests:  # which meet each other all at once
        probed = load.recorded
    states = load.depth * (1 + load.hidden) + 1
    held = (states + _PASS) * load.batch, (states + 1) * load.batch + _PROBE * probed
    return max(held) * load.held * load.itemsize


def _arrays(load: Workload) -> float:
    """Bytes of the arrays in the records of one replicate, but for kernels."""
    return load.records * (load.recorded * load.outputs + 2 * load.depth + 4) * 8.0


def _rule_memory(load: Workload, at_once: int) -> float:
    """Bytes for each entry of a matrix of what its rule remembers and, of so many layers at once, works with."""
    return load.itemsize * (load.depth * sum(map(remembered, load.rules)) + at_once * _AT_WORK)


def _constants(load: Workload) -> int:
    return (load.inputs + load.outputs) * (1 if load.sampling == "law" else 2) + load.vectors
