import io
import pickle
import tarfile

import numpy as np
import pytest

from rctk.data import read_split
from rctk_kernels.errors import DataError

PLANES = np.random.default_rng(2).integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
FLAT = PLANES.reshape(12, 3072)
FINE = np.arange(12) * 9 % 100


class Python2Pickler(pickle._Pickler):
    """Writes byte strings as Python 2 did (opcode STRING), the form of the official files."""

    def save_python2_bytes(self, value):
        self.write(pickle.BINSTRING + len(value).to_bytes(4, "little") + value)

    dispatch = {**pickle._Pickler.dispatch, bytes: save_python2_bytes}  # noqa: RUF012 - as in the base class

    def save_array(self, array):
        """What cPickle wrote for ``ndarray.__reduce__``."""
        self.write(pickle.GLOBAL + b"numpy.core.multiarray\n_reconstruct\n" + pickle.GLOBAL + b"numpy\nndarray\n")
        self.save((0,))
        self.save(b"b")
        self.write(pickle.TUPLE3 + pickle.REDUCE + pickle.MARK)
        self.save(1)
        self.save(array.shape)
        self.write(pickle.GLOBAL + b"numpy\ndtype\n")
        self.save((b"u1", 0, 1))
        self.write(pickle.REDUCE)
        self.save((3, b"|", None, None, None, -1, -1, 0))
        self.write(pickle.BUILD)
        self.save(False)
        self.save(array.tobytes())
        self.write(pickle.TUPLE + pickle.BUILD)

    dispatch[np.ndarray] = save_array


def python2(value):
    out = io.BytesIO()
    Python2Pickler(out, protocol=2).dump(value)
    return out.getvalue()


def resaved(value, protocol):
    return pickle.dumps({key.decode(): item for key, item in value.items()}, protocol=protocol)


WRITERS = {"python2": python2, **{f"protocol{n}": lambda value, n=n: resaved(value, n) for n in range(6)}}


def cifar10(writer=python2):
    files = {
        f"data_batch_{n}": writer({b"data": FLAT[2 * n - 2 : 2 * n], b"labels": [n, n + 1], b"filenames": [b"a.png"]})
        for n in range(1, 6)
    }
    files["test_batch"] = writer({b"batch_label": b"testing", b"labels": [3, 8], b"data": FLAT[10:]})
    files["batches.meta"] = writer({b"label_names": [b"c%d" % n for n in range(10)], b"num_vis": 3072})
    return files


