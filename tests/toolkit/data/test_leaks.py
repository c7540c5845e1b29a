"""Images that make a result look better than it is are told of, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from rctk.data.leaks import shared, tell_calibration, tell_learning
from rctk.data.read import is_test
from rctk.data.split import Split

TOLD = "holds test images, which {}: what is measured on them later looks better than it is; name others"


def split(name, values):
    images = np.array(values, dtype=np.float32).reshape(-1, 1, 1, 1) / 255
    return Split(name=name, images=images, labels=np.zeros(len(values), dtype=np.int64))


def test_training_and_validation_images_of_two_splits_are_fine(heard):
    tell_learning(split("a:train", range(8)), split("a:valid", range(8, 12)), heard)
    tell_learning(split("a:train", range(8)), None, heard)
    assert heard.notes == []


def test_learning_from_test_images_is_told(heard):
    tell_learning(split("digits:test", range(4)), None, heard)
    assert heard.notes == ["digits:test " + TOLD.format("are learned from")]


def test_validating_on_test_images_is_told(heard):
    tell_learning(split("digits:train", range(4)), split("digits:test", range(4, 8)), heard)
    assert heard.notes == ["digits:test " + TOLD.format("choose the best epoch")]


def test_test_images_for_both_are_told_once_and_shared_ones_too(heard):
    both = split("digits:test", range(4))
    tell_learning(both, both, heard)
    first, second = heard.notes
    assert first.endswith(TOLD.format("are learned from"))
    assert second.startswith("4 of 4 validation images are training images too")


def test_shared_images_are_told_under_any_name(heard):
    tell_learning(split("a:train", range(8)), split("other.npz", [7, 8, 9, 3, 20]), heard)
    (note,) = heard.notes
    assert note.startswith(
        "2 of 5 validation images are training images too, so their accuracy looks better than it is"
    )


def test_images_are_shared_only_where_every_pixel_is():
    images = np.random.default_rng(0).random((6, 2, 3, 3), dtype=np.float32)
    train = Split(name="a", images=images, labels=np.arange(6))
    close = images[[1, 4, 5]].copy()
    close[1, 1, 2, 2] += 1e-6
    assert shared(train, Split(name="b", images=close, labels=np.arange(3))) == 2


def test_calibrating_on_test_images_or_on_few_is_told(heard):
    tell_calibration(split("digits:train", range(4)), 4, heard)
    assert heard.notes == []
    tell_calibration(split("digits:test", range(4)), 5, heard)
    assert heard.notes == [
        "digits:test " + TOLD.format("set the ranges"),
        "calibration sees 4 images of digits:test, all there are, and not 5",
    ]


@pytest.mark.parametrize(
    ("name", "test"),
    [
        ("cifar10:test", True),
        ("cifar10", True),  # read_split takes the test split then
        ("./folder", True),
        ("./folder:test", True),
        ("set.npz:test", True),
        ("cifar10:train", False),
        ("./test/folder:train", False),
        ("./test.npz", False),  # one file is what the user says it is
        ("mine:testing", False),
    ],
)
def test_a_test_split_is_known_by_its_name(name, test):
    assert is_test(name) is test
