"""Accuracy against what it costs: bytes on the device and time per call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from rctk.records import Record
from rctk.report.canvas import (
    COLOURS,
    MARKERS,
    MOST_ROWS,
    MUTED,
    Plot,
    new_figure,
    newest,
    side_legend,
    styled,
    svg,
    use_log_scale,
)
from rctk.report.series import Cost, costs
from rctk.report.words import milliseconds, percent, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes


MOST_IN_A_ROW = 6


class Point(NamedTuple):
    """A numbered file at its cost."""

    number: int
    x: float
    cost: Cost


def cost_plot(records: Sequence[Record]) -> Plot | None:
    """Return the plot, or ``None`` where no file has both an accuracy and a size or a latency."""
    found = costs(records)
    shown = found[-MOST_ROWS:]
    if not shown:
        return None
    sizes = [Point(i, c.size_bytes / 1024, c) for i, c in enumerate(shown, 1) if c.size_bytes is not None]
    times = [Point(i, c.latency_ms, c) for i, c in enumerate(shown, 1) if c.latency_ms is not None]
    panels = [(points, label) for points, label in ((sizes, "file size, KiB"), (times, "median ms per call")) if points]
    with styled() as sns:
        figure, axes = new_figure(3.6, len(panels))
        for one, (points, label) in zip(axes, panels, strict=True):
            _panel(one, points)
            one.set_xlabel(label)
            sns.despine(ax=one)
        axes[0].set_ylim(-3, 112)
        axes[0].set_yticks(range(0, 101, 20))
        axes[0].set_ylabel("accuracy, %")
        side_legend(axes[0], [cost.side for cost in shown])
        return Plot(
            "Accuracy against size and latency",
            "Hollow: clean images. Filled: under attack. A line joins the two. Latency at the smallest batch that was "
            "measured, with the fewest threads." + newest(len(found), "files"),
            svg(figure),
            tuple(_name(cost) for cost in shown),
        )


def _panel(axes: Axes, points: Sequence[Point]) -> None:
    step = 9 if len(points) > MOST_IN_A_ROW else 0  # numbers of many files stand on three levels
    for number, x, cost in points:
        colour = COLOURS[cost.side]
        heights = [100 * value for value in (cost.clean, cost.robust) if value is not None]
        axes.vlines(x, min(heights), max(heights), color=colour, linewidth=0.8, alpha=0.5)
        for value, face in ((cost.clean, "white"), (cost.robust, colour)):
            if value is not None:
                axes.plot(x, 100 * value, marker=MARKERS[cost.side], color=colour, markerfacecolor=face, clip_on=False)
        axes.annotate(
            str(number),
            (x, max(heights)),
            xytext=(0, 7 + step * (number % 3)),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=MUTED,
        )
    least, most = min(point.x for point in points), max(point.x for point in points)
    if use_log_scale(axes, [least, most]):
        axes.set_xlim(least / 1.5, most * 1.5)
    else:
        axes.set_xlim(0, 1.12 * most)


def _name(cost: Cost) -> str:
    figures = f"clean {percent(cost.clean)}, robust {percent(cost.robust)}"
    return f"{cost.name}, {cost.file}: {figures}, {size(cost.size_bytes)}, {milliseconds(cost.latency_ms)} ms"
