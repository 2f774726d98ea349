"""What a matrix does to vectors when it is sampled only where it is used, written once.

The functions here are made of an algebra: of particles anywhere, or compiled, for few particles, whose passes would
else spend their time between operations.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.ensemble.particles import Array
from solvers.matrices.algebra import Algebra, Function

Matrix = NDArray[np.float64]

# Squares of what is left may differ so much before their differences lose more than a digit to rounding.
_SPREAD = 100.0


class Basis(NamedTuple):
    """Orthonormal directions on one side of 𝒲, (r, N), and their images."""

    directions: Array
    images: Array


class Revealed(NamedTuple):
    """What a pass gave: images and coordinates of the vectors, and what it revealed.

    Of `added` new directions there is nothing if they outnumber the rows that were spare.
    """

    image: Array
    coordinates: Matrix  # (b, r + added)
    added: int
    response: Matrix  # (added, rank of the other side)
    mass: float
    dropped: float
    matched: bool


def shift(response: Matrix, overlap: Matrix) -> Matrix:
    """Return what makes images of fresh noise, y = z − Σ_i p_i ⟨p_i,z⟩ + Σ_i p_i ⟨x_i,q⟩, on the directions p_i."""
    return response - overlap


class Probed(NamedTuple):
    """What a pass gave that remembers nothing: images and coordinates of the vectors."""

    image: Array
    coordinates: Matrix
    matched: bool


class Passes(NamedTuple):
    """`reveal` and `probe`, whose arguments stand where they are made.

    The sides of the matrix are those of the vectors and of their images, with A facing them, and ω, the share of what
    is sampled; the response is zero where the matrix is not tied.
    """

    reveal: Function
    probe: Function


def passes(
    algebra: Algebra,
    condition: Function,
    correction: Function,
    precision: float,
    compiled: Function = lambda function: function,
) -> Passes:
    """Return the passes for an algebra.

    Parameters
    ----------
    algebra : Algebra
        What they are made of.
    condition : callable
        That of a `Sampling`, with the particles first and the constants to be conditioned on last.
    correction : callable
        `shift`, or what is put in its place.
    precision : float
        Differences of squares are exact to its square.
    compiled : callable
        Compiles their parts, but not themselves.
    """
    return Passes(_revealing(algebra, condition, correction, compiled), _probing(algebra, condition, precision))


def _revealing(algebra: Algebra, condition: Function, correction: Function, compiled: Function) -> Function:
    inner, gram_of, project, combine, fill, empty, copy, _, revealing, inverse_of = algebra
    shifted = compiled(correction)

    @compiled
    def expand(e, vectors, directions, tolerance, room):  # type: ignore[no-untyped-def]
        """Write vectors as known @ directions + fresh @ new ones + what is dropped; set the first rows of `room`."""
        rank = len(directions)
        products = inner(e, (directions, vectors), vectors)
        known, squares = np.ascontiguousarray(products[:rank].T), np.diag(products[rank:])
        rest, overlap, gram = project(e, vectors, known, directions)
        known = np.ascontiguousarray(known + overlap)  # projected twice: what is left has lost digits to its vector
        left = np.diag(gram)
        fresh, kept = revealing(gram, tolerance**2 * squares, e.particles - rank)
        dropped = np.maximum(left - (fresh * fresh).sum(axis=1), 0.0).sum()
        if 0 < len(kept) <= len(room):
            new = room[: len(kept)]
            started = fresh[kept]
            inverse = inverse_of(started)
            combine(e, new, ((inverse, rest[kept]), (-inverse @ overlap[kept], directions)), False)
            if left.max() > _SPREAD * np.diag(started).min() ** 2:  # differences of what is left lost more
                again = inner(e, (new,), directions)
                combine(e, new, ((-again, directions),), True)
                known = known + fresh @ again
            # orthonormal up to the rounding of the Gram matrix over its smallest pivot, so it is factored again
            repeat = np.linalg.cholesky(gram_of(e, new))
            combine(e, new, ((inverse_of(repeat), copy(e, new)),), False)
            fresh = fresh @ repeat
        return known, fresh, kept, squares.sum(), dropped

    def reveal(  # type: ignore[no-untyped-def]
        e, vectors, states, constants, room, domain, codomain, learned, share, tied, tolerance, draw
    ):
        """Multiply by 𝒲 = (what is revealed) + (what is fresh) + (what is learned), and reveal what is fresh."""
        known, fresh, kept, mass, dropped = expand(e, vectors, domain.directions, tolerance, room.directions)
        count, matched = len(kept), True
        coordinates = np.hstack((known, fresh))
        response = np.zeros((count, len(codomain.directions)))
        if count > len(room.directions):
            return Revealed(vectors[:0], coordinates, count, response, mass, dropped, matched)
        noise = room.images[:count]
        if count > 0:
            fill(e, noise, draw, kept)
            matched = condition(e, noise, states, constants)
            if tied:
                response = inner(e, (room.directions[:count],), codomain.images)
                change = shifted(response, inner(e, (noise,), codomain.directions))
                combine(e, noise, ((change, codomain.directions),), True)
        image = empty(e, vectors)
        terms = ((share * known, domain.images), (share * fresh, noise), (known @ learned, codomain.directions))
        combine(e, image, terms, False)
        return Revealed(image, coordinates, count, response, mass, dropped, matched)

    return reveal


def _probing(algebra: Algebra, condition: Function, precision: float) -> Function:
    inner, combine, revealing = algebra.inner, algebra.combine, algebra.revealing
    fill, empty = algebra.fill, algebra.empty

    def probe(  # type: ignore[no-untyped-def]
        e, vectors, constants, domain, codomain, learned, share, response, tied, tolerance, draw
    ):
        """Multiply by 𝒲 and forget.

        What is left of the vectors is known by its Gram matrix, which their noise takes as covariance, and by its
        response, ⟨φ,x_i⟩ less that of the known part; so no product beyond those of the vectors is needed.
        """
        rank, count, matched = len(domain.directions), len(vectors), True
        noise = empty(e, vectors)
        fill(e, noise, draw, np.arange(count))
        if not tied:  # the response to what was trained on has what conditions would bring
            matched = condition(e, noise, vectors[:0], constants)
        products = inner(e, (domain.directions, vectors), vectors)
        known, gram = np.ascontiguousarray(products[:rank].T), products[rank:]
        smallest = max(tolerance, precision) ** 2 * np.diag(gram)
        factor, kept = revealing(gram - known @ known.T.copy(), smallest, e.particles - rank)
        drawn = noise if len(kept) == count else noise[kept]
        pull = known @ (learned - share * response)
        if tied:
            met = inner(e, (codomain.images,), vectors).T - factor @ inner(e, (drawn,), codomain.directions)
            pull += share * met
        image = empty(e, vectors)
        terms = ((share * known, domain.images), (share * factor, drawn), (pull, codomain.directions))
        combine(e, image, terms, False)
        return Probed(image, np.hstack((known, factor)), matched)

    return probe
