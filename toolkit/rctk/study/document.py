"""A YAML file whose every part knows its place, so that an error names line and path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rctk_export.registry import unknown
from rctk_kernels.errors import OptionError, RctkError

NOTHING = "tag:yaml.org,2002:null"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One part of a study file.

    Scalars are read as the text that stands there, as a command line would: ``on`` is no truth value and ``8/255`` no
    date.

    Attributes:
        file: Name of the file, for messages.
        path: Such as ``methods[1].steps[0]``; empty for the whole file.
        node: As the YAML parser composed it.
    """

    file: str
    path: str
    node: yaml.Node

    def error(self, text: str) -> OptionError:
        """Return an error that begins with this place."""
        place = f", {self.path}" if self.path else ""
        return OptionError(f"{self.file} line {self.node.start_mark.line + 1}{place}: {text}")

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Put this place before whatever is refused inside; an error that names a place already keeps it."""
        try:
            yield
        except RctkError as error:
            if str(error).startswith(f"{self.file} line "):
                raise
            raise self.error(str(error)) from error

    @property
    def empty(self) -> bool:
        """Whether nothing stands behind the key."""
        return self.node.tag == NOTHING

    @property
    def is_list(self) -> bool:
        """Whether this is a list."""
        return isinstance(self.node, yaml.SequenceNode)

    @property
    def is_mapping(self) -> bool:
        """Whether this is a mapping of keys to values."""
        return isinstance(self.node, yaml.MappingNode)

    def text(self) -> str:
        """Return the text of a scalar as it was written."""
        if not isinstance(self.node, yaml.ScalarNode) or self.empty or not self.node.value.strip():
            kind = "nothing" if self.empty or isinstance(self.node, yaml.ScalarNode) else f"a {_kind(self.node)}"
            raise self.error(f"expected one value, found {kind}; write KEY: VALUE")
        value: str = self.node.value
        return value

    def texts(self) -> list[str]:
        """Return the texts of a list of scalars, or of one."""
        return [item.text() for item in self.items()]

    def items(self) -> list[Entry]:
        """Return the parts of a list; what is no list stands for a list of itself."""
        if not isinstance(self.node, yaml.SequenceNode):
            return [self]
        if not self.node.value:
            raise self.error("the list is empty; name at least one, or leave the key out")
        return [
            Entry(file=self.file, path=f"{self.path}[{number}]", node=node)
            for number, node in enumerate(self.node.value)
        ]

    def mapping(self) -> dict[str, Entry]:
        """Return the values by their keys, in which ``_`` is as good as ``-``."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error(f"expected keys with values, found a {_kind(self.node)}; write KEY: VALUE")
        found: dict[str, Entry] = {}
        for key, node in self.node.value:
            own = Entry(file=self.file, path=self._below(str(key.value)), node=key)
            name = own.text().replace("_", "-")
            if name in found:
                raise own.error(f"the key {name} stands twice; keep one of the two")
            found[name] = Entry(file=self.file, path=own.path, node=node)
        return found

    def known(self, keys: Sequence[str]) -> dict[str, Entry]:
        """Return :meth:`mapping`, and refuse a key that is not one of ``keys``."""
        found = self.mapping()
        for key, entry in found.items():
            if key not in keys:
                raise entry.error(str(unknown("key", key, list(keys))))
        return found

    def values(self) -> Any:
        """Return plain values, as the reader of recipes takes them."""
        loader = yaml.SafeLoader("")
        try:
            return loader.construct_document(self.node)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise self.error(" ".join(str(error).split())) from error
        finally:
            loader.dispose()

    def _below(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


def _kind(node: yaml.Node) -> str:
    return (
        "list" if isinstance(node, yaml.SequenceNode) else "mapping" if isinstance(node, yaml.MappingNode) else "value"
    )


def read_document(path: Path) -> Entry:
    """Read a YAML file that holds keys with values; :class:`OptionError` where it is none."""
    try:
        node = yaml.compose(path.read_bytes().decode(), Loader=yaml.SafeLoader)
    except OSError as error:
        raise OptionError(f"cannot read the study {path}: {error.strerror}; check the path") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).replace("<unicode string>", "it").split())
        raise OptionError(f"{path} is not YAML ({reason}); write KEY: VALUE, and lists with `- `") from error
    if node is None:
        raise OptionError(f"{path} is empty; write models, methods, attacks and data into it")
    return Entry(file=str(path), path="", node=node)
