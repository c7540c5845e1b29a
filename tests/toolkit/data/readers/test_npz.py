import io
import zipfile

import numpy as np
import pytest

from rctk.data import read_split
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import DataError


@pytest.mark.parametrize(("x", "y"), [("images", "labels"), ("x", "y"), ("data", "targets"), ("x_test", "y_test")])
def test_usual_keys_and_both_layouts_give_the_same_images(tmp_path, pixels, x, y):
    images, labels = pixels
    np.savez(tmp_path / "last.npz", **{x: images, y: labels})
    np.savez_compressed(tmp_path / "first.npz", **{x: images.transpose(0, 3, 1, 2), y: labels[:, None]})
    last, first = read_split(f"{tmp_path}/last.npz"), read_split(f"{tmp_path}/first.npz:test")
    np.testing.assert_array_equal(last.images, first.images)
    np.testing.assert_array_equal(last.images, (images.transpose(0, 3, 1, 2) / 255).astype(np.float32))
    assert first.images[0, :, 0, 0].tolist() == [0, np.float32(128 / 255), 1]
    assert first.labels.tolist() == labels.tolist()


def test_sampling_first_equals_converting_first(root, pixels):
    images, _ = pixels
    (root / "mine").mkdir()
    np.savez(root / "mine" / "train.npz", images=np.repeat(images, 5, axis=0), labels=np.repeat([0, 1], 25))
    whole = read_split("mine:train").sample(11, seed=4)
    drawn = read_split("mine:train", samples=11, seed=4)
    assert (drawn.fingerprint, drawn.name) == (whole.fingerprint, "mine:train")
    np.testing.assert_array_equal(drawn.indices, whole.indices)


def test_one_file_may_hold_several_splits(tmp_path, pixels):
    images, labels = pixels
    np.savez(
        tmp_path / "keras.npz", x_train=images[:6], y_train=labels[:6], test_images=images[6:], test_labels=[1] * 4
    )
    assert len(read_split(f"{tmp_path}/keras.npz:train")) == 6
    assert read_split(f"{tmp_path}/keras.npz").labels.tolist() == [1] * 4
    with pytest.raises(DataError, match="x_val and y_val"):
        read_split(f"{tmp_path}/keras.npz:val")


def test_a_file_of_one_split_is_not_given_out_as_two(tmp_path, pixels):
    np.savez(tmp_path / "all.npz", x=pixels[0], y=pixels[1])
    assert len(read_split(f"{tmp_path}/all.npz:test")) == 10
    with pytest.raises(DataError, match="no split 'train'; leave out ':train'"):
        read_split(f"{tmp_path}/all.npz:train")
    (tmp_path / "all.npz").rename(tmp_path / "train.npz")
    assert len(read_split(f"{tmp_path}/train.npz:train")) == 10


def test_class_names_and_grey_images_come_along(tmp_path):
    np.savez(tmp_path / "grey.npz", x=np.zeros((2, 5, 7), dtype=np.uint8), y=[1, 0], classes=["cat", "dog"])
    grey = read_split(f"{tmp_path}/grey.npz")
    assert (grey.images.shape, grey.classes) == ((2, 1, 5, 7), ("cat", "dog"))


def test_the_models_shape_decides_between_layouts(tmp_path):
    images = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)  # 3 x 4 x 3: channels at either end
    np.savez(tmp_path / "odd.npz", x=images, y=[0, 0])
    with pytest.raises(DataError, match="cannot tell which axis"):
        read_split(f"{tmp_path}/odd.npz")
    first = read_split(f"{tmp_path}/odd.npz", input=InputSpec(channels=3, height=4, width=3))
    last = read_split(f"{tmp_path}/odd.npz", input=InputSpec(channels=3, height=3, width=4))
    np.testing.assert_array_equal(first.images, (images / 255).astype(np.float32))
    np.testing.assert_array_equal(last.images, (images.transpose(0, 3, 1, 2) / 255).astype(np.float32))


def test_objects_are_refused_and_do_not_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    np.savez(tmp_path / "bad.npz", x=np.array([Hostile()], dtype=object), y=[0], allow_pickle=True)
    with pytest.raises(DataError, match=r"Object arrays cannot be loaded.*from plain arrays"):
        read_split(f"{tmp_path}/bad.npz")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("share", [0, 0.3, 0.97])
def test_a_truncated_file_is_named(tmp_path, pixels, share):
    path = tmp_path / "cut.npz"
    np.savez(path, x=pixels[0], y=pixels[1])
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match=r"cut\.npz is no readable \.npz"):
        read_split(str(path))


def test_a_damaged_member_is_named(tmp_path, pixels):
    path = tmp_path / "flip.npz"
    np.savez_compressed(path, x=pixels[0], y=pixels[1])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"flip\.npz is no readable \.npz"):
        read_split(str(path))


def test_a_plain_array_or_other_file_is_no_archive(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    (tmp_path / "text.npz").write_text("hello")
    for name in ("array", "text"):
        with pytest.raises(DataError, match=rf"{name}\.npz is no readable \.npz"):
            read_split(f"{tmp_path}/{name}.npz")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("rctk.data.source.MAX_BYTES", 10**6)
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros((2, 1024, 1024), dtype=np.uint8), y=[0, 0])
    assert (tmp_path / "bomb.npz").stat().st_size < 10**4
    with pytest.raises(DataError, match="claims to unpack"):
        read_split(f"{tmp_path}/bomb.npz")


def test_a_header_that_claims_a_huge_array_is_refused(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**15, 1, 1)})
    with zipfile.ZipFile(tmp_path / "liar.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
        archive.writestr("y.npy", header.getvalue())
    with pytest.raises(DataError, match=r"liar\.npz"):
        read_split(f"{tmp_path}/liar.npz")


def test_wrong_keys_are_listed(tmp_path):
    np.savez(tmp_path / "keys.npz", pictures=np.zeros(1), y=[0])
    with pytest.raises(DataError, match=r"holds pictures, y; expected images and labels, or x_test and y_test"):
        read_split(f"{tmp_path}/keys.npz")


def test_a_split_is_not_paired_with_the_labels_of_another(tmp_path):
    np.savez(tmp_path / "mixed.npz", x_test=np.zeros((1, 2, 2), dtype=np.uint8), y=[0])
    with pytest.raises(DataError, match="x_test and y do not belong together"):
        read_split(f"{tmp_path}/mixed.npz")


def test_flat_images_are_refused_with_their_shape(tmp_path):
    np.savez(tmp_path / "flat.npz", x=np.zeros((2, 784), dtype=np.uint8), y=[0, 0])
    with pytest.raises(DataError, match=r"shape \(2, 784\); expected \(N, H, W\)"):
        read_split(f"{tmp_path}/flat.npz")


def test_labels_beyond_the_named_classes_are_refused(tmp_path):
    np.savez(tmp_path / "two.npz", x=np.zeros((2, 4, 4), dtype=np.uint8), y=[0, 2], classes=["a", "b"])
    with pytest.raises(DataError, match="image 1 has label 2, but there are 2 classes"):
        read_split(f"{tmp_path}/two.npz")
