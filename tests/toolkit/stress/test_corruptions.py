"""Values worked out by hand, statistics of noise, and agreement with the libraries that made the published files."""

import colorsys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from rctk.stress.colour import luminance, tint, with_saturation, with_value
from rctk.stress.corrupt import load_corruption
from rctk.stress.corruptions.defocus_blur import disc
from rctk.stress.corruptions.frost import texture
from rctk.stress.moving import motion
from rctk.stress.plasma import plasma


def run(name, images, severity, seed=0):
    return load_corruption(name)(np.asarray(images, dtype=np.float32), severity, np.random.default_rng(seed))


def flat(value, channels=3, side=64):
    return np.full((1, channels, side, side), value, dtype=np.float32)


def test_gaussian_noise_has_the_published_deviation():
    noise = run("gaussian_noise", flat(0.5), 3) - 0.5
    assert noise.std() == pytest.approx(0.08, rel=0.02)
    assert noise.mean() == pytest.approx(0, abs=0.003)


def test_large_images_get_the_large_constants():
    assert (run("gaussian_noise", flat(0.5, side=65), 3) - 0.5).std() == pytest.approx(0.18, rel=0.02)


def test_shot_noise_counts_photons():
    out = run("shot_noise", flat(0.2), 5) * 50
    assert np.allclose(out, np.rint(out), atol=1e-5)
    assert out.mean() == pytest.approx(10, rel=0.02)
    assert out.var() == pytest.approx(10, rel=0.05)


def test_impulse_noise_hits_its_share_half_black_half_white():
    out = run("impulse_noise", flat(0.5), 5)
    assert (out != 0.5).mean() == pytest.approx(0.07, abs=0.006)
    assert (out == 1).sum() / (out != 0.5).sum() == pytest.approx(0.5, abs=0.05)
    assert set(np.unique(out).tolist()) == {0.0, 0.5, 1.0}


def test_speckle_noise_grows_with_the_light():
    dark, bright = (run("speckle_noise", flat(value), 5).std() for value in (0.2, 0.8))
    assert (dark, bright) == pytest.approx((0.04, 0.16), rel=0.03)


def test_contrast_moves_towards_the_mean_of_each_channel():
    images = np.array([[[[0.0, 1.0]], [[0.2, 0.4]]]])
    assert run("contrast", images, 2).ravel().tolist() == pytest.approx([0.25, 0.75, 0.25, 0.35])


def test_brightness_keeps_hue_and_saturation():
    image = np.array([0.2, 0.4, 0.1]).reshape(1, 3, 1, 1)
    hue, saturation, value = colorsys.rgb_to_hsv(0.2, 0.4, 0.1)
    assert run("brightness", image, 2).ravel().tolist() == pytest.approx(
        colorsys.hsv_to_rgb(hue, saturation, value + 0.1), abs=1e-6
    )
    assert run("brightness", flat(0.95), 5).max() == 1
    assert run("brightness", np.zeros((1, 3, 1, 1)), 2).ravel().tolist() == pytest.approx([0.1] * 3)
    assert run("brightness", flat(0.3, channels=1), 1).mean() == pytest.approx(0.35)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("rgb", [(0.2, 0.4, 0.1), (0.9, 0.1, 0.3), (0.5, 0.5, 0.5), (0.0, 0.0, 0.0), (1.0, 1.0, 0.2)])
def test_saturate_agrees_with_hsv(severity, rgb):
    factor, shift = [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)][severity - 1]
    hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
    expected = colorsys.hsv_to_rgb(hue, min(saturation * factor + shift, 1), value)
    assert run("saturate", np.array(rgb).reshape(1, 3, 1, 1), severity).ravel().tolist() == pytest.approx(
        expected, abs=1e-6
    )


def test_grey_stays_where_there_is_no_colour():
    images = np.linspace(0, 1, 9, dtype=np.float32).reshape(1, 1, 3, 3)
    assert np.array_equal(with_saturation(images, 2.5, 0.2), images)
    assert np.array_equal(luminance(images), images)
    assert np.allclose(with_value(images, images), images)
    assert tint((0.2, 0.4, 0.6), 2).ravel().tolist() == pytest.approx([0.363] * 2)


def test_gaussian_blur_is_that_of_scipy(pictures):
    images = pictures(1, 3, 32, 24)
    expected = [ndimage.gaussian_filter(c.astype(np.float64), 0.7, mode="nearest", truncate=4) for c in images[0]]
    assert np.allclose(run("gaussian_blur", images, 3)[0], expected)


def test_defocus_disc_has_equal_weights_and_a_short_rim():
    sharp = disc(1.0, 0.01)
    assert sharp.shape == (5, 5)
    assert np.allclose(sharp[sharp > 0], 0.2)  # the middle and its four neighbours
    for radius, sigma in ((0.3, 0.4), (1.5, 0.1), (10.0, 0.5)):
        assert disc(radius, sigma).sum() == pytest.approx(1)
        assert np.allclose(disc(radius, sigma), disc(radius, sigma).T)


def test_defocus_blur_is_a_correlation_with_a_mirror_at_the_border(pictures):
    images = pictures(1, 2, 32, 20)
    expected = [ndimage.correlate(c.astype(np.float64), disc(1.0, 0.2), mode="mirror") for c in images[0]]
    assert np.allclose(run("defocus_blur", images, 4)[0], expected)


def test_a_point_is_smeared_to_one_side_by_half_a_gaussian():
    image = np.zeros((9, 9))
    image[4, 4] = 1
    out = motion(image, 2, 1.0, 0.0)
    weights = np.exp(-0.5 * np.arange(5) ** 2)
    assert out[4, :5].tolist() == pytest.approx((weights / weights.sum())[::-1].tolist())
    assert out.sum() == pytest.approx(1)
    assert np.allclose(motion(image, 2, 1.0, 90.0), out.T)


