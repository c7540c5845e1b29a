"""Clean and robust accuracy, float beside engine, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rctk.records import Record
from rctk.report.canvas import (
    COLOURS,
    MARKERS,
    MOST_ROWS,
    Plot,
    newest,
    row_label,
    rows_axes,
    side_legend,
    styled,
    svg,
)
from rctk.report.series import Accuracy, accuracy_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def accuracy_plot(records: Sequence[Record]) -> Plot | None:
    """Return the plot, or ``None`` where no record holds an accuracy."""
    found = accuracy_rows(records)
    if not found:
        return None
    shown = found[-MOST_ROWS:]
    with styled():
        figure, axes = rows_axes(len(shown))
        for row, (label, accuracies) in enumerate(shown):
            row_label(axes, row, label)
            sides = list(dict.fromkeys(accuracy.side for accuracy in accuracies))
            for accuracy in accuracies:
                _mark(axes, row - 0.08 + 0.22 * sides.index(accuracy.side), accuracy)
        axes.set_xlim(0, 100)
        axes.set_xlabel("accuracy, %")
        side_legend(axes, [accuracy.side for row in shown for accuracy in row.accuracies])
        return Plot(
            "Clean and robust accuracy",
            "Hollow: clean images. Filled: under attack. Lines: 95 % intervals; they cover the choice of images, not "
            "the strength of the attack." + newest(len(found), "rows"),
            svg(figure),
        )


def _mark(axes: Axes, y: float, accuracy: Accuracy) -> None:
    colour = COLOURS[accuracy.side]
    axes.hlines(y, 100 * accuracy.low, 100 * accuracy.high, color=colour, linewidth=1.6)
    axes.plot(
        100 * accuracy.value,
        y,
        marker=MARKERS[accuracy.side],
        markersize=5.5,
        color=colour,
        markerfacecolor=colour if accuracy.robust else "white",
        markeredgewidth=1.4,
        clip_on=False,
        zorder=4,
    )
