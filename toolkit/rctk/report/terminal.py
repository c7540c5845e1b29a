"""Tables of records for a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from rctk.records import Record
from rctk.report.protocols import all_tables
from rctk.report.tables import Table

LONGEST_PIECE = 24
"""A longer word may be broken."""
LEAST_COLUMNS = 4
GAP = 2


def render_terminal(records: Sequence[Record], console: Console) -> None:
    """Print one table per kind of record; what a terminal has no room for is in the Markdown and on the page."""
    if not records:
        console.print(Text("no records yet"))
    for table in all_tables(records):
        kept, left_out = columns_that_fit(table, console.width)
        console.print(_grid(table, kept, console.width))
        if left_out:
            names = ", ".join(table.headings[i] for i in left_out)
            console.print(Text(f"no room for: {names}; see the page, or widen the terminal", style="dim"))
        console.print()


def columns_that_fit(table: Table, width: int) -> tuple[list[int], list[int]]:
    """Choose from the left the columns that fit without breaking words, and name those that do not; without details."""
    shown = [i for i, spare in enumerate(table.detail) if not spare]
    room = width
    for place, i in enumerate(shown):
        room -= _least_width(table, i) + GAP
        if room < -GAP and place >= LEAST_COLUMNS:
            return shown[:place], shown[place:]
    return shown, []


def _least_width(table: Table, column: int) -> int:
    pieces = table.headings[column].split()
    for row in table.rows:  # an interval stays in one piece, words of text may part
        pieces += re.split(r" (?=\[)", row[column]) if table.right[column] else row[column].split()
    return min(max(map(len, pieces), default=0), LONGEST_PIECE)


def _grid(table: Table, kept: Sequence[int], width: int) -> Grid:
    natural = [max(len(cell) for cell in (table.headings[i], *(row[i] for row in table.rows))) for i in kept]
    before_interval = " [" if sum(natural) + GAP * len(kept) <= width else "\n["
    grid = Grid(
        title=Text(table.title, style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for i in kept:
        side, least = ("right" if table.right[i] else "left"), _least_width(table, i)
        grid.add_column(Text(table.headings[i]), justify=side, overflow="fold", min_width=least)  # type: ignore[arg-type]
    for row in table.rows:
        cells = (row[i].replace(" [", before_interval) if table.right[i] else row[i] for i in kept)
        grid.add_row(*map(Text, cells))  # Text, so that a name with [brackets] is no markup
    return grid
