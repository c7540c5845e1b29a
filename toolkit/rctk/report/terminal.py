"""Tables of records for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from rctk.records import Record
from rctk.report.tables import tables


def render_terminal(records: Sequence[Record], console: Console) -> None:
    """Print one table per kind of record; what needs more room than a terminal has is in the Markdown and the page."""
    if not records:
        console.print(Text("no records yet"))
    for table in tables(records):
        grid = Grid(title=Text(table.title), title_justify="left")
        kept = [i for i, spare in enumerate(table.detail) if not spare]
        for i in kept:
            grid.add_column(Text(table.headings[i]), justify="right" if table.right[i] else "left", overflow="fold")
        for row in table.rows:
            grid.add_row(*(Text(row[i]) for i in kept))  # Text, so that a name with [brackets] is no markup
        console.print(grid)
