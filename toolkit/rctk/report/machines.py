"""Which machine, with which software, made which record; a short label stands for it in the other tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rctk.records import Record
from rctk.report.words import is_number, size, text

LASTING = (
    *("cpu", "cpu_flags", "cores_physical", "cores_logical", "cores_quota", "memory_bytes", "memory_limit_bytes"),
    *("board", "gpus", "os", "kernel"),
)
"""Facts that make a machine; load and free memory change from record to record."""


def machine_labels(records: Sequence[Record]) -> dict[str, str]:
    """Return a label (``M1``, ``M2``, ...) for every distinct :func:`machine_key`, in order of appearance."""
    keys = dict.fromkeys(machine_key(record) for record in records)
    return {key: f"M{number}" for number, key in enumerate(keys, start=1)}


def machine_key(record: Record) -> str:
    """Return a text that is equal for records of the same machine and software."""
    lasting = {name: record.machine.get(name) for name in LASTING}
    return json.dumps([lasting, dict(record.versions)], sort_keys=True, default=str)


def machine_row(record: Record) -> tuple[str, ...]:
    """Return CPU, cores, memory, GPU or board, system and versions as text."""
    machine = record.machine
    cores = [_count(machine, "cores_physical", "cores"), _count(machine, "cores_logical", "threads")]
    quota = machine.get("cores_quota")
    limit = machine.get("memory_limit_bytes")
    return (
        text(machine.get("cpu")),
        text([part for part in (*cores, f"quota {quota:g}" if is_number(quota) else "") if part]),
        size(machine.get("memory_bytes")) + (f", limit {size(limit)}" if limit else ""),
        text([part for part in (machine.get("board"), *_list(machine.get("gpus"))) if part]),
        text(machine.get("os")),
        text(", ".join(f"{name} {version}" for name, version in record.versions.items()), longest=200),
    )


def _count(machine: Mapping[str, Any], name: str, unit: str) -> str:
    return f"{machine[name]} {unit}" if machine.get(name) else ""


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
