from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rctk.statistics import non_inferiority
from rctk.statistics.holm import Counts, correct_gates, holm, non_inferiority_p
from rctk_kernels.errors import OptionError


def test_adjusted_values_of_a_worked_example():
    # sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, then 0.04 x 1 may not fall below 0.06; order of the input is kept
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_one_value_stays_and_none_gives_none():
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_adjusting_keeps_order_and_never_lowers(p_values):
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    by_p = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert all(adjusted[i] <= adjusted[j] for i, j in pairwise(by_p))


def test_five_true_hypotheses_are_rejected_together_in_five_percent():
    rng = np.random.default_rng(0)
    wrong = np.mean([min(holm(rng.random(5).tolist())) < 0.05 for _ in range(4000)])
    assert abs(wrong - 0.05) < 0.012  # three standard errors of 4000 runs


def test_no_p_value_lies_outside_0_and_1():
    with pytest.raises(OptionError, match="p-value"):
        holm([0.1, 1.2])


@given(
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(1, 400),
    st.sampled_from([0.0, 0.01, 0.02, 0.1]),
)
def test_p_value_and_gate_say_the_same(b, c, extra, margin):
    n = b + c + extra
    p = non_inferiority_p(b, c, n, margin)
    if abs(p - 0.05) > 1e-9:
        assert (p < 0.05) == (non_inferiority(b, c, n, margin).outcome == "holds")
    if abs(p - 0.95) > 1e-9:
        assert (p > 0.95) == (non_inferiority(b, c, n, margin).outcome == "does not hold")


def test_a_gate_that_holds_alone_may_not_hold_among_twenty():
    alone = correct_gates({"only": Counts(3, 3, 260)}, 0.02)
    many = correct_gates({str(i): Counts(3, 3, 260) for i in range(20)}, 0.02)
    assert 0.001 < alone["only"].p_holds < 0.05
    assert alone["only"].outcome == "holds"
    assert many["0"].outcome == "not enough samples"
    assert many["0"].p_holds == pytest.approx(20 * alone["only"].p_holds)


def test_outcomes_of_clear_tables():
    gates = correct_gates({"same": Counts(0, 0, 1000), "lost": Counts(90, 5, 1000), "few": Counts(0, 0, 50)}, 0.02)
    assert [gate.outcome for gate in gates.values()] == ["holds", "does not hold", "not enough samples"]


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_an_error_rate_lies_between_0_and_1(alpha):
    with pytest.raises(OptionError, match="alpha"):
        correct_gates({"a": Counts(0, 0, 10)}, 0.02, alpha)
