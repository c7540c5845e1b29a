"""What a rule is and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from rctk_export.lint.view import View

Severity = Literal["error", "warning"]


class Place(NamedTuple):
    """Where a rule is broken."""

    node: str
    """Name of the node, or of the tensor or file part where no node is to blame."""
    message: str
    """What was found there."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One broken rule at one place.

    Attributes:
        rule: Id of the rule, such as ``scale-positive``.
        severity: An ``error`` keeps a file from being written; a ``warning`` costs speed or deserves a look.
        node: Name of the offending node.
        message: What was found.
        remedy: What to do about it.
    """

    rule: str
    severity: Severity
    node: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.rule} at {self.node!r}: {self.message}; {self.remedy}"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A check of a whole graph.

    Attributes:
        id: Stable name of the rule.
        check: Yields every place where the rule is broken.
        remedy: What the reader does about it.
        severity: See :class:`Finding`.
    """

    id: str
    check: Callable[[View], Iterable[Place]]
    remedy: str
    severity: Severity = "error"
