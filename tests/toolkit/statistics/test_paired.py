import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from rctk.statistics import mcnemar_exact, paired_difference, tango_interval
from rctk_kernels.errors import OptionError


def flags(text):
    return np.array([letter == "1" for letter in text], dtype=bool)


def test_counts_of_a_worked_table():
    paired = paired_difference(flags("11110000"), flags("11001000"))
    assert (paired.n, paired.both, paired.float_only, paired.engine_only) == (8, 2, 2, 1)
    assert paired.difference == -1 / 8
    assert (paired.low, paired.high) == tango_interval(2, 1, 8)
    assert paired.p_value == 1.0


def test_an_engine_that_gets_more_right_has_a_positive_difference():
    assert paired_difference(flags("10"), flags("11")).difference == 0.5


@pytest.mark.parametrize(("b", "c"), [(6, 0), (8, 1), (10, 2), (15, 5)])
def test_the_published_counts_are_the_first_significant_ones(b, c):
    # 10:2 gives 0.0386 and 9:2 gives 0.0654; 15:5 gives 0.0414 and 14:5 gives 0.0636
    assert mcnemar_exact(b, c) < 0.05 < mcnemar_exact(b - 1, c)


@given(st.integers(0, 400), st.integers(0, 400))
def test_p_equals_scipys_binomial_test(b, c):
    expected = binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_exact(b, c) == mcnemar_exact(c, b)


def test_p_of_many_discordant_samples_is_a_small_positive_number():
    assert 0 < mcnemar_exact(3000, 2000) < 1e-40


@pytest.mark.parametrize(
    ("float_ok", "engine_ok", "message"),
    [
        (flags("11"), flags("111"), "got 2 and 3"),
        (flags(""), flags(""), "at least 1 sample"),
        (np.ones(2), flags("11"), "float results must be a bool array"),
        (flags("11"), np.ones((2, 1), dtype=bool), "engine results must be a bool array"),
    ],
)
def test_results_that_are_not_paired_are_refused(float_ok, engine_ok, message):
    with pytest.raises(OptionError, match=message):
        paired_difference(float_ok, engine_ok)


def test_negative_counts_are_refused():
    with pytest.raises(OptionError, match="negative"):
        mcnemar_exact(-1, 3)
