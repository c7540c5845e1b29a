"""What all plots share: size, style, colours, and their way into an SVG. matplotlib and seaborn load on first use."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from rctk.report.series import Side
from rctk.report.words import text
from rctk_kernels.errors import RctkError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES = 9.0
MOST_ROWS = 24
"""A plot shows the newest rows only; the tables hold all."""
COLOURS: dict[Side, str] = {"float": "#0173b2", "engine": "#d55e00", "twin": "#029e73"}
"""From seaborn's colour-blind palette; shapes tell the sides apart as well, also in grey print."""
MARKERS: dict[Side, str] = {"float": "o", "engine": "D", "twin": "^"}
NAMES: dict[Side, str] = {"float": "float", "engine": "deployed engine", "twin": "twin"}
MUTED = "#555555"
LOG_ABOVE = 8
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""
STYLE = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.usetex": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "rctk",
}


class Plot(NamedTuple):
    """A picture for the page.

    Attributes:
        title: Heading.
        caption: How to read it.
        svg: The picture.
        key: Names of the numbered points, empty where nothing is numbered.
    """

    title: str
    caption: str
    svg: bytes
    key: tuple[str, ...] = ()


@contextmanager
def styled() -> Iterator[Any]:
    """Yield seaborn, with the plot style in force until the block ends; matplotlib's settings are restored then."""
    try:
        import matplotlib as mpl  # noqa: PLC0415  # heavy, and not on a device
        import seaborn as sns  # noqa: PLC0415
    except ImportError as error:
        raise RctkError(f"plots need {error.name}; install it with `pip install 'rctk[host]'`") from error
    with mpl.rc_context(sns.axes_style("whitegrid") | STYLE):
        yield sns


def new_figure(height_inches: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure that no window and no global list knows, with axes side by side that share their y axis."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
    axes = figure.subplots(1, columns, sharey=True, squeeze=False)
    return figure, list(axes[0])


def svg(figure: Figure) -> bytes:
    """Return the figure as SVG; the same records give the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def rows_axes(count: int, least_inches: float = 1.3) -> tuple[Figure, Axes]:
    """Return axes for ``count`` rows, the first on top, without y ticks: a row has its label above its marks."""
    figure, (axes,) = new_figure(least_inches + 0.55 * count)
    axes.set_ylim(count - 0.6, -0.6)
    for row in range(0, count, 2):
        axes.axhspan(row - 0.6, row + 0.4, color="#f4f4f4", zorder=0)
    axes.set_yticks([])
    axes.grid(visible=False, axis="y")
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    return figure, axes


def row_label(axes: Axes, row: int, label: str) -> None:
    """Write the label of a row above its marks, from the left edge."""
    axes.text(0.003, row - 0.42, plain(label), transform=axes.get_yaxis_transform(), va="center", fontsize=8, zorder=5)


def side_legend(axes: Axes, sides: Iterable[Side]) -> None:
    """Name the colours and shapes that occur, above the axes."""
    from matplotlib.lines import Line2D  # noqa: PLC0415

    handles = [
        Line2D([], [], linestyle="", marker=MARKERS[side], color=COLOURS[side], label=NAMES[side])
        for side in dict.fromkeys(sides)
    ]
    axes.figure.legend(handles=handles, loc="outside upper left", ncols=3, frameon=False, labelcolor=MUTED)


def use_log_scale(axes: Axes, values: Sequence[float]) -> bool:
    """Make the x axis logarithmic, with readable ticks, where the values span much; tell whether they do."""
    if min(values) <= 0 or max(values) <= LOG_ABOVE * min(values):
        return False
    from matplotlib.ticker import LogLocator, NullFormatter  # noqa: PLC0415

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    return True


def plain(label: str) -> str:
    """Return ``label`` as matplotlib prints it letter by letter: no formulas, no letters that its font lacks."""
    from matplotlib.font_manager import findfont, get_font  # noqa: PLC0415

    font = get_font(findfont(STYLE["font.family"][0]))  # type: ignore[index]  # a list of one name
    known = "".join(letter if font.get_char_index(ord(letter)) else "?" for letter in text(label, 110))
    return known.replace("$", r"\$")


def newest(count: int, noun: str) -> str:
    """Say in a caption that a plot is cut, where it is."""
    return f" The newest {MOST_ROWS} of {count} {noun}; the table below holds all." if count > MOST_ROWS else ""