def test_motion_repeats_the_last_pixel_beyond_the_border():
    assert np.allclose(motion(np.ones((3, 5)), 10, 3.0, 30.0), 1)


def test_zoom_blur_averages_the_image_and_its_enlargements(pictures):
    images = pictures(1, 1, 32, 32)
    out = run("zoom_blur", images, 1)
    parts = [images[0, 0].astype(np.float64)]
    for factor in np.arange(1, 1.06, 0.01):
        kept = int(np.ceil(32 / factor))
        top = (32 - kept) // 2
        large = ndimage.zoom(images[0, 0, top : top + kept, top : top + kept].astype(np.float64), factor, order=1)
        trim = (len(large) - 32) // 2
        parts.append(large[trim : trim + 32, trim : trim + 32])
    assert np.allclose(out[0, 0], np.mean(parts, axis=0))


def test_glass_blur_copies_near_pixels():
    columns = np.tile(np.linspace(0, 1, 32, dtype=np.float32), (32, 1))[None, None]
    out = run("glass_blur", columns, 1)  # sigma 0.05 blurs nothing, and pixels come from at most one away
    moved = np.rint((columns - out) * 31)
    assert set(np.unique(moved).tolist()) <= {0.0, 1.0}
    assert 0.3 < (moved[0, 0, 2:, 2:] == 1).mean() < 0.7
    assert not moved[0, 0, :2].any()  # a margin stays


def test_a_plain_image_passes_blur_and_shift_unchanged():
    for name in ("glass_blur", "zoom_blur", "motion_blur", "defocus_blur", "elastic_transform", "pixelate"):
        for severity in (1, 5):
            assert np.allclose(run(name, flat(0.4), severity), 0.4), name


def test_fog_keeps_the_brightest_value_and_lifts_the_dark():
    images = np.zeros((1, 1, 32, 32), dtype=np.float32)
    images[0, 0, 0, 0] = 0.8
    out = run("fog", images, 5)
    assert out.max() <= 0.8 * 1.0001
    assert out.mean() > 0.15


def test_height_map_spans_0_to_1_and_is_rougher_with_little_decay():
    maps = [plasma(32, 32, decay, np.random.default_rng(3)) for decay in (1.3, 3.0)]
    for one in maps:
        assert (one.min(), one.max()) == (0, 1)
    rough, smooth = (np.abs(np.diff(one)).mean() for one in maps)
    assert rough > 2 * smooth
    assert plasma(5, 9, 2.0, np.random.default_rng(0)).shape == (5, 9)
    assert plasma(1, 1, 2.0, np.random.default_rng(0)).shape == (1, 1)


def test_frost_is_a_weighted_sum_with_a_bluish_texture():
    black = run("frost", flat(0.0, side=32), 1, seed=4)
    grey = run("frost", flat(0.5, side=32), 1, seed=4)
    assert np.allclose(grey - black, 0.5)
    red, _, blue = black[0].mean(axis=(1, 2))
    assert red < blue
    ice = texture(32, 32, np.random.default_rng(0))
    assert 0 <= ice.min() < 0.3 < ice.mean() < 0.7 < ice.max() <= 1


def test_snow_falls_twice_turned_by_half_a_circle():
    black = run("snow", flat(0.0, side=32), 2)
    flakes = black - 0.1 * 0.5  # a tenth of the pale image, whose luminance term is 0.5
    assert np.allclose(flakes, flakes[:, :, ::-1, ::-1])
    assert flakes.min() >= -1e-9
    assert flakes.max() > 0.15


def test_spatter_adds_bright_water_then_covers_with_mud():
    water, mud = (run("spatter", flat(0.5, side=32), severity) for severity in (3, 4))
    assert water.min() >= 0.5
    assert water.max() > 0.9
    assert mud.max() <= 0.5 + 1e-6
    assert mud[0, 2].min() == pytest.approx(20 / 255, abs=0.12)


def test_spatter_without_drops_changes_nothing(monkeypatch):
    still = np.random.default_rng(0)

    class NoDrops:
        def normal(self, mean, deviation, shape):
            return still.normal(0.1, 0.01, shape)

    images = flat(0.5, side=32)
    for severity in (1, 5):
        assert np.array_equal(load_corruption("spatter")(images, severity, NoDrops()), images)


def test_elastic_transform_bends_locally_at_high_severity(pictures):
    images = pictures(1, 1, 32, 32)
    out = [run("elastic_transform", images, severity, seed=1) for severity in (1, 5)]
    assert all(0 < np.abs(one - images).mean() < 0.3 for one in out)
    assert all(one.min() >= images.min() - 1e-6 and one.max() <= images.max() + 1e-6 for one in out)


def test_jpeg_is_that_of_pillow(pictures):
    images = pictures(1, 3, 32, 32)
    stream = BytesIO()
    Image.fromarray(np.rint(images[0] * 255).astype(np.uint8).transpose(1, 2, 0)).save(stream, "JPEG", quality=58)
    expected = np.asarray(Image.open(stream)).transpose(2, 0, 1)
    assert np.array_equal(np.rint(run("jpeg_compression", images, 3)[0] * 255), expected)


def test_pixelate_is_that_of_pillow(pictures):
    images = pictures(1, 1, 32, 32)
    box = Image.Resampling.BOX
    small = Image.fromarray(images[0, 0]).resize((24, 24), box)
    assert np.allclose(run("pixelate", images, 4)[0, 0], np.asarray(small.resize((32, 32), box)), atol=1e-6)
