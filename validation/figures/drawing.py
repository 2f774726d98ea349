"""What a figure is asked for, and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from solvers.results.solution import Variable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from flds.datasets import Dataset


@dataclass(frozen=True)
class Request:
    """How a figure is wanted.

    Attributes
    ----------
    full : bool
        Sizes like the paper's instead of a first look.
    dataset : callable
        Returns the data of figures that train on data.
    seed : int
        Seed of all noise.
    say : callable
        Called with a line now and then.
    """

    full: bool
    dataset: Callable[[], Dataset]
    seed: int
    say: Callable[[str], None]

    def pick(self, sizes: dict[str, dict[str, dict[str, Any]]], name: str) -> dict[str, Any]:
        """Return the sizes of a figure, from those of all at "quick" and at "full"."""
        return sizes["full" if self.full else "quick"][name]


@dataclass(frozen=True)
class Drawing:
    """A picture and what it shows.

    Attributes
    ----------
    figure : matplotlib.figure.Figure
        The picture.
    variables : dict of Variable
        The arrays it shows, by name.
    settings : dict
        Numbers they were computed with, JSON-serialisable.
    """

    figure: Figure
    variables: dict[str, Variable]
    settings: dict[str, Any]
