"""The folder of a study: bundles, finished cells by their keys, logs, and all records in one file."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from rctk.records import FILE_NAME, Record, now, plain, read_records
from rctk.study.cell import Cell
from rctk_export.bundle import read_bundle
from rctk_export.whole_file import write_whole
from rctk_kernels.errors import BundleError, OptionError, RecordError

CELLS = "cells"
WORK = "work"
GATED = (0, 1, 3)
"""Exit codes of a gate that was decided: it holds, it does not, the images cannot tell."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a cell ended.

    Attributes:
        code: Exit code of its command.
        error: The line that it failed with.
        seconds: How long it took.
        time: When it ended, UTC.
        records: What it measured, as JSON objects.
    """

    code: int
    error: str = ""
    seconds: float = 0.0
    time: str = ""
    records: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Store:
    """What a study leaves on disk; every file appears whole or not at all, and any process may go on with it."""

    folder: Path

    def check(self) -> None:
        """Refuse a folder that holds something else than a study."""
        if self.folder.is_dir() and any(self.folder.iterdir()) and not (self.folder / CELLS).is_dir():
            raise OptionError(f"{self.folder} holds something that is no study; choose another folder with --out")

    def finished(self, cell: Cell) -> Result | None:
        """Return the result of a cell that came to its end; None where it has to run (again)."""
        result = self._ended(cell)
        return result if cell.kind != "export" or _whole(cell.bundle(self.folder)) else None

    def result(self, cell: Cell) -> Result | None:
        """Return how a cell ended the last time, failed ones included; None where it never did."""
        try:
            values = json.loads(self._file(cell).read_bytes())
            return Result(**{**values["result"], "records": tuple(values["result"]["records"])})
        except (FileNotFoundError, ValueError, TypeError, KeyError):  # damaged: it runs again
            return None

    def begin(self, cell: Cell) -> Path:
        """Return the folder in which a cell works; what a stopped run left there is kept, except its records."""
        work = self.work(cell)
        work.mkdir(parents=True, exist_ok=True)
        (work / FILE_NAME).unlink(missing_ok=True)
        if cell.steps:
            recipe = cell.recipe(self.folder)
            recipe.parent.mkdir(parents=True, exist_ok=True)
            write_whole(recipe, yaml.safe_dump(list(cell.steps), sort_keys=False).encode())
        return work

    def keep(self, cell: Cell, result: Result) -> Result:
        """Keep how a cell ended, with its records; its working folder goes where it finished."""
        good = result.code in GATED if cell.kind == "compare" else result.code == 0
        found = read_records(self.work(cell)) if good else []
        labels = {"kind": cell.kind, **cell.labels}
        tagged = [replace(record, extra={**record.extra, "study": labels}).as_dict() for record in found]
        result = replace(result, time=now(), records=tuple(tagged))
        facts = {"kind": cell.kind, "needs": cell.needs and cell.needs.key, **cell.facts}
        about = {"cell": cell.name, "key": cell.key, "command": cell.shown(self.folder), "facts": facts}
        text = json.dumps(plain({**about, "result": asdict(result)}, "cell"), ensure_ascii=False, indent=1)
        self._file(cell).parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._file(cell), text.encode())
        if good:
            shutil.rmtree(self.work(cell), ignore_errors=True)
        return result

    @contextmanager
    def locked(self, cell: Cell) -> Iterator[None]:
        """Let one process at a time work on a cell; a process that died holds nothing."""
        path = self.folder / WORK / f"{cell.key}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        path.unlink(missing_ok=True)

    def write_records(self, cells: Iterable[Cell]) -> list[Record]:
        """Write the records of all finished cells, in the order of the plan, and return them."""
        ended = [result for result in map(self._ended, cells) if result is not None]
        records = [Record.from_dict(values) for result in ended for values in result.records]
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(record.as_dict(), ensure_ascii=False, allow_nan=False) for record in records]
        write_whole(self.folder / FILE_NAME, "".join(f"{line}\n" for line in lines).encode())
        return records

    def log(self, cell: Cell) -> Path:
        """Return where a cell's output goes."""
        return self.folder / "logs" / f"{cell.file_name}.txt"

    def work(self, cell: Cell) -> Path:
        """Return where a cell keeps what it has not finished."""
        return self.folder / WORK / cell.key

    def _ended(self, cell: Cell) -> Result | None:
        result = self.result(cell)
        return result if result is not None and result.code in (GATED if cell.kind == "compare" else (0,)) else None

    def _file(self, cell: Cell) -> Path:
        return self.folder / CELLS / f"{cell.key}.json"


def _whole(bundle: Path) -> bool:
    try:
        read_bundle(bundle)
    except (BundleError, RecordError, OSError):
        return False
    return True
