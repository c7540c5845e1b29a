"""What the plots show, picked out of records; no value is changed on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from rctk.records import Record
from rctk.report.columns import file_name, numbers
from rctk.report.conditions import power_mode, unusual
from rctk.report.machines import machine_key, machine_labels
from rctk.report.words import budget, is_number, text

Side = Literal["float", "engine", "twin"]
PERCENTILES = ("min_ms", "median_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms")


class Accuracy(NamedTuple):
    """One accuracy with its interval; shares in [0, 1]."""

    side: Side
    robust: bool
    value: float
    low: float
    high: float


class AccuracyRow(NamedTuple):
    """The accuracies of one record."""

    label: str
    accuracies: tuple[Accuracy, ...]


class LatencyRow(NamedTuple):
    """Times of one bench in milliseconds: its percentiles, and single calls where the record holds them."""

    label: str
    side: Side
    percentiles: dict[str, float]
    times_ms: tuple[float, ...]


class Cost(NamedTuple):
    """Size or latency of a file beside its accuracies; ``None`` where no record tells."""

    name: str
    file: str
    side: Side
    size_bytes: float | None
    latency_ms: float | None
    clean: float | None
    robust: float | None


def accuracy_rows(records: Sequence[Record]) -> list[AccuracyRow]:
    """Return one row per compare or attack record that holds an accuracy, oldest first."""
    rows = []
    for record in records:
        what = "compare" if record.kind == "compare" else str(record.settings.get("attack", ""))
        threat = budget(record.settings.get("norm"), record.settings.get("eps"))
        label = _join(record.subject.get("name"), file_name(record.subject), record.subject.get("engine"), what, threat)
        if accuracies := _accuracies(record):
            rows.append(AccuracyRow(label, accuracies))
    return rows


def latency_rows(records: Sequence[Record]) -> list[LatencyRow]:
    """Return one row per bench record that holds a median, oldest first."""
    labels = machine_labels(records)
    rows = []
    for record in (record for record in records if record.kind == "bench"):
        found = {key: float(record.values[key]) for key in PERCENTILES if is_number(record.values.get(key))}
        times = record.values.get("times_ms")
        listed = tuple(float(t) for t in times if is_number(t)) if isinstance(times, list | tuple) else ()
        batch, threads = record.settings.get("batch", "?"), record.settings.get("threads", "?")
        where = [f"batch {batch}, threads {threads}", unusual(record.settings)]
        where.append(power_mode(record.values) if numbers(record.values.get("state_before")).get("power_mode") else "")
        where.append(labels[machine_key(record)] if len(labels) > 1 else "")
        label = _join(record.subject.get("name"), file_name(record.subject), record.subject.get("engine"), *where)
        if "median_ms" in found:
            rows.append(LatencyRow(label, side_of(record.subject), found, listed))
    return rows


def costs(records: Sequence[Record]) -> list[Cost]:
    """Join, per file of a bundle, its newest accuracies with its size and its latency on each machine that timed it.

    The latency is the newest of the smallest batch that was measured, with the fewest threads, one batch at a time and
    without pauses.
    """
    accuracy = _newest_accuracies(records)
    sizes = _sizes(records)
    latencies = _latencies(records)
    rows = []
    for key, (name, file, side, found) in accuracy.items():
        values = {point.robust: point.value for point in found}
        for machine, latency in latencies.get(key, {"": None}).items():
            where = f"{file} on {machine}" if machine else file
            row = Cost(name, where, side, sizes.get(key), latency, values.get(False), values.get(True))
            if row.size_bytes is not None or row.latency_ms is not None:
                rows.append(row)
    return rows


def _latencies(records: Sequence[Record]) -> dict[tuple[str, str], dict[str, float | None]]:
    """Return milliseconds by file and machine; the machine has no name where there is only one."""
    labels = machine_labels(records)
    timed = [r for r in records if r.kind == "bench" and is_number(r.values.get("median_ms"))]
    timed = [record for record in timed if not unusual(record.settings)]
    timed.sort(key=lambda r: [_or_last(r.settings.get(name)) for name in ("batch", "threads")], reverse=True)
    found: dict[tuple[str, str], dict[str, float | None]] = {}
    for record in timed:  # the last one stays
        machine = labels[machine_key(record)] if len(labels) > 1 else ""
        found.setdefault(_key(record.subject), {})[machine] = float(record.values["median_ms"])
    return found


def _or_last(value: Any) -> float:
    return float(value) if is_number(value) else float("inf")


def _newest_accuracies(
    records: Sequence[Record],
) -> dict[tuple[str, str], tuple[str, str, Side, tuple[Accuracy, ...]]]:
    newest = {}
    for record in records:
        subject = record.subject
        for side in ("float", "engine"):
            found = tuple(point for point in _accuracies(record) if point.side == side)
            if found:
                own = {**subject, "role": "float", "target": ""} if side == "float" else {**subject, "role": "int8"}
                newest[_key(own)] = (text(subject.get("name")), file_name(own), side, found)
    return newest  # type: ignore[return-value]  # the two sides of the loop are of type Side


def _sizes(records: Sequence[Record]) -> dict[tuple[str, str], float]:
    sizes = {}
    for record in records:
        if record.kind == "bench" and is_number(record.values.get("file_bytes")):
            sizes[_key(record.subject)] = float(record.values["file_bytes"])
        files = record.values.get("files")
        for file in map(numbers, files if record.kind == "export" and isinstance(files, list | tuple) else ()):
            if is_number(file.get("size_bytes")):
                sizes[_key({**record.subject, **file})] = float(file["size_bytes"])
    return sizes


def _key(subject: Mapping[str, Any]) -> tuple[str, str]:
    """Return what one file of one bundle has in common in all its records: the hash (or the name) and the file."""
    file = "float" if subject.get("role") == "float" else str(subject.get("target") or "")
    return str(subject.get("sha256") or subject.get("name")), file


def _accuracies(record: Record) -> tuple[Accuracy, ...]:
    if record.kind == "attack":
        side = side_of(record.subject)
        points = [_accuracy(record.values, side, name) for name in ("clean", "robust")]
    elif record.kind == "compare":
        sides: tuple[Side, Side] = ("float", "engine")
        gates = {name: numbers(record.values.get(name)) for name in ("clean", "robust")}
        points = [_accuracy(gate, side, name, side) for name, gate in gates.items() for side in sides]
    else:
        points = []
    return tuple(point for point in points if point is not None)


def _accuracy(values: Mapping[str, Any], side: Side, gate: str, prefix: str = "") -> Accuracy | None:
    prefix = prefix or gate
    value, low, high = (values.get(f"{prefix}_{end}") for end in ("accuracy", "low", "high"))
    if not is_number(value):
        return None
    low, high = (low, high) if is_number(low) and is_number(high) else (value, value)
    return Accuracy(side, gate == "robust", float(value), float(low), float(high))  # type: ignore[arg-type]  # numbers


def side_of(subject: Mapping[str, Any]) -> Side:
    """Return which form of a model a record is about."""
    if str(subject.get("engine", "")).partition(":")[0] == "twin":
        return "twin"
    return "float" if subject.get("role") == "float" else "engine"


def _join(*parts: Any) -> str:
    return ", ".join(text(part, 40) for part in parts if part)
