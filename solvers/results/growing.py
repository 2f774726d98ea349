"""Arrays that only ever gain rows, in a file that is only appended to.

The file does not say what it holds: its index, which is kept elsewhere, says which rows lie where, and how far the file
counts. What a killed process appended beyond that is not seen, and written over.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from solvers.ranks import agreed, in_turn, on_first
from solvers.results.arrays import ALIGNMENT, Place, pieces, read_array, spread_of, write_own
from solvers.results.files import Variable, digest_of, put

Name = tuple[str, str]


@dataclass
class _Column:
    """What is known of one array: its axes, and the offset and number of each lot of rows."""

    dims: tuple[str, ...]
    dtype: str
    rest: tuple[int, ...]  # the shape of a row, of all ranks
    long_name: str
    units: str
    lots: list[tuple[int, int]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(count for _, count in self.lots)

    @property
    def size(self) -> int:
        """Bytes of all rows."""
        return self.rows * int(np.prod(self.rest)) * np.dtype(self.dtype).itemsize


class GrowingRows:
    """Arrays by group and name, each (rows, …), of which a file has the rows.

    Parameters
    ----------
    path : path
        The file.
    communicator : mpi4py.MPI.Comm, optional
        Ranks that share the particles.
    """

    def __init__(self, path: Path, communicator: Any = None) -> None:
        self.path, self.communicator = path, communicator
        self.columns: dict[Name, _Column] = {}
        self.end = 0
        self.blocks: list[tuple[int, int, str]] = []  # first byte, the one after the last, and checksum

    @classmethod
    def of(cls, index: Mapping[str, Any], path: Path, communicator: Any = None) -> GrowingRows:
        """Return the rows of an index, which lie in the file at this path."""
        rows = cls(path, communicator)
        rows.end, rows.blocks = index["end"], [tuple(block) for block in index["blocks"]]
        for group, name, dims, dtype, rest, long_name, units, lots in index["arrays"]:
            column = _Column(tuple(dims), dtype, tuple(rest), long_name, units, [tuple(lot) for lot in lots])
            rows.columns[group, name] = column
        return rows

    def index(self) -> dict[str, Any]:
        """Return what `of` needs, as JSON has it."""
        arrays = [
            [*name, list(c.dims), c.dtype, list(c.rest), c.long_name, c.units, c.lots]
            for name, c in self.columns.items()
        ]
        return {"file": self.path.name, "end": self.end, "blocks": self.blocks, "arrays": arrays}

    @property
    def dead(self) -> int:
        """Bytes of the file that belong to arrays that are no longer kept."""
        return self.end - sum(column.size for column in self.columns.values())

    def forget(self, kept: Iterable[Name]) -> None:
        """Drop the arrays that are not among these."""
        names = set(kept)
        self.columns = {name: column for name, column in self.columns.items() if name in names}

    def append(self, arrays: Mapping[Name, Variable]) -> None:
        """Write the rows of these arrays that are not yet there, for `sync`; if that fails, all is as it was.

        Raises
        ------
        OSError
            If they cannot be written.
        """
        columns, places, end = dict(self.columns), [], self.end
        for name, item in arrays.items():
            shape, dtype = item.shape, item.values.dtype.str
            column = columns.get(name)
            fits = column is not None and (column.dtype, column.rest) == (dtype, shape[1:]) and column.rows <= shape[0]
            if column is None or not fits:
                column = _Column(item.dims, dtype, tuple(shape[1:]), item.long_name, item.units)
            new = shape[0] - column.rows
            columns[name] = replace(column, lots=list(column.lots))
            if new:
                values = np.ascontiguousarray(item.values[column.rows :])
                places.append(Place(*name, item, values, (new, *shape[1:]), end + -end % ALIGNMENT))
                end = places[-1].end
                columns[name].lots.append((places[-1].offset, new))
        if end > self.end:
            on_first(self._cut_off, self.communicator)
            if self.communicator is None:
                checksum = self._write_all(places)
            else:
                in_turn(lambda: write_own(self.path, places, self.communicator), self.communicator)
                checksum = on_first(lambda: digest_of(self.path, self.end, end), self.communicator)
            self.blocks.append((self.end, end, checksum))
        self.columns, self.end = columns, end

    def read(self) -> dict[Name, Variable]:
        """Return all arrays; with ranks, of particles those of this one.

        Raises
        ------
        ValueError
            If the file is damaged.
        """
        if self.end:
            on_first(self._check, self.communicator)
        return agreed(lambda: {name: self._read(column) for name, column in self.columns.items()}, self.communicator)

    def _read(self, column: _Column) -> Variable:
        shape = (column.rows, *column.rest)
        spread = spread_of(column.dims, shape, self.communicator)
        dtype = np.dtype(column.dtype)
        lots = []
        if column.lots:
            with self.path.open("rb") as file:
                lots = [read_array(file, dtype, (n, *column.rest), offset, spread) for offset, n in column.lots]
        values = np.concatenate(lots) if lots else np.zeros(shape, dtype)
        return Variable(column.dims, values, column.long_name, column.units, spread)

    def _cut_off(self) -> None:
        """Drop what a process left that was killed while it appended, and leave a file."""
        with self.path.open("ab") as file:
            file.truncate(self.end)

    def _write_all(self, places: list[Place]) -> str:
        """Write rows one after the other; return their checksum, which another thread computes meanwhile."""
        checksum = hashlib.sha256()
        with self.path.open("r+b", buffering=0) as file, ThreadPoolExecutor(1) as other:
            file.seek(self.end)
            for data in pieces(places, self.end):
                other.submit(checksum.update, data)
                put(file, data)
        return checksum.hexdigest()

    def sync(self) -> None:
        """Wait until the disk has what was appended; ranks have done so where they wrote."""
        if self.end and self.communicator is None:
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    def _check(self) -> None:
        for start, end, checksum in self.blocks:
            if not self.path.is_file() or digest_of(self.path, start, end) != checksum:
                raise ValueError(f"{self.path.name}, which belongs beside it, is missing or damaged")
