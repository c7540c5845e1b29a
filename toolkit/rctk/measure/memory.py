"""Memory of one engine, in a process of its own: three figures that are never added up.

*Planned* is what file and runtime ask for, *process* what the process holds, *system* by how much the memory that the
machine has left went down. On a Jetson CPU and GPU share one memory: what CUDA allocates is missing in the resident
set of the process and present in the system's figure, so a sum would count it twice.

As a program (``python -m rctk.measure.memory REQUEST``) this module is that process.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rctk.machine import parse_meminfo
from rctk.measure.child import SECONDS, answer, ask
from rctk.measure.hooks import planned_bytes
from rctk.measure.nvidia_smi import process_bytes
from rctk.measure.sysfs import ROOT, read_text
from rctk_export.engine import Source
from rctk_export.engines import ENGINES
from rctk_kernels.errors import EngineError

STATUS = Path("/proc/self/status")
MEMINFO = Path("/proc/meminfo")
NVMAP = "sys/kernel/debug/nvmap/iovmm/clients"
CALLS = 10
"""Memory is at its peak after a few batches."""
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


class Memory(NamedTuple):
    """Memory of a process that ran one engine.

    Attributes:
        peak_rss_bytes: Peak of the whole process, interpreter and runtime included (``VmHWM``).
        engine_rss_bytes: How far the peak lies above what the process held with the runtime imported and the images
            made, before it loaded the model. Where the kernel cannot forget the peak of the imports, an upper bound.
        device_bytes: GPU memory of the process as NvMap (Orin, root only) or ``nvidia-smi`` knows it; ``None`` where
            neither does. On unified memory it is part of the system's figure and not of the resident set.
        device_source: ``nvmap``, ``nvidia-smi`` or nothing.
        planned_bytes: What the engine says that file and context take; the size of the file where it says nothing.
        system_bytes: How far ``MemAvailable`` fell from before loading to the steady state; other programs move it
            too, and it may be negative.
    """

    peak_rss_bytes: int
    engine_rss_bytes: int
    device_bytes: int | None = None
    device_source: str = ""
    planned_bytes: int | None = None
    system_bytes: int | None = None


def engine_memory(engine: str, source: Source, *, batch: int, timeout_s: float = SECONDS) -> Memory:
    """Measure an engine in a new process; see :func:`rctk.measure.child.ask` for arguments and errors."""
    return Memory(**ask("rctk.measure.memory", engine, source, batch=batch, timeout_s=timeout_s))


def measure_here(engine: str, source: Source, batch: int) -> Memory:
    """Load and run an engine in this very process and return its memory; meaningful once per process."""
    if not STATUS.exists():
        raise EngineError("peak memory is read from /proc, which this system has not; bench with --no-memory")
    settings = ENGINES.build(engine)  # imports the runtime
    images = np.random.default_rng(0).random((batch, *source.input.shape), dtype=np.float32)
    gc.collect()
    _forget_peak()
    before, left = parse_meminfo(STATUS.read_text())["VmRSS"], _available()
    with settings.open(source) as opened:
        for _ in range(CALLS):
            opened.predict(images)
        peak, still = parse_meminfo(STATUS.read_text())["VmHWM"], _available()
        device, where = device_memory(os.getpid())
        asked = planned_bytes(opened)
    return Memory(
        peak_rss_bytes=peak,
        engine_rss_bytes=max(0, peak - before),
        device_bytes=device,
        device_source=where,
        planned_bytes=source.path.stat().st_size if asked is None else asked,
        system_bytes=None if left is None or still is None else left - still,
    )


def device_memory(pid: int, root: Path = ROOT) -> tuple[int | None, str]:
    """Return the GPU memory of a process and who told: NvMap where it may be read, else ``nvidia-smi``."""
    mapped = parse_nvmap(read_text(root / NVMAP)).get(pid)
    if mapped is not None:
        return mapped, "nvmap"
    used = process_bytes(pid)
    return used, "" if used is None else "nvidia-smi"


def parse_nvmap(text: str) -> dict[int, int]:
    r"""Return bytes by process of ``nvmap/iovmm/clients``: columns CLIENT, PROCESS, PID, SIZE.

    Example:
        >>> parse_nvmap("CLIENT PROCESS PID SIZE\nuser python3 4242 310K\ntotal 310K\n")
        {4242: 317440}
    """
    rows = re.findall(r"^\s*\S+\s+\S.*?\s+(\d+)\s+(\d+)([KMG]?)B?\s*$", text, flags=re.MULTILINE)
    found: dict[int, int] = {}
    for pid, size, unit in rows:
        found[int(pid)] = found.get(int(pid), 0) + int(size) * UNITS[unit]
    return found


def _available() -> int | None:
    return parse_meminfo(MEMINFO.read_text()).get("MemAvailable") if MEMINFO.exists() else None


def _forget_peak() -> None:
    with contextlib.suppress(OSError):  # not every container may
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): sets VmHWM to the present VmRSS


def _measured(engine: str, source: Source, batch: int) -> dict[str, Any]:
    return measure_here(engine, source, batch)._asdict()


if __name__ == "__main__":
    answer(_measured, sys.argv[1])
