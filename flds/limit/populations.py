"""What a round of an estimate runs at each depth: particles with matched noise, or an ensemble of dense networks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar, NamedTuple

from flds.limit.intervals import student
from flds.training.options import Options, checked
from flds.training.problem import TrainingProblem
from flds.training.workload import Workload

# The first round where nothing says how large it has to be, and the least where a target does.
_PARTICLES, _FEW_PARTICLES = 2_000, 500
_DEPTH, _LITTLE_DEPTH = 8, 4
# With fewer the spread that a round shows is too much a matter of chance for the size of the next one.
_REPLICATES = 16
# Pairs of networks at first; their number grows.
_PAIRS = 8


class Sizes(NamedTuple):
    """N, or the width of dense networks, L, and the number of independent seeds."""

    particles: int
    depth: int
    replicates: int

    @property
    def work(self) -> float:
        return float(math.prod(self))


class Spread(NamedTuple):
    """What sizes gave: the largest statistical half width, and the largest allowance for the bias of order 1/N."""

    sizes: Sizes
    noise: float
    bias: float


class Population(ABC):
    """What is run, and how it grows.

    Attributes
    ----------
    operator : str
        Of its runs, as in `flds.Options`.
    signs : tuple of float
        Those of the networks that each seed is, whose mean counts.
    note : str
        What a user should know of it.
    members : str
        What there are N of.
    least : int
        How many of them there have to be for their bias to be relied upon.
    """

    operator: ClassVar[str]
    signs: ClassVar[tuple[float, ...]] = (1.0,)
    note: ClassVar[str] = ""
    members: ClassVar[str] = "particles"
    least: ClassVar[int] = 2

    @abstractmethod
    def first(self, problem: TrainingProblem, options: Options, targeted: bool) -> Sizes:
        """Return the sizes of the first round."""

    @abstractmethod
    def grown(self, last: Spread, more: float) -> Sizes:
        """Return sizes that take so many times as long at the same depth."""

    @abstractmethod
    def enough(self, last: Spread, target: float) -> Iterator[Sizes]:
        """Yield sizes at the same depth that would bring noise and bias to a share of the target."""


class MatchedParticles(Population):
    """Particles with matched noise, of which there are more in every round; the rank decides how weights are held."""

    operator = "auto"

    def first(self, problem: TrainingProblem, options: Options, targeted: bool) -> Sizes:
        room = 2 * _load(problem, options).room  # half as many have to be matched as well
        if targeted:
            return Sizes(max(_FEW_PARTICLES, room), _LITTLE_DEPTH, _REPLICATES)
        return Sizes(max(_PARTICLES, room), _DEPTH, _REPLICATES)

    def grown(self, last: Spread, more: float) -> Sizes:
        return last.sizes._replace(particles=math.ceil(last.sizes.particles * more))

    def enough(self, last: Spread, target: float) -> Iterator[Sizes]:
        left = _possible(aim(last.sizes.replicates) * target, last)
        # noise falls like the root of the number of particles, and the bias like itself
        more = ((last.noise + math.sqrt(last.noise**2 + 4 * last.bias * left)) / (2 * left)) ** 2
        yield self.grown(last, max(1.0, more))


class LazyParticles(MatchedParticles):
    """The same, with bases however large the rank."""

    operator = "lazy"


class DenseEnsemble(Population):
    """Dense networks in pairs that share U and v, orthonormal, and have opposite matrices; more pairs in every round.

    Fluctuations that are odd in the matrices cancel within a pair.
    """

    operator = "dense"
    signs = (1.0, -1.0)
    members = "neurons"
    least = 64
    note = "an ensemble of dense networks is the cheapest here: training meets nearly as many directions as particles"

    def first(self, problem: TrainingProblem, options: Options, targeted: bool) -> Sizes:
        dense: Options = {**options, "operator": self.operator}
        load = Workload.of(problem, checked(problem, 2, _LITTLE_DEPTH, "matched", dense))
        return Sizes(load.ensemble_width, _LITTLE_DEPTH if targeted else _DEPTH, _PAIRS)

    def grown(self, last: Spread, more: float) -> Sizes:
        width, depth, replicates = last.sizes
        if last.bias > last.noise and more >= 4.0:  # twice the width takes four times as long
            width, more = 2 * width, more / 4
        return Sizes(width, depth, math.ceil(replicates * more))

    def enough(self, last: Spread, target: float) -> Iterator[Sizes]:
        width, depth, before = last.sizes
        for wider in (1, 2, 4, 8):
            replicates = before
            for _ in range(3):  # Student's quantile and the margin depend on what is sought
                left = aim(replicates) * target - last.bias / wider
                if left <= 0:
                    break
                left = _possible(left, last)
                noise = last.noise * student(replicates - 1) / student(before - 1)
                replicates = max(before, math.ceil(before * (noise / left) ** 2 / wider))
            else:
                yield Sizes(wider * width, depth, replicates)


def _possible(left: float, last: Spread) -> float:
    """Return what noise is to be brought to: no less than asks for 10¹² times as much, which no number holds."""
    return max(left, 1e-6 * last.noise)


def aim(replicates: int) -> float:
    """Return the share of a target to aim at.

    Half widths are known to 1/sqrt(2 replicates); a round that aims this low seldom has to be repeated, and so is
    seldom accepted for a half width that came out small by chance.
    """
    return 1.0 - 1.0 / math.sqrt(2.0 * replicates)


POPULATIONS: dict[str, type[Population]] = {"lazy": LazyParticles, "dense": DenseEnsemble}


def cheapest(problem: TrainingProblem, options: Options) -> Population:
    """Return the population with less work for an error, on a reference machine, so that all choose the same."""
    return DenseEnsemble() if _load(problem, options).ensemble_pays else MatchedParticles()


def _load(problem: TrainingProblem, options: Options) -> Workload:
    """Return the workload of as many particles as a round begins with, or have room for matched noise."""
    lazy: Options = {**options, "operator": "lazy"}
    load = Workload.of(problem, checked(problem, _PARTICLES, _LITTLE_DEPTH, "matched", lazy))
    return replace(load, particles=max(_PARTICLES, load.room))
