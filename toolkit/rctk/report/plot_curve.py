"""Robust accuracy over the budget, and over the number of queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rctk.records import Record
from rctk.report.canvas import COLOURS, MARKERS, MUTED, NAMES, Plot, new_figure, plain, styled, svg
from rctk.report.series import Side, side_of
from rctk.report.tables import numbers
from rctk.report.words import is_number, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Over = Literal["eps", "queries"]
TITLES: Mapping[Over, str] = {"eps": "Robust accuracy over the budget", "queries": "Robust accuracy over queries"}
SHOWN = 6
"""Curves in one picture."""
STYLES = ("-", "--", ":", "-.")


class Line(NamedTuple):
    """One curve: ``x`` in units of [0, 1] images or queries, shares with their interval; linf budgets are levels."""

    label: str
    side: Side
    x: list[float]
    value: list[float]
    low: list[float]
    high: list[float]
    levels: bool


def lines(records: Sequence[Record], over: Over) -> list[Line]:
    """Return one line per curve record that holds points over ``over``, oldest first."""
    found = []
    for record in (record for record in records if record.kind == "curve" and record.values.get("over") == over):
        listed = record.values.get("points")
        points = [numbers(point) for point in (listed if isinstance(listed, list | tuple) else [])]
        points = [point for point in points if all(is_number(point.get(key)) for key in (over, "accuracy"))]
        if points:
            side = side_of(record.subject)
            label = f"{text(record.subject.get('name'), 30)}, {NAMES[side]}, {text(record.settings.get('attack'), 30)}"
            x, value, low, high = (_column(points, key) for key in (over, "accuracy", "low", "high"))
            levels = over == "eps" and record.settings.get("norm") == "linf"
            found.append(Line(label, side, x, value, low, high, levels))
    return found


def _column(points: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [float(point[key] if is_number(point.get(key)) else point["accuracy"]) for point in points]


def curve_plots(records: Sequence[Record]) -> list[Plot]:
    """Return a plot for each of the two kinds of curves that occurs."""
    overs: tuple[Over, ...] = ("eps", "queries")
    return [_plot(found, over) for over in overs if (found := lines(records, over))]


def _plot(found: Sequence[Line], over: Over) -> Plot:
    shown = found[-SHOWN:]
    more = f" The newest {SHOWN} of {len(found)} curves; the table below holds all." if len(found) > SHOWN else ""
    with styled():
        figure, (axes,) = new_figure(3.4)
        levels = all(line.levels for line in shown)
        for at, line in enumerate(shown):
            _draw(axes, line._replace(levels=levels), over, STYLES[(at // 2) % len(STYLES)])
        axes.legend(fontsize=8, frameon=False, labelcolor=MUTED)
        axes.set_ylim(0, 100)
        axes.set_xlim(left=0)
        axes.set_ylabel("robust accuracy, %")
        axes.set_xlabel(_unit(over, levels=levels))
        return Plot(
            TITLES[over],
            "Bands: 95 % intervals; they cover the choice of images, not the strength of the attack." + more,
            svg(figure),
        )


def _unit(over: Over, *, levels: bool) -> str:
    if over == "queries":
        return "queries per image"
    return "budget, levels of 255" if levels else "budget, images in [0, 1]"


def _draw(axes: Axes, line: Line, over: Over, style: str) -> None:
    x = [255 * value for value in line.x] if line.levels else line.x
    value, low, high = ([100 * share for share in column] for column in (line.value, line.low, line.high))
    look: dict[str, Any] = {
        "color": COLOURS[line.side],
        "linestyle": style,
        "linewidth": 1.5,
        "label": plain(line.label),
    }
    band: dict[str, Any] = {"color": COLOURS[line.side], "alpha": 0.12, "linewidth": 0}
    if over == "queries":
        axes.step(x, value, where="post", **look)
        axes.fill_between(x, low, high, step="post", **band)
    else:
        axes.plot(x, value, marker=MARKERS[line.side], markersize=4, **look)
        axes.fill_between(x, low, high, **band)
