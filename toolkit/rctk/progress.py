"""How long work reports its steps, without knowing who shows them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Progress(Protocol):
    """Shows stages of a long job; the command line has one that draws bars."""

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Callable[[int], None]]:
        """Open a stage; the function it yields is told how many more of ``total`` units are done."""
        ...

    def note(self, text: str) -> None:
        """Show one line that the user should read."""
        ...


class Silent:
    """Shows nothing; notes are kept in ``notes``."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def stage(
        self,
        name: str,  # noqa: ARG002  # the protocol's signature
        total: int | None = None,  # noqa: ARG002
    ) -> AbstractContextManager[Callable[[int], None]]:
        """See :class:`Progress`."""
        return nullcontext(_nothing)

    def note(self, text: str) -> None:
        """See :class:`Progress`."""
        self.notes.append(text)


def _nothing(done: int) -> None:
    """Take a step in silence."""
