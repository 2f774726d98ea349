"""The look of all pictures: sizes, colours, legends and logarithmic axes, in one place."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

# Widths in inches of one column of a paper, of two, and of an overview, which is for a screen.
ONE_COLUMN, TWO_COLUMNS, SCREEN = 3.4, 7.0, 10.5
# Height over width of a single picture.
_SHAPE = 0.74
# For `matplotlib.rcParams.update`: what every picture of this library is drawn with.
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "figure.figsize": (ONE_COLUMN, ONE_COLUMN * _SHAPE),
    "figure.constrained_layout.use": True,
    "figure.dpi": 150,
    "savefig.dpi": 200,
}
# Okabe and Ito's palette, told apart with any colour vision.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
TRAINING, TEST, FORWARD, BACKWARD = PALETTE[:4]
# Labels of bands.
ERRORS, INTERVALS, OPTIMUM = "± 2 standard errors", "95 % intervals", "95 % interval of the limit's optimum"
BESIDE, DIVERGED, STAR = "rates beside the limit's optimum", "diverged", "optimum"
FAILED = "failed"
_GAUSSIAN = "Gaussian"
_LAST = (ERRORS, INTERVALS, OPTIMUM, BESIDE, DIVERGED, FAILED, STAR)
_FEW = 4
# Inches of a figure beside whose axes there is no room.
_NARROW = 4.5
# A legend of more entries stands beside the axes.
_INSIDE = 5
# Panels side by side in an overview; lines of a summary that one holds.
_COLUMNS, _LINES = 3, 23
# Size of its letters in points, and what each takes of a line, as a share of that.
_SMALL, _ADVANCE = 6, 0.602
# The largest position that has a density worth drawing, and the places at which it is drawn.
FAR, _CELLS = 1e50, 1024


class Ends(NamedTuple):
    """The ends between which positions lie, and whether one leads to the other."""

    low: float
    high: float
    periodic: bool = False


EVERYWHERE = Ends(-np.inf, np.inf)


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Let a function draw with `STYLE`."""

    @wraps(draw)
    def drawn(*arguments: P.args, **options: P.kwargs) -> R:
        import matplotlib as mpl

        with mpl.rc_context(STYLE):
            return draw(*arguments, **options)

    return drawn


def new_axes(ax: Axes | None, columns: int = 1) -> Axes:
    """Return the axes given, or those of a new figure of one or two columns."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    width = ONE_COLUMN if columns == 1 else TWO_COLUMNS
    return plt.subplots(figsize=(width, ONE_COLUMN * _SHAPE))[1]


def new_figure(columns: int, rows: int, width: float = SCREEN, **gridspec: Any) -> tuple[Figure, NDArray[Any]]:
    """Return a figure with so many panels, and these in the order of reading.

    It belongs to no window, so that many of them can be made.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, width / columns * _SHAPE * rows), layout="constrained")
        return figure, np.atleast_1d(figure.subplots(rows, columns, **gridspec)).ravel()


def few(count: int) -> list[tuple[int, Any]]:
    """Return index and colour of up to four of so many, from the first to the last."""
    chosen = np.unique(np.linspace(0, count - 1, _FEW).round().astype(int))
    return list(zip(chosen.tolist(), shades(len(chosen)), strict=True))


def shades(count: int) -> NDArray[Any]:
    """Return so many colours in an order that is seen."""
    import matplotlib as mpl

    return np.asarray(mpl.colormaps["viridis"](np.linspace(0, 0.85, count)))


def once(ax: Axes, label: str) -> str | None:
    """Return a label for the legend of these axes, or None where it has it already."""
    return None if label in ax.get_legend_handles_labels()[1] else label


def curve(
    ax: Axes, x: NDArray[Any], y: NDArray[Any], error: NDArray[Any] | None = None, band: str = ERRORS, **style: Any
) -> None:
    """Draw y against x, with a band of ± 2 errors where they are known; the first band has a name in the legend."""
    ax.plot(x, y, **style)
    if error is not None and np.isfinite(error).any():
        ax.fill_between(
            x, y - 2 * error, y + 2 * error, color=style.get("color"), alpha=0.25, linewidth=0,
            label=once(ax, band),
        )  # fmt: skip


def legend(ax: Axes, beside: bool = False, **options: Any) -> None:
    """Draw the legend, names of bands last, beside the axes where it is long or told to; nothing without names.

    In a figure of one column it then stands below the axes.
    """
    handles, labels = ax.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda place: labels[place] in _LAST)
    if labels:
        outside = beside or len(labels) > _INSIDE
        if outside and narrow(ax):
            below = {"loc": "upper center", "bbox_to_anchor": (0.45, -0.28), "borderaxespad": 0.0, "ncols": 2}
            options = below | {"columnspacing": 1.0} | options
        elif outside:
            options = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.02), "borderaxespad": 0.3} | options
        ax.legend([handles[place] for place in order], [labels[place] for place in order], **options)


def narrow(ax: Axes) -> bool:
    """Whether the figure of these axes is one column wide."""
    return bool(ax.figure.bbox.width <= _NARROW * ax.figure.dpi)


def logarithmic(ax: Axes, *axes: str) -> None:
    """Make axes logarithmic whose labels do not crowd: powers of ten, or 1, 2, 5 over less than two decades."""
    from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation, LogLocator, NullFormatter

    for name in axes:
        ax.set(**{f"{name}scale": "log"})
        axis, (low, high) = getattr(ax, f"{name}axis"), getattr(ax, f"get_{name}lim")()
        narrow = high / low < 100 if low > 0 else False
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,), numticks=6))
        plain = narrow and low >= 1e-3 and high <= 1e4
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}") if plain else LogFormatterSciNotation())
        axis.set_minor_formatter(NullFormatter())


