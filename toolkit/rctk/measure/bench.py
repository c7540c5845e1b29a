"""Engines timed side by side on this machine."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from rctk.measure.cold_start import cold_starts, cold_values
from rctk.measure.energy import Sampler, energy_values
from rctk.measure.latency import Monotonic
from rctk.measure.memory import Memory, engine_memory
from rctk.measure.power_sensors import Probe, find_probes
from rctk.measure.ratio import median_ratio
from rctk.measure.runner import Clocks, Runner
from rctk.measure.settings import BenchSettings
from rctk.measure.state import State, look, state_values
from rctk.measure.sysfs import ROOT
from rctk_export.engine import Source
from rctk_export.engines import ENGINES
from rctk_export.engines.remote_address import is_address
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import DataError, EngineUnavailableError, OptionError

BATCHES = 8
"""Different batches that are fed in turn, so that no engine answers from memory."""
BUSY = 0.1
"""Share by which the two speed-ups may differ before the machine counts as busy."""
BUSY_TAIL = 2.0
"""Ratio of the 90th percentile to the median above which it does too."""
NO_MEMORY = dict.fromkeys(Memory._fields)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """An engine and the file it runs.

    Attributes:
        engine: Member of the engine table with its settings, such as ``onnxruntime`` or ``onnxruntime:spinning=true``.
        source: From :meth:`rctk_export.bundle.Bundle.source`, or a bare file.
    """

    engine: str
    source: Source


SYSTEM = Clocks(time.perf_counter_ns, time.process_time_ns, time.sleep)
"""The clocks of this system; the first never goes back, and is watched all the same."""


def bench(
    contenders: Sequence[Contender],
    images: FloatNCHW | None,
    settings: BenchSettings,
    clocks: Clocks | None = None,
    root: Path = ROOT,
) -> list[dict[str, Any]]:
    """Time engines in turns, in one run, and return the values of each for its record.

    Speed-ups are relative to the first contender, usually the float file. ``speedup`` is the headline: the ratio of the
    medians of wall time, what a product sees, with its interval (:func:`~rctk.measure.ratio.median_ratio`).
    ``cpu_speedup`` checks it: the ratio of the smallest CPU times per call over the rounds, which other work on the
    machine hardly touches; CPU time adds up all threads. See :func:`busy`.

    Args:
        contenders: At least one; all take the same input.
        images: ``(N, C, H, W)`` float32 in [0, 1]; ``None`` for uniformly random ones.
        settings: See :class:`~rctk.measure.settings.BenchSettings`.
        clocks: The clocks to read; those of the system by default.
        root: Of the file system, for clocks, temperatures and power sensors.

    Returns:
        For each contender the fields of :class:`~rctk.measure.latency.Latency`, ``images_per_s`` (images of a query /
        mean; pauses do not count), ``file_bytes``, ``peak_rss_bytes`` and the rest of
        :class:`~rctk.measure.memory.Memory` (``None`` without ``memory``), ``speedup``, ``speedup_low``,
        ``speedup_high`` and ``cpu_speedup``, ``device_*_ms`` where the engine times its device,
        ``nodes_by_provider`` where it tells which part of a runtime runs how many nodes, ``engine_notes`` where it has
        something to say about how the file runs here, the state of the machine
        (:func:`~rctk.measure.state.state_values`), and where asked for the fields of
        :func:`~rctk.measure.energy.energy_values` and :func:`~rctk.measure.cold_start.cold_values`.
    """
    texts = [with_threads(contender.engine, settings.threads) for contender in contenders]
    batches = _batches(contenders[0].source, images, settings)
    probes = _probes(root) if settings.energy else []
    given = clocks or SYSTEM
    clocks = given._replace(wall_ns=Monotonic(given.wall_ns))  # of this thread alone
    before = look(root, tools=True)
    with Sampler(probes, given.wall_ns) if probes else nullcontext() as sampler:
        idle = _idle(settings, clocks) if probes else (0, 0)
        with ExitStack() as stack:
            runners = [
                _opened(stack, text, contender.source, batches, settings, clocks)
                for text, contender in zip(texts, contenders, strict=True)
            ]
            during = _take_turns(runners, settings, root)
    state = state_values(before, during, look(root, tools=True))
    results = []
    for text, contender, runner in zip(texts, contenders, runners, strict=True):
        values = {**runner.values(), **_speedups(runners[0], runner, settings.seed), **state}
        if sampler is not None:
            values |= energy_values(sampler, idle, runner.windows, runner.images())
        results.append({**values, **_from_processes(text, contender.source, settings)})
    return results


def busy(values: dict[str, Any]) -> bool:
    """Whether other work disturbed a one-thread bench, so that it should be repeated.

    Either the two speed-ups differ by more than 10 %, or one call in ten took more than twice the median: a CPU needs
    the same time for the same network, unless it is taken away.
    """
    tail = values["p90_ms"] > BUSY_TAIL * values["median_ms"]
    return bool(tail or abs(values["speedup"] / values["cpu_speedup"] - 1) > BUSY)


def with_threads(engine: str, threads: int) -> str:
    """Add ``threads=N`` to an engine's text where it has that setting and the user has not given it.

    Example:
        >>> with_threads("onnxruntime:spinning=true", 2)
        'onnxruntime:spinning=true,threads=2'
    """
    name, _, rest = engine.partition(":")
    given = [part for part in rest.split(",") if part]
    if any(part.partition("=")[0].strip() == "threads" for part in given):
        return engine
    fields = {field.name for field in dataclasses.fields(cast("Any", ENGINES.load(name)))}
    if "threads" in fields:
        return f"{name}:{','.join([*given, f'threads={threads}'])}"
    if threads != 1:
        raise OptionError(f"the {name} engine has no setting for threads; bench it with --threads 1")
    return engine


def threads_of(engine: str, threads: int) -> int:
    """Return the threads that ``engine`` runs with: those in its text, else ``threads``.

    Example:
        >>> threads_of("onnxruntime:threads=2", 1)
        2
    """
    return int(getattr(ENGINES.build(with_threads(engine, threads)), "threads", threads))


def _opened(
    stack: ExitStack, text: str, source: Source, batches: list[FloatNCHW], settings: BenchSettings, clocks: Clocks
) -> Runner:
    engines = [stack.enter_context(ENGINES.build(text).open(source)) for _ in range(settings.streams)]
    return stack.enter_context(Runner(engines, batches, settings, clocks))


def _take_turns(runners: Sequence[Runner], settings: BenchSettings, root: Path) -> list[State]:
    """Warm up and measure; the machine is looked at after every round, outside the times."""
    for runner in runners:
        runner.warm_up()
    shares = _shares(settings.calls, settings.rounds)
    at_least_s = settings.energy_seconds / len(shares) if settings.energy else 0.0
    looks = []
    for calls in shares:
        for runner in runners:
            runner.measure(calls, at_least_s)
        looks.append(look(root))
    return looks


def _probes(root: Path) -> list[Probe]:
    found = find_probes(root)
    if not any(probe.counts for probe in found.probes):
        reasons = "; ".join(found.obstacles) or "no INA3221, INA238, RAPL or NVML (`pip install nvidia-ml-py`) here"
        raise EngineUnavailableError(f"no power sensor can be read ({reasons}); bench without --energy")
    return found.probes


def _idle(settings: BenchSettings, clocks: Clocks) -> tuple[int, int]:
    start = clocks.wall_ns()
    clocks.sleep(settings.idle_seconds)
    return start, clocks.wall_ns()


def _speedups(first: Runner, runner: Runner, seed: int) -> dict[str, float | None]:
    ratio = median_ratio(first.turns, runner.turns, seed=seed)
    return {
        "speedup": ratio.value,
        "speedup_low": ratio.low,
        "speedup_high": ratio.high,
        "cpu_speedup": first.cpu_ns / runner.cpu_ns,
    }


def _from_processes(engine: str, source: Source, settings: BenchSettings) -> dict[str, Any]:
    """Measure what needs a process of its own, after the timing, so that nothing runs beside it."""
    if is_address(source.path):  # file and memory are the server's
        return {"file_bytes": None, **NO_MEMORY}
    memory = engine_memory(engine, source, batch=settings.batch)._asdict() if settings.memory else NO_MEMORY
    cold: dict[str, Any] = {}
    if settings.cold_starts:
        cold = cold_values(cold_starts(engine, source, batch=settings.batch, processes=settings.cold_starts))
    return {"file_bytes": source.path.stat().st_size, **memory, **cold}


def _shares(calls: int, rounds: int) -> list[int]:
    """Split ``calls`` over ``rounds`` as evenly as whole numbers go; no round is empty."""
    rounds = min(calls, rounds)
    return [calls // rounds + (i < calls % rounds) for i in range(rounds)]


def _batches(source: Source, images: FloatNCHW | None, settings: BenchSettings) -> list[FloatNCHW]:
    shape = source.input.shape
    if images is None:
        rng = np.random.default_rng(settings.seed)
        return [rng.random((settings.batch, *shape), dtype=np.float32) for _ in range(BATCHES)]
    if images.ndim != 4 or images.shape[1:] != shape or len(images) == 0:
        raise DataError(f"{source.path.name} takes images (N, {', '.join(map(str, shape))}), found {images.shape}")
    rows = np.arange(BATCHES * settings.batch) % len(images)  # few images are repeated
    return [np.ascontiguousarray(images[part], dtype=np.float32) for part in np.split(rows, BATCHES)]
