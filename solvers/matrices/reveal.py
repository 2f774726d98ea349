"""What a matrix does to vectors when it is sampled only where it is used, written once.

With M outputs and N inputs the vectors of the two sides live in spaces of their own, and ⟨,⟩ is the mean over either.
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
    """Orthonormal directions on one side of 𝒲, (r, N), and their images, (r, M)."""

    directions: Array
    images: Array


class Revealed(NamedTuple):
    """What a pass gave: images and coordinates of the vectors, and what it revealed.

    Of `added` new directions there is nothing if they outnumber the rows that were spare.
    """

    image: Array
    coordinates: Matrix  # (b, r + added)
    added: int
    response: Matrix  # (added, rank of the other side): p · 𝒲q / √(MN)
    mass: float
    dropped: float
    matched: bool


def shift(response: Matrix, overlap: Matrix) -> Matrix:
    """Return what makes images of fresh noise, y = z − Σ_i p_i ⟨p_i,z⟩ + Σ_i p_i (x_i·q)/M, on the directions p_i."""
    return response - overlap


class Probed(NamedTuple):
    """What a pass gave that remembers nothing: images and coordinates of the vectors."""

    image: Array
    coordinates: Matrix
    matched: bool


class Sizes(NamedTuple):
    """Of fresh noise, 1 for 𝒲 and √(M/N) for 𝒲ᵀ, and the root of the vectors' length over that of their images."""

    noise: float
    ratio: float


class Passes(NamedTuple):
    """`reveal` and `probe`, whose arguments stand where they are made.

    First come the homes of the vectors and of their images. The sides of the matrix are those of the vectors and of
    their images, with A facing them, and ω, the share of what is sampled; the response is zero where the matrix is not
    tied.
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
        That of a `Sampling`, with the home of the images first and the constants to be conditioned on last.
    correction : callable
        `shift`, or what is put in its place.
    precision : float
        Differences of squares are exact to its square.
    compiled : callable
        Compiles their parts, but not themselves.
    """
    return Passes(_revealing(algebra, condition, correction, compiled), _probing(algebra, condition, precision))


def _revealing(algebra: Algebra, condition: Function, correction: Function, compiled: Function) -> Function:
    inner, gram_of, project, combine, fill, empty, copy, scale, _, revealing, inverse_of = algebra
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
        e, images, vectors, states, constants, room, domain, codomain, learned, share, tied, tolerance, sizes, draw
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
            fill(images, noise, draw, kept)
            matched = condition(images, noise, states, constants)
            if sizes.noise != 1.0:
                scale(images, noise, sizes.noise)
            if tied:
                response = sizes.ratio * inner(e, (room.directions[:count],), codomain.images)
                change = shifted(sizes.ratio * response, inner(images, (noise,), codomain.directions))
                combine(images, noise, ((change, codomain.directions),), True)
        image = empty(images, vectors)
        pull = sizes.ratio * (known @ learned)
        terms = ((share * known, domain.images), (share * fresh, noise), (pull, codomain.directions))
        combine(images, image, terms, False)
        return Revealed(image, coordinates, count, response, mass, dropped, matched)

    return reveal


def _probing(algebra: Algebra, condition: Function, precision: float) -> Function:
    inner, combine, revealing = algebra.inner, algebra.combine, algebra.revealing
    fill, empty, scale = algebra.fill, algebra.empty, algebra.scale

    def probe(  # type: ignore[no-untyped-def]
        e, images, vectors, constants, domain, codomain, learned, share, response, tied, tolerance, sizes, draw
    ):
        """Multiply by 𝒲 and forget.

        What is left of the vectors is known by its Gram matrix, which their noise takes as covariance, and by its
        response, ⟨φ,x_i⟩ less that of the known part; so no product beyond those of the vectors is needed.
        """
        rank, count, matched = len(domain.directions), len(vectors), True
        noise = empty(images, vectors)
        fill(images, noise, draw, np.arange(count))
        if not tied:  # the response to what was trained on has what conditions would bring
            matched = condition(images, noise, noise[:0], constants)
        if sizes.noise != 1.0:
            scale(images, noise, sizes.noise)
        products = inner(e, (domain.directions, vectors), vectors)
        known, gram = np.ascontiguousarray(products[:rank].T), products[rank:]
        smallest = max(tolerance, precision) ** 2 * np.diag(gram)
        factor, kept = revealing(gram - known @ known.T.copy(), smallest, e.particles - rank)
        drawn = noise if len(kept) == count else noise[kept]
        pull = sizes.ratio * (known @ (learned - share * response))
        if tied:
            met = sizes.ratio**2 * inner(e, (codomain.images,), vectors).T
            pull += share * (met - factor @ inner(images, (drawn,), codomain.directions))
        image = empty(images, vectors)
        terms = ((share * known, domain.images), (share * factor, drawn), (pull, codomain.directions))
        combine(images, image, terms, False)
        return Probed(image, np.hstack((known, factor)), matched)

    return probe
