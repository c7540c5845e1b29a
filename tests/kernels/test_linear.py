import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rctk_kernels.errors import QuantizationError
from rctk_kernels.linear import conv2d, matmul


def test_a_1x1_convolution_worked_by_hand():
    x = np.array([[[[3, 5]], [[1, 2]]]], dtype=np.uint8)  # two channels of 1 x 2 pixels
    w = np.array([[[[2]], [[-1]]]], dtype=np.int8)
    # (3-1)*2 + (1-1)*-1 = 4 and (5-1)*2 + (2-1)*-1 = 7
    assert conv2d(x, w, zero_x=1).tolist() == [[[[4, 7]]]]


def test_padding_holds_the_zero_point_and_so_adds_nothing():
    x = np.full((1, 1, 1, 1), 130, dtype=np.uint8)
    w = np.arange(9, dtype=np.int8).reshape(1, 1, 3, 3)
    sums = conv2d(x, w, padding=(1, 1, 1, 1), zero_x=128)
    assert sums.tolist() == [[[[2 * 4]]]]  # only the middle tap sees a pixel


def test_padding_is_top_left_bottom_right():
    x, w = np.array([[[[7]]]]), np.ones((1, 1, 1, 1))
    sums = conv2d(x, w.astype(np.int8), padding=(0, 1, 2, 3))
    assert sums.shape == (1, 1, 3, 5)
    assert sums[0, 0, 0].tolist() == [0, 7, 0, 0, 0]


def test_each_output_channel_has_its_own_zero_point():
    x, w = np.array([[[[2]]]]), np.array([5, 5]).reshape(2, 1, 1, 1)
    assert conv2d(x, w, zero_w=[0, 4]).ravel().tolist() == [10, 2]


@settings(max_examples=60, deadline=None)
@given(
    groups=st.sampled_from([1, 2, 4]),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
    seed=st.integers(0, 99),
)
def test_convolution_equals_torch_in_float64(groups, kernel, stride, dilation, padding, seed):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (2, 4, 9, 8), dtype=np.uint8)
    w = rng.integers(-128, 128, (8, 4 // groups, *kernel), dtype=np.int8)
    zero_x, zero_w = int(rng.integers(0, 256)), rng.integers(-5, 6, 8)
    ours = conv2d(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups, zero_x=zero_x, zero_w=zero_w)
    top, left, bottom, right = padding
    real_x = torch.nn.functional.pad(torch.tensor(x, dtype=torch.float64) - zero_x, (left, right, top, bottom))
    real_w = torch.tensor(w, dtype=torch.float64) - torch.tensor(zero_w).view(-1, 1, 1, 1)
    theirs = torch.nn.functional.conv2d(real_x, real_w, stride=stride, dilation=dilation, groups=groups)
    assert ours.dtype == np.int64
    assert np.array_equal(ours, theirs.numpy())


def test_matrix_product_equals_integer_arithmetic():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (3, 5, 7), dtype=np.uint8), rng.integers(-128, 128, (7, 4), dtype=np.int8)
    zero_b = np.array([1, 2, 3, 4])
    exact = np.matmul(a.astype(np.int64) - 9, b.astype(np.int64) - zero_b)
    assert np.array_equal(matmul(a, b, zero_a=9, zero_b=zero_b), exact)


def test_large_sums_are_exact_up_to_the_limit_and_refused_beyond():
    big = np.array([[2**26 - 1]])
    assert matmul(big, big).item() == (2**26 - 1) ** 2
    with pytest.raises(QuantizationError, match="2\\*\\*53"):
        matmul(big + 1, big + 2**26 + 1)


def test_no_images_give_no_sums():
    assert conv2d(np.zeros((0, 1, 4, 4), dtype=np.uint8), np.ones((2, 1, 3, 3), dtype=np.int8)).shape == (0, 2, 2, 2)
