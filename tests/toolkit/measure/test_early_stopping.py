from __future__ import annotations

import numpy as np
import pytest

from rctk.measure.early_stopping import early_stopping, least_calls, overlatencies
from rctk.measure.latency import Latency, Monotonic, latency, times_ns
from rctk.measure.ratio import median_ratio
from rctk_kernels.errors import EngineError


@pytest.mark.parametrize("calls", [1, 63, 64, 200, 5000])
@pytest.mark.parametrize("percentile", [0.9, 0.99])
def test_the_count_is_the_quantile_of_a_binomial(calls, percentile):
    stats = pytest.importorskip("scipy.stats")
    t = overlatencies(calls, percentile)
    below, above = (stats.binom.cdf(k, calls, 1 - percentile) for k in (t, t + 1))
    assert t == -1 or below <= 0.01
    assert above > 0.01


def test_the_fewest_calls_of_mlperf():
    assert (least_calls(0.90), least_calls(0.99)) == (64, 662)


def test_one_less_than_the_allowed_is_dropped():
    # 1000 calls may hold 78 above the bound of p90, so the 77 slowest go and the 78th slowest is reported
    assert early_stopping(np.arange(1000.0), 0.9) == 1000 - 78
    assert Latency.of(np.arange(1.0, 662.0) * 1e6).p99_bound_ms is None
    assert Latency.of(np.arange(1.0, 663.0) * 1e6).p99_bound_ms == 662.0


def test_the_bound_covers_the_true_percentile_in_99_of_100_runs():
    runs = np.random.default_rng(0).exponential(size=(600, 300))
    bounds = np.array([early_stopping(run, 0.9) for run in runs])
    assert (bounds >= np.log(10)).mean() > 0.98  # the 90th percentile of an exponential is ln 10
    assert np.median(bounds) < 1.3 * np.log(10)


def test_a_clock_that_steps_back_ends_the_measurement_in_one_line():
    ticks = iter([0, 10, 20, 30_000_000, 5_000_000])
    with pytest.raises(EngineError, match=r"the clock stepped back by 25 ms while timing") as caught:
        latency(lambda: None, warmup=0, calls=3, clock_ns=lambda: next(ticks))
    assert "\n" not in str(caught.value)


def test_a_clock_may_stand_still():
    assert [Monotonic(lambda: 7)() for _ in range(3)] == [7, 7, 7]


def test_a_turn_goes_on_until_its_seconds_are_over():
    now = [0]

    def call():
        now[0] += 400_000_000

    assert len(times_ns(call, 2, lambda: now[0], at_least_s=1.0)) == 3
    assert len(times_ns(call, 5, lambda: now[0], at_least_s=1.0)) == 5


def test_the_ratio_of_noisy_turns_lies_in_its_interval():
    rng = np.random.default_rng(1)
    slow = [rng.normal(4, 0.2, 20) for _ in range(10)]
    fast = [rng.normal(2, 0.1, 20) for _ in range(10)]
    ratio = median_ratio(slow, fast)
    assert ratio.low < ratio.value < ratio.high
    assert ratio.low < 2 < ratio.high
    assert ratio.high - ratio.low < 0.15
    assert median_ratio(slow, fast) == ratio  # the seed decides


def test_what_slows_a_whole_round_does_not_widen_the_interval():
    drift = np.linspace(1, 3, 10)
    together = median_ratio([np.full(9, 4 * d) for d in drift], [np.full(9, 2 * d) for d in drift])
    assert (together.low, together.value, together.high) == pytest.approx((2, 2, 2))
    apart = median_ratio([np.full(9, 4 * d) for d in drift], [np.full(9, 2 * d) for d in drift[::-1]])
    assert apart.high - apart.low > 0.5


def test_a_few_turns_have_no_interval():
    assert median_ratio([np.full(9, 4.0)] * 4, [np.full(9, 2.0)] * 4) == (2.0, None, None)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(30):
        ratio = median_ratio(
            [rng.lognormal(1, 0.1, 10) for _ in range(12)], [rng.lognormal(0, 0.1, 10) for _ in range(12)]
        )
        hits += ratio.low <= np.e <= ratio.high
    assert hits >= 24  # 95 % of 30 are 28; fewer than 24 has a chance of about one in a thousand
