import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from rctk.stress.resample import at_border, gaussian, sample, shrink, zoom

SCIPY = {"edge": "nearest", "symmetric": "reflect", "reflect": "mirror"}


@pytest.mark.parametrize("border", SCIPY)
@pytest.mark.parametrize("sigma", [0.05, 0.8, 4.0, 40.0])
@pytest.mark.parametrize("shape", [(12, 7), (3, 30), (1, 5)])
def test_gaussian_is_that_of_scipy(border, sigma, shape):
    image = np.random.default_rng(0).random(shape)
    expected = ndimage.gaussian_filter(image, sigma, mode=SCIPY[border], truncate=3.0)
    assert np.allclose(gaussian(image, sigma, border=border, truncate=3.0), expected)


def test_sigma_0_changes_nothing():
    image = np.random.default_rng(0).random((4, 5))
    assert np.array_equal(gaussian(image, 0.0), image)


@pytest.mark.parametrize(
    ("border", "expected"), [("edge", "aaabccc"), ("symmetric", "baabccb"), ("reflect", "cbabcba")]
)
def test_letters_beyond_the_border(border, expected):
    assert "".join("abc"[i] for i in at_border(np.arange(-2, 5), 3, border)) == expected


def test_a_line_of_one_pixel_has_only_that():
    for border in SCIPY:
        assert at_border(np.arange(-3, 4), 1, border).tolist() == [0] * 7


@pytest.mark.parametrize("new", [1, 3, 8, 12, 24])
def test_box_is_that_of_pillow(new):
    image = np.random.default_rng(0).random((12, 12)).astype(np.float32)
    expected = np.asarray(Image.fromarray(image).resize((new, new), Image.Resampling.BOX))
    assert np.allclose(shrink(image, new, new), expected, atol=1e-6)


@pytest.mark.parametrize("factor", [1.0, 1.1, 2.0, 4.5])
def test_zoom_shows_the_middle(factor):
    ramp = np.tile(np.arange(16.0), (16, 1))
    out = zoom(ramp, factor)
    assert np.allclose(out, out[0])
    steps = np.diff(out[0])
    assert np.allclose(steps, steps[0])
    assert out[0].mean() == pytest.approx(7.5, abs=0.6)
    kept = np.ceil(16 / factor)  # of the ends of the kept part, first and last keep their places
    assert steps[0] == pytest.approx((kept - 1) / (np.rint(kept * factor) - 1))


def test_zoom_by_1_changes_nothing():
    image = np.random.default_rng(0).random((5, 8))
    assert np.allclose(zoom(image, 1.0), image)


@pytest.mark.parametrize(("border", "mode"), [("symmetric", "reflect"), ("reflect", "mirror"), ("edge", "nearest")])
def test_reading_between_pixels_is_that_of_scipy(border, mode):
    rng = np.random.default_rng(0)
    image, places = rng.random((6, 9)), rng.uniform(-8, 15, (2, 4, 5))
    expected = ndimage.map_coordinates(image, places, order=1, mode=mode)
    assert np.allclose(sample(image, places[0], places[1], border), expected)


def test_outside_is_black_without_a_border():
    image = np.ones((3, 3))
    rows = np.array([[-1.0, -0.5, 0.0, 2.5, 3.0]])
    assert sample(image, rows, np.ones((1, 5)), None).ravel().tolist() == [0, 0.5, 1, 0.5, 0]
