import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from rctk.data.readers.safe_pickle import read_pickle
from rctk_kernels.errors import DataError

HERE = Path("test_batch")


class Runs:
    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_a_hostile_pickle_does_not_run(tmp_path, protocol):
    mark = tmp_path / "ran"
    for function, args in (
        (os.system, (f"touch {mark}",)),
        (eval, (f"open({str(mark)!r}, 'w')",)),
        (open, (str(mark), "w")),
        (np.load, (str(mark),)),
        (np.fromfile, (str(mark),)),
    ):
        data = pickle.dumps({"data": Runs(function, *args)}, protocol=protocol)
        with pytest.raises(DataError, match=f"asks for .*{function.__name__}.*no part of a data set"):
            read_pickle(HERE, data)
    assert not mark.exists()


def test_a_stand_in_cannot_be_changed_from_inside_a_pickle():
    # BUILD on a class would set its attributes; every stand-in answers with its own __setstate__ instead
    for module, name in ((b"numpy", b"dtype"), (b"numpy", b"ndarray"), (b"_codecs", b"encode")):
        data = b"\x80\x02c" + module + b"\n" + name + b"\n" + b"N}X\x04\x00\x00\x00evilK\x01s\x86b."
        with pytest.raises(DataError, match="no readable pickle"):
            read_pickle(HERE, data)


def test_codecs_other_than_latin1_are_refused():
    data = b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R."
    with pytest.raises(DataError, match="unexpected encoding 'rot13'"):
        read_pickle(HERE, data)


@pytest.mark.parametrize("dtype", [object, "U3", np.float64, [("a", "u1")], "M8[s]"])
@pytest.mark.parametrize("protocol", [2, 5])
def test_arrays_of_other_kinds_are_refused(dtype, protocol):
    data = pickle.dumps({"data": np.zeros(3, dtype=dtype)}, protocol=protocol)
    with pytest.raises(DataError, match="no readable pickle"):
        read_pickle(HERE, data)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["u1", "<i8", ">i4", "i2"])
def test_plain_arrays_and_containers_come_back(dtype, protocol):
    value = {
        "a": np.arange(6, dtype=dtype).reshape(2, 3),
        "f": np.asfortranarray(np.eye(3, dtype=dtype)),
        "l": [1, "x"],
    }
    found = read_pickle(HERE, pickle.dumps(value, protocol=protocol))
    np.testing.assert_array_equal(found["a"], value["a"])
    np.testing.assert_array_equal(found["f"], value["f"])
    assert found["l"] == [1, "x"]


def test_a_shape_that_does_not_fit_its_bytes_is_refused():
    whole = pickle.dumps({"a": np.arange(6, dtype=np.uint8).reshape(2, 3)}, protocol=2)
    assert whole.count(b"K\x02K\x03\x86") == 1
    with pytest.raises(DataError, match="does not fit its 6 bytes"):
        read_pickle(HERE, whole.replace(b"K\x02K\x03\x86", b"K\x02K\x09\x86"))


@pytest.mark.parametrize("value", [[1, 2], 3, None, np.zeros(2, dtype=np.uint8)])
def test_what_is_no_dictionary_is_refused(value):
    with pytest.raises(DataError, match="expected a dictionary"):
        read_pickle(HERE, pickle.dumps(value))


@pytest.mark.parametrize("data", [b"", b"\x80", b"hello", b"\x80\x04\x95", bytes(100)])
def test_noise_is_refused(data):
    with pytest.raises(DataError, match="test_batch is no readable pickle"):
        read_pickle(HERE, data)
