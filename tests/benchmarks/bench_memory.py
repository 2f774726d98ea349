"""Peak memory of runs of every solver beside what was predicted before they started."""

from __future__ import annotations

import pytest

from tests.peak_memory import RUNS, measured
from tests.test_peak_memory import WITHIN


@pytest.mark.parametrize("name", RUNS)
def test_predicted_memory(benchmark, name):
    peak, predicted = benchmark.pedantic(measured, args=(name,), rounds=1)
    print(f"\n{name:28} measured {peak / 1e9:.2f} GB, predicted {predicted / 1e9:.2f} GB: {predicted / peak:.2f}")
    assert abs(predicted - peak) < WITHIN * peak
