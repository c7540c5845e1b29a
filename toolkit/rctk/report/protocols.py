"""Runs of the deployed protocol, picked out of records: tiers, verdicts, audits; no value is changed on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rctk.records import Record
from rctk.report.study_table import study_tables
from rctk.report.tables import Table, file_name, numbers, tables
from rctk.report.words import MISSING, budget, is_number, milliseconds, number, percent, percent_between, text

SIDES = {"float": "float", "twin": "twin"}


class Protocoled(NamedTuple):
    """One form of a model under a protocol.

    Attributes:
        label: Model, form and budget in a line.
        model: Name and form.
        values: What the record holds about it.
    """

    label: str
    model: str
    values: Mapping[str, Any]


def protocoled(records: Sequence[Record]) -> list[Protocoled]:
    """Return every form that a protocol attacked, oldest first."""
    found = []
    for record in records:
        held = numbers(record.values.get("protocol"))
        if record.kind == "attack" and held:
            form = str(record.subject.get("engine") or "engine") if record.subject.get("role") != "float" else "float"
            grid = " (8-bit)" if record.settings.get("grid") == "uint8" else ""
            found.append(_one(record, form + grid, held))
        elif record.kind == "compare":
            found += [_one(record, str(form), numbers(values)) for form, values in held.items()]
    return found


def _one(record: Record, form: str, values: Mapping[str, Any]) -> Protocoled:
    threat = budget(record.settings.get("norm"), record.settings.get("eps"))
    file = f", {file_name({**record.subject, 'role': ''})}" if form != "float" and record.subject.get("target") else ""
    model = f"{text(record.subject.get('name'), 40)}{file}, {text(form, 40)}"
    return Protocoled(f"{model}, {text(values.get('name'), 20)}, {threat}", model, values)


def tier_rows(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what each tier did, in order; nothing where the record holds something else."""
    listed = values.get("tiers")
    return [numbers(tier) for tier in listed] if isinstance(listed, list | tuple) else []


def all_tables(records: Sequence[Record]) -> list[Table]:
    """Return the summary of a study, the tables of :func:`rctk.report.tables.tables`, protocols, and the machines."""
    found, forms = tables(records), protocoled(records)
    return [*study_tables(records), *found[:-1], *([_tiers(forms), _verdicts(forms)] if forms else []), *found[-1:]]


def _tiers(forms: Sequence[Protocoled]) -> Table:
    rows: list[tuple[str, ...]] = []
    for form in forms:
        for tier in tier_rows(form.values):
            left = numbers(tier.get("left"))
            share = _share(left)
            ran = tier.get("ran") is not False
            rows.append(
                (
                    form.label,
                    text(tier.get("tier")),
                    number(left.get("samples")),
                    number(tier.get("broken")) if ran else "not run",
                    percent_between(share, left.get("low"), left.get("high")) if ran else MISSING,
                    number(tier.get("queries")),
                    number(tier.get("forward_passes")),
                    number(tier.get("backward_passes")),
                    milliseconds(tier.get("seconds")),
                )
            )
    headings = ("model, form, protocol", "tier", "images", "broke first", "robust after it")
    costs = ("queries", "forward", "backward", "s")
    return Table(
        "Deployed protocol, tier by tier",
        "Robust accuracy that is left after a tier and all before it, with Wilson's 95 % interval. The last line of a "
        "form is its headline. Queries, passes and seconds are those of all forms of a run together.",
        (*headings, *costs),
        rows,
        (False, False, *[True] * 7),
        (*[False] * 5, *[True] * 4),
    )


def _verdicts(forms: Sequence[Protocoled]) -> Table:
    rows: list[tuple[str, ...]] = []
    for form in forms:
        audit = numbers(form.values.get("audit"))
        ways = [_way(numbers(way)) for way in _listed(numbers(form.values.get("differential")).get("directions"))]
        rows.append(
            (
                form.label,
                text(form.values.get("verdict"), 400),
                text(audit.get("verdict")),
                text(_doubts(audit), 300),
                text("; ".join(ways), 200),
            )
        )
    headings = ("model, form, protocol", "verdict", "masking audit", "what it found", "driven apart")
    return Table(
        "Deployed protocol, verdicts",
        "Where the audit fails, no robust accuracy of that form is to be believed. Driven apart: share of the images "
        "that both forms get right for which a search found one that the first gets wrong and the other right.",
        headings,
        rows,
        (False,) * 5,
        (False,) * 5,
    )


def _doubts(audit: Mapping[str, Any]) -> str:
    checks = [numbers(check) for check in _listed(audit.get("checks"))]
    doubts = [f"{c.get('check')} {c.get('verdict')}: {c.get('found')}" for c in checks if _doubtful(c)]
    return "; ".join(doubts) if checks else str(audit.get("found") or "")


def _doubtful(check: Mapping[str, Any]) -> bool:
    return check.get("verdict") in {"fails", "suspicious"}


def _way(way: Mapping[str, Any]) -> str:
    evasive = numbers(numbers(way.get("union")).get("evasive"))
    return f"{way.get('fooled')} wrong, {way.get('unaware')} right {percent(_share(evasive))}"


def _share(counts: Mapping[str, Any]) -> float | None:
    hits, samples = counts.get("hits"), counts.get("samples")
    return hits / samples if is_number(hits) and is_number(samples) and samples else None


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
