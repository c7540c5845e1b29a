from pathlib import Path

import numpy as np
import pytest

from rctk.data.source import array_source, check_unpacked, unit_images
from rctk_kernels.errors import DataError

HERE = Path("set.npz")
LABELS = np.array([0, 1])


def images(*values, dtype=np.float32):
    return np.array(values, dtype=dtype).reshape(2, 1, 1, -1)


def test_every_byte_becomes_its_share_of_255_in_float32():
    codes = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    expected = (np.arange(256) / 255).astype(np.float32).reshape(1, 1, 16, 16)
    np.testing.assert_array_equal(unit_images(codes), expected)
    np.testing.assert_array_equal(np.rint(unit_images(codes) * 255).astype(np.uint8), codes)


def test_transposed_bytes_and_doubles_become_contiguous_float32():
    codes = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3).transpose(0, 3, 1, 2)
    for pixels in (codes, codes / 255.0):
        out = unit_images(pixels)
        assert out.dtype == np.float32
        assert out.flags.c_contiguous
        np.testing.assert_array_equal(out, (codes / 255.0).astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_in_range_pass_unchanged(dtype):
    source = array_source(HERE, images(0, 0.25, 0.5, 1, dtype=dtype), LABELS)
    np.testing.assert_array_equal(unit_images(source.load(np.array([1]))).ravel(), [0.5, 1])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0, 0.5, 1, 255), r"in \[0, 255\], expected \[0, 1\]"),
        ((-2.1, 0, 0, 2.6), r"in \[-2.1, 2.6\].*--mean, --std"),
        ((0, 0, 0.5, np.nan), "image 1 holds NaN"),
        ((np.inf, 0, 0, 0), r"in \[0, inf\]"),
    ],
)
def test_values_outside_the_range_are_refused_with_the_range_found(values, words):
    with pytest.raises(DataError, match=words):
        array_source(HERE, images(*values), LABELS)


@pytest.mark.parametrize("dtype", [np.int64, np.int16, bool, np.complex64, "U1"])
def test_other_kinds_of_numbers_are_refused_by_name(dtype):
    with pytest.raises(DataError, match=f"images are {np.dtype(dtype)}; write uint8"):
        array_source(HERE, images(0, 1, 0, 1, dtype=dtype), LABELS)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0.0, 1.0], "float64"),
        ([[1, 0], [0, 1]], r"shape \(2, 2\)"),
        (["cat", "dog"], "<U3"),
        ([0, -1], "label -1 of image 1"),
        ([0, 1, 2], "2 images but 3 labels"),
        (np.array([0, 2**63 + 1], dtype=np.uint64), "of image 1 is no class number"),
    ],
)
def test_labels_that_are_no_class_numbers_are_refused(labels, words):
    with pytest.raises(DataError, match=words):
        array_source(HERE, images(0, 0, 0, 0), np.asarray(labels))


def test_a_column_of_labels_is_accepted():
    assert array_source(HERE, images(0, 0, 0, 0), np.array([[3], [4]], dtype=np.uint8)).labels.tolist() == [3, 4]


def test_claims_beyond_memory_are_refused():
    check_unpacked(HERE, 2**30)
    with pytest.raises(DataError, match=r"claims to unpack to 1024\.0 GiB"):
        check_unpacked(HERE, 2**40)
