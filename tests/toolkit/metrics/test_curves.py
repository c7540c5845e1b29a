"""Security curve, critical strength, mPC and mCE."""

import numpy as np
import pytest

from rctk.data.split import Split
from rctk.evaluation.curves import security_curves
from rctk.evaluation.subjects import Subject
from rctk.evaluation.suite import attack_subjects
from rctk.metrics.corruption_error import mean_corruption_error, mean_performance, relative_corruption_error
from rctk.metrics.critical import critical_strength
from rctk.metrics.curve import BUDGETS, curve_of_norms, security_curve
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError

YES = np.array([True, True, True, True])
NO = ~YES


def test_curve_starts_clean_and_falls():
    clean = np.array([True, True, True, False])
    curve = security_curve(clean, {0.2: NO, 0.1: np.array([True, False, True, False])})
    assert [(point.eps, point.accuracy) for point in curve.points] == [(0.0, 0.75), (0.1, 0.5), (0.2, 0.0)]
    assert curve.rise == 0
    assert curve.points[1].interval.low < 0.5 < curve.points[1].interval.high


def test_what_breaks_in_a_small_ball_breaks_in_a_large_one():
    curve = security_curve(YES, {0.1: np.array([False, False, True, True]), 0.2: np.array([True, False, False, True])})
    assert [point.accuracy for point in curve.points] == [1, 0.5, 0.25]
    assert curve.rise == 0
    assert security_curve(YES, {0.1: NO, 0.2: YES}).rise == 1


def test_norms_give_the_whole_curve():
    clean, broken = np.array([True, True, True, False]), np.array([True, True, False, True])
    curve = curve_of_norms(clean, broken, [0.1, 0.3, 0.2, 0.0], [0.05, 0.1, 0.3, 9.0])
    assert [point.accuracy for point in curve.points] == [0.75, 0.75, 0.5, 0.25, 0.25]


def test_measured_curve_of_a_threshold():
    def predict(images):
        above = images[:, 0, 0, 0] - np.float32(0.5)
        return np.stack([-above, above], axis=1)

    pixels = np.array([0.1, 0.3, 0.45, 0.8], dtype=np.float32).reshape(4, 1, 1, 1)
    split = Split(name="pixels:test", images=pixels, labels=np.array([0, 0, 0, 1]))
    attack = "square:queries=20"
    subjects = [Subject(name="threshold", predict=predict)]
    found = security_curves(
        lambda t: attack_subjects(subjects, split, [attack], t, seed=0, batch_size=4), ThreatModel(), [0.29, 0.06], 2
    )
    curve = found.curves["threshold"]
    assert [point.accuracy for point in curve.points] == [
        1,
        0.75,
        0.5,
    ]  # 0.29 reaches from 0.3 beyond 0.5, not from 0.8


def test_usual_budgets_rise():
    assert list(BUDGETS) == sorted(BUDGETS)
    assert BUDGETS[3] == 8 / 255


@pytest.mark.parametrize("robust", [{}, {0.0: YES}, {0.1: np.array([True])}])
def test_a_curve_needs_the_same_images_at_positive_budgets(robust):
    with pytest.raises(OptionError, match="same 4 images"):
        security_curve(YES, robust)


def test_a_measured_curve_needs_a_budget():
    with pytest.raises(OptionError, match="at least one budget"):
        security_curves(lambda t: None, ThreatModel(), [], 2)


def test_critical_strength_is_where_all_forms_meet_for_good():
    result = critical_strength(
        [0.0, 0.1, 0.2, 0.3, 0.4],
        [0.90, 0.60, 0.40, 0.20, 0.05],
        {"8": [0.90, 0.605, 0.40, 0.20, 0.05], "2": [0.80, 0.65, 0.40, 0.25, 0.06]},
        classes=10,
    )
    assert result.eps == 0.4  # form 2 meets at 0.2, parts at 0.3
    assert result.at_floor
    assert result.worse_below == {"8": 0.0, "2": 0.25}
    assert result.better_below == {"8": 0.0, "2": 0.5}


def test_curves_that_never_meet_have_none_and_equal_curves_meet_at_once():
    assert critical_strength([0, 1], [0.9, 0.9], {"2": [0.9, 0.5]}, classes=10).eps is None
    same = critical_strength([0, 1], [0.9, 0.5], {"8": [0.9, 0.5]}, classes=10)
    assert (same.eps, same.at_floor, same.better_below) == (0.0, False, {"8": 0.0})


def test_a_point_of_difference_is_still_none():
    assert critical_strength([0, 1], [0.91, 0.5], {"8": [0.90, 0.49]}, classes=10).eps == 0


@pytest.mark.parametrize(
    ("eps", "base", "forms"),
    [([0, 1], [0.5, 0.5], {}), ([0, 1], [0.5], {"8": [0.5, 0.5]}), ([1, 0], [0.5, 0.5], {"8": [0.5, 0.5]})],
)
def test_strengths_and_accuracies_belong_together(eps, base, forms):
    with pytest.raises(OptionError):
        critical_strength(eps, base, forms, classes=10)


OWN = {"fog": [0.9, 0.7], "snow": [0.6, 0.4]}
BASE = {"fog": [0.8, 0.6], "snow": [0.6, 0.4]}


def test_corruption_errors_by_hand():
    assert mean_performance(OWN) == pytest.approx(0.65)
    assert mean_corruption_error(OWN, BASE) == pytest.approx((0.4 / 0.6 + 1) / 2)
    assert mean_corruption_error(BASE, BASE) == 1
    # beyond clean errors of 0.05 and 0.1: fog (0.05 + 0.25) / (0.1 + 0.3), snow (0.35 + 0.55) / (0.3 + 0.5)
    assert relative_corruption_error(OWN, 0.95, BASE, 0.9) == pytest.approx((0.75 + 1.125) / 2)


def test_types_weigh_alike_whatever_their_severities():
    assert mean_performance({"fog": [1.0], "snow": [0.0, 0.0, 0.0]}) == 0.5


def test_errors_need_the_same_types_and_a_baseline_that_errs():
    with pytest.raises(OptionError, match="same types"):
        mean_corruption_error(OWN, {"fog": [0.8, 0.6]})
    with pytest.raises(OptionError, match="loses nothing on fog"):
        mean_corruption_error(OWN, {**BASE, "fog": [1.0, 1.0]})
    with pytest.raises(OptionError, match="at least one type"):
        mean_performance({})
