"""Occlusion, rotations and shifts, JPEG quality."""

import numpy as np
import pytest
from scipy import ndimage

from rctk.stress import STRESS_TESTS
from rctk.stress.jpeg import Jpeg
from rctk.stress.occlusion import Occlusion
from rctk.stress.spatial import Spatial, moved
from rctk_kernels.errors import DataError, OptionError


def made(test, images, seed=0, condition=0, indices=None):
    chosen = test.conditions(seed)[condition]
    indices = np.arange(len(images)) if indices is None else indices
    return np.stack([chosen.make(variant, images, indices) for variant in range(chosen.variants)])


def test_squares_reach_every_edge(pictures):
    images = pictures(1, 1, 10, 16)
    out = made(Occlusion(side=0.3, places=3), images)
    hidden = np.argwhere((out != images).any(axis=(1, 2)))
    corners = [tuple(hidden[hidden[:, 0] == v][:, 1:].min(axis=0)) for v in range(9)]
    # side 3: rows 0, 3.5 -> 4, 7 and columns 0, 6.5 -> 6, 13
    assert corners == [(r, c) for r in (0, 4, 7) for c in (0, 6, 13)]
    assert ((out != images).sum(axis=(1, 2, 3, 4)) <= 9).all()


def test_the_square_shows_the_mean_colour(pictures):
    images = pictures(2, 3, 20, 20)
    out = made(Occlusion(side=0.5, places=1), images)[0]
    square = out[:, :, 5:15, 5:15]
    assert np.allclose(square, images.mean(axis=(2, 3), keepdims=True), atol=0.5 / 255 + 1e-6)
    assert np.array_equal(square, np.broadcast_to(square[:, :, :1, :1], square.shape))
    out[:, :, 5:15, 5:15] = images[:, :, 5:15, 5:15]
    assert np.array_equal(out, images)


def test_noise_belongs_to_the_image(pictures):
    images = pictures(3, 3, 12, 12)
    whole = made(Occlusion(fill="noise"), images, condition=2)
    part = made(Occlusion(fill="noise"), images[2:], condition=2, indices=np.array([2]))
    assert np.array_equal(whole[:, 2:], part)
    assert not np.array_equal(whole, made(Occlusion(fill="noise"), images, condition=2, seed=1))
    assert 0 <= whole.min() < whole.max() <= 1


def test_three_sides_by_default():
    assert [c.level for c in Occlusion().conditions(0)] == ["10 % side", "20 % side", "30 % side"]
    assert [c.variants for c in Occlusion(places=4).conditions(0)] == [16] * 3


def test_no_rotation_and_no_shift_change_nothing(pictures):
    image = pictures(1, 3, 9, 14)[0]
    assert np.allclose(moved(image, 0.0, 0.0, 0.0), image, atol=1e-6)


def test_rotations_turn_against_the_clock(pictures):
    image = pictures(1, 2, 9, 9)[0]
    assert np.allclose(moved(image, 90.0, 0.0, 0.0), np.rot90(image, axes=(1, 2)), atol=1e-5)


def test_shifts_go_down_and_right_and_bring_in_black():
    image = np.arange(1, 21, dtype=np.float32).reshape(1, 4, 5) / 20
    out = moved(image, 0.0, 0.25, 0.2)
    assert np.allclose(out[:, 1:, 1:], image[:, :-1, :-1])
    assert not out[:, 0].any()
    assert not out[:, :, 0].any()


def test_rotation_is_that_of_scipy(pictures):
    image = pictures(1, 1, 15, 15)[0]
    expected = ndimage.rotate(image[0].astype(np.float64), 17.0, reshape=False, order=1, mode="constant")
    assert np.allclose(moved(image, 17.0, 0.0, 0.0)[0, 2:-2, 2:-2], expected[2:-2, 2:-2], atol=1e-5)


def test_the_grid_spans_the_range_and_holds_the_image_itself(pictures):
    images = pictures(1, 1, 10, 10)
    test = Spatial(search="grid")
    assert test.conditions(0)[0].variants == 775
    poses = np.array([test._pose(v, 0, 0) for v in range(775)])
    assert poses.min(axis=0).tolist() == pytest.approx([-30, -0.1, -0.1])
    assert poses.max(axis=0).tolist() == pytest.approx([30, 0.1, 0.1])
    assert len(np.unique(poses.round(9), axis=0)) == 775
    same = int(np.flatnonzero((np.abs(poses) < 1e-9).all(axis=1))[0])
    assert np.allclose(test.conditions(0)[0].make(same, images, np.array([0])), images, atol=1e-6)


def test_random_poses_belong_to_the_image_and_stay_in_range(pictures):
    test = Spatial(tries=40)
    poses = np.array([[test._pose(v, 0, i) for v in range(40)] for i in (0, 1)])
    assert (np.abs(poses) <= [30, 0.1, 0.1]).all()
    assert np.abs(poses[..., 0]).max() > 25
    assert not np.array_equal(poses[0], poses[1])
    images = pictures(3, 1, 8, 8)
    assert np.array_equal(made(test, images)[:, 1:2], made(test, images[1:2], indices=np.array([1])))


def test_jpeg_gets_worse(pictures):
    images = pictures(4, 3, 32, 32)
    distance = [np.abs(made(Jpeg(), images, condition=i)[0] - images).mean() for i in range(5)]
    assert [c.level for c in Jpeg().conditions(0)] == [f"quality {q}" for q in (90, 70, 50, 30, 10)]
    assert distance == sorted(distance)
    assert made(Jpeg(), pictures(1, 1, 9, 5)).shape == (1, 1, 1, 9, 5)


def test_jpeg_knows_grey_and_colour_only(pictures):
    with pytest.raises(DataError, match="2 channels"):
        made(Jpeg(), pictures(1, 2, 8, 8))


@pytest.mark.parametrize(
    "text",
    [
        "occlusion:side=0",
        "occlusion:side=1.5",
        "occlusion:places=0",
        "occlusion:fill=red",
        "spatial:degrees=-1",
        "spatial:shift=1",
        "spatial:search=all",
        "spatial:tries=0",
        "jpeg:worst=0",
        "jpeg:best=5",
        "jpeg:step=0",
        "rain",
    ],
)
def test_settings_without_sense_are_refused(text):
    with pytest.raises(OptionError):
        STRESS_TESTS.build(text)


@pytest.mark.parametrize("name", STRESS_TESTS.names())
def test_an_empty_batch_stays_empty(name):
    images = np.empty((0, 3, 8, 8), dtype=np.float32)
    for condition in STRESS_TESTS.build(name).conditions(0):
        assert condition.make(0, images, np.empty(0, dtype=np.int64)).shape == images.shape
