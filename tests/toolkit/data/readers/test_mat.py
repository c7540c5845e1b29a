import io
import struct

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from rctk.data.readers.mat import read_mat
from rctk_kernels.errors import DataError


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_arrays_are_read_as_scipy_reads_them(tmp_path, dtype, compress):
    path = tmp_path / "x.mat"
    values = {
        "X": np.arange(120).reshape(2, 3, 4, 5).astype(dtype),
        "y": np.array([[3]], dtype=dtype),
        "a_rather_long_name": np.zeros((0, 4), dtype=dtype),
    }
    savemat(
        path,
        {**values, "text": "hello", "cell": np.array([1, "a"], dtype=object), "s": {"k": 1}},
        do_compression=compress,
    )
    found = read_mat(path, ("X", "y", "a_rather_long_name", "text", "cell", "s", "none"))
    reference = loadmat(path)
    assert found.keys() == values.keys()
    for name in values:
        np.testing.assert_array_equal(found[name], reference[name])
        assert found[name].dtype == reference[name].dtype


def matlab(order, stored, data):
    """A file as MATLAB writes it: a column of doubles, kept as bytes where they are small whole numbers."""

    def element(kind, data):
        return struct.pack(f"{order}II", kind, len(data)) + data.ljust(-(-len(data) // 8) * 8, b"\0")

    body = element(6, struct.pack(f"{order}II", 6, 0)) + element(5, struct.pack(f"{order}ii", 3, 1))
    body += struct.pack(f"{order}I", 1 << 16 | 1) + b"y\0\0\0" + element(stored, data)  # the name is a small element
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}H", 0x100) + (b"IM" if order == "<" else b"MI")
    return head + element(14, body)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("stored", "code"), [(2, "u1"), (3, "i2"), (9, "f8")])
def test_doubles_in_small_storage_and_both_byte_orders(tmp_path, order, stored, code):
    path = tmp_path / "x.mat"
    path.write_bytes(matlab(order, stored, np.array([10, 1, 9], dtype=f"{order}{code}").tobytes()))
    found = read_mat(path, ("y",))["y"]
    assert (found.dtype, found.tolist()) == (np.float64, [[10.0], [1.0], [9.0]])
    np.testing.assert_array_equal(loadmat(path)["y"], found)


def test_numbers_that_do_not_fit_their_shape_are_refused(tmp_path):
    path = tmp_path / "x.mat"
    path.write_bytes(matlab("<", 2, bytes(4)))
    with pytest.raises(DataError, match=r"y of shape \(3, 1\) holds 4 numbers"):
        read_mat(path, ("y",))


def test_complex_numbers_are_passed_over(tmp_path):
    savemat(tmp_path / "x.mat", {"y": np.array([1j])})
    assert read_mat(tmp_path / "x.mat", ("y",)) == {}


def test_every_cut_is_noticed(tmp_path):
    out = io.BytesIO()
    savemat(out, {"X": np.arange(60, dtype=np.uint8).reshape(3, 4, 5)}, do_compression=True)
    whole = out.getvalue()
    path = tmp_path / "x.mat"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        if length == 128:  # a file without variables
            assert read_mat(path, ("X",)) == {}
            continue
        with pytest.raises(DataError, match=r"x\.mat is no readable MATLAB 5 file"):
            read_mat(path, ("X",))
