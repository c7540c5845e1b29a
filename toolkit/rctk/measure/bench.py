"""Engines timed side by side on this machine."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from rctk.measure.latency import Latency, times_ns
from rctk.measure.memory import Memory, engine_memory
from rctk_export.engine import Engine, Source
from rctk_export.engines import ENGINES
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import DataError, EngineError, EngineUnavailableError, OptionError

BATCHES = 8
"""Different batches that are fed in turn, so that no engine answers from memory."""
BUSY = 0.1
"""Share by which the two speed-ups may differ before the machine counts as busy."""
BUSY_TAIL = 2.0
"""Ratio of the 90th percentile to the median above which it does too."""
INSTRUMENTS = frozenset({"reference", "twin"})
"""Engines that exist to be right, and are never the fastest."""


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """How engines are timed.

    Attributes:
        batch: Images per call.
        threads: Threads of an engine that has such a setting.
        warmup: Calls before the first that counts, at least.
        seconds: Warm-up lasts at least so long, until clocks and caches are steady.
        calls: Calls that count, per engine.
        rounds: The engines take turns so many times: A B A B. A slow minute then slows all of them.
        memory: Measure peak memory too, each engine in a process of its own.
        seed: Of the random images, where no images are given.
    """

    batch: int = 1
    threads: int = 1
    warmup: int = 20
    seconds: float = 0.2
    calls: int = 200
    rounds: int = 10
    memory: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch", "threads", "calls", "rounds"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.warmup < 0 or not 0 <= self.seconds < float("inf"):
            raise OptionError(f"warm-up cannot be negative or endless, got {self.warmup} calls and {self.seconds} s")


@dataclass(frozen=True, kw_only=True)
class Contender:
    """An engine and the file it runs.

    Attributes:
        engine: Member of the engine table with its settings, such as ``onnxruntime`` or ``onnxruntime:spinning=true``.
        source: From :meth:`rctk_export.bundle.Bundle.source`, or a bare file.
    """

    engine: str
    source: Source


class Clocks(NamedTuple):
    """Nanoseconds of the wall clock and of this process on all its CPUs."""

    wall_ns: Callable[[], int] = time.perf_counter_ns
    cpu_ns: Callable[[], int] = time.process_time_ns


def bench(
    contenders: Sequence[Contender], images: FloatNCHW | None, settings: BenchSettings, clocks: Clocks | None = None
) -> list[dict[str, Any]]:
    """Time engines in turns, in one run, and return the values of each for its record.

    Speed-ups are relative to the first contender, usually the float file. ``speedup`` is the headline: the ratio of the
    medians of wall time, what a product sees. ``cpu_speedup`` checks it: the ratio of the smallest CPU times per call
    over the rounds, which other work on the machine hardly touches; CPU time adds up all threads. See :func:`busy`.

    Args:
        contenders: At least one; all take the same input.
        images: ``(N, C, H, W)`` float32 in [0, 1]; ``None`` for uniformly random ones.
        settings: See :class:`BenchSettings`.
        clocks: The clocks to read; those of the system by default.

    Returns:
        For each contender the fields of :class:`~rctk.measure.latency.Latency`, ``images_per_s`` (batch / mean),
        ``file_bytes``, ``peak_rss_bytes`` and ``engine_rss_bytes`` (see :class:`~rctk.measure.memory.Memory`; ``None``
        without ``memory``), ``speedup`` and ``cpu_speedup``.
    """
    texts = [with_threads(contender.engine, settings.threads) for contender in contenders]
    batches = _batches(contenders[0].source, images, settings)
    with ExitStack() as stack:
        opened = (ENGINES.build(text).open(c.source) for text, c in zip(texts, contenders, strict=True))
        runners = [_Runner(stack.enter_context(engine), batches, clocks or Clocks()) for engine in opened]
        for runner in runners:
            runner.warm_up(settings)
        for calls in _shares(settings.calls, settings.rounds):
            for runner in runners:
                runner.measure(calls)
    memories = [
        engine_memory(text, c.source, batch=settings.batch) if settings.memory else None
        for text, c in zip(texts, contenders, strict=True)
    ]
    return [
        _values(contender, runner, runners[0], memory, settings.batch)
        for contender, runner, memory in zip(contenders, runners, memories, strict=True)
    ]


def bench_engine(contender: Contender, images: FloatNCHW | None, settings: BenchSettings) -> dict[str, Any]:
    """Time one engine by itself; the values of :func:`bench` with both speed-ups 1."""
    return bench([contender], images, settings)[0]


def busy(values: dict[str, Any]) -> bool:
    """Whether other work disturbed a one-thread bench, so that it should be repeated.

    Either the two speed-ups differ by more than 10 %, or one call in ten took more than twice the median: a CPU needs
    the same time for the same network, unless it is taken away.
    """
    tail = values["p90_ms"] > BUSY_TAIL * values["median_ms"]
    return bool(tail or abs(values["speedup"] / values["cpu_speedup"] - 1) > BUSY)


class Fastest(NamedTuple):
    """The engine with the least median time, the medians of all that ran, and why others were left out."""

    engine: str
    median_ms: dict[str, float]
    left_out: dict[str, str]


def candidates(source: Source) -> list[str]:
    """Return the engines that could be the fastest for a file: no instruments, and torch for float files only."""
    return [name for name in ENGINES.names() if name not in INSTRUMENTS and (name != "torch" or source.role == "float")]


def fastest(
    source: Source, images: FloatNCHW | None, settings: BenchSettings, names: Iterable[str] | None = None
) -> Fastest:
    """Find the fastest installed engine for ``source`` by timing, in turns, all that can open it.

    Args:
        source: The file.
        images: See :func:`bench`.
        settings: See :class:`BenchSettings`; memory is not measured.
        names: Engines to try; :func:`candidates` by default.

    Raises:
        EngineUnavailableError: None of them can; the message holds each one's reason.
    """
    tried = {name: _obstacle(name, source, settings) for name in (candidates(source) if names is None else names)}
    left_out = {name: reason for name, reason in tried.items() if reason is not None}
    able = [name for name in tried if name not in left_out]
    if not able:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise EngineUnavailableError(f"no installed engine runs {source.path.name} ({reasons}); see `rctk doctor`")
    contenders = [Contender(engine=name, source=source) for name in able]
    values = bench(contenders, images, dataclasses.replace(settings, memory=False))
    medians = {name: float(value["median_ms"]) for name, value in zip(able, values, strict=True)}
    return Fastest(min(medians, key=medians.__getitem__), medians, left_out)


def _obstacle(name: str, source: Source, settings: BenchSettings) -> str | None:
    try:
        with ENGINES.build(with_threads(name, settings.threads)).open(source):
            return None
    except (EngineError, OptionError) as error:
        return str(error)


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


class _Runner:
    """One engine, the batches it gets in turn, and what the clocks said."""

    def __init__(self, engine: Engine, batches: list[FloatNCHW], clocks: Clocks) -> None:
        self._engine, self._batches, self._clocks = engine, batches, clocks
        self._next = 0
        self._times: list[npt.NDArray[np.float64]] = []
        self.cpu_ns = float("inf")

    def call(self) -> None:
        """Classify the next batch."""
        images = self._batches[self._next % len(self._batches)]
        self._next += 1
        self._engine.predict(images)

    def warm_up(self, settings: BenchSettings) -> None:
        """Run until both the calls and the seconds are over; the first answer is checked."""
        logits = self._engine.predict(self._batches[0])
        if logits.ndim != 2 or len(logits) != settings.batch:
            raise EngineError(f"expected logits ({settings.batch}, K) from the engine, found {logits.shape}")
        start, calls = self._clocks.wall_ns(), 1
        while calls < settings.warmup or self._clocks.wall_ns() - start < settings.seconds * 1e9:
            self.call()
            calls += 1

    def measure(self, calls: int) -> None:
        """Time one turn; its first call, which finds the caches full of the other engine, does not count."""
        self.call()
        start = self._clocks.cpu_ns()
        self._times.append(times_ns(self.call, calls, self._clocks.wall_ns))
        self.cpu_ns = min(self.cpu_ns, (self._clocks.cpu_ns() - start) / calls)

    def latency(self) -> Latency:
        """Summarise all turns."""
        return Latency.of(np.concatenate(self._times))


def _values(contender: Contender, runner: _Runner, first: _Runner, memory: Memory | None, batch: int) -> dict[str, Any]:
    timed = runner.latency()
    return {
        **{name: value for name, value in dataclasses.asdict(timed).items() if name != "times_ms"},
        "times_ms": list(timed.times_ms),
        "images_per_s": batch / timed.mean_ms * 1000,
        "file_bytes": contender.source.path.stat().st_size,
        "peak_rss_bytes": memory.peak_rss_bytes if memory else None,
        "engine_rss_bytes": memory.engine_rss_bytes if memory else None,
        "speedup": first.latency().median_ms / timed.median_ms,
        "cpu_speedup": first.cpu_ns / runner.cpu_ns,
    }


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
