"""Families of methods: a name, or ``name:key=value,key=value``, becomes an object; its module is imported only then."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import math
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, Generic, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from rctk_kernels.errors import OptionError

T = TypeVar("T")


def number(text: str) -> float:
    """Read ``0.03``, ``8/255``, ``125.3/255`` or ``1e-3`` as a float.

    Example:
        >>> number("8/255") == 8 / 255
        True
    """
    above, slash, below = text.partition("/")
    try:
        return float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError) as error:
        raise OptionError(f"{text!r} is not a number; write 0.03 or 8/255") from error


SHORT = 160
"""Most characters of a list of choices that an error spells out."""


def unknown(what: str, name: str, known: Iterator[str] | list[str], *, where: str = "") -> OptionError:
    """Word the error for a name that is not in a table: the nearest names, then all of them or where they stand.

    Args:
        what: Word for a member of the table.
        name: What was given.
        known: The names in the table.
        where: What shows a long table, such as ``rctk list attacks``; without it its first names are spelled out.

    Example:
        >>> print(unknown("unit", "kb", ["KiB", "MiB"]))
        unknown unit 'kb'; did you mean 'KiB'? Choose from KiB, MiB
        >>> print(unknown("layer", "conv3", [f"conv{i}" for i in range(10, 60)], where="rctk list layers"))
        unknown layer 'conv3'; did you mean 'conv53', 'conv43' or 'conv39'? All 50 names: `rctk list layers`
    """
    choices = list(known)
    whole = ", ".join(choices)
    near = _nearest(name, choices, 1 if len(whole) <= SHORT else 3)
    rest = f"choose from {whole}"
    if len(whole) > SHORT:
        few = ", ".join(choices[: max(1, whole[:SHORT].count(", "))])
        rest = f"all {len(choices)} names: `{where}`" if where else f"choose from {few}, ... ({len(choices)} in all)"
    if near:
        first = ", ".join(repr(one) for one in near[:-1])
        rest = f"did you mean {f'{first} or ' if first else ''}{near[-1]!r}? {rest[0].upper()}{rest[1:]}"
    return OptionError(f"unknown {what} {name!r}; {rest}")


def _nearest(name: str, choices: list[str], count: int) -> list[str]:
    """Return the names that a reader may have meant, whatever their case, the nearest first."""
    lower = {choice.lower(): choice for choice in reversed(choices)}
    found = difflib.get_close_matches(name.lower(), lower, n=max(1, len(lower)))
    return [lower[match] for match in found if _close(name.lower(), match)][:count]


def _close(name: str, choice: str) -> bool:
    """Tell whether one is a misspelling or the beginning of the other; a family that both share counts for nothing.

    Example:
        >>> _close("quant.lsp", "quant.lsq"), _close("quant.foo", "quant.lsq"), _close("foo", "floor")
        (True, False, False)
    """
    family = f"{name.rpartition('.')[0]}."
    if choice.startswith(family):
        name, choice = name.removeprefix(family), choice.removeprefix(family)
    begun = len(name) > 2 and choice.startswith(name)
    return begun or _edits(name, choice) <= max(1, max(len(name), len(choice)) // 3)


def _edits(one: str, other: str) -> int:
    """Count the letters to add, drop, change, or swap with the next one, that lead from ``one`` to ``other``.

    Example:
        >>> _edits("fgms", "fgsm"), _edits("foo", "floor")
        (1, 2)
    """
    above: list[int] = []
    last = list(range(len(other) + 1))
    for i, letter in enumerate(one):
        row = [i + 1]
        for j, wanted in enumerate(other):
            ways = [row[j] + 1, last[j + 1] + 1, last[j] + (letter != wanted)]
            if i and j and (letter, one[i - 1]) == (other[j - 1], wanted):
                ways.append(above[j - 1] + 1)
            row.append(min(ways))
        above, last = last, row
    return last[-1]


class Family(Generic[T]):
    """A lazy table of methods.

    Args:
        what: The word for one member in error messages, such as ``"attack"``.
        table: Name to ``"module:Class"``; each class is a frozen dataclass whose fields are the settings.
        listed: The word after ``rctk list`` that shows the members, where there is one.

    Example:
        >>> Family("threat", {"linf": "rctk.threat:ThreatModel"}).names()
        ['linf']
    """

    def __init__(self, what: str, table: Mapping[str, str], listed: str = "") -> None:
        self.what = what
        self._where = f"rctk list {listed}" if listed else ""
        self._table = dict(table)

    def names(self) -> list[str]:
        """Return the names of all members, sorted."""
        return sorted(self._table)

    def load(self, name: str) -> type[T]:
        """Import and return the class called ``name``."""
        if name not in self._table:
            raise unknown(self.what, name, self.names(), where=self._where)
        module, _, attribute = self._table[name].partition(":")
        return cast("type[T]", getattr(importlib.import_module(module), attribute))

    def build(self, text: str) -> T:
        """Make a member from ``"square:queries=500"``; :class:`OptionError` where name, key or value is wrong."""
        name, colon, rest = text.partition(":")
        return self.make(name.strip(), _settings(text, name.strip(), rest) if colon else {})

    def make(self, name: str, given: Mapping[str, str]) -> T:
        """Make the member called ``name`` from the text of its settings, which may hold commas here."""
        member = self.load(name)
        hints = get_type_hints(member)
        fields = {field.name for field in dataclasses.fields(cast("Any", member)) if field.init}
        for key in given:
            if key not in fields:
                raise unknown(f"setting of {name}", key, sorted(fields))
        missing = [key for key in _required(member) if key not in given]
        if missing:
            raise OptionError(f"{name} needs {' and '.join(missing)}; write {name}:{missing[0]}=...")
        return member(**{key: convert(value, hints[key], f"{name}:{key}") for key, value in given.items()})


def _required(member: type[Any]) -> list[str]:
    """Return the settings that have no default."""
    unset = dataclasses.MISSING
    own = dataclasses.fields(member)
    return [each.name for each in own if each.init and each.default is unset and each.default_factory is unset]


def _settings(text: str, name: str, rest: str) -> dict[str, str]:
    """Read what stands behind the colon of ``text``; nothing is left out or overruled in silence."""
    parts = [part.strip() for part in rest.split(",")]
    if not all(parts):
        kept = ",".join(filter(None, parts))
        written = f"{name}:{kept}" if kept else name
        raise OptionError(
            f"a setting is missing beside a colon or comma of {text!r}; write {written}, or add key=value"
        )
    given: dict[str, str] = {}
    for key, value in (_pair(part, text) for part in parts):
        if key in given:
            raise OptionError(f"{text!r} sets {key} twice, to {given[key]} and to {value}; leave one of them out")
        given[key] = value
    return given


def _pair(part: str, text: str) -> tuple[str, str]:
    key, equals, value = part.partition("=")
    if not equals:
        raise OptionError(f"cannot read {part!r} in {text!r}; write name:key=value,key=value")
    return key.strip().replace("-", "_"), value.strip()


def convert(text: str, hint: Any, where: str) -> Any:
    """Turn ``text`` into the type ``hint``: bool, int, float (also ``8/255``), str, Literal, or one of them or None."""
    origin = get_origin(hint)
    if origin in {Union, UnionType}:
        inner = [arg for arg in get_args(hint) if arg is not NoneType]
        return None if text.lower() == "none" else convert(text, inner[0], where)
    if origin is Literal:
        if text not in get_args(hint):
            raise unknown(f"value of {where}", text, [str(choice) for choice in get_args(hint)])
        return text
    if hint is bool:
        if text.lower() not in {"true", "false", "1", "0", "yes", "no"}:
            raise OptionError(f"{where} must be true or false, got {text!r}")
        return text.lower() in {"true", "1", "yes"}
    if hint is int:
        return _whole(text, where)
    if hint is not float:
        return text
    try:
        return number(text)
    except OptionError as error:
        raise OptionError(f"{where}: {error}") from error


def _whole(text: str, where: str) -> int:
    try:
        value = number(text)
    except OptionError:
        value = math.nan  # no whole number either
    if not value.is_integer():
        raise OptionError(f"{where} must be a whole number such as 3, got {text!r}")
    return int(value)
