"""Files of plain arrays, for what takes much memory: the state of a network, and particles spread over ranks.

Such a file lies beside the result that it belongs to. Of arrays that are spread over ranks each rank writes, and reads,
its own part.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.partition import share_of
from solvers.ranks import Spread, agreed, in_turn, on_first
from solvers.results.files import (
    SEAL_BYTES,
    State,
    Variable,
    check_seal,
    read_dataset_attributes,
    replacing,
    seal,
    seal_of,
    write,
    write_dataset,
)

if TYPE_CHECKING:
    import xarray

# What the name of a file of arrays ends with, beside its results file.
STATE = ".state"
# Axes that are spread where ranks share the particles.
_PARTICLES = ("particle", "final_particle", "hidden_particle")
_MAGIC = b"flds arrays 1\n"
ALIGNMENT = 64

Groups = Mapping[Any, Mapping[str, Variable]]


class Place(NamedTuple):
    """Where an array lies in a file; `shape` is that of all of it, `values` those held here."""

    group: str
    name: str
    item: Variable
    values: NDArray[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def end(self) -> int:
        """Where what follows may begin."""
        return self.offset + int(np.prod(self.shape)) * self.values.itemsize

    def write(self, file: Any) -> None:
        """Write what is held here to where it belongs."""
        spread = self.item.spread
        if spread is None:
            file.seek(self.offset)
            file.write(self.values.reshape(-1).view(np.uint8))
            return
        if not self.values.size:
            return
        rows, each = int(np.prod(self.shape[: spread.axis])), self.values.itemsize
        each *= int(np.prod(self.shape[spread.axis + 1 :]))
        for row, values in enumerate(self.values.reshape(rows, -1)):
            file.seek(self.offset + (row * spread.total + spread.first) * each)
            file.write(values.view(np.uint8))


def write_with_arrays(target: Path, groups: Groups, dataset: Callable[[dict[str, str]], xarray.Dataset]) -> None:
    """Write groups of arrays as `target`.state and then the dataset made of their name and checksum.

    Whenever the process is killed, the result that is there, new or old, finds its own arrays: those of a new one are
    found under their temporary name until they have their own. Where arrays are spread, all ranks call this together.
    """
    target = target.resolve()
    beside = target.with_name(f"{target.name}{STATE}")
    communicator = communicator_of(groups)
    with _replacing(beside, communicator) as arrays:
        checksum = _write(arrays, groups, communicator)
        named = {"file": beside.name, "sha256": checksum}
        on_first(lambda: write_dataset(target, dataset(named)), communicator)


def write_arrays(target: Path, groups: Groups, communicator: Any = None) -> None:
    """Write groups of arrays as this file, whole or not at all; ranks do so together."""
    with _replacing(target, communicator) as arrays:
        _write(arrays, groups, communicator)


def communicator_of(groups: Groups) -> Any:
    """Return the communicator over which some of the arrays are spread, or None."""
    spread = (item.spread for variables in groups.values() for item in variables.values())
    return next((one.communicator for one in spread if one is not None), None)


def together(states: Sequence[State], communicator: Any) -> tuple[Any, list[State]]:
    """Return the communicator that states are spread over, or one that is given, and the states spread over it.

    Raises
    ------
    ValueError
        If the states are spread over the ranks of another one.
    """
    given = communicator_of(dict(enumerate(states)))
    if given is None and communicator is not None:
        return communicator, [{name: _cut(item, communicator) for name, item in state.items()} for state in states]
    if communicator not in (None, given):
        raise ValueError("communicator must be that whose ranks hold the state; leave it out, or load the file again")
    return given, list(states)


def _cut(item: Variable, communicator: Any) -> Variable:
    """Return the part of an array that a rank holds."""
    spread = spread_of(item.dims, item.values.shape, communicator)
    if spread is None:
        return item
    share = share_of(spread.total, communicator.Get_rank(), communicator.Get_size())
    values = np.ascontiguousarray(item.values[(slice(None),) * spread.axis + (share,)])
    return item._replace(values=values, spread=spread)


def _particle_axis(dims: Sequence[str]) -> int | None:
    return next((axis for axis, dim in enumerate(dims) if dim in _PARTICLES), None)


def find_arrays(result: Path, reference: Mapping[str, str]) -> Path | None:
    """Return the file of arrays that a result refers to by name and checksum, or None."""
    result = result.resolve()
    names = dict.fromkeys([f"{result.name}{STATE}", reference["file"]])
    places = [result.with_name(name) for name in names]
    places += sorted(result.parent.glob(f".{_escaped(result.name)}{STATE}.*.part"))
    return next((place for place in places if place.is_file() and seal_of(place) == reference["sha256"]), None)


def read_arrays(path: Path, communicator: Any = None) -> dict[str, dict[str, Variable]]:
    """Return the groups of arrays that `write_with_arrays` wrote; with ranks, of particles those of this one.

    Raises
    ------
    ValueError
        If the file does not fit its seal, or is not such a file.
    """
    on_first(lambda: check_seal(path), communicator)
    return agreed(lambda: _read(path, communicator), communicator)


def _read(path: Path, communicator: Any) -> dict[str, dict[str, Variable]]:
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("it is not a file of arrays that this version reads")
        file.seek(-SEAL_BYTES - 8, os.SEEK_END)
        end = file.tell()
        size = int.from_bytes(file.read(8), "little")
        file.seek(end - size)
        index = json.loads(file.read(size))
        groups: dict[str, dict[str, Variable]] = {}
        for group, name, dims, dtype, shape, offset, long_name, units in index:
            spread = spread_of(dims, shape, communicator)
            values = read_array(file, np.dtype(dtype), shape, offset, spread)
            groups.setdefault(group, {})[name] = Variable(tuple(dims), values, long_name, units, spread)
    return groups


def reference_in(result: Path) -> dict[str, str]:
    """Return the name and checksum of the arrays that the result in this file refers to, or nothing."""
    try:
        if not Path(f"{result.resolve()}{STATE}").is_file() or seal_of(result) is None:
            return {}
        return dict(json.loads(read_dataset_attributes(result).get("state", "{}")))
    except (OSError, ValueError, TypeError):  # there is no result, or none that can be read
        return {}


def remove_arrays(result: Path, reference: Mapping[str, str]) -> None:
    """Remove the arrays beside a result if they are those that an earlier one of this name referred to."""
    beside = Path(f"{result.resolve()}{STATE}")
    if beside.is_file() and seal_of(beside) == reference.get("sha256", ""):
        beside.unlink(missing_ok=True)


@contextmanager
def _replacing(target: Path, communicator: Any) -> Iterator[Path]:
    """Name a file as `replacing` does, on all ranks the one that the first of them makes."""
    made = ExitStack()
    temporary = on_first(lambda: made.enter_context(replacing(target)), communicator)
    try:
        yield temporary
    except BaseException:
        made.__exit__(*sys.exc_info())
        raise
    on_first(made.close, communicator)


def _layout(groups: Groups) -> list[Place]:
    """Return where arrays lie that follow one another."""
    end, places = len(_MAGIC), []
    for group, variables in groups.items():
        for name, item in variables.items():
            values = np.ascontiguousarray(item.values)
            if values.dtype.hasobject:
                raise TypeError(f"{name} must be an array of numbers, got dtype {values.dtype}")
            places.append(Place(group, name, item, values, item.shape, end + -end % ALIGNMENT))
            end = places[-1].end
    return places


def _index(places: list[Place]) -> bytes:
    """Return what stands at the end of the file: the index and its length."""
    entries = [
        (p.group, p.name, p.item.dims, p.values.dtype.str, p.shape, p.offset, p.item.long_name, p.item.units)
        for p in places
    ]
    text = json.dumps(entries).encode()
    return text + len(text).to_bytes(8, "little")


def _write(path: Path, groups: Groups, communicator: Any) -> str:
    """Write groups of arrays and a seal; return the checksum."""
    if communicator is None:
        return write(path, lambda put: _put_arrays(put, _layout(groups)))
    return _write_spread(path, _layout(groups), communicator)


def _put_arrays(put: Callable[[Any], None], places: list[Place]) -> None:
    """Put arrays one after the other, then their index."""
    put(_MAGIC)
    for piece in pieces(places, len(_MAGIC)):
        put(piece)
    put(_index(places))


def pieces(places: list[Place], end: int) -> Iterator[Any]:
    """Yield the bytes of arrays that one process has whole, and of the gaps before them, from the place `end` on."""
    for place in places:
        yield b"\0" * (place.offset - end)
        yield place.values.reshape(-1).view(np.uint8)
        end = place.end


def write_own(path: Path, places: list[Place], communicator: Any) -> None:
    """Write what this rank holds of arrays, and the first of them what all hold."""
    first = communicator.Get_rank() == 0
    with path.open("r+b") as file:
        for place in places:
            if first or place.item.spread is not None:
                place.write(file)
        file.flush()
        os.fsync(file.fileno())


def _write_spread(path: Path, places: list[Place], communicator: Any) -> str:
    """Write arrays of which each rank holds a part, one rank after the other, and a seal; return the checksum."""

    def frame() -> None:
        with path.open("r+b") as file:
            file.write(_MAGIC)
            file.seek(places[-1].end)
            file.write(_index(places))

    on_first(frame, communicator)
    in_turn(lambda: write_own(path, places, communicator), communicator)
    return on_first(lambda: seal(path), communicator)


def spread_of(dims: Sequence[str], shape: Sequence[int], communicator: Any) -> Spread | None:
    """Return how ranks share an array with these axes and this shape, or None if all have all of it."""
    axis = _particle_axis(dims)
    if communicator is None or axis is None:
        return None
    share = share_of(shape[axis], communicator.Get_rank(), communicator.Get_size())
    return Spread(axis, share.start, shape[axis], communicator)


def read_array(
    file: Any, dtype: np.dtype[Any], shape: Sequence[int], offset: int, spread: Spread | None
) -> NDArray[Any]:
    """Return an array of this shape that lies at an offset, or what this rank holds of it."""
    if spread is None:
        file.seek(offset)
        return np.fromfile(file, dtype, int(np.prod(shape, dtype=np.int64))).reshape(shape)
    axis, ranks = spread.axis, spread.communicator
    rows, rest = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
    share = share_of(spread.total, ranks.Get_rank(), ranks.Get_size())
    held = share.stop - share.start
    values = np.empty((rows, held * rest), dtype)
    for row in range(rows):
        file.seek(offset + (row * spread.total + share.start) * rest * dtype.itemsize)
        values[row] = np.fromfile(file, dtype, held * rest)
    return values.reshape(*shape[:axis], held, *shape[axis + 1 :])


def _escaped(name: str) -> str:
    """Return a name with the signs that have a meaning in patterns in brackets."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)
