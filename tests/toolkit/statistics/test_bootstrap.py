import numpy as np
import pytest
from scipy import stats

from rctk.statistics.bootstrap import bootstrap, bootstrap_difference, mean, median
from rctk_kernels.errors import OptionError


def skewed(n=80, seed=1):
    return np.random.default_rng(seed).exponential(size=n)


def test_all_resamples_of_two_values():
    # means of two draws from (0, 1): 0, 1/2, 1/2, 1 with equal chance, so 2.5 % and 97.5 % are 0 and 1
    estimate = bootstrap([0.0, 1.0], bias_corrected=False)
    assert estimate == (0.5, 0.0, 1.0)


@pytest.mark.parametrize("method", ["BCa", "percentile"])
@pytest.mark.parametrize("statistic", [np.mean, np.std])
def test_interval_agrees_with_scipy(method, statistic):
    values = skewed()
    own = bootstrap(values, statistic, resamples=8000, bias_corrected=method == "BCa")
    theirs = stats.bootstrap(
        (values,), statistic, n_resamples=8000, method=method, rng=np.random.default_rng(5)
    ).confidence_interval
    length = theirs.high - theirs.low
    assert own.low == pytest.approx(theirs.low, abs=0.04 * length)
    assert own.high == pytest.approx(theirs.high, abs=0.04 * length)


def test_bias_correction_moves_the_interval_of_a_skewed_sample_up():
    plain, corrected = (bootstrap(skewed(), mean, bias_corrected=flag) for flag in (False, True))
    assert corrected.low > plain.low
    assert corrected.high > plain.high


def test_ninety_five_percent_cover_the_true_mean():
    rng = np.random.default_rng(0)
    covered = 0
    for run in range(300):
        estimate = bootstrap(rng.normal(size=40), seed=run, resamples=300)
        covered += estimate.low <= 0 <= estimate.high
    assert 0.90 <= covered / 300 <= 0.985


def test_pairing_removes_what_both_samples_share():
    first = skewed()
    second = first + 0.1 + 0.01 * np.random.default_rng(2).normal(size=len(first))
    paired = bootstrap_difference(first, second)
    assert paired.value == pytest.approx(0.1, abs=0.005)
    assert paired.high - paired.low < 0.01
    alone = bootstrap(second)
    assert alone.high - alone.low > 0.2


def test_direction_is_second_minus_first():
    assert bootstrap_difference([0.0, 0.0], [1.0, 1.0]).value == 1.0


def test_same_seed_same_interval():
    assert bootstrap(skewed(), seed=3) == bootstrap(skewed(), seed=3)
    assert bootstrap(skewed(), seed=3) != bootstrap(skewed(), seed=4)


def test_one_value_has_an_interval_of_no_length():
    assert bootstrap([0.25]) == (0.25, 0.25, 0.25)


def test_a_median_beyond_the_largest_success_is_infinite():
    # 40 of 100 were not broken: the median is finite, its upper end is the largest success or infinite
    norms = np.r_[np.linspace(0.1, 1, 60), np.full(40, np.inf)]
    estimate = bootstrap(norms, median)
    assert np.isfinite(estimate.value)
    assert estimate.low < estimate.value < estimate.high
    assert bootstrap(np.r_[np.ones(49), np.full(51, np.inf)], median).value == np.inf
    assert np.isinf(bootstrap(np.r_[np.ones(48), np.full(52, np.inf)], median).high)


def test_infinite_medians_have_no_difference():
    with pytest.raises(OptionError, match="finite"):
        bootstrap_difference([np.inf, np.inf], [1.0, 1.0], median)


@pytest.mark.parametrize("values", [[], [[1.0]], [float("nan")]])
def test_values_that_no_statistic_has_are_refused(values):
    with pytest.raises(OptionError, match="one number per sample"):
        bootstrap(values)


def test_pairs_need_equal_lengths_and_resamples_are_counted():
    with pytest.raises(OptionError, match="same samples"):
        bootstrap_difference([1.0], [1.0, 2.0])
    with pytest.raises(OptionError, match="resamples"):
        bootstrap([1.0], resamples=0)
