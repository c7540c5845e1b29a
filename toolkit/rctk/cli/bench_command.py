"""``rctk bench``."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from rctk.cli.console import Bars, size, table
from rctk.cli.flags import InputFlags, RecordFlags, Whole
from rctk.deployment import Deployment, open_deployment
from rctk.machine import load_average, machine_facts, versions
from rctk.measure.bench import BenchSettings, Contender, bench, busy, fastest, threads_of
from rctk.records import Record
from rctk_export.input_spec import FloatNCHW

NO_INPUT_FLAGS = InputFlags()
NO_RECORD_FLAGS = RecordFlags()
DEFAULTS = BenchSettings()


def bench_(  # noqa: PLR0913  # every parameter is a flag
    path: Path,
    /,
    *,
    engine: str = "auto",
    target: str | None = None,
    batch: Whole = DEFAULTS.batch,
    threads: Whole = DEFAULTS.threads,
    calls: Whole = DEFAULTS.calls,
    warmup: Whole = DEFAULTS.warmup,
    rounds: Whole = DEFAULTS.rounds,
    float_beside: bool = True,
    parent: Annotated[Path | None, Parameter(name="--float")] = None,
    memory: bool = True,
    data: str | None = None,
    seed: Whole = DEFAULTS.seed,
    flags: InputFlags = NO_INPUT_FLAGS,
    records: RecordFlags = NO_RECORD_FLAGS,
) -> None:
    """Measure latency, throughput and memory of an engine on this machine, beside the float file.

    Example: rctk bench model-int8 --batch 1 --threads 2

    Args:
        path: Bundle folder, or an .onnx file with --input.
        engine: Engine with settings, such as onnxruntime:spinning=true; auto finds the fastest installed one.
        target: Which int8 file of the bundle.
        batch: Images per call.
        threads: Threads of the engine, unless its settings say otherwise.
        calls: Calls that count, per engine.
        warmup: Calls before the first that counts.
        rounds: The engines take turns so many times.
        float_beside: Measure the float file in the same run, for the ratio.
        parent: Float .onnx of a bare file.
        memory: Measure peak memory, each engine in a process of its own.
        data: Real images to feed, such as cifar10:test; random ones by default.
        seed: Seed of the random images.
        flags: Input of a bare file.
        records: Where results go.
    """
    settings = BenchSettings(
        batch=batch, threads=threads, calls=calls, warmup=warmup, rounds=rounds, memory=memory, seed=seed
    )
    folder = records.checked()
    progress = Bars()
    with open_deployment(path, target=target, spec=flags.spec(), parent=parent) as deployment:
        images = _images(data, deployment, seed)
        if engine == "auto":
            found = fastest(deployment.deployed, images, replace(settings, calls=min(calls, 50)))
            engine = found.engine
            others = ", ".join(f"{name} {ms:.3f} ms" for name, ms in sorted(found.median_ms.items()))
            print(f"fastest engine: {engine} ({others})")
            for name, reason in found.left_out.items():
                progress.note(f"{name} left out: {reason}")
        settings = replace(settings, threads=threads_of(engine, settings.threads))
        contenders = [Contender(engine=engine, source=deployment.deployed)]
        if float_beside and deployment.float is not None:
            contenders.insert(0, Contender(engine=engine, source=deployment.float))
        with progress.stage("bench", None):
            results = bench(contenders, images, settings)
        for contender, values in zip(contenders, results, strict=True):
            _append(deployment, contender, values, settings, folder)
    _show(deployment, contenders, results, settings)


def _images(data: str | None, deployment: Deployment, seed: int) -> FloatNCHW | None:
    if data is None:
        return None
    from rctk.data import read_split  # noqa: PLC0415  # random images need no reader

    return read_split(data, samples=256, seed=seed, input=deployment.input).images


def _append(
    deployment: Deployment, contender: Contender, values: dict[str, Any], settings: BenchSettings, folder: Path
) -> None:
    subject = {
        "name": deployment.name,
        "sha256": deployment.sha256,
        "role": contender.source.role,
        "target": contender.source.target,
        "engine": contender.engine,
    }
    record = Record.of("bench", subject, asdict(settings), values, machine=machine_facts(), versions=versions())
    record.append_to(folder)


def _show(
    deployment: Deployment, contenders: list[Contender], results: list[dict[str, Any]], settings: BenchSettings
) -> None:
    rows = []
    for contender, v in zip(contenders, results, strict=True):
        times = [f"{v[key]:.3f}" for key in ("min_ms", "median_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms")]
        memory = "-" if v["peak_rss_bytes"] is None else size(v["peak_rss_bytes"])
        name = f"{contender.source.role} {contender.source.target}".strip()
        ratio = f"{v['speedup']:.2f} ({v['cpu_speedup']:.2f} by CPU time)"
        rows.append((name, *times, v["calls"], f"{v['images_per_s']:.0f}", size(v["file_bytes"]), memory, ratio))
    columns = (
        "file",
        "min ms",
        "median",
        "p90",
        "p95",
        "p99",
        "max",
        "calls",
        "images/s",
        "size",
        "peak RSS",
        "speed-up",
    )
    threads = "1 thread" if settings.threads == 1 else f"{settings.threads} threads"
    title = f"{deployment.name} in {contenders[0].engine}, batch {settings.batch}, {threads}"
    table(title, columns, rows)
    if any(busy(values) for values in results):
        print(f"note: other work disturbed this run (load {load_average()[0]:.1f}); repeat it on a quiet machine")
