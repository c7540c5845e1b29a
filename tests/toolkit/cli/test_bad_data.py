"""A data set that does not fit is refused on one line, whichever command asks for it."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest


@pytest.fixture(params=["export", "attack", "compare", "bench", "train"])
def use(request, rctk, float_onnx, bundle):
    """Run one of the commands that read images on a data set, with everything else in order."""
    before = {
        "export": ("export", float_onnx, "--input", "1x8x8", "-o", "out", "--calibration"),
        "attack": ("attack", bundle, "--attack", "square:queries=2", "--data"),
        "compare": ("compare", bundle, "--attack", "square:queries=2", "--data"),
        "bench": ("bench", bundle, "--calls", "2", "--no-memory", "--data"),
        "train": ("train", "--arch", "mlp", "--epochs", "1", "-o", "out.pt", "--data"),
    }[request.param]
    return lambda data: rctk(*before, data).refusal


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("digitz:train", ["unknown data set 'digitz'", "did you mean 'digits'"]),
        ("digits:trian", ["'trian'", "did you mean 'train'"]),
        ("cifar10:test", ["RCTK_DATA is not set", "cifar10/SPLIT.npz"]),
        ("nowhere.npz", ["no file or folder nowhere.npz"]),
        ("", ["no data set was named", "NAME:SPLIT"]),
    ],
)
def test_a_data_set_that_is_not_there(use, tmp_path, data, words):
    refusal = use(data)
    assert all(word in refusal for word in words)
    assert not (tmp_path / "runs").exists()


def test_a_data_set_without_images(use, npz):
    refusal = use(npz([]))
    assert "no images" in refusal
    assert refusal.count("set.npz") == 1


def test_labels_below_zero(use, npz):
    assert "label -1 of image 1 is no class number" in use(npz([0, -1, 2]))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.full((4, 1, 8, 8), np.nan, np.float32), "image 0 holds NaN"),
        (np.full((4, 1, 8, 8), 200, np.float32), "expected [0, 1]; divide"),
        (np.zeros((3, 1, 8, 8), np.float32), "3 images but 4 labels"),
    ],
)
def test_images_that_are_none(use, tmp_path, images, words):
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(4))
    assert words in use(tmp_path / "set.npz")


def test_a_damaged_file(use, tmp_path, digits):
    (tmp_path / "cut.npz").write_bytes(digits.read_bytes()[:500])
    assert "cut.npz is no readable .npz" in use(tmp_path / "cut.npz")


def test_a_decompression_bomb(use, tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    lines = zlib.compress(bytes(10**6))
    picture = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")
    for name in ("cat", "dog"):
        (tmp_path / "set" / "test" / name).mkdir(parents=True)
        (tmp_path / "set" / "test" / name / "1.png").write_bytes(picture)
    assert "decompression bomb" in use(tmp_path / "set")


@pytest.mark.parametrize("command", ["export", "attack", "compare", "bench"])
def test_images_of_another_size_than_the_model_takes(rctk, npz, float_onnx, bundle, command):
    data = npz([0, 1, 2], shape=(32, 32, 3))
    exported = (float_onnx, "--input", "1x8x8", "-o", "out", "--calibration")
    arguments = exported if command == "export" else (bundle, "--data")
    refusal = rctk(command, *arguments, data).refusal
    assert "images are 3x32x32" in refusal
    assert "the model takes 1x8x8" in refusal


@pytest.mark.parametrize("command", ["attack", "compare"])
def test_more_classes_than_the_model_has(rctk, npz, bundle, command):
    refusal = rctk(command, bundle, "--attack", "square:queries=2", "--data", npz(range(12))).refusal
    assert "labels from 0 to 11, the model has 10 classes" in refusal


def test_training_needs_two_images_or_others_to_validate_on(rctk, npz):
    common = ("train", "--arch", "mlp", "--epochs", "1", "-o", "out.pt", "--data")
    assert "--validation" in rctk(*common, npz([1])).refusal
    assert "images of one class" in rctk(*common, npz([0, 0, 0])).refusal
    other = npz([0, 1, 2], name="other.npz")
    refusal = rctk(*common, npz([0, 1]), "--validation", other).refusal
    assert "other.npz has labels 0 to 2, the model has 2 outputs" in refusal


def test_a_refused_calibration_set_leaves_no_folder(rctk, tmp_path, float_onnx, npz):
    rctk("export", float_onnx, "--input", "1x8x8", "-o", "deep/out", "--calibration", npz([]))
    assert not (tmp_path / "deep").exists()
