"""Runs the cells of a study, one after the other or several at a time, and keeps what each of them ends with."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

from rctk.progress import Progress
from rctk.study.cell import Cell
from rctk.study.commands import Commands
from rctk.study.processes import in_processes
from rctk.study.store import Result, Store

WAVES = {"export": 0, "attack": 1, "compare": 1, "bench": 2}
"""Cells of a wave do not wait for each other; times are measured last, with nothing beside them."""


@dataclass(kw_only=True)
class Outcome:
    """How the cells of a study ended.

    Attributes:
        results: Of the cells that ran now, by their keys.
        failed: The cells that ran and failed, and their errors.
        waiting: Cells that could not run, because the one that makes their bundle failed.
    """

    results: dict[str, Result] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)

    def add(self, cell: Cell, result: Result) -> None:
        """Take note of a cell that ended."""
        self.results[cell.key] = result
        if result.error:
            self.failed[cell.name] = result.error


@dataclass(frozen=True, kw_only=True)
class Runner:
    """What runs cells.

    Attributes:
        store: Where results are kept.
        commands: The command line.
        jobs: Cells at a time, each in a process of its own; 0 runs one after the other in this process.
        progress: Shows the cell, its number and how many there are.
    """

    store: Store
    commands: Commands
    jobs: int
    progress: Progress

    def run(self, cells: Sequence[Cell], outcome: Outcome) -> None:
        """Run ``cells``, none of which is finished, those that make bundles first, and tell ``outcome`` of each."""
        order = sorted(cells, key=lambda cell: WAVES[cell.kind])
        numbers = {cell.key: f"cell {number} of {len(order)}: {cell.name}" for number, cell in enumerate(order, 1)}
        for wave, members in groupby(order, key=lambda cell: WAVES[cell.kind]):
            ready = self._ready(list(members), outcome)
            jobs = min(self.jobs, 1) if wave == WAVES["bench"] else self.jobs
            for cell, result in self._apart(ready, jobs, numbers) if jobs else self._here(ready, numbers):
                outcome.add(cell, result)

    def _ready(self, cells: Sequence[Cell], outcome: Outcome) -> list[Cell]:
        """Return the cells whose bundle is there; the others wait."""
        needed = {cell.needs.key: cell.needs for cell in cells if cell.needs is not None}
        there = {key for key, cell in needed.items() if self.store.finished(cell) is not None}
        outcome.waiting += [cell.name for cell in cells if cell.needs is not None and cell.needs.key not in there]
        return [cell for cell in cells if cell.needs is None or cell.needs.key in there]

    def _here(self, cells: Sequence[Cell], numbers: dict[str, str]) -> Iterator[tuple[Cell, Result]]:
        for cell in cells:
            with self.progress.stage(numbers[cell.key]):
                result = perform(cell, self.store, self.commands)
            yield cell, result

    def _apart(self, cells: Sequence[Cell], jobs: int, numbers: dict[str, str]) -> Iterator[tuple[Cell, Result]]:
        work = partial(perform, store=self.store, commands=self.commands)
        for cell, code in in_processes(cells, jobs, work):
            result = None if code else self.store.result(cell)
            if result is None:
                error = f"its process ended with {code}, see {self.store.log(cell)}; run it alone, or with more memory"
                result = self.store.keep(cell, Result(code=code or 1, error=error))
            self.progress.note(f"{numbers[cell.key]}, {result.seconds:.1f} s")
            yield cell, result


def perform(cell: Cell, store: Store, commands: Commands) -> Result:
    """Run one cell and keep its result; one that another process has finished meanwhile is only read."""
    with store.locked(cell):
        found = store.finished(cell)
        if found is not None:
            return found
        work, log, start = store.begin(cell), store.log(cell), time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        ended = commands.run(cell.command(store.folder, work), log)
        return store.keep(cell, Result(code=ended.code, error=ended.error, seconds=time.monotonic() - start))
