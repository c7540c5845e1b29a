import json
import subprocess
import sys

import numpy as np
import pytest

from rctk.gate import compare_paired
from rctk.statistics import non_inferiority, paired_difference, wilson
from rctk_kernels.errors import DataError, OptionError


def flags(*runs):
    """Flags from runs of (count, value), such as (90, True), (10, False)."""
    return np.concatenate([np.full(count, value, dtype=bool) for count, value in runs])


def compared(lost_clean=0, lost_robust=0, n=1000, max_drop=0.02, float_robust=600):
    """Float: 900 of 1000 clean; the engine loses the first ``lost`` samples of each kind."""
    float_clean, robust = (
        flags((9 * n // 10, True), (n // 10, False)),
        flags((float_robust, True), (n - float_robust, 0)),
    )
    engine_clean, engine_robust = float_clean.copy(), robust.copy()
    engine_robust[:lost_robust] = False
    engine_clean[float_robust : float_robust + lost_clean] = False  # samples that no attack survives anyway
    return compare_paired(float_clean, robust, engine_clean, engine_robust, max_drop=max_drop)


def test_numbers_are_those_of_the_statistics():
    result = compared(lost_clean=12, lost_robust=30)
    assert (result.samples, result.clean.float_accuracy, result.clean.engine_accuracy) == (1000, 0.9, 0.888)
    assert (result.robust.float_accuracy, result.robust.engine_accuracy) == (0.6, 0.57)
    assert result.clean.float_interval == wilson(900, 1000)
    assert result.robust.engine_interval == wilson(570, 1000)
    assert (result.robust.paired.float_only, result.robust.paired.engine_only) == (30, 0)
    assert result.robust.verdict == non_inferiority(30, 0, 1000, 0.02)
    flags_ = flags((900, True), (100, False)), flags((600, True), (12, False), (288, True), (100, False))
    assert result.clean.paired == paired_difference(*flags_)


@pytest.mark.parametrize(
    ("lost_clean", "lost_robust", "outcome", "exit_code"),
    [
        (0, 0, "holds", 0),
        (12, 0, "holds", 0),
        (20, 0, "not enough samples", 3),
        (0, 20, "not enough samples", 3),
        (40, 0, "does not hold", 1),
        (0, 40, "does not hold", 1),
        (20, 40, "does not hold", 1),  # the worse of the two speaks
        (40, 20, "does not hold", 1),
    ],
)
def test_the_worse_gate_decides(lost_clean, lost_robust, outcome, exit_code):
    result = compared(lost_clean, lost_robust)
    assert (result.outcome, result.exit_code) == (outcome, exit_code)


def test_fifty_identical_answers_do_not_decide():
    assert compared(n=50, float_robust=30).exit_code == 3


def test_an_engine_that_loses_exactly_the_margin_in_one_gate_passes_both_rarely():
    rng = np.random.default_rng(0)
    passed = 0
    for _ in range(300):
        kind = rng.choice(
            3, size=500, p=[0.52, 0.06, 0.42]
        )  # 0 both robust, 1 only float, 2 neither; 4 points won back
        robust, engine_robust = kind <= 1, (kind == 0) | ((kind == 2) & (rng.random(500) < 0.04 / 0.42))
        everything = np.ones(500, dtype=bool)
        passed += compare_paired(everything, robust, everything, engine_robust, max_drop=0.02).exit_code == 0
    assert passed <= 30  # 5 % of 300 is 15; 30 has a chance of 2e-4


def test_a_gate_that_no_engine_could_fail_says_so():
    result = compared(float_robust=20)
    assert result.robust.note == (
        "note: float robust accuracy is 2.0 %, not above the allowed drop of 2 points: "
        "no engine could fail the robust gate"
    )
    assert compared(float_robust=21).robust.note == ""


def test_the_dictionary_is_plain_json_and_complete():
    result = compared(20, 3)
    values = result.as_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert {key: values[key] for key in ("samples", "max_drop", "outcome", "exit_code")} == {
        "samples": 1000,
        "max_drop": 0.02,
        "outcome": "not enough samples",
        "exit_code": 3,
    }
    clean = values["clean"]
    assert (clean["float_only"], clean["engine_only"], clean["both"], clean["difference"]) == (20, 0, 880, -0.02)
    assert clean["lower_bound"] < clean["difference"] < clean["upper_bound"]
    assert clean["samples_if_equal"] > 1000
    assert clean["mcnemar_p"] == 2**-19


def test_a_sample_that_is_robust_but_wrong_when_clean_is_refused():
    right, wrong = flags((10, True)), flags((8, True), (2, False))
    with pytest.raises(DataError, match="2 samples count as robust for engine"):
        compare_paired(right, right, wrong, right, max_drop=0.02)


def test_results_on_different_samples_are_refused():
    ten, nine = flags((10, True)), flags((9, True))
    with pytest.raises(OptionError, match="got 10 and 9"):
        compare_paired(ten, ten, nine, nine, max_drop=0.02)


def test_a_margin_in_points_is_refused_with_the_share():
    with pytest.raises(OptionError, match=r"write 0\.02"):
        compared(max_drop=2)


def test_the_gate_its_records_and_its_words_run_on_a_device():
    code = """
import sys
import rctk.gate, rctk.records, rctk.statistics, rctk.report
heavy = {"torch", "onnx", "scipy", "matplotlib", "seaborn", "pandas", "sklearn"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_labels_that_belong_to_other_images_pass_no_gate():
    """With hardly an image right, every difference is small, and no engine could be worse than allowed."""
    few = np.arange(200) < 3
    with pytest.raises(DataError, match="gets 3 of 200 clean images right, so no engine could lose more than"):
        compare_paired(few, few, few, few, max_drop=0.02)
    assert compare_paired(few, few, few, few, max_drop=0.01).samples == 200
