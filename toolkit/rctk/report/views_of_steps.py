"""Tables of what steps did to a model before it was exported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rctk.records import Record
from rctk.report.columns import SEED, Column, Part, View, numbers, of_subject, value, words
from rctk.report.words import is_number, number, percent, size, text


def _figures(record: Record) -> list[Part]:
    before, after = numbers(record.values.get("before")), numbers(record.values.get("after"))
    return [{**record.settings, "before": before, "after": after, "samples": after.get("samples")}]


def _steps(_: Record, part: Part) -> str:
    recipe = part.get("recipe")
    steps = [text(numbers(step).get("step")) for step in (recipe if isinstance(recipe, list | tuple) else [])]
    return text(" + ".join(steps))


def _change(heading: str, key: str, show: Callable[[Any], str]) -> Column:
    """A figure before the steps and behind them."""
    return Column(heading, lambda _, part: f"{show(part['before'].get(key))} → {show(part['after'].get(key))}")


def _zeros(_: Record, part: Part) -> str:
    stored, nonzero = part["after"].get("parameters"), part["after"].get("nonzero")
    known = is_number(stored) and is_number(nonzero) and stored
    return percent(1 - nonzero / stored if known else None)


STEP_VIEWS = (
    View(
        "compress",
        "Compressed checkpoints",
        "Before the steps and behind them; multiplications are counted for one image, zeros included. Clean accuracy "
        "is that on the validation images that the steps chose by.",
        _figures,
        (
            of_subject("name", "model"),
            of_subject("arch", "architecture", detail=True),
            Column("steps", _steps, right=False),
            _change("parameters", "parameters", number),
            _change("MACs", "macs", number),
            _change("tensors", "size_bytes", size),
            Column("zeros", _zeros),
            _change("clean", "clean_accuracy", percent),
            value("images", "samples", number),
            words("data", detail=True),
            SEED,
        ),
    ),
)
