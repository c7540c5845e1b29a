"""How long a call takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rctk.measure.early_stopping import early_stopping
from rctk_kernels.errors import EngineError, OptionError

STORED_TIMES = 1000
"""At most as many single times go into a record; more are thinned."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Distribution of the times of single calls, in milliseconds.

    Percentiles are linear interpolations between the two nearest order statistics: definition 7 of Hyndman and Fan,
    "Sample Quantiles in Statistical Packages", The American Statistician 50(4), 1996, which is NumPy's default. Below
    100 calls p99 is little else than the maximum.

    Attributes:
        p90_bound_ms: What p90 does not exceed with 99 % confidence, see
            :func:`~rctk.measure.early_stopping.early_stopping`; ``None`` below 64 calls.
        p99_bound_ms: The same of p99; ``None`` below 662 calls.
        variation: Standard deviation as a share of the mean.
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
    p90_bound_ms: float | None
    p99_bound_ms: float | None
    variation: float
    times_ms: tuple[float, ...]

    @classmethod
    def of(cls, times_ns: npt.NDArray[np.float64]) -> Latency:
        """Summarise the times of all calls, ``(N,)`` nanoseconds with ``N`` at least 1."""
        times = times_ns / 1e6
        low, median, p90, p95, p99, high = (float(t) for t in np.percentile(times, [0, 50, 90, 95, 99, 100]))
        mean = float(times.mean())
        return cls(
            calls=len(times),
            min_ms=low,
            median_ms=median,
            p90_ms=p90,
            p95_ms=p95,
            p99_ms=p99,
            max_ms=high,
            mean_ms=mean,
            p90_bound_ms=early_stopping(times, 0.90),
            p99_bound_ms=early_stopping(times, 0.99),
            variation=float(times.std()) / mean if mean > 0 else 0.0,
            times_ms=tuple(float(t) for t in thinned(times, STORED_TIMES)),
        )


def thinned(values: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    """Return all values, or ``count`` of them at even distances, the first and the last included."""
    if len(values) <= count:
        return values
    return values[np.linspace(0, len(values) - 1, count).round().astype(np.int64)]


class Monotonic:
    """A clock that is watched: a step back ends the measurement instead of spoiling it."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock, self._last = clock_ns, -(2**63)

    def __call__(self) -> int:
        """Return the time in nanoseconds; EngineError where it is earlier than the last one."""
        now = self._clock()
        if now < self._last:
            raise EngineError(
                f"the clock stepped back by {(self._last - now) / 1e6:g} ms while timing; measure again, and let the "
                "host of this machine keep its clock steady"
            )
        self._last = now
        return now


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
    return Latency.of(times_ns(call, calls, Monotonic(clock_ns)))


def times_ns(
    call: Callable[[], object],
    calls: int,
    clock_ns: Callable[[], int],
    *,
    at_least_s: float = 0.0,
    between: Callable[[], object] | None = None,
) -> npt.NDArray[np.float64]:
    """Return the time of each call in nanoseconds, ``(N,)`` with ``N`` at least ``calls``.

    Args:
        call: What to time.
        calls: Calls to make, at least.
        clock_ns: Read right before and right after every call.
        at_least_s: Go on until so many seconds are over too.
        between: Called after every call, outside its time, such as a pause.
    """
    times: list[int] = []
    begin: int | None = None
    while True:
        start = clock_ns()
        call()
        end = clock_ns()
        times.append(end - start)
        begin = start if begin is None else begin
        if between is not None:
            between()
        if len(times) >= calls and end - begin >= at_least_s * 1e9:
            break
    return np.array(times, dtype=np.float64)
