"""Cells in processes of their own: several at a time, and a crash costs one cell."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NoReturn, cast

from rctk.study.cell import Cell

PRELOAD = ["rctk.study.run", "rctk.cli.attack_command", "rctk.cli.export_command"]
"""Imported once, before processes fork off; none of them starts threads."""
GRACE_S = 10.0
"""What a process gets to end after it was asked to."""


def in_processes(cells: Sequence[Cell], jobs: int, work: Callable[[Cell], object]) -> Iterator[tuple[Cell, int]]:
    """Run ``work`` on every cell, ``jobs`` at a time; yield each with the exit code of its process as it ends.

    A negative code is the signal that killed it. When the caller stops, all of them are ended.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    waiting, running = deque(cells), dict[int, tuple[ForkServerProcess, Cell]]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.popleft()
                process = context.Process(target=_child, args=(work, cell, str(Path.cwd())))
                process.start()
                running[process.sentinel] = process, cell
            for sentinel in wait(list(running)):
                process, cell = running.pop(cast("int", sentinel))
                process.join()
                yield cell, process.exitcode or 0
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.join(GRACE_S)
            process.kill()


def _child(work: Callable[[Cell], object], cell: Cell, folder: str) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which then ends this process
    signal.signal(signal.SIGTERM, _leave)
    os.chdir(folder)
    try:
        work(cell)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGTERM)
    sys.exit(0)


def _leave(*_: object) -> None:
    raise KeyboardInterrupt
