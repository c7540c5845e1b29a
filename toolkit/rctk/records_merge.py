"""Records of several machines as one list, and as one file: each once, oldest first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from rctk.records import FILE_NAME, Record, read_file, record_files
from rctk_export.whole_file import write_whole
from rctk_kernels.errors import RecordError

BEFORE_ALL = datetime.min.replace(tzinfo=timezone.utc)


class Merged(NamedTuple):
    """What came together.

    Attributes:
        records: Each once, oldest first; records of the same second in the order of the sources.
        found: How many lines each source held, in the order of the sources.
        repeated: Lines that stood in an earlier place already.
    """

    records: list[Record]
    found: tuple[int, ...]
    repeated: int


def merge(sources: Sequence[Path], *, strict: bool = False) -> Merged:
    """Read records of several folders or files and put them in order.

    The same record twice, such as of a folder that was copied back two times, is one. Records are the same when every
    field is, the time included; the order of keys in the file does not count.

    Args:
        sources: Folders, which are read with all below them, or record files.
        strict: Refuse lines that are no records and times that cannot be put in order; otherwise half lines are left
            out with a warning, and records without a time come first.
    """
    lists = [[record for file in record_files(path) for record in _read(file, strict=strict)] for path in sources]
    once: dict[str, Record] = {}
    for record in chain.from_iterable(lists):
        once.setdefault(json.dumps(record.as_dict(), sort_keys=True), record)
    records = sorted(once.values(), key=lambda record: moment(record.time) or BEFORE_ALL)
    found = tuple(map(len, lists))
    return Merged(records, found, sum(found) - len(records))


def write_merged(merged: Merged, folder: Path) -> Path:
    """Write ``folder/records.jsonl`` whole or not at all, and return that path; records that stand there are kept."""
    path = folder / FILE_NAME
    if path.exists():
        raise RecordError(
            f"{path} exists already; name a new folder, and give {folder} too if its records belong in it"
        )
    lines = [json.dumps(record.as_dict(), ensure_ascii=False, allow_nan=False) for record in merged.records]
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, "".join(f"{line}\n" for line in lines).encode())
    return path


def moment(text: str) -> datetime | None:
    """Return the time of a record; ``None`` where it is none. A time without a zone is UTC.

    Example:
        >>> moment("2026-01-02T03:04:05Z") == moment("2026-01-02T04:04:05+01:00"), moment("noon")
        (True, None)
    """
    try:
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))  # Python 3.10 does not read the Z
    except ValueError:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=timezone.utc)


def _read(file: Path, *, strict: bool) -> list[Record]:
    records = []
    for number, record in read_file(file, strict=strict):
        if strict and moment(record.time) is None:
            raise RecordError(f"{file} line {number}: {record.time!r} is no time; records are put in order by theirs")
        records.append(record)
    return records
