"""``rctk bench --trtexec``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rctk.cli.console import size, table
from rctk.deployment import Deployment
from rctk.machine import machine_facts, versions
from rctk.measure.settings import BenchSettings
from rctk.measure.trtexec import bench_trtexec, find_trtexec
from rctk.records import Record
from rctk_export.engine import Source
from rctk_kernels.errors import OptionError

TIMES = ("min_ms", "median_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms", "device_median_ms", "enqueue_median_ms")


def run_trtexec(
    deployment: Deployment, sources: Sequence[Source], sweep: Sequence[BenchSettings], folder: Path
) -> None:
    """Time files with trtexec, print a table per batch and append a record for each."""
    program = find_trtexec()
    for settings in sweep:
        if settings.scenario == "offline" or settings.energy or settings.cold_starts:
            raise OptionError("trtexec times streams only; leave --scenario offline, --energy and --cold-starts away")
    for settings in {settings.batch: settings for settings in sweep}.values():
        results = bench_trtexec(program, sources, settings)
        for source, values in zip(sources, results, strict=True):
            _append(deployment, source, values, settings, folder)
        _show(deployment.name, sources, results, settings)


def _append(
    deployment: Deployment, source: Source, values: dict[str, Any], settings: BenchSettings, folder: Path
) -> None:
    subject = {"name": deployment.name, "sha256": deployment.sha256, "role": source.role, "target": source.target}
    record = Record.of(
        "bench",
        {**subject, "engine": "trtexec"},
        asdict(settings),
        values,
        machine=machine_facts(),
        versions={**versions(), "trtexec": values["trtexec_version"]},
    )
    record.append_to(folder)


def _show(name: str, sources: Sequence[Source], results: Sequence[dict[str, Any]], settings: BenchSettings) -> None:
    rows = []
    for source, v in zip(sources, results, strict=True):
        interval = "" if v["speedup_low"] is None else f" [{v['speedup_low']:.2f}, {v['speedup_high']:.2f}]"
        times = [f"{v[key]:.3f}" for key in TIMES]
        speed = "-" if v["trtexec_queries_per_s"] is None else f"{v['trtexec_queries_per_s']:.0f}"
        label = f"{source.role} {source.target}".strip()
        rows.append((label, *times, v["calls"], speed, size(v["file_bytes"]), f"{v['speedup']:.2f}{interval}"))
    columns = ("file", "min ms", "median", "p90", "p95", "p99", "max", "compute", "enqueue", "calls", "queries/s ahead")
    title = f"{name} in trtexec {results[0]['trtexec_version']}, batch {settings.batch}, copies included"
    table(title, (*columns, "size", "speed-up"), rows)
    if any(v["host_bound"] for v in results):
        print("note: the host takes nearly as long to enqueue as the GPU to compute; the engine waits for the CPU")
    if any(v["unstable"] for v in results):
        print("note: compute times vary by more than 2.5 %; pin the clocks (jetson_clocks, or nvidia-smi -lgc)")
