"""Whatever happens to a file, it is read or refused by its name: no other exception, nothing run, nothing hung."""

import contextlib
import gzip
import io
import struct
import tarfile
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from rctk.data import read_split
from rctk_kernels.errors import DataError

CODES = np.arange(2 * 32 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(2, 32, 32, 3)


def npz(save):
    out = io.BytesIO()
    save(out, x=CODES, y=np.array([0, 1]))
    return out.getvalue()


def mat(*, compress):
    out = io.BytesIO()
    savemat(
        out, {"X": CODES.transpose(1, 2, 3, 0), "y": np.array([[1], [10]], dtype=np.uint8)}, do_compression=compress
    )
    return out.getvalue()


def picture(form):
    out = io.BytesIO()
    Image.fromarray(CODES[0]).save(out, format=form)
    return out.getvalue()


def archive():
    out = io.BytesIO()
    rows = np.concatenate([np.array([[3], [4]], dtype=np.uint8), CODES.reshape(2, -1)], axis=1).tobytes()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        member.size = len(rows)
        tar.addfile(member, io.BytesIO(rows))
    return out.getvalue()


IDX = gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 2, 32, 32) + bytes(2048))
FILES = {
    "set/test.npz": npz(np.savez),
    "small/test.npz": npz(np.savez_compressed),
    "svhn/test_32x32.mat": mat(compress=False),
    "svhn2/test_32x32.mat": mat(compress=True),
    "cifar10/cifar-10-binary.tar.gz": archive(),
    "mnist/t10k-images-idx3-ubyte.gz": IDX,
    **{f"{form}/a/x.{form}": picture(form) for form in ("png", "jpeg", "bmp", "webp", "tiff", "ppm")},
}


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_survived(tmp_path, monkeypatch, name, data):
    monkeypatch.setenv("RCTK_DATA", str(tmp_path))
    whole = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)) | st.just(len(whole)))])
    (tmp_path / "mnist").mkdir(exist_ok=True)
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, 2) + b"\x07\x02")
    with contextlib.suppress(DataError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # parsers may also warn about what they see
        split = read_split(name.split("/")[0])
        assert split.images.min() >= 0
        assert split.images.max() <= 1
        assert len(split) == len(split.images)


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_read_where_they_are_whole(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_bytes(FILES[name])
    (tmp_path / "mnist").mkdir(exist_ok=True)
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, 2) + b"\x07\x02")
    assert len(read_split(f"{tmp_path}/{name.split('/')[0]}")) in {1, 2}