def from_zero(ax: Axes) -> None:
    """Let the y axis begin with 0, and end a little above what is drawn, however little that varies."""
    ax.set_ylim(0, max(ax.get_ylim()[1], 1.05 * ax.dataLim.y1))


def sizes_axis(ax: Axes, name: str, values: Any) -> None:
    """Make an axis logarithmic with ticks at these values alone, sizes such as widths and depths."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ax.set(**{f"{name}scale": "log"})
    axis = getattr(ax, f"{name}axis")
    axis.set_major_locator(FixedLocator(sorted({float(value) for value in values})))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_locator(NullLocator())


def density(
    ax: Axes, values: NDArray[Any], quantity: str, label: str, colour: str = TRAINING, ends: Ends = EVERYWHERE
) -> None:
    """Draw the density of numbers between ends, smoothed, and the Gaussian of the same mean and variance.

    Where all numbers are the same there is no density, and a line stands where they are. Grey lines stand at the ends.
    """
    values = np.asarray(values, np.float64).ravel()
    values = values[np.abs(values) < FAR]
    if not values.size:
        raise ValueError("there is no density to draw: no particle is where an axis reaches")
    mean, deviation = float(values.mean()), float(values.std())
    if deviation <= 1e-12 * max(1.0, abs(mean)):
        ax.axvline(mean, color=colour, label=f"{label}, all the same")
        ax.set(xlabel=quantity, ylabel="density")
        return
    x, smooth = _smoothed(values, deviation, ends)
    ax.fill_between(x, smooth, color=colour, alpha=0.35, linewidth=0)
    ax.plot(x, smooth, color=colour, label=label)
    gaussian = np.exp(-((x - mean) ** 2) / (2 * deviation**2)) / (deviation * np.sqrt(2 * np.pi))
    ax.plot(x, gaussian, color="black", linestyle=":", label=once(ax, _GAUSSIAN))
    for end in ends[:2]:
        if np.isfinite(end):
            ax.axvline(end, color="0.5", linewidth=0.8)
    ax.set(xlabel=quantity, ylabel="density")
    ax.autoscale(axis="y")  # which an earlier density has switched off
    ax.set_ylim(bottom=0)


def _smoothed(values: NDArray[Any], deviation: float, ends: Ends) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a Gaussian kernel estimate on a grid, by Silverman's rule; tails beyond 1 in 1,000 are cut off.

    What would lie beyond an end is mirrored there, or comes in again at the other end of a period.
    """
    low, high = np.quantile(values, [5e-4, 1 - 5e-4])
    spread = min(deviation, float(np.subtract(*np.quantile(values, [0.75, 0.25]))) / 1.34) or deviation
    width = 0.9 * spread * values.size**-0.2
    first, last = max(low - 3 * width, ends.low), min(high + 3 * width, ends.high)
    if ends.periodic:
        first, last, period = ends.low, ends.high, ends.high - ends.low
        copies = [values, values - period, values + period]
    else:
        copies = [values, *(2 * end - values for end in ends[:2] if np.isfinite(end))]
    step = (last - first) / _CELLS
    beyond = int(4 * width / step) + 1
    edges = first + step * np.arange(-beyond, _CELLS + beyond + 1)
    counts = np.histogram(np.concatenate(copies), edges)[0] / (values.size * step)
    reach = np.arange(-beyond, beyond + 1) * step
    kernel = np.exp(-(reach**2) / (2 * width**2))
    smooth = np.convolve(counts, kernel / kernel.sum(), mode="same")
    return first + step * (np.arange(_CELLS) + 0.5), smooth[beyond : beyond + _CELLS]


def text(figure: Figure, ax: Axes, lines: list[str]) -> None:
    """Write lines into the last axes to be drawn into, wrapped where the figure ends."""
    ax.axis("off")
    figure.draw_without_rendering()  # the layout, which the widths of labels decide
    inches = figure.get_figwidth() * (1 - ax.get_position().x0)
    # letters are drawn whole pixels apart, on the screen and in files
    width = min(
        int(inches * dpi) // math.ceil(_ADVANCE * _SMALL * dpi / 72) for dpi in (figure.dpi, STYLE["savefig.dpi"])
    )
    wrapped = [part for line in lines for part in textwrap.wrap(line, width, subsequent_indent=" " * 11) or [""]]
    if len(wrapped) > _LINES:
        wrapped = [*wrapped[: _LINES - 1], "…"]
    # the layout of the other axes does not depend on it
    ax.text(0, 1, "\n".join(wrapped), va="top", family="monospace", fontsize=_SMALL).set_in_layout(False)


@styled
def panels(draws: Sequence[Callable[..., Any]], summary: str) -> Figure:
    """Return a figure of what these draw into `ax`, in the order of reading, and a summary in the last panel."""
    count = len(draws) + 1
    columns = 2 if count == 4 else _COLUMNS if count > 1 else 1
    figure, axes = new_figure(columns, -(-count // columns))
    for draw, ax in zip(draws, axes, strict=False):
        draw(ax=ax)
    for ax in axes[count:]:
        ax.axis("off")
    text(figure, axes[count - 1], summary.splitlines())
    return figure


def save(figure: Figure, path: Any) -> None:
    """Write a figure; a PNG is marked as ours, which lets a later run replace it.

    Raises
    ------
    ValueError
        If matplotlib knows no format of that name.
    """
    png = str(path).lower().endswith(".png")
    figure.savefig(path, dpi=STYLE["savefig.dpi"], metadata={"Software": "flds"} if png else None)
