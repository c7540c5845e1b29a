"""The summary of a study as a table of text, for the terminal, Markdown and the page."""

from __future__ import annotations

from collections.abc import Sequence

from rctk.records import Record
from rctk.report.tables import Table
from rctk.report.words import MISSING, milliseconds, number, percent, percent_between, size, text
from rctk.study.summary import FORMS, Row, Share, rows_of

TITLE = "Study"
NOTE = (
    "One row per model, method, int8 file, engine and attack. One seed: accuracy with Wilson's 95 % interval. Several: "
    "mean ± standard deviation between seeds, whose images, compression and attacks differ. A robust accuracy is an "
    "upper limit. Latency is the median of one call of the int8 file."
)


def study_tables(records: Sequence[Record]) -> list[Table]:
    """Return the table of the study that ``records`` come from; none where they come from no study."""
    rows = rows_of(records)
    if not rows:
        return []
    headings = (
        *("model", "method", "file", "engine", "attack", "images", "clean float", "clean engine"),
        *(f"robust {form}" for form in FORMS),
        *("size", "median ms", "gate"),
    )
    right = (False,) * 5 + (True,) * (len(headings) - 6) + (False,)
    cells = [_cells(row) for row in rows]
    filled = [at for at in range(len(headings)) if any(line[at] != MISSING for line in cells)]
    kept = [tuple(line[at] for at in filled) for line in cells]
    return [
        Table(
            TITLE,
            NOTE,
            tuple(headings[at] for at in filled),
            kept,
            tuple(right[at] for at in filled),
            (False,) * len(filled),
        )
    ]


def _cells(row: Row) -> tuple[str, ...]:
    clean = (row.clean.get("float"), row.clean.get("engine"))
    robust = (row.robust.get(form) for form in FORMS)
    return (
        *(text(part) for part in (*row.place, row.attack)),
        number(row.samples or None),
        *(_share(share) for share in (*clean, *robust)),
        size(row.size_bytes),
        milliseconds(row.median_ms),
        text(row.gate),
    )


def _share(share: Share | None) -> str:
    if share is None:
        return MISSING
    if share.deviation is None:
        return percent_between(share.value, share.low, share.high)
    return f"{percent(share.value)} ± {100 * share.deviation:.1f} ({share.runs} seeds)"
