"""What ``rctk bench`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rctk.cli.console import size, table
from rctk.machine import load_average
from rctk.measure.bench import Contender, busy
from rctk.measure.settings import BenchSettings

Results = Sequence[dict[str, Any]]
TIMES = ("min_ms", "median_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms")


def show_bench(name: str, contenders: Sequence[Contender], results: Results, settings: BenchSettings) -> None:
    """Print all tables and notes of one run."""
    labels = [f"{c.source.role} {c.source.target}".strip() for c in contenders]
    _latency(f"{name} in {contenders[0].engine}, {_how(settings)}", labels, results)
    if settings.memory:
        _memory(labels, results)
    if settings.cold_starts:
        _cold(labels, results)
    if settings.energy:
        _energy(labels, results)
    for note in _notes(results, settings):
        print(f"note: {note}")


def _how(settings: BenchSettings) -> str:
    threads = "1 thread" if settings.threads == 1 else f"{settings.threads} threads"
    streams = f" with {settings.streams} streams" if settings.streams > 1 else ""
    scenario = "" if settings.scenario == "single-stream" else f", {settings.scenario}{streams}"
    gap = f", {settings.gap_ms:g} ms between calls" if settings.gap_ms else ""
    return f"batch {settings.batch}, {threads}{scenario}{gap}"


def _latency(title: str, labels: Sequence[str], results: Results) -> None:
    columns = ("file", "min ms", "median", "p90", "p95", "p99", "max", "p90 bound", "p99 bound", "calls")
    rows = [
        (
            label,
            *(f"{v[key]:.3f}" for key in TIMES),
            *(_or_dash(v[key], ".3f") for key in ("p90_bound_ms", "p99_bound_ms")),
            v["calls"],
            f"{v['images_per_s']:.0f}",
            "-" if v["file_bytes"] is None else size(v["file_bytes"]),
            "-" if v["peak_rss_bytes"] is None else size(v["peak_rss_bytes"]),
            _speedup(v),
        )
        for label, v in zip(labels, results, strict=True)
    ]
    table(title, (*columns, "images/s", "size", "peak RSS", "speed-up [95 % interval]"), rows)
    timed = [(label, v) for label, v in zip(labels, results, strict=True) if "device_median_ms" in v]
    if timed:
        keys = ("device_median_ms", "device_p90_ms", "device_p99_ms")
        rows_ = [(label, *(f"{v[key]:.3f}" for key in keys)) for label, v in timed]
        table("on the device, by CUDA events, copies included", ("file", "median ms", "p90", "p99"), rows_)


def _speedup(v: dict[str, Any]) -> str:
    interval = "" if v["speedup_low"] is None else f" [{v['speedup_low']:.2f}, {v['speedup_high']:.2f}]"
    return f"{v['speedup']:.2f}{interval} ({v['cpu_speedup']:.2f} by CPU time)"


def _memory(labels: Sequence[str], results: Results) -> None:
    keys = ("planned_bytes", "engine_rss_bytes", "device_bytes", "system_bytes")
    rows = [
        (label, *("-" if v[key] is None else _signed(v[key]) for key in keys))
        for label, v in zip(labels, results, strict=True)
    ]
    title = "memory: figures of the same bytes seen from different sides, not to be added up"
    table(title, ("file", "planned", "process, of the engine", "process, on the GPU", "system"), rows)


def _signed(count: int) -> str:
    return size(count) if count >= 0 else f"-{size(-count)}"


def _cold(labels: Sequence[str], results: Results) -> None:
    keys = ("cold_import_ms", "cold_load_ms", "cold_first_ms", "cold_total_ms", "cold_later_ms")
    rows = [
        (label, *(f"{v[key]:.1f}" for key in keys), len(v["cold_totals_ms"]))
        for label, v in zip(labels, results, strict=True)
    ]
    columns = ("file", "import ms", "load", "first batch", "together", "later batches", "processes")
    table("cold start, medians over new processes", columns, rows)


def _energy(labels: Sequence[str], results: Results) -> None:
    rows = [
        (
            label,
            " + ".join(v["energy_total_of"]),
            *(_or_dash(v[key], ".2f") for key in ("mean_w", "idle_w")),
            *(_or_dash(v[key], ".3f", 1e3) for key in ("image_j", "image_with_idle_j")),
            f"{v['energy_window_s']:.1f} s, {v['energy_samples']} samples",
        )
        for label, v in zip(labels, results, strict=True)
    ]
    columns = ("file", "rails", "mean W", "idle W", "mJ/image above idle", "mJ/image with idle", "window")
    table("energy", columns, rows)


def _or_dash(value: float | None, form: str, factor: float = 1.0) -> str:
    return "-" if value is None else format(value * factor, form)


def shared_text(nodes: dict[str, int]) -> str:
    """Say which provider of a runtime runs what share of the nodes; nothing where one runs all."""
    total = sum(nodes.values())
    each = ", ".join(f"{count / total:.0%} {name}" for name, count in nodes.items())
    return f"of {total} nodes run: {each}" if len(nodes) > 1 else ""


def _notes(results: Results, settings: BenchSettings) -> list[str]:
    notes = [f"moved during the run: {text}" for text in results[0]["moved"]]
    if not all(v["steady"] for v in results):
        notes.append(f"times were not steady after {settings.settle_seconds:g} s of warm-up")
    notes += list(dict.fromkeys(text for v in results if (text := shared_text(v.get("nodes_by_provider", {})))))
    notes += list(dict.fromkeys(text for v in results for text in v.get("engine_notes", ())))
    notes += list(dict.fromkeys(f"energy: {v['energy_note']}" for v in results if v.get("energy_note")))
    single = settings.scenario == "single-stream" and not settings.gap_ms
    if single and any(busy(values) for values in results):
        notes.append(f"other work disturbed this run (load {load_average()[0]:.1f}); repeat it on a quiet machine")
    return notes
