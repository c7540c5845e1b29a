import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from rctk.data import read_split
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import DataError

SMALL = InputSpec(channels=3, height=4, width=4)


def picture(path, value=0, size=(4, 4), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)
    return path


def colours(path):
    """A wide picture: left third red, middle green, right blue."""
    pixels = np.zeros((6, 18, 3), dtype=np.uint8)
    for third in range(3):
        pixels[:, 6 * third : 6 * third + 6, third] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def test_classes_are_numbered_by_sorted_name_and_files_by_path(root):
    for name, value in (("dog/b.png", 20), ("dog/a.png", 10), ("cat/deep/x.PNG", 30)):
        picture(root / "pets" / "test" / name, (value, 0, 0))
    picture(root / "pets" / "test" / ".hidden" / "x.png")
    (root / "pets" / "test" / "dog" / "notes.txt").write_text("no picture")
    split = read_split("pets")
    assert split.classes == ("cat", "dog")
    assert split.labels.tolist() == [0, 1, 1]
    assert np.rint(split.images[:, 0, 0, 0] * 255).tolist() == [30, 10, 20]


def test_a_folder_without_splits_is_one_split(tmp_path):
    picture(tmp_path / "pets" / "cat" / "a.png")
    assert len(read_split(f"{tmp_path}/pets")) == 1
    with pytest.raises(DataError, match="no split 'train'; leave out"):
        read_split(f"{tmp_path}/pets:train")


def test_a_missing_split_is_not_replaced_by_another(tmp_path):
    picture(tmp_path / "pets" / "train" / "cat" / "a.png")
    with pytest.raises(DataError, match="holds no split 'test'"):
        read_split(f"{tmp_path}/pets")


def test_a_list_of_classes_keeps_the_numbers_of_the_whole_set(tmp_path):
    picture(tmp_path / "some" / "zebra" / "a.png")
    (tmp_path / "some" / "classes.txt").write_text("ant\nbee\nzebra\n")
    split = read_split(f"{tmp_path}/some")
    assert (split.labels.tolist(), split.classes) == ([2], ("ant", "bee", "zebra"))
    picture(tmp_path / "some" / "yak" / "a.png")
    with pytest.raises(DataError, match="lists 3 classes and not 'yak'"):
        read_split(f"{tmp_path}/some")


def test_the_centre_is_cut_out_of_a_wide_picture(tmp_path):
    colours(tmp_path / "set" / "a" / "x.png")
    image = read_split(f"{tmp_path}/set", input=InputSpec(channels=3, height=6, width=6)).images[0]
    assert image.mean(axis=(1, 2)).tolist() == [0, 1, 0]


def test_a_smaller_size_scales_the_shorter_side_first(tmp_path):
    colours(tmp_path / "set" / "a" / "x.png")
    image = read_split(f"{tmp_path}/set", input=InputSpec(channels=3, height=2, width=6)).images[0]
    np.testing.assert_allclose(image[:, 0, 0], [1, 0, 0], atol=0.1)  # 18 x 6 becomes 6 x 2: all three thirds remain
    np.testing.assert_allclose(image[:, 1, 5], [0, 0, 1], atol=0.1)


def test_pictures_of_the_right_size_are_not_touched(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    (tmp_path / "set" / "a").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "set" / "a" / "x.png")
    for spec in (None, SMALL):
        image = read_split(f"{tmp_path}/set", input=spec).images[0]
        np.testing.assert_array_equal(image, (pixels.transpose(2, 0, 1) / 255).astype(np.float32))


def test_grey_models_get_grey_pictures(tmp_path):
    picture(tmp_path / "set" / "a" / "x.png", (255, 0, 0))
    image = read_split(f"{tmp_path}/set", input=InputSpec(channels=1, height=4, width=4)).images
    assert image.shape == (1, 1, 4, 4)
    assert round(float(image[0, 0, 0, 0]) * 255) == 76  # ITU-R 601 luma of pure red: 0.299 * 255


