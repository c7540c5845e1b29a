from __future__ import annotations

import time

import numpy as np
import pytest

from rctk.measure.latency import Latency, latency, thinned
from rctk_kernels.errors import OptionError


def test_percentiles_of_known_times():
    ticks = iter([0, 1_000_000, 10_000_000, 13_000_000, 20_000_000, 22_000_000])  # 1, 3, 2 ms
    result = latency(lambda: None, warmup=0, calls=3, clock_ns=lambda: next(ticks))
    assert result.median_ms == 2.0
    assert (result.min_ms, result.max_ms, result.mean_ms, result.calls) == (1.0, 3.0, 2.0, 3)
    assert result.p90_ms == pytest.approx(2.8)  # 0.9 of the way from the first to the third is 0.8 past the second
    assert result.times_ms == (1.0, 3.0, 2.0)


def test_percentiles_of_one_to_a_hundred():
    result = Latency.of(np.random.default_rng(0).permutation(np.arange(1.0, 101.0)) * 1e6)
    assert (result.median_ms, result.p90_ms, result.p95_ms, result.p99_ms) == pytest.approx((50.5, 90.1, 95.05, 99.01))


def test_one_call_is_every_percentile():
    assert set(vars(Latency.of(np.array([5e6]))).values()) == {1, 5.0, (5.0,), None, 0.0}


def test_warm_up_is_called_and_not_counted():
    calls: list[int] = []
    result = latency(lambda: calls.append(1), warmup=3, calls=2)
    assert (len(calls), result.calls, len(result.times_ms)) == (5, 2, 2)


def test_a_sleep_is_timed():
    assert latency(lambda: time.sleep(0.005), warmup=0, calls=2).min_ms >= 5


def test_many_times_are_thinned_evenly_and_the_figures_are_of_all():
    times = np.arange(5000.0)
    times[4998] = 1e9
    result = Latency.of(times * 1e6)
    assert len(result.times_ms) == 1000
    assert result.times_ms[0] == 0
    assert result.times_ms[-1] == 4999
    assert result.max_ms == 1e9
    assert result.calls == 5000
    assert set(np.diff(thinned(np.arange(5000.0), 1000))) == {5.0, 6.0}
    assert thinned(np.arange(10.0), 1000).tolist() == list(range(10))


@pytest.mark.parametrize(("warmup", "calls"), [(0, 0), (-1, 5), (0, -3)])
def test_timing_nothing_is_refused(warmup, calls):
    with pytest.raises(OptionError, match="at least 1 call"):
        latency(lambda: None, warmup=warmup, calls=calls)
