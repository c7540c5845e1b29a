"""Measurements on disk: one JSON line each, only ever appended, so that every published number can be traced."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np

from rctk_export.registry import unknown
from rctk_kernels.errors import RecordError

FILE_NAME = "records.jsonl"
SCHEMA = 1
Kind = Literal[
    "export", "train", "compress", "attack", "bench", "compare", "stress", "transfer", "differential", "curve"
]
LOG = logging.getLogger(__name__)


def now() -> str:
    """Return the present time in UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One measurement and everything needed to repeat it.

    Attributes:
        kind: What was done.
        subject: Which model: name, SHA-256, role, target, engine.
        settings: Every setting, defaults included, and the seed.
        values: Results; the name of a value ends with its unit, shares are in [0, 1].
        machine: Where it ran.
        versions: Of rctk, Python, NumPy and the runtimes.
        time: When it ended, UTC, ISO 8601.
        schema: Version of this format.
        extra: Fields of a record that this version does not know; they are kept when it is written again.
    """

    kind: Kind
    subject: Mapping[str, Any]
    settings: Mapping[str, Any]
    values: Mapping[str, Any]
    machine: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    time: str = field(default_factory=now)
    schema: int = SCHEMA
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        kind: Kind,
        subject: Mapping[str, Any],
        settings: Mapping[str, Any],
        values: Mapping[str, Any],
        *,
        machine: Mapping[str, Any] | None = None,
        versions: Mapping[str, Any] | None = None,
    ) -> Record:
        """Make a record of plain JSON values, at the present time.

        NumPy scalars and arrays become numbers and lists, paths become text. NaN and infinity, which JSON lacks, become
        null and read as "not defined", such as the mean distance of no images.
        """
        if kind not in get_args(Kind):
            raise unknown("kind of record", kind, list(get_args(Kind)))
        parts = {"subject": subject, "settings": settings, "values": values}
        parts |= {"machine": machine or {}, "versions": versions or {}}
        return cls(kind=kind, **{name: plain(part, name) for name, part in parts.items()})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Record:
        """Read what :meth:`as_dict` wrote; :class:`~rctk_kernels.errors.RecordError` where it is no such record."""
        schema = values.get("schema")
        if not isinstance(schema, int) or isinstance(schema, bool):
            raise RecordError(f"a record needs a whole number as its schema, found {schema!r}")
        if schema > SCHEMA:
            raise RecordError(f"written by a newer rctk (schema {schema}, this one reads {SCHEMA}); update rctk")
        if values.get("kind") not in get_args(Kind):
            raise RecordError(f"unknown kind of record {values.get('kind')!r}; expected one of {get_args(Kind)}")
        for name in ("subject", "settings", "values", "machine", "versions"):
            if not isinstance(values.get(name), dict):
                raise RecordError(f"a record needs an object under {name!r}, found {values.get(name)!r:.60}")
        known = {item.name for item in fields(cls)} - {"extra"}
        given = {name: value for name, value in values.items() if name in known}
        return cls(
            **given | {"time": str(values.get("time", ""))},
            extra={name: value for name, value in values.items() if name not in known},
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of one line."""
        known = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "extra"}
        return cast("dict[str, Any]", plain({**self.extra, **known}, "record"))

    def append_to(self, folder: Path) -> Path:
        """Append this record to ``folder/records.jsonl``, wholly or not at all, and return that path.

        The folder is made if it is missing. Several processes may append at once. A line that a crash cut short stays
        alone on its line.
        """
        path = Path(folder) / FILE_NAME
        line = json.dumps(self.as_dict(), ensure_ascii=False, allow_nan=False).encode()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                _append(descriptor, line + b"\n")
            finally:
                os.close(descriptor)
        except OSError as error:
            raise RecordError(
                f"cannot write {path}: {error.strerror or error}; records need a writable folder with free space"
            ) from error
        return path


def read_records(path: Path) -> list[Record]:
    """Read a record file, or every ``records.jsonl`` in a folder and below it, oldest line first in each file.

    A line that is no JSON, such as the half line of a crash, is left out with one warning on the log.
    """
    return [record for file in record_files(path) for _, record in read_file(file)]


def record_files(path: Path) -> list[Path]:
    """Return the one file that ``path`` is, or every ``records.jsonl`` in that folder and below it."""
    path = Path(path)
    files = sorted(path.rglob(FILE_NAME)) if path.is_dir() else [path]
    if not files:
        raise RecordError(f"no {FILE_NAME} in {path}; make records with `rctk bench` or `rctk compare`, or give --out")
    return files


def read_file(path: Path, *, strict: bool = False) -> list[tuple[int, Record]]:
    """Read one record file: number and record of every line that is not empty.

    A line that is no JSON is left out with one warning on the log; with ``strict`` it is an error.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}; give a {FILE_NAME} or its folder") from error
    records, cut = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line, parse_constant=lambda _: None)
        except (ValueError, RecursionError) as error:
            if strict:
                raise RecordError(f"{path} line {number} is not complete JSON; remove that line") from error
            cut.append(number)
            continue
        try:
            records.append((number, Record.from_dict(values if isinstance(values, dict) else {})))
        except RecordError as error:
            raise RecordError(f"{path} line {number}: {error}") from error
    if cut:
        more = f" (and {len(cut) - 1} more)" if cut[1:] else ""
        LOG.warning("%s line %d%s is not complete JSON and is left out", path, cut[0], more)
    return records


def plain(value: Any, where: str) -> Any:
    """Turn ``value`` into what JSON can hold; ``where`` names it in the error."""
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist(), where)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str | os.PathLike):
        return _text(value)
    if isinstance(value, Mapping):
        return {_text(str(key)): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, where) for item in value]
    raise RecordError(f"{where} holds a {type(value).__name__}, which a record cannot; give numbers, text or lists")


def _append(descriptor: int, line: bytes) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # released when the file is closed
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        line = b"\n" + line
    try:
        written = os.write(descriptor, line)
        while written < len(line):  # a nearly full disk takes a part; the rest then fails with its reason
            written += os.write(descriptor, line[written:])
        os.fsync(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):  # the reason of the failed write is the one to report
            os.ftruncate(descriptor, size)
        raise


def _text(value: str | os.PathLike[str]) -> str:
    """Return text that UTF-8 can hold; a file name may have bytes that it cannot."""
    return os.fspath(value).encode("utf-8", "backslashreplace").decode()
