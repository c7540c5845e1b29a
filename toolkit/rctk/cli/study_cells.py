"""The commands that a study's cells are made of: what flags they have, how they are checked, how they are run."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin

from cyclopts import App, CycloptsError

from rctk.cli.app import make_app
from rctk.cli.main import BUG, run
from rctk.cli.stop import WORDS, Stop
from rctk.cli.study_checks import CHECKS, MODELS, check_export
from rctk.cli.usage import usage_line
from rctk.study.commands import Command, Ended, Flag, Images, Known
from rctk_kernels.errors import OptionError

if TYPE_CHECKING:
    from rctk.compress.recipe import Recipe

LEAST: Mapping[str, tuple[str, ...]] = {
    "export": ("MODEL", "--calibration=x"),
    "attack": ("BUNDLE", "--data=x"),
    "compare": ("BUNDLE", "--data=x"),
    "bench": ("BUNDLE",),
}
"""The shortest line of each command, with which one more flag is tried."""
SAYS = "rctk: "
STOPPED = frozenset(128 + number for number in WORDS)


@dataclass(frozen=True)
class CellCommands:
    """The command line, as a study uses it; see :class:`rctk.study.commands.Commands`."""

    def flags(self, command: Command) -> Mapping[str, Flag]:
        """See the protocol."""
        return _flags(command)

    def check_flag(self, command: Command, tokens: Sequence[str]) -> None:
        """See the protocol."""
        given = {token.partition("=")[0] for token in tokens}
        least = [word for word in LEAST[command] if word.partition("=")[0] not in given]
        _parse([command, *least, *tokens])

    def model(self, tokens: Sequence[str]) -> Known:
        """See the protocol."""
        command, path, *words = tokens
        return MODELS[command](_parse([command, path, *LEAST[command][1:], *words]))

    def check(self, tokens: Sequence[str], recipe: Recipe | None = None) -> tuple[Images, ...]:
        """See the protocol."""
        given = _parse(tokens)
        return check_export(given, recipe) if tokens[0] == "export" else CHECKS[tokens[0]](given)

    def run(self, tokens: Sequence[str], log: Path) -> Ended:
        """See the protocol."""
        stop = signal.getsignal(signal.SIGINT)
        with log.open("a", encoding="utf-8", errors="backslashreplace", buffering=1) as file:
            start = file.tell()
            with redirect_stdout(file), redirect_stderr(file):
                code = run(tokens, stop if isinstance(stop, Stop) else None)
        if code in STOPPED or (isinstance(stop, Stop) and stop.number):
            raise KeyboardInterrupt
        said = log.read_bytes()[start:].decode(errors="replace").splitlines()
        line = next((text.removeprefix(SAYS) for text in reversed(said) if text.startswith(SAYS)), "")
        if code == BUG:
            line = f"{line}, in {log}"
        return Ended(code, line if code in {2, BUG} else "" if code in {0, 1, 3} else f"exit code {code}, see {log}")


@cache
def _app(command: str) -> App:
    return make_app([command])


@cache
def _flags(command: str) -> Mapping[str, Flag]:
    flags = {}
    for argument in _app(command)[command].assemble_argument_collection():
        names = [name for name in argument.names if name.startswith("--")]
        if names:
            off = next((name for name in names if name.startswith("--no-")), "")
            several = get_origin(argument.hint) is tuple
            flags[names[0].removeprefix("--")] = Flag(names[0], several, argument.hint is bool, off)
    return flags


def _parse(tokens: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of a command, its defaults included."""
    try:
        _, bound, *_ = _app(tokens[0]).parse_args(list(tokens), print_error=False, exit_on_error=False)
    except CycloptsError as error:
        raise OptionError(usage_line(error)) from error
    bound.apply_defaults()
    return dict(bound.arguments)
