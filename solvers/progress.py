"""Bars on standard error that count the steps of a solve."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def progress_bar(total: int, shown: bool) -> Any:
    """Return a bar, to be closed, which a solve advances by one at every step."""
    from tqdm import tqdm

    return tqdm(total=total, disable=not shown, unit="step", leave=False)


@contextmanager
def step_bar(total: int, shown: bool) -> Iterator[Callable[[int], Any]]:
    """Give a function that counts some of `total` steps; the bar, if shown, is closed however a solve ends."""
    if not shown:
        yield lambda steps: None
        return
    with progress_bar(total, True) as bar:
        yield bar.update
