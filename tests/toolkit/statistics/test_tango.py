import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from rctk.statistics import tango_interval, tango_lower, tango_upper
from rctk.statistics.tango import most_likely_loss, score
from rctk_kernels.errors import OptionError

TABLES = [
    (0, 0, 20),
    (1, 0, 20),
    (0, 1, 20),
    (6, 2, 50),
    (14, 1, 32),
    (3, 9, 200),
    (25, 25, 50),
    (20, 0, 20),
    (0, 20, 20),
]


def log_likelihood(q, d, b, c, n):
    """Multinomial log likelihood of a table where ``q`` is P(float only) and ``q + d`` is P(engine only)."""
    total = 0.0
    for count, chance in ((b, q), (c, q + d), (n - b - c, 1 - 2 * q - d)):
        if count:
            total += count * np.log(max(chance, 1e-300))
    return total


@pytest.mark.parametrize(("n", "points"), [(500, -0.54), (200, -1.33)])
def test_identical_answers_give_the_published_bounds(n, points):
    assert round(100 * tango_lower(0, 0, n), 2) == points


@given(st.integers(1, 20_000), st.sampled_from([0.01, 0.05, 0.2]))
def test_identical_answers_have_a_closed_form(n, alpha):
    z2 = norm.isf(alpha) ** 2  # score n d / sqrt(n d (1 - d)) = z
    assert tango_lower(0, 0, n, alpha) == pytest.approx(-z2 / (n + z2), abs=1e-12)


@pytest.mark.parametrize(("b", "c", "n"), TABLES)
@pytest.mark.parametrize("d", [-0.7, -0.2, -0.02, 0.0, 0.05, 0.3, 0.9])
def test_the_constrained_estimate_has_the_largest_likelihood(b, c, n, d):
    low, high = max(0.0, -d), (1 - d) / 2  # every chance of the table is in [0, 1]
    q = most_likely_loss(d, b, c, n)
    assert low - 1e-12 <= q <= high + 1e-12
    grid = np.linspace(low, high, 4001)
    best = grid[np.argmax([log_likelihood(value, d, b, c, n) for value in grid])]
    found = minimize_scalar(
        lambda value: -log_likelihood(value, d, b, c, n),
        bounds=(max(low, best - 1e-3), min(high, best + 1e-3)),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert log_likelihood(min(max(q, low), high), d, b, c, n) >= -found.fun - 1e-7


@pytest.mark.parametrize(("b", "c", "n"), TABLES)
@pytest.mark.parametrize("alpha", [0.025, 0.05])
def test_the_bounds_are_where_a_grid_of_score_tests_starts_to_accept(b, c, n, alpha):
    grid = np.linspace(-1, 1, 4001)
    accepted = grid[[abs(score(d, b, c, n)) <= norm.isf(alpha) for d in grid]]
    ends = [*accepted, (c - b) / n]  # the acceptance region can be narrower than the grid at the very ends
    assert tango_lower(b, c, n, alpha) == pytest.approx(min(ends), abs=5.1e-4)
    assert tango_upper(b, c, n, alpha) == pytest.approx(max(ends), abs=5.1e-4)


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 2000))
def test_bounds_enclose_the_estimate_and_mirror_each_other(b, c, rest):
    n = b + c + rest
    assume(n > 0)
    low, high = tango_interval(b, c, n)
    assert -1 <= low <= (c - b) / n <= high <= 1
    assert tango_interval(c, b, n) == (-high, -low)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 500))
def test_one_more_loss_lowers_the_bound(b, c, rest):
    n = b + c + rest
    assert tango_lower(b + 1, c, n) < tango_lower(b, c, n)


def test_more_samples_of_the_same_kind_narrow_the_interval():
    widths = [high - low for low, high in (tango_interval(5 * k, 3 * k, 100 * k) for k in (1, 4, 16))]
    assert widths[0] > 1.9 * widths[1] > 3.6 * widths[2]


@pytest.mark.parametrize(("b", "c", "n"), [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_impossible_counts_are_refused(b, c, n):
    with pytest.raises(OptionError, match=r"sample|counts"):
        tango_lower(b, c, n)
