"""How long single calls take, engine by engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rctk.records import Record
from rctk.report.canvas import (
    COLOURS,
    MOST_ROWS,
    MUTED,
    Plot,
    newest,
    row_label,
    rows_axes,
    side_legend,
    styled,
    svg,
    use_log_scale,
)
from rctk.report.series import LatencyRow, latency_rows
from rctk.report.words import milliseconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BOX = 0.3
"""Height of a box, in rows."""


def latency_plot(records: Sequence[Record]) -> Plot | None:
    """Return the plot, or ``None`` where no record holds a latency."""
    found = latency_rows(records)
    if not found:
        return None
    shown = found[-MOST_ROWS:]
    with styled():
        figure, axes = rows_axes(len(shown))
        log = use_log_scale(axes, [row.percentiles["median_ms"] for row in shown])
        for y, row in enumerate(shown):
            row_label(axes, y, row.label)
            _row(axes, y, row)
        left, right = axes.get_xlim()
        axes.set_xlim(
            left if log else 0, 1.3 * right if log else 1.06 * right
        )  # room for the number beside the last row
        axes.set_xlabel("ms per call")
        side_legend(axes, [row.side for row in shown])
        return Plot(
            "Latency",
            "Box: the middle half of the calls; line in it: the median, printed beside it; whiskers: 5th to 95th "
            "percentile; bar: 99th. Where a record holds no single calls, the line runs from the fastest call to the "
            "95th percentile." + newest(len(found), "rows"),
            svg(figure),
        )


def _row(axes: Axes, row: int, latency: LatencyRow) -> None:
    colour, marks, y = COLOURS[latency.side], latency.percentiles, row + 0.03
    median = marks["median_ms"]
    if latency.times_ms:
        low, first, third, high = np.percentile(latency.times_ms, [5, 25, 75, 95])
        axes.fill_between([first, third], y - BOX / 2, y + BOX / 2, facecolor="white", edgecolor=colour, linewidth=1.2)
        axes.vlines([low, high], y - BOX / 4, y + BOX / 4, color=colour, linewidth=1.2)
        axes.hlines([y, y], [low, third], [first, high], color=colour, linewidth=1.2)
    else:
        axes.hlines(y, marks.get("min_ms", median), marks.get("p95_ms", median), color=colour, linewidth=1.2)
    axes.vlines(median, y - BOX / 2, y + BOX / 2, color=colour, linewidth=2)
    if "p99_ms" in marks:
        axes.plot(marks["p99_ms"], y, marker="|", markersize=7, markeredgewidth=1.2, color=colour)
    right = max(marks.get(name, 0) for name in ("median_ms", "p95_ms", "p99_ms"))
    axes.annotate(
        milliseconds(median),
        (right, y),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color=MUTED,
    )
