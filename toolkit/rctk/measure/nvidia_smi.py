"""What ``nvidia-smi`` says: clocks, temperature, power and memory of each GPU.

On Orin the tool exists and answers N/A to nearly all; on Thor some boards lack memory and clocks. So every figure may
be missing, and nothing is concluded from the name of the GPU.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import NamedTuple

from rctk.machine import run_text

FIELDS = ("name", "driver_version", "clocks.sm", "clocks.max.sm", "temperature.gpu", "power.draw", "memory.used")
MIB = 2**20


class Gpu(NamedTuple):
    """One GPU; ``None`` where the driver does not tell."""

    name: str
    driver: str
    mhz: float | None
    highest_mhz: float | None
    celsius: float | None
    watts: float | None
    memory_used_bytes: int | None


def gpus() -> list[Gpu]:
    """Ask ``nvidia-smi``; empty where it is absent, fails or hangs."""
    return parse_gpus(run_text("nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"))


def parse_gpus(text: str) -> list[Gpu]:
    """Read the answer to :data:`FIELDS`; a line with another number of fields, such as an error, is left out.

    Example:
        >>> parse_gpus("Orin (nvgpu), 540.4.0, [N/A], [N/A], [N/A], [N/A], [Not Supported]")[0].mhz is None
        True
    """
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines())]
    return [_gpu(row) for row in rows if len(row) == len(FIELDS)]


def _gpu(row: Sequence[str]) -> Gpu:
    mhz, highest, celsius, watts, used = (_number(cell) for cell in row[2:])
    memory = None if used is None else int(used * MIB)
    return Gpu(row[0], row[1], mhz, highest, celsius, watts, memory)


def process_bytes(pid: int) -> int | None:
    """Return the GPU memory of a process; ``None`` where ``nvidia-smi`` does not know it."""
    text = run_text("nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits")
    return parse_compute_apps(text).get(pid)


def parse_compute_apps(text: str) -> dict[int, int]:
    r"""Return bytes by process, added up over GPUs; processes without a figure are left out.

    Example:
        >>> parse_compute_apps("4242, 310\n77, [N/A]\n")
        {4242: 325058560}
    """
    found: dict[int, int] = {}
    for row in csv.reader(text.splitlines()):
        used = _number(row[1].strip()) if len(row) == 2 else None
        if used is not None and row[0].strip().isdigit():
            pid = int(row[0])
            found[pid] = found.get(pid, 0) + int(used * MIB)
    return found


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:  # [N/A], [Not Supported], [Unknown Error], ERR!
        return None
