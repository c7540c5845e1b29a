"""One cell of a study: a command, what decides its result, and the key under which the result is kept."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rctk.study.commands import Command
from rctk.study.study import slug

DIGITS = 16
LONGEST_NAME = 80


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A command of a study.

    Attributes:
        kind: Its name.
        labels: Model, method, target, engine, attack and seed, as far as it has them.
        path: The model or the bundle; empty where the bundle is that of ``needs``.
        words: Its flags, without those that say where results go.
        steps: Of its recipe.
        facts: All that decides its result: hashes of files and images, settings, versions.
        needs: The cell that makes its bundle.
    """

    kind: Command
    labels: Mapping[str, Any]
    path: str = ""
    words: tuple[str, ...]
    steps: tuple[Any, ...] = ()
    facts: Mapping[str, Any]
    needs: Cell | None = None

    @cached_property
    def key(self) -> str:
        """Hash of the facts, and of the cell that makes the bundle."""
        facts = {"kind": self.kind, "labels": dict(self.labels), "words": self.words, **self.facts}
        text = json.dumps([facts, self.needs and self.needs.key], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]

    @property
    def name(self) -> str:
        """For people, such as ``attack plain, ptq, cpu, onnxruntime, seed 0: fgsm``."""
        about = [str(self.labels[key]) for key in ("model", "method", "target", "engine") if self.labels.get(key)]
        attack = f": {self.labels['attack']}" if self.labels.get("attack") else ""
        return f"{self.kind} {', '.join(about)}, seed {self.labels['seed']}{attack}"

    @property
    def file_name(self) -> str:
        """For the log, and for the folder of a bundle, whose name records hold."""
        parts = [str(value) for key, value in self.labels.items() if value != "" and key != "seed"]
        own = [] if self.kind == "export" else [self.kind]
        return f"{slug('.'.join([*own, *parts]))[:LONGEST_NAME]}.seed{self.labels['seed']}-{self.key[:6]}"

    def bundle(self, folder: Path) -> Path:
        """Return the bundle that this cell makes or measures, in a study kept in ``folder``."""
        if self.kind == "export":
            return folder / "bundles" / self.file_name
        return self.needs.bundle(folder) if self.needs is not None else Path(self.path)

    def recipe(self, folder: Path) -> Path:
        """Return the file that holds the steps of this cell."""
        return folder / "recipes" / f"{self.file_name}.yaml"

    def command(self, folder: Path, work: Path) -> list[str]:
        """Return the command line; its results go to ``work`` and, a bundle, below ``folder``."""
        if self.kind != "export":
            return [self.kind, str(self.bundle(folder)), *self.words, f"--out={work}"]
        places = [f"--out={self.bundle(folder)}", "--force", f"--records={work}"]
        recipe = [f"--recipe={self.recipe(folder)}", f"--work={work / 'steps'}"] if self.steps else []
        return [self.kind, self.path, *self.words, *places, *recipe]

    def shown(self, folder: Path) -> str:
        """Return the command line as somebody may type it."""
        words = self.command(folder, Path("runs"))
        return shlex.join(["rctk", *words])
