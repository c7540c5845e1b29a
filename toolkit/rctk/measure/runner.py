"""One engine under the clock: how it is fed in each scenario, when it is warm, and what its turns took."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt

from rctk.measure.hooks import TimesDevice, nodes_by_provider
from rctk.measure.latency import Latency, times_ns
from rctk.measure.settings import BenchSettings
from rctk_export.engine import Engine, notes_of
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import EngineError

WINDOW = 10
"""Warm-up compares the median of so many calls with that of as many before them."""
STEADY = 0.05
"""They may differ by this share."""


class Clocks(NamedTuple):
    """Nanoseconds of the wall clock and of this process on all its CPUs, and how to wait some seconds."""

    wall_ns: Callable[[], int]
    cpu_ns: Callable[[], int]
    sleep: Callable[[float], object]


@final
class Runner:
    """Engines of one kind, the batches they get in turn, and what the clocks said.

    Single-stream: one batch at a time. Multi-stream: as many batches at once as there are engines, each on a thread of
    its own, and a query ends with the last of them. Offline: :data:`~rctk.measure.settings.OFFLINE_BATCHES` batches at
    once, of which every engine takes the next one as soon as it is free.
    """

    def __init__(
        self, engines: Sequence[Engine], batches: list[FloatNCHW], settings: BenchSettings, clocks: Clocks
    ) -> None:
        self._engines, self._batches, self._settings, self._clocks = engines, batches, settings, clocks
        self._next = 0
        self._placement = nodes_by_provider(engines[0])
        self._notes = notes_of(engines[0])
        self._threads = ThreadPoolExecutor(len(engines)) if settings.scenario != "single-stream" else None
        self._on_device: list[float] = []
        self.turns: list[npt.NDArray[np.float64]] = []
        self.windows: list[tuple[int, int]] = []
        self.cpu_ns = float("inf")
        self.warm_up_calls, self.steady = 0, False
        self._between = self._pause if settings.gap_ms else None

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)

    def call(self) -> None:
        """Answer one query, and wait for it."""
        first, self._next = self._next, self._next + self._settings.batches_per_query
        if self._threads is None:
            self._predict(0, first)
        elif self._settings.scenario == "multi-stream":
            list(self._threads.map(self._predict, range(len(self._engines)), range(first, self._next)))
        else:
            self._offline(first, self._next)

    def _predict(self, engine: int, number: int) -> None:
        self._engines[engine].predict(self._batches[number % len(self._batches)])

    def _offline(self, first: int, end: int) -> None:
        numbers, lock = iter(range(first, end)), threading.Lock()

        def work(engine: int) -> None:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                self._predict(engine, number)

        assert self._threads is not None
        list(self._threads.map(work, range(len(self._engines))))

    def _pause(self) -> None:
        self._clocks.sleep(self._settings.gap_ms / 1e3)

    def warm_up(self) -> None:
        """Run until calls, seconds and a steady time are reached; see :class:`BenchSettings`. Answers are checked."""
        for engine in self._engines:
            logits = engine.predict(self._batches[0])
            if logits.ndim != 2 or len(logits) != self._settings.batch:
                raise EngineError(f"expected logits ({self._settings.batch}, K) from the engine, found {logits.shape}")
        start, times = self._clocks.wall_ns(), [0.0]
        while not self._warm(times, (self._clocks.wall_ns() - start) / 1e9):
            times += times_ns(self.call, 1, self._clocks.wall_ns, between=self._between).tolist()
        self.warm_up_calls, self.steady = len(times), _steady(times)
        for engine in self._engines[:1]:
            if isinstance(engine, TimesDevice) and self._threads is None:
                engine.time_device()

    def _warm(self, times: list[float], seconds: float) -> bool:
        if len(times) < self._settings.warmup or seconds < self._settings.seconds:
            return False
        return _steady(times) or seconds >= self._settings.settle_seconds

    def measure(self, calls: int, at_least_s: float = 0.0) -> None:
        """Time one turn; its first call, which finds the caches full of the other engine, does not count."""
        self.call()
        start, cpu = self._clocks.wall_ns(), self._clocks.cpu_ns()
        times = times_ns(self.call, calls, self._clocks.wall_ns, at_least_s=at_least_s, between=self._after_call())
        self.cpu_ns = min(self.cpu_ns, (self._clocks.cpu_ns() - cpu) / len(times))
        self.windows.append((start, self._clocks.wall_ns()))
        self.turns.append(times)

    def _after_call(self) -> Callable[[], object] | None:
        engine = self._engines[0]
        if not isinstance(engine, TimesDevice) or self._threads is not None:
            return self._between

        def between() -> None:
            self._on_device.append(engine.device_ms())
            if self._between is not None:
                self._between()

        return between

    def latency(self) -> Latency:
        """Summarise all turns."""
        return Latency.of(np.concatenate(self.turns))

    def values(self) -> dict[str, Any]:
        """Return the fields of a record that this runner knows."""
        timed = self.latency()
        images = self._settings.batch * self._settings.batches_per_query
        return {
            **{name: value for name, value in vars(timed).items() if name != "times_ms"},
            "times_ms": list(timed.times_ms),
            "images_per_s": images / timed.mean_ms * 1000,
            "warm_up_calls": self.warm_up_calls,
            "steady": self.steady,
            **({"nodes_by_provider": self._placement} if self._placement else {}),
            **({"engine_notes": list(self._notes)} if self._notes else {}),
            **self._device_values(),
        }

    def _device_values(self) -> dict[str, float]:
        if not self._on_device:
            return {}
        timed = Latency.of(np.array(self._on_device) * 1e6)
        return {"device_median_ms": timed.median_ms, "device_p90_ms": timed.p90_ms, "device_p99_ms": timed.p99_ms}

    def images(self) -> int:
        """Count the images inside the windows."""
        return sum(len(turn) for turn in self.turns) * self._settings.batch * self._settings.batches_per_query


def _steady(times: Sequence[float]) -> bool:
    if len(times) < 2 * WINDOW + 1:
        return False
    earlier, last = np.median(times[-2 * WINDOW : -WINDOW]), np.median(times[-WINDOW:])
    return bool(abs(last - earlier) <= STEADY * earlier)
