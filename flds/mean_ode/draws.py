"""Initial units of every depth node: independent, or spread evenly over the law by a scrambled Sobol sequence."""

from __future__ import annotations

import math

import numpy as np

from flds.mean_ode.blocks import Array, Parameters
from flds.mean_ode.problem import MeanFieldProblem
from solvers import checks
from solvers.partition import partition

SAMPLINGS = ("sobol", "iid")
# As many coordinates as scipy's direction numbers have.
_MOST_COORDINATES = 21_201
_BITS = 30
# Coordinates made at a time.
_AT_A_TIME = 2**20


def draw_units(
    problem: MeanFieldProblem, nodes: int, units: int, seed: int = 0, sampling: str = "sobol"
) -> list[Parameters]:
    """Draw the initial parameters of `units` units at each of `nodes` depth nodes.

    With "sobol", all nodes of a block share one scrambled sequence, a stretch of it each, so that the average over
    depth is taken over one even set of points; units come in pairs of opposite φ where the law is symmetric.

    Parameters
    ----------
    problem : MeanFieldProblem
        Supplies blocks and laws.
    nodes, units : int
        Number of depth nodes, and of units at each.
    seed : int
        Seed of the draws.
    sampling : str
        "sobol" or "iid".

    Returns
    -------
    list of dict
        For each block, arrays (nodes, *shape, units) by name.

    Raises
    ------
    ValueError, TypeError
        If an argument is not valid, the number of units is odd where they are drawn in pairs, or a unit has more
        numbers than there are Sobol coordinates.

    References
    ----------
    I. M. Sobol', "The distribution of points in a cube and the accurate evaluation of integrals", Zh. Vychisl. Mat.
    i Mat. Phys. 7 (1967); scrambled as in J. Matoušek, "On the L2-discrepancy for anchored boxes", J. Complexity 14
    (1998).
    """
    nodes, units = checks.positive_integer("nodes", nodes), checks.positive_integer("units", units)
    seed, sampling = checks.seed_number("seed", seed), checks.choice("sampling", sampling, SAMPLINGS)
    seeds = np.random.SeedSequence(seed).spawn(len(problem.blocks))
    uniforms, mirrored = [], []
    for block, shapes, child in zip(problem.blocks, problem.shapes, seeds, strict=True):
        numbers = sum(math.prod(shape) for shape in shapes.values())
        generator = np.random.default_rng(child)
        paired = sampling == "sobol" and problem.symmetric(block)
        mirrored.append(block.flipped if paired else None)
        if sampling == "iid":
            uniforms.append(generator.random((nodes, numbers, units)))
            continue
        if paired and units % 2:
            raise ValueError(f"units must be even, since they are drawn in pairs of opposite φ, got {units}")
        drawn = units // 2 if paired else units
        uniforms.append(_sobol(nodes * drawn, numbers, generator).reshape(nodes, drawn, numbers).swapaxes(1, 2))
    return [
        drawn if flipped is None else _with_mirror(drawn, flipped)
        for drawn, flipped in zip(problem.initial(uniforms), mirrored, strict=True)
    ]


def _sobol(count: int, coordinates: int, generator: np.random.Generator) -> Array:
    """Return `count` points of (0, 1)^coordinates."""
    from scipy.stats import qmc

    if coordinates > _MOST_COORDINATES:
        raise ValueError(
            f'sampling must be "iid" for units of more than {_MOST_COORDINATES} numbers, got {coordinates}'
        )
    sequence = qmc.Sobol(coordinates, bits=_BITS, seed=generator)
    points = np.empty((count, coordinates))
    few = 2 ** int(math.log2(max(1, min(count, _AT_A_TIME // coordinates))))  # scipy wants a power of two
    for part in partition(count, few):
        # the middle of the cell, never 0
        points[part] = sequence.random(few)[: part.stop - part.start] + 0.5**_BITS / 2
    return points


def _with_mirror(drawn: Parameters, flipped: tuple[str, ...]) -> Parameters:
    """Return units and, after them, those whose `flipped` parameters have the other sign."""
    return {
        name: np.concatenate([values, -values if name in flipped else values], axis=-1)
        for name, values in drawn.items()
    }
