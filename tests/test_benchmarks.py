"""What benchmarks are made of: counts, slopes, bounds and the page that is written."""

from __future__ import annotations

import numpy as np

from tests.benchmarks import machine
from tests.benchmarks.bench_training import CountingThreads, counted
from tests.benchmarks.report import page, table
from tests.conftest import three_samples


class Benchmark:
    def __init__(self):
        self.extra_info = {}


def test_the_page_has_every_table():
    one, other = Benchmark(), Benchmark()
    table(one, "Speed", "What\n    is fast.", ["", "seconds"], [["ours", 0.12345], ["theirs", "1.5"]])
    results = {
        "machine_info": {"cpu": {"brand_raw": "A processor", "count": 2}, "python_version": "3.11.7", "processor": ""},
        "benchmarks": [{"extra_info": one.extra_info}, {"extra_info": other.extra_info}],
    }
    text = page(results)
    assert text.startswith("# Performance\n")
    assert "A processor, 2 threads, Python 3.11.7" in text
    assert "## Speed\n\nWhat is fast.\n\n|  | seconds |\n| --- | --- |\n| ours | 0.123 |\n| theirs | 1.5 |\n" in text


def test_work_of_any_branch_is_counted():
    """Of two layers with a norm, whose functions take numbers for each row, too."""
    plain = counted(three_samples(steps=1), 2100, 2, "law")
    normed = counted(three_samples(steps=1, residual="two_layer", normalization="rms_norm"), 2100, 2, "law")
    assert 0 < plain[0] < normed[0]
    assert 0 < plain[1] < normed[1]


def test_exponents_are_those_of_powers():
    sizes = np.array([1.0, 2.0, 4.0])
    assert np.allclose(machine.exponent(sizes, 3 * sizes**1.5), 1.5)
    assert np.isclose(machine.exponent(sizes, np.array([1.0, 1.0, 4.0]))[0], 2.0)


def test_multiply_adds_and_bytes_are_counted():
    one, a, b = CountingThreads(100), np.ones((3, 100)), np.ones((5, 100))
    one.inner([a, b], b)
    assert (one.multiply_adds, one.bytes) == (8 * 5 * 100, 8 * 100 * (3 + 5 + 5))
    one.combine(a, [(np.ones((3, 5)), b)], add=True)
    assert one.multiply_adds == 100 * (40 + 15)
    one.project(a, np.ones((3, 5)), b)
    assert one.multiply_adds == 100 * (40 + 15 + 3 * (2 * 5 + 3))


def test_runs_in_turn_are_timed_by_name():
    order = []
    times = machine.in_turn(
        {"a": lambda seed: order.append(("a", seed)), "b": lambda seed: order.append(("b", seed))}, 2
    )
    assert order == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert {name: len(measured) for name, measured in times.items()} == {"a": 2, "b": 2}
