"""Files of pictures: their names, the mark by which flds knows its own again, and what happens where one fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flds.cli.console import note

# Suffixes of results files; any other is a part of the name, as in res.v1 and res.v2.
RESULTS = (".nc", ".nc4", ".h5", ".hdf5", ".cdf")
# What pictures of their own may be called.
PICTURES = (".png", ".pdf", ".svg")
# A text chunk of PNG as it stands in the file: length, kind, key and value. It comes before the picture itself.
_MARK = b"\x00\x00\x00\x0dtEXtSoftware\x00flds"
_HEAD = 4096


def picture_of(out: Path) -> Path:
    """Return the name of the picture that goes beside a results file."""
    return out.with_suffix(".png") if out.suffix.lower() in RESULTS else out.with_name(out.name + ".png")


def is_ours(picture: Path) -> bool:
    """Return whether `flds.plotting` wrote this PNG."""
    with picture.open("rb") as file:
        return _MARK in file.read(_HEAD)


def attempt(draw: Callable[..., object], *arguments: object) -> bool:
    """Draw a picture of what is already saved; where that fails, say so in one line and return False."""
    try:
        draw(*arguments)
    except Exception as error:  # whatever it is, results and their status stand
        note(f"warning: no picture: {' '.join(str(error).split()) or type(error).__name__}")
        return False
    return True


def draw_regime(regime: Any, path: Path) -> None:
    """Write the phase diagram with a configuration in it."""
    from flds.plotting import plot_phase_diagram
    from solvers.plotting.style import new_figure, save

    figure, (ax,) = new_figure(1, 1, 4.5)
    plot_phase_diagram(regime, ax)
    save(figure, path)


def quieten() -> None:
    """Let matplotlib not tell that it finds no folder for its caches: it works without."""
    import logging

    logging.getLogger("matplotlib").setLevel(logging.ERROR)
