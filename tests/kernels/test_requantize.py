import numpy as np

from rctk_kernels.linear import conv2d
from rctk_kernels.qparams import QParams, quantize
from rctk_kernels.requantize import add, requantize, rescale


def test_a_layer_worked_by_hand():
    x, w = QParams(0.5, zero=2, low=0, high=255), QParams([0.25, 0.5], axis=0)
    sums = conv2d(np.array([[[[6]]]]), np.array([3, -2]).reshape(2, 1, 1, 1), zero_x=2)  # (6-2)*3 and (6-2)*-2
    scale = (x.step * w.step).reshape(-1, 1, 1)  # 0.125 and 0.25
    assert rescale(sums, scale).ravel().tolist() == [1.5, -2.0]
    bias = np.array([0.25, 1.0]).reshape(-1, 1, 1)
    # 1.75 / 0.5 = 3.5 rounds to the even 4; -1 / 0.5 = -2; zero point 1
    assert requantize(sums, QParams(0.5, zero=1), scale=scale, bias=bias).ravel().tolist() == [5, -1]


def test_the_two_scales_meet_each_other_before_the_sums():
    scale_x, scale_w = np.float32(0.1), np.float32(0.3)
    sums = np.arange(-1000, 1000)
    q = QParams(float(scale_x) * float(scale_w) * 2)  # every odd sum lies half way between two codes
    in_order = requantize(sums, q, scale=float(scale_x) * float(scale_w))
    assert np.array_equal(in_order, quantize(sums * (float(scale_x) * float(scale_w)), q))


def test_a_sum_of_two_grids_is_exact():
    a, b = QParams(0.5), QParams(0.125, zero=-3)
    assert add(np.array([3, -1]), a, np.array([1, -3]), b).tolist() == [2.0, -0.5]
