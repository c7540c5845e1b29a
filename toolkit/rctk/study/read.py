"""From a study file to a :class:`rctk.study.study.Study`; whatever is wrong is refused with its line and key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rctk.attacks import ATTACKS
from rctk.study.commands import Command, Commands
from rctk.study.document import Entry, read_document
from rctk.study.options import Options, blame_option, keys_of, read_options
from rctk.study.parts import attack_option, is_method, read_steps
from rctk.study.study import Attack, Method, Model, Study, slug
from rctk_export.engines import ENGINES
from rctk_export.engines.remote_address import is_address
from rctk_kernels.errors import EngineUnavailableError, OptionError

KEYS = ("name", "models", "methods", "attacks", "engines", "seeds", "bench", "gate")
FILE_KEYS = ("arch", "classes", "trust-pickle", "input", "mean", "std")
BUNDLE_KEYS = ("target", "float", "input", "mean", "std")
ENGINE = "onnxruntime"


def read_study(path: Path, commands: Commands) -> Study:
    """Read a study file; :class:`OptionError` names line and key of what is wrong."""
    root = read_document(path)
    return _Reader(root, root.mapping(), commands).study(path.stem)


@dataclass(frozen=True)
class _Reader:
    root: Entry
    found: dict[str, Entry]
    commands: Commands

    def study(self, name: str) -> Study:
        flags = {k: f for k, f in keys_of(self.commands, "attack").items() if k not in {"attack", "protocol"}}
        calibration = {k: f for k, f in keys_of(self.commands, "export").items() if k == "calibration"}
        own = [key for key in self.found if key not in calibration]
        shared = read_options(self.found, flags, self.commands, "attack", (*KEYS, "calibration"))
        of_export = read_options(self.found, calibration, self.commands, "export", own)
        models = tuple(_named(self._model(item) for item in self._items("models")))
        if not models:
            raise self.root.error("there are no models; add `models:` with a model file or a bundle")
        methods = tuple(_named(self._method(item) for item in self._items("methods")))
        attacks = tuple(_named(self._attack(item) for item in self._items("attacks")))
        engines, notes = self._engines()
        compressed = any(not model.made for model in models)
        if methods and not compressed:
            raise self.found["methods"].error("all models are bundles, which nothing compresses; leave methods away")
        if compressed and not methods:
            methods = (Method(name="ptq", options={}, targets=("",), steps=(), recipe=None, entry=self.root),)
        return Study(
            name=_name(self.found["name"]) if "name" in self.found else name,
            root=self.root,
            models=models,
            methods=methods,
            attacks=attacks,
            engines=engines,
            seeds=self._seeds(),
            shared=shared,
            calibration=of_export,
            bench=self._bench(),
            gate=self._gate(),
            notes=notes,
        )

    def _items(self, key: str) -> list[Entry]:
        return self.found[key].items() if key in self.found else []

    def _model(self, item: Entry) -> Model:
        if not item.is_mapping:
            path = Path(item.text())
            return self._model_of(item, path, path.is_dir() or is_address(path), {})
        found = item.known(("name", "file", "bundle", *dict.fromkeys((*FILE_KEYS, *BUNDLE_KEYS)), "targets"))
        if ("file" in found) == ("bundle" in found):
            raise item.error("give either file: a model to compress, or bundle: what is to be measured as it is")
        made = "bundle" in found
        return self._model_of(item, Path(found["bundle" if made else "file"].text()), made, found)

    def _model_of(self, item: Entry, path: Path, made: bool, found: dict[str, Entry]) -> Model:
        keys = BUNDLE_KEYS if made else FILE_KEYS
        command: Command = "attack" if made else "export"
        flags = {key: flag for key, flag in self.commands.flags(command).items() if key in keys and key != "target"}
        own = ("name", "bundle", "target", "targets") if made else ("name", "file")
        targets = [entry.texts() for key, entry in found.items() if key in {"target", "targets"}] if made else []
        if not is_address(path) and not path.exists():
            place = found.get("bundle" if made else "file", item)
            raise place.error(f"there is no file or folder {path}; check the path, which counts from where rctk runs")
        return Model(
            name=_name(found["name"]) if "name" in found else path.stem if not path.is_dir() else path.name,
            path=path,
            made=made,
            options=read_options(found, flags, self.commands, command, own),
            targets=tuple(targets[0]) if targets else ("",),
            entry=item,
        )

    def _method(self, item: Entry) -> Method:
        flags = keys_of(self.commands, "export", also=("target",))
        found = item.mapping()
        options = read_options(found, flags, self.commands, "export", ("name", "steps", "recipe"))
        if "name" not in found:
            raise item.error("a method needs a name, such as `name: ptq`")
        target = options.pop("target", None)
        steps, recipe = read_steps(found)
        return Method(
            name=_name(found["name"]),
            options=options,
            targets=tuple(dict.fromkeys(word.partition("=")[2] for word in target.words)) if target else ("",),
            steps=steps,
            recipe=recipe,
            entry=item,
        )

    def _attack(self, item: Entry) -> Attack:
        flags = keys_of(self.commands, "attack")
        if item.is_mapping and not is_method(item):
            found = item.mapping()
            options = read_options(found, flags, self.commands, "attack", ("name",))
            if ("attack" in options) == ("protocol" in options):
                raise item.error("give either attack: NAME:key=value (or a list), or protocol: quick, standard or full")
        else:
            found, options = {}, {"attack": attack_option(item)}
        chosen = options.get("attack") or options["protocol"]
        with blame_option({chosen.key: chosen}, item):
            for word in chosen.words if chosen.key == "attack" else ():
                ATTACKS.build(word.partition("=")[2])
        texts = " + ".join(word.partition("=")[2] for word in chosen.words)
        named = texts if chosen.key == "attack" else f"protocol {texts}"
        return Attack(name=_name(found["name"]) if "name" in found else named, options=options, entry=item)

    def _engines(self) -> tuple[tuple[tuple[str, Entry], ...], tuple[str, ...]]:
        if "engines" not in self.found:
            return ((ENGINE, self.root),), ()
        engines: dict[str, Entry] = {}
        notes = []
        for item in self.found["engines"].items():
            text = item.text()
            if text in engines:
                raise item.error(f"{text} stands twice; keep one of the two")
            engines[text] = item
            try:
                with item.blamed():
                    ENGINES.build(text)
            except OptionError as error:
                if not isinstance(error.__cause__, EngineUnavailableError):
                    raise
                notes.append(f"{error}; its cells will fail")
        return tuple(engines.items()), tuple(notes)

    def _seeds(self) -> tuple[int, ...]:
        seeds = []
        for item in self._items("seeds"):
            text = item.text()
            if not re.fullmatch(r"\d{1,9}", text):
                raise item.error(f"a seed is a whole number from 0, got {text!r}; write one such as 0")
            if int(text) in seeds:
                raise item.error(f"the seed {text} stands twice; keep one of the two")
            seeds.append(int(text))
        return tuple(seeds) or (0,)

    def _bench(self) -> Options | None:
        entry = self.found.get("bench")
        if entry is None:
            return None
        if not entry.is_mapping and not entry.is_list and (entry.empty or entry.text() in {"true", "false"}):
            return None if not entry.empty and entry.text() == "false" else {}
        return read_options(entry.mapping(), keys_of(self.commands, "bench"), self.commands, "bench")

    def _gate(self) -> Options | None:
        entry = self.found.get("gate")
        if entry is None:
            return None
        found = entry.mapping() if entry.is_mapping else {"max-drop": entry}
        return read_options(found, keys_of(self.commands, "compare"), self.commands, "compare")


def _name(entry: Entry) -> str:
    text = entry.text().strip()
    if not slug(text).strip("-."):
        raise entry.error(f"{text!r} has no letter or digit; give a name that can be one of a folder")
    return text


def _named(things: Iterator[Any]) -> Iterator[Any]:
    """Yield models, methods or attacks; two of one name are refused."""
    seen: dict[str, Any] = {}
    for thing in things:
        short = slug(thing.name)
        if short in seen:
            raise thing.entry.error(f"the name {thing.name!r} stands twice; add `name:` with another one")
        seen[short] = thing
        yield thing
