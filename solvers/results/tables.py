"""Variables as tables: wide, with a column for each, or long, with a row for each number."""

from __future__ import annotations

import csv
import io
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from solvers.results.files import Variable, write_text

if TYPE_CHECKING:
    import xarray


def write_table(path: str | os.PathLike[str], rows: Iterable[Iterable[Any]]) -> Path:
    """Write rows as CSV, whole or not at all, and return the path.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the folder {str(target.parent)!r} does not exist; create it first")
    table = io.StringIO(newline="")
    csv.writer(table).writerows(rows)
    write_text(target, table.getvalue())
    return target


def wide_rows(variables: dict[str, Variable]) -> Iterator[Iterable[Any]]:
    """Yield the names of all columns, and then a row for each place of the first axis."""
    columns: dict[str, NDArray[Any]] = {}
    for name, item in variables.items():
        for place in np.ndindex(item.values.shape[1:]) if len(item.dims) <= 3 else ():
            column = f"{name}[{','.join(map(str, place))}]" if place else name
            columns[column] = item.values[(slice(None), *place)]
    yield columns
    yield from zip(*(column.tolist() for column in columns.values()), strict=True)


def long_rows(variables: dict[str, Variable], data: xarray.Dataset) -> Iterator[Iterable[Any]]:
    """Yield the names of the columns, and then a row for each number: variable, coordinates, value."""
    axes = list(dict.fromkeys(dim for item in variables.values() for dim in item.dims))
    yield ["variable", *axes, "value"]
    for name, item in variables.items():
        if item.dims == (name,):
            continue
        places = itertools.product(*(data[dim].values.tolist() for dim in item.dims))
        for place, value in zip(places, item.values.ravel().tolist(), strict=True):
            known = dict(zip(item.dims, place, strict=True))
            yield [name, *(known.get(axis, "") for axis in axes), value]
