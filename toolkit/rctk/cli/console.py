"""Progress on stderr and tables on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

EVERY_S = 10.0
"""How often a long stage says where it is, where no bar can be drawn."""
ENDLESS = 100_000
"""Width of a pipe: nothing is folded or cut there."""
GAP = 2
"""Space behind a column: one of padding, one of the box."""
LONGEST_WORD = 40
"""A longer word may be broken."""


class Bars:
    """Draws a bar per stage on stderr; where that is no terminal, a line for what is done and now and then one more."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Callable[[int], None]]:
        """See :class:`rctk.progress.Progress`."""
        return self._bar(name, total) if self.console.is_terminal else self._lines(name, total)

    @contextmanager
    def _bar(self, name: str, total: int | None) -> Iterator[Callable[[int], None]]:
        columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as bars:
            task = bars.add_task(name, total=total)
            yield lambda done: bars.update(task, advance=done)

    @contextmanager
    def _lines(self, name: str, total: int | None) -> Iterator[Callable[[int], None]]:
        start = said = time.monotonic()
        count = 0

        def step(done: int) -> None:
            nonlocal count, said
            count += done
            if count != total and time.monotonic() - said > EVERY_S:
                said = time.monotonic()
                self._say(f"{name}: {count} of {total or '?'} after {said - start:.0f} s")

        yield step
        of = f" of {total}" if total and count <= total else ""  # processes that share an epoch may do a few more
        self._say(f"{name}: {f'{count}{of} done in ' if count > 1 else ''}{time.monotonic() - start:.1f} s")

    def note(self, text: str) -> None:
        """See :class:`rctk.progress.Progress`."""
        self._say(f"note: {text}", style="yellow")

    def _say(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style=style), soft_wrap=True)


class Results(Console):
    """The console of stdout: as wide as the terminal; a pipe gets every line whole."""

    def __init__(self) -> None:
        super().__init__(width=None if sys.stdout.isatty() else ENDLESS, highlight=False, markup=False)

    def on_broken_pipe(self) -> None:
        """Leave it to the entry point, which knows the exit code."""
        raise  # noqa: PLE0704  # rich calls this while it handles the BrokenPipeError


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print one table on stdout.

    In a terminal that is too narrow columns become rows; if that is not enough, cells fold between words, and then
    each row becomes a block of lines. Nothing is left out.
    """
    console = Results()
    cells = [[str(cell) for cell in row] for row in rows]
    turned = [list(column) for column in zip(columns, *cells, strict=True)]
    console.print(Text(title, style="bold"), soft_wrap=True)
    ways = [(columns, cells), (turned[0], turned[1:])]
    fits = [way for widths in (_natural, _least) for way in ways if _room(console, widths(*way)) >= 0]
    if fits:
        console.print(_grid(console, *fits[0]))
        return
    for row in cells:
        for name, cell in zip(columns, row, strict=True):
            console.print(f"{name}: {cell}")
        console.print()


def _natural(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> list[int]:
    """Return for each column the width at which nothing folds."""
    return [max(map(len, column)) for column in zip(columns, *cells, strict=True)]


def _least(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> list[int]:
    """Return for each column the width of its longest word."""
    words = [" ".join(column).split() for column in zip(columns, *cells, strict=True)]
    return [min(max(map(len, column), default=0), LONGEST_WORD) for column in words]


def _room(console: Console, widths: Sequence[int]) -> int:
    return console.width - sum(widths) - GAP * len(widths)


def _grid(console: Console, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> Table:
    widths, natural = _least(columns, cells), _natural(columns, cells)
    spare = _room(console, widths)
    hungry = sorted(range(len(columns)), key=lambda i: natural[i] - widths[i])
    for place, i in enumerate(hungry):  # who needs least is served first, so that few columns fold
        more = max(0, min(natural[i] - widths[i], spare // (len(hungry) - place)))
        widths[i] += more
        spare -= more
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, GAP - 1, 0, 0))
    for name, width in zip(columns, widths, strict=True):
        grid.add_column(name, width=width, overflow="fold")
    for row in cells:
        grid.add_row(*map(Text, row))
    return grid


def share(value: float | None) -> str:
    """Print a share as percent; a dash where there is none."""
    return "-" if value is None else f"{value:.1%}"


def show_steps(recipe: Iterable[Mapping[str, Any]]) -> None:
    """Print the steps that a file records, with every setting."""
    for number, step in enumerate(recipe, start=1):
        settings = ", ".join(f"{key} {value}" for key, value in step.items() if key != "step")
        print(f"step {number}: {step['step']} ({settings})")


def size(count: float) -> str:
    """Print a number of bytes.

    Example:
        >>> size(1536)
        '1.5 KiB'
    """
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
