"""Rows that come one after the other."""

from __future__ import annotations

import numpy as np
import pytest

from solvers.results.rows import Rows


def test_rows_are_what_a_stacked_list_is():
    values = [np.arange(6.0).reshape(2, 3) + row for row in range(4)]
    rows = Rows(10)
    assert len(rows.array) == 0
    kept = [rows.append(value) for value in values]
    np.testing.assert_array_equal(rows.array, np.array(values))
    assert all(np.shares_memory(row, rows.array) for row in kept)


@pytest.mark.parametrize("values", [[True, 2, 2.5], [np.float32(1), np.float64(0.1)], [1, np.float32(2.5)]])
def test_types_widen_as_in_a_list(values):
    rows = Rows(3)
    for value in values:
        rows.append(value)
    expected = np.array(values)
    assert rows.array.dtype == expected.dtype
    np.testing.assert_array_equal(rows.array, expected)
