"""The figures of the papers: each a picture and a file with its numbers."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from flds.cli.pictures import attempt, picture_of
from flds.cli.places import check_folder, check_out, clean_parts
from solvers import checks
from solvers.plotting.style import logarithmic, save, styled
from solvers.results.solution import Solution
from solvers.results.versions import library_versions
from validation.figures.drawing import Drawing, Request

if TYPE_CHECKING:
    from flds.datasets import Dataset

_HOMES = {
    "feature-learning/fig1": ("feature_learning", "activation_order"),
    "feature-learning/fig2": ("feature_learning", "convergence"),
    "feature-learning/fig3": ("feature_learning", "learning_rates"),
    "feature-learning/two-layer": ("two_layer", "movement"),
    "hidden-width/fig1": ("hidden_width", "trajectories"),
    "hidden-width/fig2": ("hidden_width", "errors"),
    "hidden-width/fig3": ("hidden_width", "weights"),
    "hidden-width/fig4": ("residual_scale", "phases"),
    "hidden-width/fig5": ("residual_scale", "fluctuations"),
}


def descriptions() -> dict[str, str]:
    """Return what each figure shows, by name."""
    return {name: " ".join((_function(name).__doc__ or "").split("\n\n")[0].split()) for name in _HOMES}


def takes_data(name: str) -> bool:
    """Return whether a figure trains on a data set that can be chosen.

    Parameters
    ----------
    name : str
        As listed by `descriptions`.

    Returns
    -------
    bool

    Raises
    ------
    ValueError
        If there is no such figure.
    """
    return _HOMES[checks.choice("figure", name, tuple(_HOMES))][0] == "feature_learning"


def reproduce(
    name: str,
    *,
    full: bool = False,
    dataset: Callable[[], Dataset],
    out: Path,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Compute a figure, and write picture and data into a folder.

    Other parameters are those of `Request`.

    Parameters
    ----------
    name : str
        As listed by `descriptions`.
    out : Path
        A folder; it is created if needed.

    Returns
    -------
    list of Path
        A .png file, unless it could not be drawn, and a .nc file, which `flds.load` reads.

    Raises
    ------
    ValueError
        If there is no such figure, the data do not suit it, or other files are in the way.
    OSError
        If the folder cannot be written to.
    """
    checks.choice("figure", name, tuple(_HOMES))
    seed = checks.seed_number("seed", seed)
    path = out / f"{name.replace('/', '-')}.nc"
    check_folder(out)
    if out.is_dir():
        check_out(path)
    start = time.perf_counter()
    drawing = styled(_function(name))(Request(full, dataset, seed, say))
    for ax in drawing.figure.axes:
        logarithmic(ax, *(side for side in "xy" if getattr(ax, f"get_{side}scale")() == "log"))
    out.mkdir(parents=True, exist_ok=True)
    settings = {"solver": f"figure {name}", "scale": "full" if full else "quick"} | drawing.settings
    result = Solution(
        drawing.variables,
        "completed",
        {"solve": time.perf_counter() - start},
        seed,
        settings,
        versions=library_versions(),
    )
    clean_parts(out, path.name)
    result.save(path)
    drawn = attempt(save, drawing.figure, picture_of(path))
    return [picture_of(path), path] if drawn else [path]


def _function(name: str) -> Callable[[Request], Drawing]:
    module, function = _HOMES[name]
    found: Callable[[Request], Drawing] = getattr(import_module(f"validation.figures.{module}"), function)
    return found
