import numpy as np
import pytest
from scipy.io import savemat

from rctk.data import read_split
from rctk_kernels.errors import DataError

IMAGES = np.random.default_rng(3).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
LABELS = np.array([10, 1, 9, 10, 5])


def write(path, compress=True, **variables):
    path.parent.mkdir(parents=True, exist_ok=True)
    default = {"X": IMAGES.transpose(1, 2, 3, 0), "y": LABELS[:, None].astype(np.uint8)}
    savemat(path, {**default, **variables}, do_compression=compress)


@pytest.mark.parametrize("split", ["train", "test", "extra"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_ten_is_the_digit_zero(root, split, dtype):
    write(root / "svhn" / f"{split}_32x32.mat", y=LABELS[:, None].astype(dtype))
    found = read_split(f"svhn:{split}")
    assert found.labels.tolist() == [0, 1, 9, 0, 5]
    np.testing.assert_array_equal(found.images, (IMAGES.transpose(0, 3, 1, 2) / 255).astype(np.float32))
    assert found.classes[0] == "0"


def test_a_file_given_by_path_is_read_under_its_own_split(tmp_path):
    write(tmp_path / "train_32x32.mat")
    assert len(read_split(f"{tmp_path}/train_32x32.mat:train")) == 5
    with pytest.raises(DataError, match="no split 'extra'"):
        read_split(f"{tmp_path}/train_32x32.mat:extra")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"X": np.zeros((32, 32, 3, 5))}, "expected X"),
        ({"X": np.zeros((5, 32, 32, 3), dtype=np.uint8)}, "expected X"),
        ({"y": np.zeros((4, 1), dtype=np.uint8)}, "5 images but 4 labels"),
        ({"y": "no numbers"}, r"found X uint8 \(32, 32, 3, 5\)"),
        ({"y": np.full((5, 1), 1.5)}, "labels are float64"),
        ({"y": np.full((5, 1), 11, dtype=np.uint8)}, "image 0 has label 11"),
    ],
)
def test_other_contents_are_refused(root, variables, words):
    write(root / "svhn" / "test_32x32.mat", **variables)
    with pytest.raises(DataError, match=words):
        read_split("svhn")


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_cut_file_is_named(root, share, compress):
    path = root / "svhn" / "test_32x32.mat"
    write(path, compress=compress)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=r"test_32x32\.mat"):
        read_split("svhn")


def test_other_files_are_refused(root):
    path = root / "svhn" / "test_32x32.mat"
    path.parent.mkdir()
    for data in (
        b"hello",
        bytes(1000),
        b"\x89HDF\r\n\x1a\n" + bytes(600),
        b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM",
    ):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"test_32x32\.mat is no readable MATLAB 5 file"):
            read_split("svhn")


def test_a_bomb_is_refused_before_it_is_unpacked(root, monkeypatch):
    monkeypatch.setattr("rctk.data.source.MAX_BYTES", 1000)
    write(root / "svhn" / "test_32x32.mat")
    with pytest.raises(DataError, match="claims to unpack"):
        read_split("svhn")