@pytest.mark.parametrize(("mode", "value"), [("L", 51), ("P", 51), ("RGBA", (51, 51, 51, 7)), ("1", 1)])
def test_pictures_of_other_kinds_become_rgb(tmp_path, mode, value):
    picture(tmp_path / "set" / "a" / "x.png", value, mode=mode)
    assert read_split(f"{tmp_path}/set", input=SMALL).images.shape == (1, 3, 4, 4)


def test_exif_orientation_is_applied(tmp_path):
    (tmp_path / "set" / "a").mkdir(parents=True)
    pixels = np.zeros((8, 16, 3), dtype=np.uint8)
    pixels[:, 8:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees clockwise when shown
    Image.fromarray(pixels).save(tmp_path / "set" / "a" / "x.jpg", exif=exif, quality=100)
    image = read_split(f"{tmp_path}/set").images[0]
    assert image.shape == (3, 16, 8)
    assert image[:, 14, 4].min() > 0.9
    assert image[:, 1, 4].max() < 0.1


def test_without_a_model_sizes_must_agree(tmp_path):
    picture(tmp_path / "set" / "a" / "x.png", size=(4, 4))
    picture(tmp_path / "set" / "a" / "y.png", size=(5, 4))
    with pytest.raises(DataError, match=r"y\.png is 4x5 .* is 4x4; give --input"):
        read_split(f"{tmp_path}/set")
    assert len(read_split(f"{tmp_path}/set", input=SMALL)) == 2


def test_only_the_drawn_pictures_are_decoded(tmp_path):
    for number in range(20):
        picture(tmp_path / "set" / "ab"[number % 2] / f"{number:02}.png", (number, 0, 0))
    whole = read_split(f"{tmp_path}/set").sample(6, seed=1)
    listed = sorted((tmp_path / "set").rglob("*.png"))
    for number in set(range(20)) - set(whole.indices.tolist()):
        listed[number].write_bytes(b"damaged")
    assert read_split(f"{tmp_path}/set", samples=6, seed=1).fingerprint == whole.fingerprint


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "tif", "ppm"])
def test_a_damaged_picture_is_named(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    path = tmp_path / "set" / "a" / f"x.{suffix}"
    path.parent.mkdir(parents=True)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], b"", b"GIF89a"):
        path.write_bytes(data)
        with pytest.raises(DataError, match=rf"x\.{suffix} is no readable picture"):
            read_split(f"{tmp_path}/set")


def test_formats_that_can_start_programs_are_refused_whatever_their_name(tmp_path):
    path = tmp_path / "set" / "a" / "x.png"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(path, format="EPS")
    with pytest.raises(DataError, match="no readable picture"):
        read_split(f"{tmp_path}/set")


def bomb(path, side):
    """A PNG of a few kilobytes that claims ``side`` x ``side`` pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    path.parent.mkdir(parents=True, exist_ok=True)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b""))


@pytest.mark.parametrize("side", [8_500, 12_000, 60_000])  # below, between and above Pillow's own two limits
def test_a_decompression_bomb_is_refused(tmp_path, side):
    bomb(tmp_path / "set" / "a" / "x.png", side)
    with pytest.raises(DataError, match=r"x\.png"):
        read_split(f"{tmp_path}/set", input=SMALL)


def test_sixteen_bits_are_refused(tmp_path):
    path = tmp_path / "set" / "a" / "x.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(path)
    with pytest.raises(DataError, match="more than 8 bits"):
        read_split(f"{tmp_path}/set")


def test_models_with_other_channel_counts_are_refused(tmp_path):
    picture(tmp_path / "set" / "a" / "x.png")
    with pytest.raises(DataError, match="the model takes 4"):
        read_split(f"{tmp_path}/set", input=InputSpec(channels=4, height=4, width=4))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path):
    picture(tmp_path / "set" / "a" / "x.png").chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        read_split(f"{tmp_path}/set")
