"""``rctk merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rctk.cli.console import table
from rctk.cli.places import check_folder
from rctk.records_merge import merge, write_merged
from rctk.report.machines import machine_labels
from rctk_kernels.errors import RecordError


def merge_(
    paths: list[Path],
    /,
    *,
    out: Annotated[Path, Parameter(name=("--out", "-o"))],
) -> None:
    """Join the records of several machines in one file, each once, oldest first.

    A line that is no record is refused with its number, and nothing is written then. `rctk report A B` reads several
    folders as well, without a new file.

    Example: rctk merge runs runs-jetson --out merged

    Args:
        paths: Folders with records.jsonl, in them or below them, or such files.
        out: New folder for the joined records.jsonl.
    """
    check_folder(out, "--out")
    merged = merge(paths, strict=True)
    if not merged.records:
        raise RecordError(f"no record in {', '.join(map(str, paths))}; make some with `rctk bench` or `rctk attack`")
    written = write_merged(merged, out)
    table("records", ("from", "lines"), list(zip(paths, merged.found, strict=True)))
    machines = len(machine_labels(merged.records))
    print(f"\nrecords: {len(merged.records)}, left out as repeated: {merged.repeated}, machines: {machines}")
    print(f"wrote {written}")
