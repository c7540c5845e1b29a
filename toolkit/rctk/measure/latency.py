"""How long a call takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rctk_kernels.errors import OptionError

STORED_TIMES = 1000
"""At most as many single times go into a record; more are thinned."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Distribution of the times of single calls, in milliseconds.

    Percentiles are linear interpolations between the two nearest order statistics: definition 7 of Hyndman and Fan,
    "Sample Quantiles in Statistical Packages", The American Statistician 50(4), 1996, which is NumPy's default. Below
    100 calls p99 is little else than the maximum.

    Attributes:
        times_ms: At most 1000 of the times in the order of the calls, evenly thinned; the figures are of all calls.
    """

    calls: int
    min_ms: float
    median_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    mean_ms: float
    times_ms: tuple[float, ...]

    @classmethod
    def of(cls, times_ns: npt.NDArray[np.float64]) -> Latency:
        """Summarise the times of all calls, ``(N,)`` nanoseconds with ``N`` at least 1."""
        times = times_ns / 1e6
        low, median, p90, p95, p99, high = (float(t) for t in np.percentile(times, [0, 50, 90, 95, 99, 100]))
        return cls(
            calls=len(times),
            min_ms=low,
            median_ms=median,
            p90_ms=p90,
            p95_ms=p95,
            p99_ms=p99,
            max_ms=high,
            mean_ms=float(times.mean()),
            times_ms=tuple(float(t) for t in thinned(times, STORED_TIMES)),
        )


def thinned(values: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    """Return all values, or ``count`` of them at even distances, the first and the last included."""
    if len(values) <= count:
        return values
    return values[np.linspace(0, len(values) - 1, count).round().astype(np.int64)]


def latency(
    call: Callable[[], object], *, warmup: int, calls: int, clock_ns: Callable[[], int] = time.perf_counter_ns
) -> Latency:
    """Time single calls of ``call``, which must wait for its own result.

    Args:
        call: What to time.
        warmup: Calls before the first that counts.
        calls: Calls that count, at least 1.
        clock_ns: Monotonic clock, read right before and right after every call.
    """
    if calls < 1 or warmup < 0:
        raise OptionError(f"timing needs at least 1 call and no negative warm-up, got {calls} and {warmup}")
    for _ in range(warmup):
        call()
    return Latency.of(times_ns(call, calls, clock_ns))


def times_ns(call: Callable[[], object], calls: int, clock_ns: Callable[[], int]) -> npt.NDArray[np.float64]:
    """Return the time of each of ``calls`` calls, ``(calls,)`` in nanoseconds."""
    times = np.empty(calls)
    for i in range(calls):
        start = clock_ns()
        call()
        times[i] = clock_ns() - start
    return times
