"""What was given on the command line, and what goes together."""

from __future__ import annotations

from collections.abc import Iterable

import typer

# What a run to a given error has no use for.
WITHOUT_TARGET = (
    "width", "fit", "sampling", "tolerance", "rank_budget", "noise_depth", "record_kernels", "keep_state", "dtype",
    "mpi", "checkpoint_every",
)  # fmt: skip


def given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def check_without(context: typer.Context, why: str, refused: Iterable[str]) -> None:
    """Refuse options that something else decides."""
    for name in refused:
        if given(context, name):
            raise ValueError(f"{why}; leave out --{name.replace('_', '-')}")


def check_alone(context: typer.Context, allowed: set[str]) -> None:
    """Refuse options that a rerun takes from its file."""
    refused = [name for name in context.params if name not in allowed]
    check_without(context, "--from takes everything from the file", refused)


def check_targeted(context: typer.Context) -> None:
    """Refuse options that an error to reach decides."""
    check_without(context, "--target-error chooses sizes and method", WITHOUT_TARGET)


def check_place(device: str | None, mpi: bool) -> None:
    if device is not None and mpi:
        raise ValueError("--device keeps the particles in one process; leave out --device or --mpi")
