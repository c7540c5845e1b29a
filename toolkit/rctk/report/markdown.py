"""Tables of records as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rctk.records import Record
from rctk.report.protocols import all_tables
from rctk.report.tables import Table
from rctk.report.words import markdown


def render_markdown(records: Sequence[Record]) -> str:
    """Return a Markdown page with every column of every table."""
    sections = [_section(table) for table in all_tables(records)] or ["no records yet\n"]
    return "# rctk report\n\n" + "\n".join(sections)


def _section(table: Table) -> str:
    rule = ["---:" if right else "---" for right in table.right]
    body = [[markdown(cell) for cell in row] for row in table.rows]
    lines = [f"| {' | '.join(row)} |" for row in (table.headings, rule, *body)]
    note = [table.note, ""] if table.note else []
    return "\n".join([f"## {table.title}", "", *note, *lines, ""])
