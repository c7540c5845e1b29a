"""What the records of a study say together: one row per model, method, file, engine and attack, over all seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from rctk.records import Record

FORMS = ("float", "twin", "engine")
Place = tuple[str, str, str, str]
"""Model, method, target, engine."""


class Share(NamedTuple):
    """An accuracy: that of one run with Wilson's 95 % interval, or the mean of several with their deviation.

    Attributes:
        value: In [0, 1].
        low: Lower end of the interval of one run; None for several.
        high: Upper end.
        deviation: Standard deviation between runs, with ``runs - 1``; None for one run.
        runs: Number of seeds.
    """

    value: float
    low: float | None
    high: float | None
    deviation: float | None
    runs: int


class Row(NamedTuple):
    """One attack on one deployed file in one engine.

    Attributes:
        place: Model, method, target, engine.
        attack: As it is called in the study; empty where nothing was attacked.
        samples: Images of one run.
        clean: Accuracy by form: float, twin, engine.
        robust: The same under attack.
        size_bytes: Of the int8 file; None where no record tells.
        median_ms: Latency of one call; None where it was not measured.
        gate: Verdict of each seed.
    """

    place: Place
    attack: str
    samples: int
    clean: dict[str, Share]
    robust: dict[str, Share]
    size_bytes: float | None
    median_ms: float | None
    gate: tuple[str, ...]


def rows_of(records: Sequence[Record]) -> list[Row]:
    """Return the rows in the order in which they first occur; records that belong to no study are left out."""
    own = [record for record in records if isinstance(record.extra.get("study"), dict)]
    places = dict.fromkeys((*_place(record), _attack(record)) for record in own if record.kind == "attack")
    attacked = {key[:4] for key in places}
    idle = (_place(record) for record in own if record.kind in {"bench", "compare"})
    keys = [*places, *((*place, "") for place in dict.fromkeys(idle) if place not in attacked)]
    return [_row(own, key[:4], key[4]) for key in keys]


def _row(records: Sequence[Record], place: Place, attack: str) -> Row:
    here = [record for record in records if record.kind != "export" and _place(record) == place]
    mine = [record for record in here if record.kind == "attack" and _attack(record) == attack]
    forms = {form: [record.values for record in mine if form_of(record) == form] for form in FORMS}
    shares = {gate: {form: _share(values, gate) for form, values in forms.items()} for gate in ("clean", "robust")}
    samples = [record.values.get("samples", 0) for record in mine]
    return Row(
        place=place,
        attack=attack,
        samples=int(samples[0]) if samples else 0,
        clean={form: share for form, share in shares["clean"].items() if share is not None},
        robust={form: share for form, share in shares["robust"].items() if share is not None},
        size_bytes=_mean(_sizes(records, place)),
        median_ms=_mean(_times(here)),
        gate=tuple(str(record.values.get("outcome")) for record in here if record.kind == "compare"),
    )


def form_of(record: Record) -> str:
    """Return which form of a model a record is about."""
    engine = str(record.subject.get("engine", ""))
    return engine if engine in {"float", "twin"} else "float" if record.subject.get("role") == "float" else "engine"


def _share(values: Sequence[Any], gate: str) -> Share | None:
    found = [value for value in values if isinstance(value.get(f"{gate}_accuracy"), int | float)]
    accuracies = [float(value[f"{gate}_accuracy"]) for value in found]
    if not accuracies:
        return None
    if len(accuracies) == 1:
        return Share(accuracies[0], found[0].get(f"{gate}_low"), found[0].get(f"{gate}_high"), None, 1)
    return Share(statistics.fmean(accuracies), None, None, statistics.stdev(accuracies), len(accuracies))


def _sizes(records: Sequence[Record], place: Place) -> list[float]:
    model, method, target, _ = place
    sizes = []
    for record in records:
        labels = record.extra["study"]
        if record.kind == "export" and (labels.get("model"), labels.get("method")) == (model, method):
            files = [file for file in record.values.get("files", []) if file.get("role") == "int8"]
            chosen = [file for file in files if file.get("target") == (target or _usual(files))]
            sizes += [float(file["size_bytes"]) for file in chosen]
        elif record.kind == "bench" and _place(record) == place and not method and form_of(record) == "engine":
            sizes.append(float(record.values.get("file_bytes") or 0))
    return sizes


def _usual(files: Sequence[Any]) -> str:
    """Return the target that is measured where a study names none."""
    targets = [str(file.get("target")) for file in files]
    return "cpu" if "cpu" in targets else next(iter(sorted(targets)), "")


def _times(records: Sequence[Record]) -> list[float]:
    """Return the medians of the deployed file at the first batch and number of threads that were measured."""
    timed = [record for record in records if record.kind == "bench" and form_of(record) == "engine"]
    first = [(record.settings.get("batch"), record.settings.get("threads")) for record in timed][:1]
    same = [record for record in timed if [(record.settings.get("batch"), record.settings.get("threads"))] == first]
    return [float(record.values["median_ms"]) for record in same if record.values.get("median_ms") is not None]


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _place(record: Record) -> Place:
    labels = record.extra["study"]
    model, method, target, engine = (str(labels.get(key, "")) for key in ("model", "method", "target", "engine"))
    return model, method, target, engine


def _attack(record: Record) -> str:
    """Return the name of the attack; candidates rounded to pixels are a row of their own."""
    pixels = ", uint8 pixels" if record.settings.get("grid") == "uint8" else ""
    return f"{record.extra['study'].get('attack', '')}{pixels}"
