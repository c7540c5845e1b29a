"""Grids worked out by hand, and the properties every grid must have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rctk_export.quantize.grid import (
    BIAS_LIMIT,
    MIN_SCALE,
    bias_codes,
    scales_that_hold,
    signed_grid,
    unsigned_grid,
    weight_codes,
    weight_scales,
)

REALS = st.floats(-1e4, 1e4, allow_nan=False)


def test_tiny_values_keep_all_their_codes():
    weight = np.array([[1e-9, -4e-10], [0.0, 0.0]], np.float32)
    scales = weight_scales(weight)
    assert scales[0] == pytest.approx(1e-9 / 127)
    assert weight_codes(weight, scales)[0].tolist() == [127, -51]  # 0.4 of 127 is 50.8
    assert signed_grid(-1e-9, 1e-9).scale == pytest.approx(1e-9 / 127)
    assert unsigned_grid(0.0, 1e-9).scale == pytest.approx(1e-9 / 255)


def test_signed_grid_reaches_the_larger_end():
    grid = signed_grid(-2.54, 1.0)
    assert grid.scale == np.float32(0.02)
    assert grid.zero.dtype == np.int8
    assert grid.zero == 0


def test_unsigned_grid_of_a_relu_has_zero_point_zero():
    grid = unsigned_grid(0.0, 2.55)
    assert grid.scale == np.float32(0.01)
    assert grid.zero == 0


def test_a_range_that_leaves_zero_out_is_widened_to_it():
    assert unsigned_grid(1.0, 2.55) == unsigned_grid(0.0, 2.55)
    assert unsigned_grid(-2.55, -1.0).zero == 255


def test_a_dead_tensor_keeps_a_positive_scale():
    assert signed_grid(0, 0).scale == np.float32(MIN_SCALE)
    assert unsigned_grid(0, 0).scale == np.float32(MIN_SCALE)


@given(REALS, REALS)
def test_zero_is_exactly_one_code_and_the_ends_are_within_half_a_step(a, b):
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    grid = unsigned_grid(low, high)
    scale, zero = float(grid.scale), int(grid.zero)
    assert 0 <= zero <= 255
    for end in (low, high):
        code = np.clip(np.rint(end / scale) + zero, 0, 255)
        assert abs((code - zero) * scale - end) <= scale * (0.5 + 1e-3) + 1e-6


def test_weight_codes_of_known_values():
    weight = np.array([[1.27, -0.635, 0.005], [0.0, 0.0, 0.0]], dtype=np.float32)
    scales = weight_scales(weight)
    assert scales.tolist() == [np.float32(0.01), np.float32(MIN_SCALE)]
    assert weight_codes(weight, scales).tolist() == [[127, -64, 0], [0, 0, 0]]  # -63.5 rounds to the even -64


def test_weight_scales_follow_the_axis():
    weight = np.array([[1.0, 2.0], [3.0, -4.0]], dtype=np.float32)
    assert weight_scales(weight, axis=1) == pytest.approx([3 / 127, 4 / 127])


def test_a_dead_channel_keeps_its_bias_in_int32():
    weight, bias = np.zeros((1, 4), dtype=np.float32), np.array([5.0], dtype=np.float32)
    activation = np.float32(1e-4)
    scales = scales_that_hold(weight_scales(weight), bias, activation)
    codes, grid = bias_codes(bias, scales, activation)
    assert abs(int(codes[0])) <= BIAS_LIMIT * 1.01
    assert codes[0] * float(grid[0]) == pytest.approx(5.0, rel=1e-6)


def test_an_ordinary_channel_keeps_its_scale():
    scales = np.array([0.01], dtype=np.float32)
    assert scales_that_hold(scales, np.array([1.0]), np.float32(0.02)) == scales
