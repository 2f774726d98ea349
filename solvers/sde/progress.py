"""A bar that counts the steps of a solve."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def step_bar(total: int, shown: bool) -> Iterator[Callable[[], Any]]:
    """Give a function that counts one of `total` steps on a bar on standard error, if it is to be shown.

    The bar is closed however the solve ends.
    """
    if not shown:
        yield lambda: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="step", leave=False) as bar:
        yield bar.update
