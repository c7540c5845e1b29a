import numpy as np
import pytest

from rctk.metrics.relative import relative_robustness, transfer_rate
from rctk_kernels.errors import OptionError


def flags(text):
    return np.array([letter == "1" for letter in text])


def test_three_readings_of_relative_robustness():
    float_clean, float_robust = flags("11111100"), flags("11110000")
    engine_clean, engine_robust = flags("01111110"), flags("01100010")
    result = relative_robustness(float_clean, float_robust, engine_clean, engine_robust)
    assert result.set_form == 0.5  # 2 of the 4 that float survives
    assert result.ratio == 0.75  # 3 against 4
    assert result.on_common == pytest.approx(2 / 3)  # images 1 to 5: 2 against 3


def test_identical_forms_keep_everything():
    clean, robust = flags("1110"), flags("1100")
    assert relative_robustness(clean, robust, clean, robust) == (1.0, 1.0, 1.0)


def test_nothing_to_keep_has_no_value():
    clean, none = flags("111"), flags("000")
    assert relative_robustness(clean, none, clean, clean) == (None, None, None)


def test_transfer_counts_examples_that_both_classify_when_clean():
    source_clean, source_robust = flags("11111"), flags("00001")
    target_clean, target_robust = flags("11101"), flags("01000")
    result = transfer_rate(source_clean, source_robust, target_clean, target_robust)
    # examples 0, 1, 2 (3 is wrong on the target as it is, 4 was not broken); the target falls for 0 and 2
    assert (result.examples, result.fooled) == (3, 2)
    assert result.rate == pytest.approx(2 / 3)
    assert result.interval.low < 2 / 3 < result.interval.high
    assert result.efficiency is None


def test_transfer_is_not_symmetric():
    clean = flags("1111")
    on_float, on_engine = flags("0011"), flags("0111")  # candidates made on float break float twice, the engine once
    assert transfer_rate(clean, on_float, clean, on_engine).rate == 0.5
    assert transfer_rate(clean, on_engine, clean, on_float).rate == 1.0


def test_efficiency_is_the_cost_of_transfer_over_that_of_attacking():
    clean = flags("11111111")
    result = transfer_rate(clean, flags("00000000"), clean, flags("00011111"), flags("00001111"))
    assert result.efficiency == 0.75
    assert transfer_rate(clean, flags("00000000"), clean, flags("00011111"), clean).efficiency is None


def test_no_example_has_no_rate():
    clean = flags("11")
    result = transfer_rate(clean, clean, clean, clean)
    assert (result.examples, result.rate) == (0, None)
    assert result.interval == (0.0, 1.0)


def test_other_images_are_refused():
    with pytest.raises(OptionError, match="same images"):
        transfer_rate(flags("11"), flags("11"), flags("111"), flags("111"))
    with pytest.raises(OptionError, match="bool"):
        relative_robustness(flags("11"), flags("11"), flags("11"), np.array([1, 0]))
