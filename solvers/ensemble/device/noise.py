"""The addressed normals of `solvers.ensemble.random` on tensors of torch: the same numbers, to rounding, on any device.

Words are 64-bit integers with a sign, whose products wrap; a logical shift is an arithmetic one and a mask.
"""

from __future__ import annotations

import math

import torch

from solvers.ensemble.random import PAIRS, Draw
from solvers.partition import STRETCH

Tensor = torch.Tensor

_WORD = 1 << 64
# Normals made at a time: few enough to stay in a cache, or to leave room on a device.
_AT_ONCE = {"cpu": 1 << 17, "cuda": 1 << 22}


def _signed(word: int) -> int:
    """Return the integer with a sign that has these 64 bits."""
    word %= _WORD
    return word - _WORD if word >= _WORD // 2 else word


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX1, _MIX2 = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)
_ALTERNATING = _signed(0xAAAAAAAAAAAAAAAA)
_FIVES, _THREES = 0x5555555555555555, 0x3333333333333333
_NIBBLES, _BYTES = 0x0F0F0F0F0F0F0F0F, 0x0101010101010101
_EIGHTH_TURN = math.pi / 2**54
# Positions that are hashes of something are below this.
_POSITIONS = (1 << 62) - 1


def _shifted(word: Tensor, bits: int) -> Tensor:
    """A logical shift to the right."""
    return (word >> bits) & ((1 << (64 - bits)) - 1)


def _mix(word: Tensor) -> Tensor:
    """The output function of SplitMix64."""
    return _mix_(word.clone(), torch.empty_like(word))


def _mix_(word: Tensor, spare: Tensor) -> Tensor:
    """The same in place, with memory to work in: no word waits for room while many are made."""
    for bits, factor in ((30, _MIX1), (27, _MIX2), (31, 1)):
        torch.bitwise_right_shift(word, bits, out=spare).bitwise_and_((1 << (64 - bits)) - 1)
        word.bitwise_xor_(spare)
        if factor != 1:
            word.mul_(factor)
    return word


def _ones(word: Tensor) -> Tensor:
    """How many bits are set."""
    word = word - (_shifted(word, 1) & _FIVES)
    word = (word & _THREES) + (_shifted(word, 2) & _THREES)
    word = (word + _shifted(word, 4)) & _NIBBLES
    return _shifted(word * _BYTES, 56)


def _increments(keys: Tensor) -> Tensor:
    increments = _mix(keys + _GOLDEN) | 1
    few = _ones(increments ^ _shifted(increments, 1)) < 24
    return torch.where(few, increments ^ _ALTERNATING, increments)


def address_keys(seed: int, stream: int, step: int, positions: Tensor, layer: int, stretches: Tensor) -> Tensor:
    """Return the hashes of addresses, (positions, stretches) int64, one SplitMix64 round per coordinate.

    Parameters
    ----------
    seed, stream, step, layer : int
    positions, stretches : (k,) and (s,) int64
        On one device.
    """

    def number(value: int) -> Tensor:
        return torch.tensor(_signed(value + _GOLDEN), dtype=torch.int64, device=positions.device)

    key = _mix(number(seed))
    key = _mix(key ^ _mix(number(stream)))
    key = _mix((key + _GOLDEN) ^ _mix(number(step)))
    key = _mix((key + _GOLDEN) ^ _mix(positions + _GOLDEN))
    key = _mix((key + _GOLDEN) ^ _mix(number(layer)))
    return _mix((key + _GOLDEN)[:, None] ^ _mix(stretches + _GOLDEN))


def row_positions(rows: Tensor) -> tuple[int, ...]:
    """Return a position for each row of numbers, (b, N) of float64 or float32, that depends on its numbers alone."""
    words = (rows + 0.0).view(torch.int64 if rows.dtype == torch.float64 else torch.int32).long()
    factors = _mix(torch.arange(rows.shape[1], device=rows.device)) | 1
    keys = _mix((words * factors).sum(dim=1)) & _POSITIONS
    return tuple(int(key) for key in keys.tolist())


def normals(keys: Tensor, scale: float) -> Tensor:
    """Return `scale` times the normals of whole stretches, (…, STRETCH) float64, whose addresses have these hashes."""
    pairs = torch.arange(PAIRS, device=keys.device)
    blocks = torch.arange(0, STRETCH, 2 * PAIRS, device=keys.device)
    index = blocks[:, None] + 2 * pairs + 1  # of the first of two words
    increments = _increments(keys)[..., None, None]
    first = (index * increments).add_(keys[..., None, None])
    second, spare = first + increments, torch.empty_like(first)
    _mix_(first, spare).bitwise_right_shift_(12).bitwise_and_((1 << 52) - 1)
    radius = first.double().add_(0.5).mul_(2.0**-52).log_().mul_(-2.0 * scale**2).sqrt_()
    _mix_(second, spare)
    sine = torch.bitwise_right_shift(second, 11, out=first).double().mul_(_EIGHTH_TURN)
    cosine = sine.cos()
    sine.sin_().mul_(radius)
    cosine.mul_(radius).view(torch.int64).bitwise_xor_(torch.bitwise_left_shift(second, 63, out=spare))  # the sign
    exchange = second.bitwise_and_(2).bool()
    rows = torch.empty((*keys.shape, len(blocks), 2, PAIRS), dtype=torch.float64, device=keys.device)
    torch.where(exchange, sine, cosine, out=rows[..., 0, :])
    torch.where(exchange, cosine, sine, out=rows[..., 1, :])
    return rows.reshape(*keys.shape, STRETCH)


def fill_normals(out: Tensor, draw: Draw) -> None:
    """Fill `out`, (positions, N), with the normals of particles `draw.first` and those that follow."""
    count, device = out.shape[1], out.device
    positions = torch.as_tensor(draw.positions, device=device)
    scale = 1.0 / math.sqrt(draw.refinement)
    begin = draw.first - draw.first % STRETCH
    last = draw.first + count
    rows = max(1, min(len(positions), _AT_ONCE[device.type] // STRETCH))
    many = STRETCH * max(1, _AT_ONCE[device.type] // (STRETCH * rows))
    for start in range(begin, last, many):
        stretches = torch.arange(start // STRETCH, -(-min(start + many, last) // STRETCH), device=device)
        low, high = max(draw.first - start, 0), min(last - start, many)
        for top in range(0, len(positions), rows):
            some = positions[top : top + rows]
            total = torch.zeros((), dtype=torch.float64, device=device)
            for fine in range(draw.finest, draw.finest + draw.refinement):
                keys = address_keys(draw.seed, draw.stream, draw.step, some, fine, stretches)
                total = total + normals(keys, scale)
            place = slice(start + low - draw.first, start + high - draw.first)
            out[top : top + rows, place] = total.reshape(len(some), -1)[:, low:high]