def cifar100(writer=python2):
    batch = {b"data": FLAT, b"fine_labels": FINE.tolist(), b"coarse_labels": (FINE // 5).tolist()}
    names = {b"fine_label_names": [b"f%d" % n for n in range(100)]}
    return {"train": writer(batch), "test": writer({**batch, b"data": FLAT[::-1].copy()}), "meta": writer(names)}


def binary10():
    rows = np.concatenate([np.arange(12, dtype=np.uint8)[:, None] % 10, FLAT], axis=1)
    files = {f"data_batch_{n}.bin": rows[2 * n - 2 : 2 * n].tobytes() for n in range(1, 6)}
    names = "".join(f"b{n}\n" for n in range(10)) + "\n"
    return {**files, "test_batch.bin": rows[10:].tobytes(), "batches.meta.txt": names.encode()}


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def pack(path, files, inside):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{inside}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def unit(planes):
    return (planes / 255).astype(np.float32)


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_pickles_of_every_age_are_read(root, writer):
    write(root / "cifar10" / "cifar-10-batches-py", cifar10(writer))
    train, test = read_split("cifar10:train"), read_split("cifar10:test")
    np.testing.assert_array_equal(train.images, unit(PLANES[:10]))
    np.testing.assert_array_equal(test.images, unit(PLANES[10:]))
    assert train.labels.tolist() == [1, 2, 2, 3, 3, 4, 4, 5, 5, 6]
    assert test.labels.tolist() == [3, 8]


def test_class_names_come_from_the_files_or_the_table(root):
    write(root / "cifar10", cifar10())
    assert read_split("cifar10").classes[:2] == ("c0", "c1")
    (root / "cifar10" / "batches.meta").unlink()
    assert read_split("cifar10").classes[:2] == ("airplane", "automobile")


def test_cifar100_has_fine_labels(root):
    write(root / "cifar100", cifar100())
    split = read_split("cifar100:train")
    assert split.labels.tolist() == FINE.tolist()
    assert (len(split.classes), split.classes[99]) == (100, "f99")


@pytest.mark.parametrize("split", ["train", "test"])
def test_archives_are_read_packed(root, split):
    write(root / "cifar10", cifar10())
    loose = read_split(f"cifar10:{split}")
    for path in (root / "cifar10").iterdir():
        path.unlink()
    pack(root / "cifar10" / "cifar-10-python.tar.gz", cifar10(), "cifar-10-batches-py")
    packed = read_split(f"cifar10:{split}")
    assert (packed.fingerprint, packed.classes) == (loose.fingerprint, loose.classes)
    assert [path.name for path in (root / "cifar10").iterdir()] == ["cifar-10-python.tar.gz"]


def test_the_binary_version_is_read_loose_and_packed(root):
    write(root / "cifar10" / "cifar-10-batches-bin", binary10())
    train = read_split("cifar10:train")
    np.testing.assert_array_equal(train.images, unit(PLANES[:10]))
    assert train.labels.tolist() == list(range(10))
    assert train.classes[9] == "b9"
    pack(root / "again" / "cifar-10-binary.tar.gz", binary10(), "cifar-10-batches-bin")
    assert read_split("again:train").fingerprint == train.fingerprint


def test_binary_cifar100_takes_the_second_label(root):
    rows = np.concatenate([(FINE // 5)[:, None].astype(np.uint8), FINE[:, None].astype(np.uint8), FLAT], axis=1)
    write(root / "cifar100" / "cifar-100-binary", {"test.bin": rows.tobytes()})
    split = read_split("cifar100")
    assert split.labels.tolist() == FINE.tolist()
    np.testing.assert_array_equal(split.images, unit(PLANES))


def test_folders_are_recognised_by_path(tmp_path):
    write(tmp_path / "here", cifar100())
    assert len(read_split(f"{tmp_path}/here:train")) == 12


def test_a_missing_batch_is_named(root):
    files = cifar10()
    del files["data_batch_4"]
    write(root / "cifar10", files)
    with pytest.raises(DataError, match="lacks data_batch_4"):
        read_split("cifar10:train")


def test_a_file_of_the_other_set_is_refused(root):
    rows = np.zeros((2, 3074), dtype=np.uint8)
    write(root / "cifar10", {"test_batch.bin": rows.tobytes()})
    with pytest.raises(DataError, match="6148 bytes, no multiple of 3073"):
        read_split("cifar10")


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ({b"data": FLAT[:2, :100].copy(), b"labels": [0, 1]}, "no uint8 array"),
        ({b"labels": [0, 1]}, "no uint8 array"),
        ({b"data": FLAT[:2]}, "no 'labels'"),
        ({b"data": FLAT[:2], b"labels": [0, b"cat"]}, "labels are no integers"),
        ({b"data": FLAT[:2], b"labels": [0]}, "2 images but 1 labels"),
        ({b"data": FLAT[:2], b"labels": [0, 10]}, "image 1 has label 10"),
    ],
)
def test_a_batch_with_wrong_contents_is_refused(root, batch, words):
    write(root / "cifar10", {"test_batch": python2(batch)})
    with pytest.raises(DataError, match=words):
        read_split("cifar10")


@pytest.mark.parametrize("share", [0, 0.2, 0.9])
def test_a_cut_file_is_named(root, share):
    data = cifar10()["test_batch"]
    write(root / "cifar10", {"test_batch": data[: int(len(data) * share)]})
    with pytest.raises(DataError, match="test_batch is no readable pickle"):
        read_split("cifar10")


def test_a_cut_archive_is_named(root):
    path = root / "cifar10" / "cifar-10-python.tar.gz"
    pack(path, cifar10(), "cifar-10-batches-py")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"python\.tar\.gz is no readable \.tar\.gz"):
        read_split("cifar10:train")
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"python\.tar\.gz is no readable \.tar\.gz"):
        read_split("cifar10:train")


def test_an_archive_member_beyond_memory_is_refused(root, monkeypatch):
    monkeypatch.setattr("rctk.data.source.MAX_BYTES", 1000)
    pack(root / "cifar10" / "cifar-10-python.tar.gz", cifar10(), "cifar-10-batches-py")
    with pytest.raises(DataError, match="claims to unpack"):
        read_split("cifar10")


def test_links_in_an_archive_are_not_followed(root, tmp_path):
    path = root / "cifar10" / "cifar-10-python.tar.gz"
    path.parent.mkdir()
    (tmp_path / "secret").write_bytes(cifar10()["test_batch"])
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("cifar-10-batches-py/test_batch")
        member.type, member.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
        archive.addfile(member)
    with pytest.raises(DataError, match="lacks test_batch"):
        read_split("cifar10")
