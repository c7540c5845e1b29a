"""Parts of a study file with a grammar of their own: recipes and attacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from rctk.attacks import ATTACKS
from rctk.compress.recipe import Recipe
from rctk.study.document import Entry
from rctk.study.options import Option
from rctk_kernels.errors import OptionError


def read_steps(found: dict[str, Entry]) -> tuple[tuple[Any, ...], Recipe | None]:
    """Return the steps of a method, each checked at its place, then all in their order."""
    if "recipe" in found:
        if "steps" in found:
            raise found["recipe"].error("recipe and steps both name steps; put all of them into one of the two")
        with found["recipe"].blamed():
            recipe = Recipe.read(Path(found["recipe"].text()))
        return tuple(yaml.safe_load(Path(found["recipe"].text()).read_bytes())), recipe
    if "steps" not in found:
        return (), None
    steps = [(item, item.values()) for item in found["steps"].items()]
    for item, step in steps:
        with item.blamed():
            _alone(step)
    with found["steps"].blamed():
        return tuple(step for _, step in steps), Recipe.of([step for _, step in steps], where="this list")


def _alone(step: Any) -> None:
    try:
        Recipe.of([step], where="it")
    except OptionError as error:
        raise OptionError(str(error).removeprefix("step 1 of it: ")) from error


def is_method(item: Entry) -> bool:
    """Whether a mapping is one attack with its settings, ``square: {queries: 500}``."""
    found = item.mapping()
    return len(found) == 1 and next(iter(found)) in ATTACKS.names()


def attack_option(item: Entry) -> Option:
    """Return the option that names one attack, or several that run together."""
    texts = [_attack_text(part) for part in item.items()]
    return Option(key="attack", words=tuple(f"--attack={text}" for text in texts), entry=item)


def _attack_text(item: Entry) -> str:
    """Return ``name:key=value`` of one attack; a mapping below its name says the same."""
    if not item.is_mapping:
        return item.text()
    if not is_method(item):
        raise item.error("expected one attack; write NAME:key=value,key=value")
    ((name, below),) = item.mapping().items()
    if not below.is_mapping:
        return f"{name}:{below.text()}" if not below.empty else name
    return f"{name}:{','.join(f'{key}={value.text()}' for key, value in below.mapping().items())}"
