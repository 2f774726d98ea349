"""Tables of what the benchmarks measured: on the terminal, and as the page of the documentation.

python -m tests.benchmarks.report results/benchmarks.json docs/performance.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.benchmarks.figures import draw_error_per_second

HEAD = """# Performance

What the solvers take, beside what one would use otherwise and beside the bounds of the machine, all measured in one
run by `make benchmark`, which writes this page. Times are medians; ratios are of runs in turn. A *share* is the bound
over what was measured: 100 % is as fast as this machine can.

Measured on {cpu}, {threads} threads, Python {python}.
"""


def table(benchmark, title, text, columns, rows):
    """Keep a table with a benchmark, and print it.

    `columns` are headings; `rows` hold a text or number for each.
    """
    rows = [[cell if isinstance(cell, str) else f"{cell:.3g}" for cell in row] for row in rows]
    benchmark.extra_info.update({"title": title, "text": " ".join(text.split()), "columns": columns, "rows": rows})
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    print(f"\n{title}")
    for row in (columns, *rows):
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


def page(results):
    """Return the page for the results that pytest-benchmark writes."""
    machine = results["machine_info"]
    cpu = machine["cpu"].get("brand_raw", machine["processor"])
    parts = [HEAD.format(cpu=cpu, threads=machine["cpu"].get("count", "?"), python=machine["python_version"])]
    for one in results["benchmarks"]:
        found = one["extra_info"]
        if "title" not in found:
            continue
        parts += [f"## {found['title']}", found["text"]]
        rows = (found["columns"], ["---"] * len(found["columns"]), *found["rows"])
        parts.append("\n".join("| " + " | ".join(row) + " |" for row in rows))
    if curves_of(results):
        parts.insert(1, "![Seconds that each way to the limit takes for an error of its outputs](precision.png)")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def curves_of(results):
    """Return what was measured of error per second."""
    return [one["extra_info"]["curves"] for one in results["benchmarks"] if "curves" in one["extra_info"]]


if __name__ == "__main__":
    source, target = sys.argv[1:]
    results = json.loads(Path(source).read_text())
    Path(target).write_text(page(results))
    if curves_of(results):
        draw_error_per_second(curves_of(results), Path(target).with_name("precision.png"))
