"""What a table of records is made of: columns, and views that turn records of one kind into rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rctk.records import Kind, Record
from rctk.report.words import budget, number, percent_between, text

Part = Mapping[str, Any]
"""Settings and values of what one row is about."""


class Column(NamedTuple):
    """A column.

    Attributes:
        heading: What stands above it.
        cell: How a cell is made.
        right: Which side it is aligned to.
        detail: A terminal can spare it, and every form where no record tells.
        sparse: Every form can spare it where no record tells.
    """

    heading: str
    cell: Callable[[Record, Part], str]
    right: bool = True
    detail: bool = False
    sparse: bool = False


class View(NamedTuple):
    """How records of one kind become a table; a record may give several rows."""

    kind: Kind
    title: str
    note: str
    parts: Callable[[Record], Sequence[Part]]
    columns: tuple[Column, ...]


def file_name(subject: Mapping[str, Any]) -> str:
    """Return which file of a bundle a record is about.

    Example:
        >>> file_name({"role": "int8", "target": "cpu"}), file_name({"role": "float", "target": ""})
        ('int8 cpu', 'float')
    """
    parts = [str(subject[key]) for key in ("role", "target") if subject.get(key)]
    return text(" ".join(parts))


def numbers(value: Any) -> dict[str, Any]:
    """Return ``value`` where it is an object of a record, else an empty one."""
    return dict(value) if isinstance(value, Mapping) else {}


def whole(record: Record) -> list[Part]:
    """Return one part: settings and values together."""
    return [{**record.settings, **record.values}]


def of_subject(key: str, heading: str = "", *, detail: bool = False) -> Column:
    """Show an entry of the subject."""
    return Column(heading or key, lambda record, _: text(record.subject.get(key)), right=False, detail=detail)


def words(key: str, heading: str = "", *, detail: bool = False) -> Column:
    """Show text."""
    return Column(heading or key, lambda _, part: text(part.get(key)), right=False, detail=detail)


def value(heading: str, key: str, show: Callable[[Any], str], *, detail: bool = False, sparse: bool = False) -> Column:
    """Show a value as ``show`` prints it."""
    return Column(heading, lambda _, part: show(part.get(key)), detail=detail, sparse=sparse)


def between(heading: str, key: str, low: str, high: str) -> Column:
    """Show a share with its interval."""
    return Column(heading, lambda _, part: percent_between(part.get(key), part.get(low), part.get(high)))


def _model_file(record: Record) -> str:
    return f"{text(record.subject.get('name'))}, {file_name(record.subject)}"


FILE = Column("model, file", lambda record, _: _model_file(record), right=False)
BUDGET = Column("budget", lambda _, part: budget(part.get("norm"), part.get("eps")), right=False)
TIME = Column("time (UTC)", lambda record, _: text(record.time[:16].replace("T", " ")), right=False, detail=True)
SEED = value("seed", "seed", number, detail=True)
