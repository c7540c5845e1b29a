import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rctk.statistics import non_inferiority, tango_lower, tango_upper
from rctk.statistics.non_inferiority import samples_to_decide
from rctk_kernels.errors import OptionError


def outcome_shares(lost, won, n, margin, draws=20_000, seed=0):
    """Simulate comparisons with the given chances of float-only and engine-only and count their outcomes."""
    rng = np.random.default_rng(seed)
    tables, counts = np.unique(rng.multinomial(n, [lost, won, 1 - lost - won], size=draws), axis=0, return_counts=True)
    shares = {"holds": 0.0, "does not hold": 0.0, "not enough samples": 0.0}
    for (b, c, _), count in zip(tables.tolist(), counts.tolist(), strict=True):
        shares[non_inferiority(b, c, n, margin).outcome] += count / draws
    return shares


def test_identical_answers_on_fifty_samples_do_not_decide_two_points():
    verdict = non_inferiority(0, 0, 50, 0.02)
    assert verdict.outcome == "not enough samples"
    assert verdict.lower < -0.02
    assert verdict.samples_to_decide == 152
    assert verdict.samples_if_equal == 152


@pytest.mark.parametrize(
    ("b", "c", "n", "outcome"),
    [
        (0, 0, 132, "not enough samples"),  # z^2 / (n + z^2) = 0.02 at n = 132.6
        (0, 0, 133, "holds"),
        (5, 5, 500, "holds"),
        (30, 5, 500, "does not hold"),  # 5 points lost, upper bound -3.2
        (9, 2, 200, "not enough samples"),  # 3.5 points lost, yet perhaps only 0.7
    ],
)
def test_outcomes_of_known_tables(b, c, n, outcome):
    verdict = non_inferiority(b, c, n, 0.02)
    assert verdict.outcome == outcome
    assert (verdict.lower, verdict.upper) == (tango_lower(b, c, n), tango_upper(b, c, n))
    assert (verdict.samples_to_decide is None) == (outcome != "not enough samples")


@pytest.mark.parametrize(("lost", "won", "n"), [(0.06, 0.04, 500), (0.04, 0.02, 1000), (0.03, 0.01, 300)])
def test_an_engine_that_loses_exactly_the_margin_rarely_passes_and_rarely_fails(lost, won, n):
    shares = outcome_shares(lost, won, n, margin=0.02)
    # nominal 5 %, discrete counts keep it a little lower or higher; 20,000 draws give a standard error of 0.15 points
    assert 0.03 < shares["holds"] < 0.06
    assert 0.03 < shares["does not hold"] < 0.065


def test_the_stated_count_decides_with_eighty_percent_chance():
    n = samples_to_decide(10, 10, 400, 0.02, 0.0)
    assert n == pytest.approx((1.645 + 0.842) ** 2 * 0.05 / 0.02**2, rel=0.03)  # the published 773
    assert outcome_shares(0.025, 0.025, n, margin=0.02, draws=4000)["holds"] == pytest.approx(0.8, abs=0.04)


def test_the_stated_count_also_decides_against_a_bad_engine():
    verdict = non_inferiority(9, 2, 200, 0.02)
    assert verdict.samples_to_decide == pytest.approx(6.183 * (11.5 / 201 - 0.035**2) / 0.015**2, rel=1e-3)
    shares = outcome_shares(0.045, 0.01, verdict.samples_to_decide, margin=0.02, draws=4000)
    assert shares["does not hold"] == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize(("lost_points", "count"), [(0.0, 773), (0.5, 1374)])
def test_counts_of_the_published_table_at_five_percent_discordance(lost_points, count):
    n = samples_to_decide(50, 50, 700, 0.02, -lost_points / 100)
    exact = 6.183 * (100.5 / 701 - (lost_points / 100) ** 2) / (0.02 - lost_points / 100) ** 2
    assert n == pytest.approx(exact, rel=1e-3)
    assert n == pytest.approx(count * (100 / 700) / 0.05, rel=0.01)


def test_a_drop_on_the_margin_states_only_what_an_equal_engine_needs():
    verdict = non_inferiority(1, 0, 50, 0.02)
    assert verdict.samples_to_decide is None
    assert verdict.samples_if_equal == 455


def test_a_margin_of_zero_asks_for_an_engine_that_is_better():
    assert non_inferiority(0, 30, 500, 0.0).outcome == "holds"
    verdict = non_inferiority(0, 0, 500, 0.0)
    assert (verdict.outcome, verdict.samples_to_decide, verdict.samples_if_equal) == ("not enough samples", None, None)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 1000), st.floats(0, 0.3))
def test_a_stated_count_is_larger_than_what_was_there(b, c, rest, margin):
    n = b + c + rest
    verdict = non_inferiority(b, c, n, margin)
    for count in (verdict.samples_to_decide, verdict.samples_if_equal):
        assert count is None or n < count <= 1_000_000


@pytest.mark.parametrize(("margin", "hint"), [(2, "write 0.02 for 2 points"), (-0.1, "share"), (float("nan"), "share")])
def test_a_margin_that_is_no_share_is_refused(margin, hint):
    with pytest.raises(OptionError, match=hint):
        non_inferiority(0, 0, 100, margin)
