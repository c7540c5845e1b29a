"""Records as tables of text; the same cells go to the terminal, to Markdown and to the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rctk.records import Kind, Record
from rctk.report.machines import machine_key, machine_labels, machine_row
from rctk.report.words import (
    MISSING,
    budget,
    milliseconds,
    number,
    p_value,
    percent,
    percent_between,
    points,
    points_between,
    size,
    text,
)

Part = Mapping[str, Any]
"""Settings and values of what one row is about."""


class Column(NamedTuple):
    """A column: its heading, how a cell is made, which side it is aligned to, and whether a terminal can spare it."""

    heading: str
    cell: Callable[[Record, Part], str]
    right: bool = True
    detail: bool = False


class Table(NamedTuple):
    """Text cells under headings; ``detail`` and ``right`` hold one flag per column."""

    title: str
    note: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]
    right: tuple[bool, ...]
    detail: tuple[bool, ...]


class View(NamedTuple):
    """How records of one kind become a table; a record may give several rows."""

    kind: Kind
    title: str
    note: str
    parts: Callable[[Record], Sequence[Part]]
    columns: tuple[Column, ...]


def tables(records: Sequence[Record]) -> list[Table]:
    """Return one table per kind of record that occurs, and one of the machines; empty details are left out."""
    labels = machine_labels(records)
    machine = Column("machine", lambda record, _: labels[machine_key(record)], right=False, detail=True)
    found = []
    for view in VIEWS:
        lines = [(record, part) for record in records if record.kind == view.kind for part in view.parts(record)]
        if lines:
            every = (*view.columns, machine, TIME)
            columns = [c for c in every if not c.detail or any(c.cell(*line) != MISSING for line in lines)]
            rows = [tuple(column.cell(record, part) for column in columns) for record, part in lines]
            flags = tuple(column.right for column in columns), tuple(column.detail for column in columns)
            found.append(Table(view.title, view.note, tuple(column.heading for column in columns), rows, *flags))
    if records:
        found.append(_machine_table(records, labels))
    return found


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


def _whole(record: Record) -> list[Part]:
    return [{**record.settings, **record.values}]


def _gates(record: Record) -> list[Part]:
    gates = {name: numbers(record.values.get(name)) for name in ("clean", "robust")}
    return [
        {**record.settings, "gate": name, "samples": record.values.get("samples"), **g} for name, g in gates.items()
    ]


def _files(record: Record) -> list[Part]:
    files = record.values.get("files")
    return [{**record.settings, **numbers(file)} for file in (files if isinstance(files, list | tuple) else [{}])]


def _epochs(record: Record) -> list[Part]:
    epochs = record.values.get("epochs")
    listed = list(epochs) if isinstance(epochs, list | tuple) else []
    return [{**record.settings, **record.values, "last": numbers(listed[-1]) if listed else {}, "count": len(listed)}]


def _subject(key: str, heading: str = "", *, detail: bool = False) -> Column:
    return Column(heading or key, lambda record, _: text(record.subject.get(key)), right=False, detail=detail)


def _text(key: str, heading: str = "", *, detail: bool = False) -> Column:
    return Column(heading or key, lambda _, part: text(part.get(key)), right=False, detail=detail)


def _value(heading: str, key: str, show: Callable[[Any], str], *, detail: bool = False) -> Column:
    return Column(heading, lambda _, part: show(part.get(key)), detail=detail)


def _between(heading: str, key: str, low: str, high: str) -> Column:
    return Column(heading, lambda _, part: percent_between(part.get(key), part.get(low), part.get(high)))


def _model_file(record: Record) -> str:
    return f"{text(record.subject.get('name'))}, {file_name(record.subject)}"


def _needed(_: Record, part: Part) -> str:
    if part.get("samples_to_decide") is None and part.get("samples_if_equal") is not None:
        return f"{number(part['samples_if_equal'])} if equal"
    return number(part.get("samples_to_decide"))


def _discordant(_: Record, part: Part) -> str:
    return f"{number(part.get('float_only'))} : {number(part.get('engine_only'))}"


def _difference(_: Record, part: Part) -> str:
    return points_between(part.get("difference"), part.get("difference_low"), part.get("difference_high"))


def _bounds(_: Record, part: Part) -> str:
    return f"[{points(part.get('lower_bound'), 2)}, {points(part.get('upper_bound'), 2)}]"


def _ratio(value: Any) -> str:
    return number(value, "{:.2f} x")


FILE = Column("model, file", lambda record, _: _model_file(record), right=False)
BUDGET = Column("budget", lambda _, part: budget(part.get("norm"), part.get("eps")), right=False)
TIME = Column("time (UTC)", lambda record, _: text(record.time[:16].replace("T", " ")), right=False, detail=True)
SEED = _value("seed", "seed", number, detail=True)
VIEWS = (
    View(
        "compare",
        "Float against deployed",
        "The same images and the same adversarial candidates for both. Accuracies with Wilson's 95 % interval; the "
        "difference is engine minus float with Tango's 95 % interval; the bounds are one-sided 95 %. A robust accuracy "
        "is an upper limit: a stronger attack may lower it.",
        _gates,
        (
            FILE,
            _text("gate"),
            _value("images", "samples", number),
            _text("outcome", "verdict"),
            _between("float accuracy", "float_accuracy", "float_low", "float_high"),
            _between("engine accuracy", "engine_accuracy", "engine_low", "engine_high"),
            Column("difference, points", _difference),
            BUDGET,
            _value("allowed drop, points", "max_drop", lambda value: points(value).lstrip("+"), detail=True),
            Column("bounds, points", _bounds, detail=True),
            Column("right alone, float : engine", _discordant, detail=True),
            _value("McNemar p", "mcnemar_p", p_value, detail=True),
            Column("images to decide", _needed, detail=True),
            _subject("engine", detail=True),
            _text("data", detail=True),
            _text("attacks", detail=True),
            SEED,
        ),
    ),
    View(
        "attack",
        "Attacks",
        "Accuracies with Wilson's 95 % interval. Queries go to the engine, passes through the model whose gradient was "
        "used. A robust accuracy is an upper limit.",
        _whole,
        (
            FILE,
            _subject("engine"),
            _value("images", "samples", number),
            _between("clean accuracy", "clean_accuracy", "clean_low", "clean_high"),
            _between("robust accuracy", "robust_accuracy", "robust_low", "robust_high"),
            BUDGET,
            _text("attack"),
            _text("crafted_on", "crafted on", detail=True),
            _text("data", detail=True),
            _value("queries", "queries", number, detail=True),
            _value("forward", "forward_passes", number, detail=True),
            _value("backward", "backward_passes", number, detail=True),
            _value("mean linf", "mean_linf", lambda value: number(value, "{:.4f}"), detail=True),
            _value("mean l2", "mean_l2", lambda value: number(value, "{:.3f}"), detail=True),
            _value("s", "seconds", lambda value: number(value, "{:,.1f}"), detail=True),
            SEED,
        ),
    ),
    View(
        "stress",
        "Stress that nobody crafted",
        "mPC is the mean accuracy over the benchmark's corruption types and severities with a bootstrap interval over "
        "images, mCE the mean corruption error as a share of the baseline's, both on the same images.",
        _whole,
        (
            FILE,
            _subject("engine"),
            _value("images", "samples", number),
            _between("clean accuracy", "clean_accuracy", "clean_low", "clean_high"),
            _between("mPC", "mpc", "mpc_low", "mpc_high"),
            _value("mCE", "mce", percent),
            _text("mce_baseline", "baseline"),
            _value("held-out types", "held_out_accuracy", percent, detail=True),
            _text("data", detail=True),
            SEED,
        ),
    ),
    View(
        "bench",
        "Latency, throughput and memory",
        "Milliseconds per call of one batch, after warm-up. The speed-up is the median of the float engine in the same "
        "run over this median.",
        _whole,
        (
            FILE,
            _subject("engine"),
            _value("batch", "batch", number),
            _value("threads", "threads", number),
            _value("median ms", "median_ms", milliseconds),
            _value("p95 ms", "p95_ms", milliseconds),
            _value("p99 ms", "p99_ms", milliseconds, detail=True),
            _value("speed-up", "speedup", _ratio),
            _value("images/s", "images_per_s", number),
            _value("size", "file_bytes", size),
            _value("calls", "calls", number),
            _value("warm-up", "warmup", number, detail=True),
            _value("min ms", "min_ms", milliseconds, detail=True),
            _value("p90 ms", "p90_ms", milliseconds, detail=True),
            _value("max ms", "max_ms", milliseconds, detail=True),
            _value("peak memory", "peak_rss_bytes", size, detail=True),
        ),
    ),
    View(
        "export",
        "Exported files",
        "Agreement is the share of images on which the int8 file and its twin name the same class.",
        _files,
        (
            _subject("name", "model"),
            Column("file", lambda _, part: file_name(part), right=False),
            _value("size", "size_bytes", size),
            _value("images", "samples", number),
            _value("agrees, clean", "agreement_clean", percent),
            _value("agrees, adversarial", "agreement_adversarial", percent),
            _value("codes flipped", "flip_rate", lambda value: number(value, "{:.2%}")),
            _text("calibrator", detail=True),
        ),
    ),
    View(
        "train",
        "Training",
        "Accuracies of the last epoch on the validation images, robust accuracy under the validation attack.",
        _epochs,
        (
            _subject("name", "model"),
            _text("arch", "architecture"),
            _text("data", detail=True),
            _text("objective", detail=True),
            _value("epochs", "count", number),
            _value("images", "samples", number),
            Column("clean", lambda _, part: percent(part["last"].get("clean_accuracy"))),
            Column("robust", lambda _, part: percent(part["last"].get("robust_accuracy"))),
            SEED,
        ),
    ),
)


def _machine_table(records: Sequence[Record], labels: Mapping[str, str]) -> Table:
    first = {machine_key(record): record for record in reversed(records)}
    rows = [(label, *machine_row(first[key])) for key, label in labels.items()]
    headings = ("machine", "CPU", "cores", "memory", "board, GPU", "system", "versions")
    width = len(headings)
    return Table("Machines and versions", "", headings, rows, (False,) * width, (False,) * width)
