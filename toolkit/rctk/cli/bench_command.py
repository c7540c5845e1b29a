"""``rctk bench``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from rctk.cli.bench_tables import show_bench
from rctk.cli.console import Bars
from rctk.cli.flags import Fraction, InputFlags, RecordFlags, Switch, Whole
from rctk.deployment import Deployment, open_deployment
from rctk.machine import machine_facts, versions
from rctk.measure.bench import Contender, bench, threads_of
from rctk.measure.fastest import fastest
from rctk.measure.settings import BenchSettings, Scenario
from rctk.records import Record
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import OptionError

NO_INPUT_FLAGS = InputFlags()
NO_RECORD_FLAGS = RecordFlags()
DEFAULTS = BenchSettings()


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class HowFlags:
    """What is measured, and how queries arrive."""

    batch: str = str(DEFAULTS.batch)
    """Images per call; several as 1,8,32."""
    threads: str = str(DEFAULTS.threads)
    """Threads of the engine, unless its settings say otherwise; several as 1,2."""
    scenario: Scenario = DEFAULTS.scenario
    """One batch at a time, a batch per stream at once, or many batches at once."""
    streams: Whole = DEFAULTS.streams
    """Engines side by side, for multi-stream and offline."""
    gap_ms: Fraction = DEFAULTS.gap_ms
    """Pause after every call, as between the frames of a camera."""
    calls: Whole = DEFAULTS.calls
    """Calls that count, per engine."""
    warmup: Whole = DEFAULTS.warmup
    """Calls before the first that counts, at least; warm-up goes on until times are steady."""
    rounds: Whole = DEFAULTS.rounds
    """The engines take turns so many times."""
    memory: bool = DEFAULTS.memory
    """Measure memory, each engine in a process of its own."""
    cold_starts: Whole = DEFAULTS.cold_starts
    """Measure load and first inference in so many new processes."""
    energy: Switch = DEFAULTS.energy
    """Read the power sensors, over the window of the latency, with idle subtracted."""
    seed: Whole = DEFAULTS.seed
    """Seed of the random images."""

    def sweep(self) -> list[BenchSettings]:
        """Return the settings of every pair of batch and threads, smallest first as given."""
        shared = {name: value for name, value in asdict(self).items() if name not in {"batch", "threads"}}
        pairs = product(_wholes(self.batch, "--batch"), _wholes(self.threads, "--threads"))
        return [BenchSettings(batch=batch, threads=threads, **shared) for batch, threads in pairs]


def _wholes(text: str, flag: str) -> list[int]:
    return list(dict.fromkeys(_whole(part.strip(), flag) for part in text.split(",")))


def _whole(part: str, flag: str) -> int:
    try:
        return int(part)
    except ValueError as error:
        raise OptionError(
            f"{flag}: {part!r} is not a whole number; write one such as 8, or several as 1,8,32"
        ) from error


HOW = HowFlags()


def bench_(  # noqa: PLR0913  # every parameter is a flag
    path: Path,
    /,
    *,
    engine: str = "auto",
    target: str | None = None,
    how: HowFlags = HOW,
    float_beside: bool = True,
    parent: Annotated[Path | None, Parameter(name="--float")] = None,
    data: str | None = None,
    trtexec: Switch = False,
    flags: InputFlags = NO_INPUT_FLAGS,
    records: RecordFlags = NO_RECORD_FLAGS,
) -> None:
    """Measure latency, throughput, memory and energy of an engine on this machine, beside the float file.

    Example: rctk bench model-int8 --batch 1,8 --threads 2 --cold-starts 3

    Args:
        path: Bundle folder, or an .onnx file with --input.
        engine: Engine with settings, such as onnxruntime:spinning=true; auto finds the fastest installed one.
        target: Which int8 file of the bundle; by default the engine's own, else cpu.
        how: What is measured.
        float_beside: Measure the float file in the same run, for the ratio.
        parent: Float .onnx of a bare file.
        data: Real images to feed, such as cifar10:test; random ones by default.
        trtexec: Let TensorRT's trtexec build and time the files instead of an engine of rctk.
        flags: Input of a bare file.
        records: Where results go.
    """
    sweep = how.sweep()
    folder = records.checked()
    progress = Bars()
    with open_deployment(path, target=target, spec=flags.spec(), parent=parent, engine=engine) as deployment:
        engine = deployment.engine_of(engine)
        files = [deployment.float] if float_beside and deployment.float is not None else []
        sources = [*files, deployment.deployed]
        if trtexec:
            from rctk.cli.trtexec_run import run_trtexec  # noqa: PLC0415  # rarely wanted

            run_trtexec(deployment, sources, sweep, folder)
            return
        images = _images(data, deployment, how.seed)
        if engine == "auto":
            engine = _fastest(deployment, images, sweep[0], progress)
        contenders = [Contender(engine=engine, source=source) for source in sources]
        for settings in _ran(sweep, engine):
            with progress.stage(f"bench batch {settings.batch}", None):
                results = bench(contenders, images, settings)
            for contender, values in zip(contenders, results, strict=True):
                append(deployment, contender, values, settings, folder)
            show_bench(deployment.name, contenders, results, settings)


def _ran(sweep: list[BenchSettings], engine: str) -> Iterator[BenchSettings]:
    """Yield each setting once, with the threads that really run."""
    yield from dict.fromkeys(replace(settings, threads=threads_of(engine, settings.threads)) for settings in sweep)


def _fastest(deployment: Deployment, images: FloatNCHW | None, settings: BenchSettings, progress: Bars) -> str:
    quick = replace(settings, calls=min(settings.calls, 50), scenario="single-stream", streams=1, gap_ms=0.0)
    found = fastest(deployment.deployed, images, quick)
    others = ", ".join(f"{name} {ms:.3f} ms" for name, ms in sorted(found.median_ms.items()))
    print(f"fastest engine: {found.engine} ({others})")
    if found.left_out:
        progress.note(f"left out: {', '.join(found.left_out)}; --engine NAME says why")
    return found.engine


def _images(data: str | None, deployment: Deployment, seed: int) -> FloatNCHW | None:
    if data is None:
        return None
    from rctk.data import read_split  # noqa: PLC0415  # random images need no reader

    return read_split(data, samples=256, seed=seed, input=deployment.input).images


def append(
    deployment: Deployment, contender: Contender, values: dict[str, Any], settings: BenchSettings, folder: Path
) -> None:
    """Append the record of one engine."""
    subject = {
        "name": deployment.name,
        "sha256": deployment.sha256,
        "role": contender.source.role,
        "target": contender.source.target,
        "engine": contender.engine,
    }
    record = Record.of("bench", subject, asdict(settings), values, machine=machine_facts(), versions=versions())
    record.append_to(folder)
