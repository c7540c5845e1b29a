"""Records as tables of text; the same cells go to the terminal, to Markdown and to the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rctk.records import Record
from rctk.report.columns import TIME, Column, file_name, numbers
from rctk.report.machines import machine_key, machine_labels, machine_row
from rctk.report.views import VIEWS
from rctk.report.views_of_pairs import PAIR_VIEWS
from rctk.report.views_of_steps import STEP_VIEWS
from rctk.report.words import MISSING

__all__ = ["Table", "file_name", "numbers", "tables"]


class Table(NamedTuple):
    """Text cells under headings; ``detail`` and ``right`` hold one flag per column."""

    title: str
    note: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]
    right: tuple[bool, ...]
    detail: tuple[bool, ...]


def tables(records: Sequence[Record]) -> list[Table]:
    """Return one table per kind of record that occurs, and one of the machines; empty details are left out.

    Where there are several machines, each row says early which it is.
    """
    labels = machine_labels(records)
    alone = len(labels) == 1
    machine = Column("machine", lambda record, _: labels[machine_key(record)], right=False, detail=alone)
    found = []
    for view in (*VIEWS, *PAIR_VIEWS, *STEP_VIEWS):
        lines = [(record, part) for record in records if record.kind == view.kind for part in view.parts(record)]
        if lines:
            every = (*view.columns, machine, TIME) if alone else (view.columns[0], machine, *view.columns[1:], TIME)
            spare = [c for c in every if (c.detail or c.sparse) and all(c.cell(*line) == MISSING for line in lines)]
            columns = [column for column in every if column not in spare]
            rows = [tuple(column.cell(record, part) for column in columns) for record, part in lines]
            flags = tuple(column.right for column in columns), tuple(column.detail for column in columns)
            found.append(Table(view.title, view.note, tuple(column.heading for column in columns), rows, *flags))
    if records:
        found.append(_machine_table(records, labels))
    return found


def _machine_table(records: Sequence[Record], labels: Mapping[str, str]) -> Table:
    first = {machine_key(record): record for record in reversed(records)}
    rows = [(label, *machine_row(first[key])) for key, label in labels.items()]
    headings = ("machine", "CPU", "cores", "memory", "board, GPU", "system", "versions")
    width = len(headings)
    return Table("Machines and versions", "", headings, rows, (False,) * width, (False,) * width)
