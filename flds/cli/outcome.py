"""What a command does with a solution: write it, print it, and end with its status."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flds.cli.console import BAD_USAGE, interrupts, note
from flds.cli.pictures import attempt, picture_of
from flds.cli.places import keep
from flds.cli.ranks import speaks
from flds.cli.training import show_warnings

if TYPE_CHECKING:
    from flds.results.limit import LimitEstimate
    from flds.results.solution import Solution
    from solvers.results.checkpoint import Checkpoint

EXIT_CODES = {"completed": 0, "stopped": 0, "diverged": 3, "rank_budget": 4}


def from_file(
    file: Path,
    threads: int | None,
    device: str | None,
    quiet: bool,
    work: Callable[..., Solution],
    communicator: Any = None,
    **rest: Any,
) -> Solution:
    """Rerun or resume what a results file holds, and say where the numbers need not be the same."""
    from flds.replay import version_changes
    from flds.results.files import load

    stored = load(file, communicator=communicator)
    if communicator is not None:
        rest["communicator"] = communicator
    if device is not None:
        rest["device"] = device
    with show_warnings():
        solution = work(stored, progress=not quiet and sys.stderr.isatty(), threads=threads, **rest)
    changed = version_changes(stored)
    if changed:
        note(f"warning: numbers may differ in the last digits: {', '.join(changed)}")
    return solution


def finish(
    solution: Solution | LimitEstimate,
    out: Path,
    quiet: bool,
    communicator: Any = None,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Write results and picture, print what came out, and end with the status of the run.

    A checkpoint of a run that has ended is removed once the results are written.
    """
    from flds.plotting.curves import chance
    from solvers.ranks import on_first
    from solvers.results.checkpoint import FINAL

    interrupts.ignore()  # what was computed is written, come what may
    place = keep(solution, out) if solution.groups else on_first(lambda: keep(solution, out), communicator)
    if checkpoint is not None:
        if solution.status in FINAL:
            checkpoint.remove()
        checkpoint.close()
    if not speaks(communicator):
        raise typer.Exit(status_of(solution) or (BAD_USAGE if place != out else 0))
    drawn = attempt(solution.plot, picture_of(place))
    if not quiet:
        print(solution.summary())
        if "test_accuracy" in solution.variables and len(solution.steps):
            print(f"\ntest accuracy {solution.test_accuracy[-1]:.1%} (chance {chance(solution):.1%})")
        print(f"results  {place}" + (f"\npicture  {picture_of(place)}" if drawn else ""))
    code = status_of(solution)
    if code or place != out:
        raise typer.Exit(code or BAD_USAGE)


def status_of(solution: Solution | LimitEstimate) -> int:
    """Return the exit status for a solution."""
    return interrupts.status if solution.status == "interrupted" else EXIT_CODES[solution.status]
