"""What a study asks of the command line: every cell is one of its commands, checked and run by its own code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from rctk_export.input_spec import InputSpec

if TYPE_CHECKING:
    from rctk.compress.recipe import Recipe

Command = Literal["export", "attack", "compare", "bench"]
STAND_IN = "BUNDLE"
"""Where a bundle that is still to be made is checked."""


class Flag(NamedTuple):
    """A flag of a command.

    Attributes:
        name: Such as ``--eps``.
        several: May be repeated.
        switch: Stands alone, without a value.
        off: The flag that says the opposite of a switch; empty where leaving it away does.
    """

    name: str
    several: bool
    switch: bool
    off: str


class Images(NamedTuple):
    """Images that a command will read: key, data set and split, and how many are drawn."""

    key: str
    text: str
    samples: int | None
    seed: int
    download: bool


class Known(NamedTuple):
    """What is known of a model before anything runs: its input, and a hash of the file or of the bundle."""

    input: InputSpec
    sha256: str


class Ended(NamedTuple):
    """How a command ended: exit code, and the line that it said where it failed."""

    code: int
    error: str


class Commands(Protocol):
    """The commands that cells are made of; they travel to other processes."""

    def flags(self, command: Command) -> Mapping[str, Flag]:
        """Return the flags of a command by their keys, which are their names without dashes."""
        ...

    def check_flag(self, command: Command, tokens: Sequence[str]) -> None:
        """Refuse a value that the command's own parser refuses."""
        ...

    def model(self, tokens: Sequence[str]) -> Known:
        """Open the model that a command names; refuse what is none."""
        ...

    def check(self, tokens: Sequence[str], recipe: Recipe | None = None) -> tuple[Images, ...]:
        """Refuse settings that do not go together and names that do not exist; return the images it will read."""
        ...

    def run(self, tokens: Sequence[str], log: Path) -> Ended:
        """Run a command; what it prints goes to the end of ``log``."""
        ...
