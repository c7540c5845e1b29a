"""Which tier of the deployed protocol broke how many images: one stacked bar per form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rctk.records import Record
from rctk.report.canvas import MOST_ROWS, MUTED, Plot, newest, row_label, rows_axes, styled, svg
from rctk.report.protocols import Protocoled, protocoled
from rctk.report.tables import numbers
from rctk.report.words import is_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PARTS: Mapping[str, tuple[str, str, str]] = {
    "survived": ("survived all tiers", "#0173b2", ""),
    "differential": ("differential", "#fbafe4", "xx"),
    "decision": ("decision", "#ca9161", ".."),
    "score": ("score", "#cc78bc", "//"),
    "substitute": ("substitute", "#ece133", "--"),
    "transfer-twin": ("transfer-twin", "#029e73", "\\\\"),
    "transfer-float": ("transfer-float", "#de8f05", ""),
    "misclassified": ("wrong without attack", "#dddddd", ""),
}
"""Outcome of an image to its name, colour and pattern, from left to right: the last tier stands beside the survivors.

Colours are seaborn's colour-blind palette, patterns tell them apart in grey print.
"""
LEAST_LABELLED = 4.0
"""Percent from which a part of a bar carries its number."""


def tier_plot(records: Sequence[Record]) -> Plot | None:
    """Return the plot, or ``None`` where no record holds a protocol."""
    found = [form for form in protocoled(records) if _total(form)]
    if not found:
        return None
    shown = found[-MOST_ROWS:]
    with styled():
        figure, axes = rows_axes(len(shown), least_inches=1.6)
        for row, form in enumerate(shown):
            doubt = "" if form.values.get("believed", True) else ": NOT BELIEVED: the masking audit fails"
            row_label(axes, row, form.label + doubt)
            _bar(axes, row, form)
        axes.set_xlim(0, 100)
        axes.set_xlabel("share of all images, %")
        _legend(axes)
        return Plot(
            "What broke the images",
            "The tier of the deployed protocol that broke an image first. The right end of a part is the robust "
            "accuracy before its tier ran: all parts from the left up to it were still standing."
            + newest(len(found), "forms"),
            svg(figure),
        )


def _counts(form: Protocoled) -> dict[str, Any]:
    return {name: count for name, count in numbers(form.values.get("counts")).items() if is_number(count)}


def _total(form: Protocoled) -> float:
    return float(sum(_counts(form).values()))


def _bar(axes: Axes, row: int, form: Protocoled) -> None:
    counts, total, left = _counts(form), _total(form), 0.0
    for name, (_, colour, pattern) in PARTS.items():
        width = 100 * counts.get(name, 0) / total
        if not width:
            continue
        axes.barh(row, width, left=left, height=0.42, color=colour, hatch=pattern, edgecolor="white", linewidth=0.8)
        if width >= LEAST_LABELLED:
            box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
            middle = left + width / 2
            axes.text(middle, row, f"{counts[name]:,.0f}", ha="center", va="center", fontsize=8, bbox=box, zorder=6)
        left += width


def _legend(axes: Axes) -> None:
    from matplotlib.patches import Patch  # noqa: PLC0415

    handles = [
        Patch(facecolor=colour, hatch=pattern, edgecolor="white", label=label)
        for label, colour, pattern in PARTS.values()
    ]
    axes.figure.legend(handles=handles, loc="outside upper left", ncols=4, frameon=False, labelcolor=MUTED)
