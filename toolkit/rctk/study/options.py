"""Keys of a study file are flags of the commands: one grammar, one place where each is declared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rctk.study.commands import Command, Commands, Flag
from rctk.study.document import Entry
from rctk_export.registry import unknown
from rctk_kernels.errors import RctkError

PLACES = ("PATH", "MODEL", "input", "mean", "std", "float", "target", "engine", "out", "records", "seed")
"""Set by models, methods, engines, seeds and the folder of the study."""
LEFT_OUT: Mapping[Command, tuple[str, ...]] = {
    "attack": (*PLACES, "save-candidates"),
    "export": (*PLACES, *("int8", "force", "work", "arch", "classes", "trust-pickle", "step")),
    "compare": (*PLACES, *("also", "plan", "junit", "summary", "json")),
    "bench": (*PLACES, "trtexec"),
}
"""Flags that are no keys, because a study sets them or because they ask for something else than a measurement."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """A key with its value, as the words of a command line."""

    key: str
    words: tuple[str, ...]
    entry: Entry


Options = Mapping[str, Option]
"""Options by key; of two that have the same key the nearer one wins."""


def keys_of(commands: Commands, command: Command, also: Sequence[str] = ()) -> dict[str, Flag]:
    """Return the flags of ``command`` that a study file may set."""
    out = set(LEFT_OUT[command]).difference(also)
    return {key: flag for key, flag in commands.flags(command).items() if key not in out}


def read_options(
    found: Mapping[str, Entry], flags: Mapping[str, Flag], commands: Commands, command: Command, own: Iterable[str] = ()
) -> dict[str, Option]:
    """Turn keys into options, each checked by the parser of its command.

    Args:
        found: Keys with their values.
        flags: Of :func:`keys_of`.
        commands: The command line.
        command: Whose flags they are.
        own: Further keys that somebody else reads; they are passed over.
    """
    options: dict[str, Option] = {}
    own = tuple(own)
    for given, entry in found.items():
        if given in own:
            continue
        key = given
        if key not in flags and key.endswith("s") and key[:-1] in flags and flags[key[:-1]].several:
            key = key[:-1]
        if key not in flags:
            raise entry.error(str(unknown("key", key, [*own, *flags])))
        if key in options:
            raise entry.error(f"{given} says the same as {options[key].entry.path}; keep one of the two")
        words = _words(flags[key], entry)
        with entry.blamed():
            commands.check_flag(command, words)
        options[key] = Option(key=key, words=words, entry=entry)
    return options


def words_of(options: Options, keys: Iterable[str]) -> list[str]:
    """Return the words of those options that are in ``keys``, in the order of their names."""
    chosen = set(keys)
    return [word for key in sorted(options) if key in chosen for word in options[key].words]


@contextmanager
def blame_option(options: Options, entry: Entry) -> Iterator[None]:
    """Put the place of the option that an error speaks of before it, or else that of ``entry``."""
    try:
        yield
    except RctkError as error:
        named = next((key for key in options if _about(str(error), key)), None)
        with (options[named].entry if named else entry).blamed():
            raise


def _about(text: str, key: str) -> bool:
    """Whether an error begins with a key, with an unknown name of its family, or holds its flag."""
    return re.search(rf"^(unknown )?{re.escape(key)}(?![\w-])|--{re.escape(key)}(?![\w-])", text) is not None


def _words(flag: Flag, entry: Entry) -> tuple[str, ...]:
    if flag.switch:
        text = entry.text().lower()
        if text not in {"true", "false", "yes", "no"}:
            raise entry.error(f"must be true or false, got {entry.text()!r}")
        word = flag.name if text in {"true", "yes"} else flag.off
        return (word,) if word else ()
    if flag.several:
        return tuple(f"{flag.name}={text}" for text in entry.texts())
    return (f"{flag.name}={','.join(entry.texts())}",)
