import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rctk_kernels.errors import QuantizationError
from rctk_kernels.qparams import QParams, dequantize, quantize

SCALES = st.floats(min_value=2.0**-40, max_value=2.0**20, width=32)
GRIDS = st.builds(QParams, scale=SCALES, zero=st.integers(-128, 127))
REALS = hnp.arrays(np.float32, st.integers(1, 20), elements=st.floats(-(2.0**30), 2.0**30, width=32))


def test_codes_of_known_values():
    q = QParams(scale=0.5, zero=3)
    x = np.array([-100, -0.25, 0, 0.25, 0.75, 100], dtype=np.float32)
    # -0.25 / 0.5 = -0.5 and 0.25 / 0.5 = 0.5 round to the even 0; 1.5 rounds to 2
    assert quantize(x, q).tolist() == [-128, 3, 3, 3, 5, 127]


def test_the_quotient_is_rounded_before_the_zero_point_is_added():
    # 0.5 rounds to 0, then 3 is added; 3.5 would have become 4
    assert quantize(np.array([0.5]), QParams(1.0, zero=3)).tolist() == [3]


def test_the_division_happens_in_float64():
    # float32(0.1) is a little more than 0.1, so 0.35 / float32(0.1) is a little less than 3.5
    assert quantize(np.array([0.35]), QParams(0.1)).tolist() == [3]


def test_infinite_values_take_the_last_code_and_nan_is_refused():
    q = QParams(1.0, low=-127)
    assert quantize(np.array([np.inf, -np.inf]), q).tolist() == [127, -127]
    with pytest.raises(QuantizationError, match="cannot quantize NaN"):
        quantize(np.array([np.nan]), q)


def test_scales_and_zero_points_vary_along_their_axis():
    q = QParams(scale=[1.0, 0.5], zero=[0, 10], axis=1)
    x = np.ones((1, 2, 1, 1), dtype=np.float32)
    codes = quantize(x, q)
    assert codes.ravel().tolist() == [1, 12]
    assert dequantize(codes, q).ravel().tolist() == [1.0, 1.0]


def test_the_real_value_of_a_code_is_exact_in_float64():
    scale = np.float32(0.1)
    assert dequantize(np.array([7], dtype=np.int8), QParams(scale, zero=-3)).item() == 10 * float(scale)


@given(GRIDS, st.integers(-128, 127))
def test_a_code_survives_the_way_through_its_real_value(q, code):
    assert quantize(dequantize(np.array([code]), q), q).item() == code


@given(GRIDS, REALS)
def test_rounding_moves_a_value_by_half_a_step_at_most(q, x):
    codes = quantize(x, q)
    inside = (codes > q.low) & (codes < q.high)
    error = np.abs(dequantize(codes, q) - x)[inside]
    assert (error <= 0.5 * q.step * (1 + 1e-12)).all()
    assert ((codes >= -128) & (codes <= 127)).all()


@given(GRIDS, REALS)
def test_a_larger_value_never_has_a_smaller_code(q, x):
    assert (np.diff(quantize(np.sort(x), q)) >= 0).all()


@given(GRIDS)
def test_real_zero_is_exactly_the_zero_point(q):
    assert quantize(np.zeros(1), q).item() == q.origin
    assert dequantize(q.origin, q) == 0.0


def test_grids_with_the_same_numbers_are_equal_and_hash_alike():
    a, b = QParams([0.5, 1.0], axis=0), QParams(np.array([0.5, 1.0]), zero=[0, 0], axis=0)
    assert a == b
    assert hash(a) == hash(b)
    assert a != QParams([0.5, 1.0], axis=1)
    assert a != QParams([0.5, 1.0], zero=[0, 1], axis=0)
    assert a != "grid"


def test_a_grid_cannot_be_changed_through_its_arrays():
    scale = np.array([0.5, 1.0], dtype=np.float32)
    q = QParams(scale, axis=0)
    scale[0] = 7
    assert q.step.tolist() == [0.5, 1.0]
    with pytest.raises(ValueError, match="read-only"):
        q.scale[0] = 7


def test_a_single_scale_in_a_vector_is_one_grid_for_the_tensor():
    assert QParams([0.5], zero=[1], axis=0) == QParams(0.5, zero=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": 0.0}, "positive and finite"),
        ({"scale": -1.0}, "positive and finite"),
        ({"scale": np.nan}, "positive and finite"),
        ({"scale": [1.0, 2.0]}, "need the axis"),
        ({"scale": [1.0, 2.0], "zero": [1, 2, 3], "axis": 0}, "equally long"),
        ({"scale": 1.0, "zero": 128}, "zero point 128 must lie"),
        ({"scale": 1.0, "low": 3, "high": 3}, "range of codes"),
    ],
)
def test_nonsense_is_refused(settings, message):
    with pytest.raises(QuantizationError, match=message):
        QParams(**settings)


def test_an_axis_that_the_tensor_lacks_is_named():
    with pytest.raises(QuantizationError, match="axis 2 does not exist"):
        quantize(np.zeros((2, 2)), QParams([1.0, 2.0], axis=2))
