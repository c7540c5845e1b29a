import gzip
import struct

import numpy as np
import pytest

from rctk.data import read_split
from rctk.data.readers.idx import read_idx
from rctk_kernels.errors import DataError

IMAGES = np.random.default_rng(1).integers(0, 256, (6, 28, 28), dtype=np.uint8)
LABELS = np.array([5, 0, 4, 1, 9, 2], dtype=np.uint8)


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(folder, images="t10k-images-idx3-ubyte.gz", labels="t10k-labels-idx1-ubyte.gz"):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in ((images, IMAGES), (labels, LABELS)):
        data = idx(array)
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("joint", ["-", "."])
def test_official_files_are_read(root, name, end, joint):
    write(root / name, f"t10k-images{joint}idx3-ubyte{end}", f"t10k-labels{joint}idx1-ubyte{end}")
    split = read_split(name)
    np.testing.assert_array_equal(split.images, (IMAGES[:, None] / 255).astype(np.float32))
    assert split.labels.tolist() == LABELS.tolist()
    assert len(split.classes) == 10


def test_training_files_and_the_folders_of_torchvision_are_found(root):
    write(root / "mnist" / "MNIST" / "raw", "train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    assert len(read_split("mnist:train", samples=3)) == 3
    assert len(read_split(f"{root}/mnist:train")) == 6
    with pytest.raises(DataError, match="mnist:test is not in"):
        read_split("mnist:test")


def test_a_missing_partner_is_named(root):
    write(root / "mnist")
    (root / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"has t10k-images-idx3-ubyte\.gz but no t10k-labels-idx1-ubyte\.gz"):
        read_split("mnist")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "starts with nothing"),
        (b"\x89PNG\r\n", "starts with 89 50 4e 47, expected 00 00 08 03"),
        (idx(LABELS), "expected 00 00 08 03"),
        (idx(IMAGES)[:-1], "declares 4704 bytes of data and holds only 4703"),
        (idx(IMAGES) + b"x", "holds more"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**10, 2**10), "claims to unpack"),
        (struct.pack(">HBBI", 0, 8, 3, 6), "expected 00 00 08 03"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_damage_is_described(tmp_path, data, words, packed):
    path = tmp_path / ("images.gz" if packed else "images")
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(DataError, match=words):
        read_idx(path, axes=3)


def test_a_cut_or_false_gzip_is_named(tmp_path):
    path = tmp_path / "images.gz"
    for data in (gzip.compress(idx(IMAGES))[:-20], b"not gzip at all", gzip.compress(idx(IMAGES))[:-8] + b"12345678"):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"images\.gz is no readable IDX file"):
            read_idx(path, axes=3)


def test_a_bomb_behind_a_modest_header_is_not_unpacked(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx(IMAGES) + bytes(50_000_000)))
    with pytest.raises(DataError, match="holds more"):
        read_idx(path, axes=3)


def test_a_label_outside_the_ten_classes_is_named(root):
    write(root / "mnist")
    labels = LABELS.copy()
    labels[4] = 11
    (root / "mnist" / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    with pytest.raises(DataError, match="mnist:test: image 4 has label 11"):
        read_split("mnist:test")


def test_an_empty_set_is_refused(root):
    write(root / "mnist")
    (root / "mnist" / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES[:0])))
    (root / "mnist" / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS[:0])))
    with pytest.raises(DataError, match="holds no images"):
        read_split("mnist:test")
