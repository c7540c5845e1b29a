"""One line for what is wrong with a command line, with the next step."""

from __future__ import annotations

from cyclopts import CycloptsError
from cyclopts.exceptions import MissingArgumentError, UnknownCommandError, UnusedCliTokensError

from rctk.cli.app import COMMANDS
from rctk_export.registry import unknown


def usage_line(error: CycloptsError) -> str:
    """Word an error of the parser.

    Args:
        error: As raised by the app; it knows the command that was being read.
    """
    command = " ".join(("rctk", *(error.command_chain or ())))
    return f"{_problem(error)}; see `{command} --help`"


def _problem(error: CycloptsError) -> str:
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        name = error.unused_tokens[0]
        return f"unknown option {name}" if name.startswith("-") else str(unknown("command", name, list(COMMANDS)))
    if type(error) is MissingArgumentError and error.argument is not None:
        given = any(token.keyword for token in error.argument.tokens) or error.keyword is not None
        name = error.keyword or error.argument.name
        return f"{name} needs a value" if given else f"{name} is missing"
    if isinstance(error, UnusedCliTokensError):
        return f"unexpected {' '.join(map(str, error.unused_tokens or ()))!r}"
    text = " ".join(str(error).replace("│", " ").split())
    return text[:1].lower() + text[1:].rstrip(".")
