"""What a study file says: models, methods, attacks, engines, seeds, and what is measured beside attacks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rctk.compress.recipe import Recipe
from rctk.study.document import Entry
from rctk.study.options import Options


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model file that methods compress, or a bundle or bare file that is measured as it is.

    Attributes:
        name: In tables and folders.
        path: The file, the bundle, or the address of a served model.
        made: Whether there is nothing to compress any more.
        options: How to read it.
        targets: Which int8 files of a bundle; one empty name for the usual one.
        entry: Its place.
    """

    name: str
    path: Path
    made: bool
    options: Options
    targets: tuple[str, ...]
    entry: Entry


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to compress: settings of ``rctk export``, and a recipe.

    Attributes:
        name: In tables and folders.
        options: Settings of ``rctk export``.
        targets: Which int8 files are written and measured; one empty name for what the command does by itself.
        steps: As in a recipe file; empty where there are none.
        recipe: The same steps, checked.
        entry: Its place.
    """

    name: str
    options: Options
    targets: tuple[str, ...]
    steps: tuple[Any, ...]
    recipe: Recipe | None
    entry: Entry


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One or more attacks that run together, or a protocol, with their settings."""

    name: str
    options: Options
    entry: Entry


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study file, read and checked as far as it can be without models and images.

    Attributes:
        name: Of the study.
        root: The whole file.
        models: At least one.
        methods: At least one where a model has to be compressed.
        attacks: May be none.
        engines: At least one.
        seeds: At least one.
        shared: Options of ``rctk attack`` for all attacks.
        calibration: Where methods name no calibration of their own.
        bench: Options of ``rctk bench``; None where nothing is timed.
        gate: Options of ``rctk compare``; None where nothing is gated.
        notes: Engines that this machine lacks.
    """

    name: str
    root: Entry
    models: tuple[Model, ...]
    methods: tuple[Method, ...]
    attacks: tuple[Attack, ...]
    engines: tuple[tuple[str, Entry], ...]
    seeds: tuple[int, ...]
    shared: Options
    calibration: Options
    bench: Options | None
    gate: Options | None
    notes: tuple[str, ...]


def slug(text: str) -> str:
    """Return ``text`` as a part of a file name.

    Example:
        >>> slug("square:queries=500 + fgsm")
        'square-queries-500-fgsm'
    """
    return re.sub(r"[^\w.]+", "-", text).strip("-.")
