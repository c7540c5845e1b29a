"""From a study to its cells; models, images and settings are checked on the way, before anything long starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from rctk.machine import versions
from rctk.study.cell import Cell
from rctk.study.commands import STAND_IN, Command, Commands, Images, Known
from rctk.study.document import Entry
from rctk.study.inputs import Fingerprints, hashes_of_files, texts_in, timing_facts
from rctk.study.options import Option, Options, blame_option, keys_of, words_of
from rctk.study.study import Attack, Method, Model, Study
from rctk_export.bundle import is_bundle
from rctk_export.engines.remote_address import is_address

FLOAT_KEYS = ("float", "input", "mean", "std")
"""Options of a bare file that its commands need."""


class Subject(NamedTuple):
    """What is attacked and timed: a bundle that a cell makes, or one that is there."""

    model: Model
    known: Known
    target: str
    seed: int
    method: str = ""
    needs: Cell | None = None

    @property
    def labels(self) -> dict[str, Any]:
        """Labels of its cells, but for engine and attack."""
        return {"model": self.model.name, "method": self.method, "target": self.target}


def plan(study: Study, commands: Commands) -> tuple[Cell, ...]:
    """Return all cells in the order in which they run.

    Raises:
        OptionError: A model, image or setting cannot be used; the message begins with its place in the file.
    """
    planner = _Planner(study, commands, Fingerprints(), versions())
    known = {model.name: planner.known(model) for model in study.models}
    subjects = [one for model in study.models for one in planner.subjects(model, known[model.name])]
    made = {one.needs.key: one.needs for one in subjects if one.needs is not None}
    measured = [cell for subject in subjects for cell in planner.attacks(subject)]
    timed = [cell for subject in subjects for cell in planner.benches(subject)]
    return (*made.values(), *measured, *timed)


@dataclass(frozen=True)
class _Planner:
    study: Study
    commands: Commands
    fingerprints: Fingerprints
    versions: Mapping[str, str]

    def known(self, model: Model) -> Known:
        command = "attack" if model.made else "export"
        with blame_option(model.options, model.entry):
            for target in model.targets:
                chosen = [f"--target={target}"] if target else []
                found = self.commands.model(
                    [command, str(model.path), *words_of(model.options, model.options), *chosen]
                )
        return found

    def subjects(self, model: Model, known: Known) -> Iterator[Subject]:
        if model.made:
            for seed in self.study.seeds:
                yield from (Subject(model, known, target, seed) for target in model.targets)
            return
        for method in self.study.methods:
            for seed in self.study.seeds:
                cell = self._export(model, known, method, seed)
                yield from (Subject(model, known, target, seed, method.name, cell) for target in method.targets)

    def attacks(self, subject: Subject) -> Iterator[Cell]:
        for engine, place in self.study.engines:
            for attack in self.study.attacks:
                options = {**self._forms(subject), **self.study.shared, **attack.options}
                _need_forms(subject, options)
                yield self._measured("attack", subject, options, attack, engine, place)
            if self.study.gate is not None:
                gate = Attack(name="gate", options=self._gate(), entry=self.study.root)
                yield self._measured("compare", subject, gate.options, gate, engine, place)

    def _forms(self, subject: Subject) -> dict[str, Option]:
        """Return which forms are attacked where the study does not say: all that there are."""
        words = tuple(f"--on={form}" for form in _forms_of(subject.model))
        return {"on": Option(key="on", words=words, entry=subject.model.entry)}

    def benches(self, subject: Subject) -> Iterator[Cell]:
        if self.study.bench is None:
            return
        for engine, place in self.study.engines:
            own = {"machine": timing_facts()}
            named = Attack(name="", options=self.study.bench, entry=place)
            yield self._measured("bench", subject, self.study.bench, named, engine, place, own)

    def _gate(self) -> dict[str, Any]:
        """Return the options of the gate: by itself it runs all attacks of the study together."""
        keys = keys_of(self.commands, "compare")
        own = dict(self.study.gate or {})
        options = {key: option for key, option in {**self.study.shared, **own}.items() if key in keys}
        if "attack" in own or "protocol" in own:
            return options
        plain = [attack.options["attack"] for attack in self.study.attacks if "attack" in attack.options]
        protocols = [attack.options["protocol"] for attack in self.study.attacks if "protocol" in attack.options]
        if plain:
            words = tuple(dict.fromkeys(word for option in plain for word in option.words))
            options["attack"] = Option(key="attack", words=words, entry=plain[0].entry)
        elif protocols:
            options["protocol"] = protocols[0]
        return options

    def _export(self, model: Model, known: Known, method: Method, seed: int) -> Cell:
        options = {**self.study.calibration, **method.options, **model.options}
        if "calibration" not in options:
            raise method.entry.error("there are no images to calibrate with; add `calibration: NAME:train`")
        if "download" in self.study.shared:
            options.setdefault("download", self.study.shared["download"])
        words = [*words_of(options, options), *(f"--target={name}" for name in method.targets if name)]
        words.append(f"--seed={seed}")
        with blame_option(options, method.entry):
            images = self.commands.check(["export", str(model.path), *words], method.recipe)
        return Cell(
            kind="export",
            labels={"model": model.name, "method": method.name, "seed": seed},
            path=str(model.path),
            words=tuple(words),
            steps=method.steps,
            facts={
                "model": [model.path.name, known.sha256],
                "steps": method.steps,
                **self._facts(words + texts_in(method.steps), images, options, known, method.entry),
            },
        )

    def _measured(  # noqa: PLR0913, PLR0917  # what is measured, how, and whom to blame
        self,
        kind: Command,
        subject: Subject,
        options: Options,
        attack: Attack,
        engine: str,
        place: Entry,
        facts: Mapping[str, Any] | None = None,
    ) -> Cell:
        if kind != "bench" and "data" not in options:
            raise self.study.root.error("there are no images to attack; add `data: NAME:test`")
        of_file = {key: option for key, option in subject.model.options.items() if key in FLOAT_KEYS}
        words = words_of(options, options) + (words_of(of_file, of_file) if subject.model.made else [])
        words += [f"--engine={engine}", *([f"--target={subject.target}"] if subject.target else [])]
        words += [f"--seed={subject.seed}"] if kind != "bench" else []
        with blame_option(options, attack.entry if attack.name != "gate" else self._place("gate", place)):
            images = self.commands.check([kind, STAND_IN, *words])
        made = subject.needs is None
        return Cell(
            kind=kind,
            labels={**subject.labels, "engine": engine, "attack": attack.name, "seed": subject.seed},
            path=str(subject.model.path) if made else "",
            words=tuple(words),
            facts={
                **({"bundle": subject.known.sha256} if made else {}),
                **self._facts(words, images, options, subject.known, attack.entry),
                **(facts or {}),
            },
            needs=subject.needs,
        )

    def _place(self, key: str, otherwise: Entry) -> Entry:
        return self.study.root.mapping().get(key, otherwise)

    def _facts(
        self, words: list[str], images: tuple[Images, ...], options: Options, known: Known, entry: Entry
    ) -> dict[str, Any]:
        read = {}
        for one in images:
            with (options[one.key].entry if one.key in options else entry).blamed():
                read[f"{one.key} {one.text}"] = self.fingerprints.of(one, known.input)
        return {"files": hashes_of_files(words), "images": read, "versions": dict(self.versions)}


def _forms_of(model: Model) -> tuple[str, ...]:
    """Return the forms that a model has: a served one is not here, a bare file may have no float parent."""
    parent = ("float",) if "float" in model.options or not model.made or is_bundle(model.path) else ()
    return (*parent, *(() if is_address(model.path) else ("twin",)), "engine")


def _need_forms(subject: Subject, options: Options) -> None:
    asked = [word.partition("=")[2] for word in options["on"].words]
    has = _forms_of(subject.model)
    for form in asked:
        if form in {"float", "twin"} and form not in has:
            remedy = "add `float: FILE.onnx` to it" if form == "float" else "its file is on the server"
            raise subject.model.entry.error(
                f"{subject.model.name} has no {form} to attack; {remedy}, or leave `on` away"
            )
