"""Tables of what compares forms or budgets: transfer, differential searches, curves."""

from __future__ import annotations

from rctk.records import Record
from rctk.report.columns import BUDGET, FILE, SEED, Column, Part, View, between, numbers, of_subject, value, words
from rctk.report.words import budget, is_number, number, percent_between, text

MOST_POINTS = 12
"""Rows that one curve takes."""


def _cells(record: Record) -> list[Part]:
    cells = record.values.get("robust")
    rates = record.values.get("transfer")
    rated = {
        (text(rate.get("source")), text(rate.get("target"))): rate
        for rate in map(numbers, rates if isinstance(rates, list | tuple) else [])
    }
    found: list[Part] = []
    for cell in map(numbers, cells if isinstance(cells, list | tuple) else []):
        rate = rated.get((text(cell.get("source")), text(cell.get("target"))), {})
        found.append({**record.settings, **cell, "rate": rate.get("rate"), "interval": rate.get("interval")})
    return found


def _searches(record: Record) -> list[Part]:
    ways = record.values.get("directions")
    found: list[Part] = []
    for way in map(numbers, ways if isinstance(ways, list | tuple) else []):
        every = {**numbers(way.get("searches")), "all of them": way.get("union")}
        for name, search in every.items():
            found.append({**record.settings, **way, **numbers(search), "search": name})
    return found


def _points(record: Record) -> list[Part]:
    points = record.values.get("points")
    listed = [numbers(point) for point in (points if isinstance(points, list | tuple) else [])]
    if len(listed) > MOST_POINTS:
        listed = listed[:: -(-len(listed) // MOST_POINTS)]
    return [{**record.settings, **record.values, **point} for point in listed]


def _counted(heading: str, key: str) -> Column:
    """A share that a record holds with its counts and interval."""
    return Column(heading, lambda _, part: _share_between(numbers(part.get(key)) if key else part))


def _share_between(share: Part) -> str:
    hits, samples = share.get("hits"), share.get("samples")
    value = hits / samples if is_number(hits) and is_number(samples) and samples else None
    return percent_between(value, share.get("low"), share.get("high"))


def _rate(_: Record, part: Part) -> str:
    ends = part.get("interval")
    low, high = ends if isinstance(ends, list | tuple) and len(ends) == 2 else (None, None)
    return percent_between(part.get("rate"), low, high)


PAIR_VIEWS = (
    View(
        "transfer",
        "Transfer",
        "Candidates made for the source, tried on the target, over images that all targets get right: robust accuracy "
        "of the target, and the share of candidates that fool the source which fool the target too.",
        _cells,
        (
            of_subject("name", "models"),
            words("source", "crafted on"),
            words("target", "tried on"),
            value("images", "samples", number),
            _counted("robust", ""),
            Column("transfer rate", _rate),
            BUDGET,
            words("attack"),
            words("data", detail=True),
            SEED,
        ),
    ),
    View(
        "differential",
        "Float against engine, driven apart",
        "Images that both get right. Fooled: the form under attack is wrong. Unseen: the other one is still right. It "
        "measures the gap between the two and no robust accuracy.",
        _searches,
        (
            FILE,
            words("fooled", "wrong"),
            words("unaware", "right"),
            words("search"),
            _counted("fooled", "success"),
            _counted("fooled unseen", "evasive"),
            _counted("unseen of the fooled", "evasion"),
            BUDGET,
            words("data", detail=True),
            SEED,
        ),
    ),
    View(
        "curve",
        "Curves",
        "Robust accuracy with Wilson's 95 % interval over the budget or over the number of queries; an upper limit "
        "everywhere. Long curves are thinned here.",
        _points,
        (
            FILE,
            of_subject("engine"),
            words("attack"),
            value("images", "samples", number),
            Column("budget", lambda _, part: budget(part.get("norm"), part.get("eps")), right=False),
            value("queries", "queries", number),
            between("robust accuracy", "accuracy", "low", "high"),
            words("data", detail=True),
            SEED,
        ),
    ),
)
