import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rctk_kernels.pooling import average_pool, max_pool
from rctk_kernels.windows import Window


def test_padding_never_wins_a_maximum():
    x = np.array([[[[-5, -7]]]], dtype=np.int8)
    assert max_pool(x, Window(size=(3, 3), padding=(1, 1, 1, 1))).tolist() == [[[[-5, -5]]]]
    assert max_pool(x.astype(np.float64), Window(size=(1, 2))).tolist() == [[[[-5.0]]]]


def test_sums_of_unsigned_codes_may_be_negative():
    x = np.array([[[[1, 2]]]], dtype=np.uint8)
    sums, counts = average_pool(x, Window(size=(1, 2)), zero=10)
    assert (sums.item(), counts.item()) == (-17, 2)


def test_padding_counts_only_on_request():
    x, window = np.ones((1, 1, 1, 2), dtype=np.int8), Window(size=(1, 2), padding=(0, 1, 0, 1))
    assert average_pool(x, window).counts.tolist() == [[1, 2, 1]]
    assert average_pool(x, window, count_padding=True).counts.tolist() == [[2, 2, 2]]


WINDOWS = st.builds(
    Window,
    size=st.tuples(st.integers(2, 3), st.integers(2, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 1), st.integers(0, 1)).map(lambda p: (*p, *p)),
    ceil=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(window=WINDOWS, count_padding=st.booleans())
def test_pooling_equals_torch(window, count_padding):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).integers(-128, 128, (2, 3, 8, 7), dtype=np.int8)
    tensor, pads = torch.tensor(x, dtype=torch.float64), window.padding[:2]
    theirs = torch.nn.functional.max_pool2d(tensor, window.size, window.stride, pads, ceil_mode=window.ceil)
    assert np.array_equal(max_pool(x, window), theirs.numpy())
    theirs = torch.nn.functional.avg_pool2d(tensor - 3, window.size, window.stride, pads, window.ceil, count_padding)
    sums, counts = average_pool(x, window, zero=3, count_padding=count_padding)
    np.testing.assert_allclose(sums / counts, theirs.numpy(), rtol=1e-14)


def test_dilated_maxima_equal_torch():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).integers(0, 256, (1, 2, 9, 9), dtype=np.uint8)
    theirs = torch.nn.functional.max_pool2d(torch.tensor(x, dtype=torch.float64), 3, 2, 1, 2)
    window = Window(size=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1), dilation=(2, 2))
    assert np.array_equal(max_pool(x, window), theirs.numpy())


def test_a_window_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        Window(size=(3, 3)).positions(2, 8)
