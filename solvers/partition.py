"""How N particles are cut, in a way that depends on N only: stretches that noise is drawn in, and groups of these.

Groups are summed one by one, whoever holds them, so that sums have the same bits for any number of threads and ranks.
"""

from __future__ import annotations

# Particles that noise is drawn for at a time: which numbers a particle gets depends on it.
STRETCH = 2048
# Groups to share among threads, or among the ranks of a cluster; also the number of partial sums held at once.
_MOST_GROUPS = 512
# Few particles are cut into so many groups, as long as these are not too short to be worth a turn; groups of many have
# at most so many stretches where there are few groups, which functions of arrays like.
_FEW_GROUPS, _SHORT_GROUP, _LONG_GROUP = 16, 512, 4


def partition(count: int, size: int) -> list[slice]:
    """Cut range(count) into slices of `size`, the last one shorter."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def group_size(particles: int) -> int:
    """Return how many particles are summed by one thread before groups are added, whatever the number of threads."""
    if particles <= _FEW_GROUPS * STRETCH:
        return _SHORT_GROUP * -(-particles // (_FEW_GROUPS * _SHORT_GROUP))
    stretches = -(-particles // STRETCH)
    few, many = -(-stretches // _FEW_GROUPS), -(-stretches // _MOST_GROUPS)
    return STRETCH * max(many, min(few, _LONG_GROUP))


def share_of(particles: int, rank: int, ranks: int) -> slice:
    """Return the particles that one of several processes holds: consecutive groups of them."""
    size = group_size(particles)
    groups = -(-particles // size)
    first, last = (groups * number // ranks * size for number in (rank, rank + 1))
    return slice(min(first, particles), min(last, particles))


def most_held(particles: int, ranks: int) -> int:
    """Return how many particles one of so many processes holds at most."""
    return max(part.stop - part.start for part in (share_of(particles, rank, ranks) for rank in range(ranks)))
