"""The images of a recipe are read, and what is doubtful about them is told."""

from __future__ import annotations

import numpy as np
import pytest

from rctk.compress.images import read_images
from rctk.data.leaks import shared
from rctk_export.input_spec import InputSpec

SPEC = InputSpec(channels=1, height=8, width=8)


def test_a_tenth_is_held_back_and_nothing_is_told(heard):
    images = read_images("digits:train", None, input=SPEC, samples=100, progress=heard)
    assert (len(images.train), len(images.validation)) == (90, 10)
    assert not np.isin(images.train.indices, images.validation.indices).any()
    assert shared(*images) == 0
    assert heard.notes == []


@pytest.mark.parametrize(
    ("data", "validation", "words"),
    [
        ("digits:test", None, ["digits:test holds test images, which are learned from"]),
        ("digits:train", "digits:test", ["digits:test holds test images, which choose the best epoch"]),
        ("digits:train", "digits:train", ["100 of 1437 validation images are training images too"]),
    ],
)
def test_doubtful_images_are_told(heard, data, validation, words):
    read_images(data, validation, input=SPEC, samples=100, progress=heard)
    assert [note.startswith(word) for note, word in zip(heard.notes, words, strict=True)] == [True]


def test_nobody_has_to_listen():
    assert len(read_images("digits:train", "digits:test", input=SPEC, samples=100).validation) == 360
