"""A list of compression steps, read from text or YAML and checked as a whole before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

import yaml

from rctk.compress import STEPS
from rctk.compress.order import check_order
from rctk.compress.step import Step
from rctk.prune import CRITERIA
from rctk.quantize import CALIBRATORS
from rctk.train.objective import OBJECTIVES
from rctk_kernels.errors import OptionError

Entry = str | Mapping[str, Any]
"""``"train.finetune:epochs=2"``, or ``{"train.finetune": {"epochs": 2}}``."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """A step and its name in the table.

    Attributes:
        name: Such as ``train.finetune``.
        step: With all its settings.
    """

    name: str
    step: Step

    @property
    def kind(self) -> str:
        """``module`` or ``graph``."""
        return self.step.kind

    def as_dict(self) -> dict[str, Any]:
        """Return name and every setting, for records and manifests."""
        return {"step": self.name, **asdict(cast("Any", self.step))}

    @property
    def short(self) -> str:
        """Name and what differs from the defaults, such as ``train.finetune:epochs=2``."""
        own = {field.name: getattr(self.step, field.name) for field in fields(cast("Any", self.step)) if field.init}
        usual = {field.name: field.default for field in fields(cast("Any", self.step))}
        given = ",".join(f"{key}={value}" for key, value in own.items() if value != usual[key])
        return f"{self.name}:{given}" if given else self.name

    def __str__(self) -> str:
        return self.name + repr(self.step).removeprefix(type(self.step).__name__)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Steps in order: those of the torch module first, then those of its graph.

    Attributes:
        steps: At least one.

    Raises:
        OptionError: There is no step, a module step stands behind a graph step, or a step would undo another.
    """

    steps: tuple[Named, ...]

    def __post_init__(self) -> None:
        if not self.steps:
            raise OptionError("the recipe has no steps; see `rctk list steps`")
        graph = next((step for step in self.steps if step.kind == "graph"), None)
        late = [step for step in self.steps[self.steps.index(graph) :] if step.kind == "module"] if graph else []
        if graph and late:
            raise OptionError(
                f"{late[0].name} changes the torch module, which is an ONNX graph after {graph.name}; move "
                f"{late[0].name} before {graph.name}"
            )
        check_order(self.steps)

    @classmethod
    def of(cls, entries: Iterable[Entry], *, where: str = "the recipe") -> Recipe:
        """Build every step; :class:`OptionError` names the first that cannot be.

        Args:
            entries: As in a recipe file.
            where: What the entries come from, for messages.
        """
        named = (_named(entry, f"step {number} of {where}") for number, entry in enumerate(entries, start=1))
        return cls(steps=tuple(named))

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a YAML file that holds a list of steps."""
        try:
            text = path.read_bytes()
            entries = yaml.safe_load(text)
            _refuse_twice(yaml.compose(text, Loader=yaml.SafeLoader), path, set())
        except OSError as error:
            raise OptionError(f"cannot read the recipe {path}: {error.strerror}; check the path") from error
        except OptionError:
            raise
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise OptionError(f"{path} is not YAML ({reason}); write one `- step:key=value` a line") from error
        if not isinstance(entries, list):
            raise OptionError(f"{path} holds no list of steps; write one `- step:key=value` a line")
        return cls.of(entries, where=str(path))

    @property
    def module_steps(self) -> tuple[Named, ...]:
        """Those that change the torch module."""
        return tuple(step for step in self.steps if step.kind == "module")

    @property
    def graph_steps(self) -> tuple[Named, ...]:
        """Those that change its graph."""
        return tuple(step for step in self.steps if step.kind == "graph")

    def as_list(self) -> list[dict[str, Any]]:
        """Return every step with every setting, for records and manifests."""
        return [step.as_dict() for step in self.steps]


def read_recipe(path: Path | None, steps: Sequence[str]) -> Recipe | None:
    """Return the recipe that ``--recipe`` or ``--step`` describe, None where neither is given."""
    if path is not None and steps:
        raise OptionError("--recipe and --step both name steps; put all of them into one of the two")
    if path is not None:
        return Recipe.read(path)
    return Recipe.of(steps, where="--step") if steps else None


def _refuse_twice(node: yaml.Node | None, path: Path, done: set[int]) -> None:
    """Refuse keys that stand twice in a mapping, of which YAML would keep the last; aliases are looked at once."""
    if id(node) in done or not isinstance(node, yaml.CollectionNode):
        return
    items = [value for _, value in node.value] if isinstance(node, yaml.MappingNode) else node.value
    keys = [key for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
    seen = set[str]()
    for key in keys:
        if key.value in seen:
            line = key.start_mark.line + 1
            raise OptionError(f"{path}, line {line}: the key {key.value} stands twice; leave one of them out")
        seen.add(key.value)
    for item in items:
        _refuse_twice(item, path, done)
    done.add(id(node))


def _named(entry: Any, where: str) -> Named:
    """Build the step of an entry; an error names its place, and the step where it does not do so itself."""
    name = ""
    try:
        name, settings = _parts(entry)
        _refuse_parts_of_steps(name)
        if isinstance(entry, str):
            step = STEPS.build(entry)
        elif isinstance(settings, str):
            step = STEPS.build(f"{name}:{settings}" if settings else name)
        else:
            step = STEPS.make(name, _texts(settings, name))
    except OptionError as error:
        silent = name in STEPS.names() and name not in str(error)
        raise OptionError(f"{where}: {f'{name}: ' if silent else ''}{error}") from error
    return Named(name=name, step=step)


def _refuse_parts_of_steps(name: str) -> None:
    """Say how objectives, criteria and calibrators are written, which are settings of steps and no steps."""
    family, _, rest = name.partition(".")
    short, trainer = rest.replace("_", "-"), "quant.lsq" if name == "train.qat_at" else "train.finetune"
    parts = (
        ("an objective", name in OBJECTIVES.names(), f"{trainer}:objective={name}"),
        ("a criterion", family == "prune" and short in CRITERIA.names(), f"prune.depgraph:criterion={short}"),
        ("a calibrator", family == "quant" and short in CALIBRATORS.names(), f"quant.ptq_static8:calibrator={short}"),
    )
    for what, there, written in parts:
        if there and name not in STEPS.names():
            raise OptionError(f"{name} is {what} and no step; write {written}")


def _parts(entry: Any) -> tuple[str, Any]:
    """Return the name, and the settings as they stand behind it: text or a mapping."""
    if isinstance(entry, str):
        name, _, rest = entry.partition(":")
        return name.strip(), rest
    if isinstance(entry, Mapping) and len(entry) == 1:
        (name, settings), *_ = entry.items()
        if isinstance(settings, (str, Mapping)) or settings is None:
            return str(name), settings or ""
    raise OptionError(f"cannot read {entry!r}; write step:key=value,key=value or step: {{key: value}}")


def _texts(settings: Mapping[Any, Any], name: str) -> dict[str, str]:
    return {str(key).replace("-", "_"): _text(value, f"{name}:{key}") for key, value in settings.items()}


def _text(value: Any, where: str) -> str:
    """Write a YAML value as it would be on the command line; a mapping names a method with its settings."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int, float)):
        return str(value)
    if isinstance(value, Mapping) and len(value) == 1:
        (method, settings), *_ = value.items()
        if isinstance(settings, Mapping):
            given = ",".join(f"{key}={_text(item, where)}" for key, item in settings.items())
            return f"{method}:{given}" if given else str(method)
    raise OptionError(f"{where} is {value!r}; write a number, a word, or method: {{key: value}}")
