import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from rctk.statistics import wilson
from rctk_kernels.errors import OptionError


@pytest.mark.parametrize(("n", "half_points"), [(50, 13.4), (100, 9.6), (200, 6.9), (500, 4.4), (10_000, 1.0)])
def test_half_width_at_one_half_is_the_published_one(n, half_points):
    low, high = wilson(n // 2, n)
    assert round(50 * (high - low), 1) == half_points


def test_a_worked_value():
    # z = 1.959964, z^2 = 3.841459: centre (3 + 1.920729) / 13.841459, half z sqrt(2.1 + 0.960365) / 13.841459
    low, high = wilson(3, 10)
    assert low == pytest.approx(0.355507 - 0.247716, abs=2e-6)
    assert high == pytest.approx(0.355507 + 0.247716, abs=2e-6)


@given(st.integers(1, 2000), st.floats(0, 1), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_it_equals_scipy(n, share, confidence):
    k = round(share * n)
    expected = binomtest(k, n).proportion_ci(confidence, method="wilson")
    low, high = wilson(k, n, confidence)
    assert low == pytest.approx(expected.low, abs=1e-12)
    assert high == pytest.approx(expected.high, abs=1e-12)
    assert 0 <= low <= k / n <= high <= 1


def test_certain_counts_touch_their_end_exactly():
    assert wilson(0, 7).low == 0
    assert wilson(7, 7).high == 1
    assert wilson(7, 7).low < 1


def test_no_samples_say_nothing():
    assert wilson(0, 0) == (0, 1)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, -1)])
def test_impossible_counts_are_refused(successes, n):
    with pytest.raises(OptionError, match=f"got {successes} of {n}"):
        wilson(successes, n)


@pytest.mark.parametrize("confidence", [1.0, -1.0, 2.0, math.nan])
def test_a_confidence_outside_zero_to_one_is_refused(confidence):
    with pytest.raises(OptionError, match="between 0 and 1"):
        wilson(1, 2, confidence)
